"""Models behind an OpenAI-compatible endpoint: hosted ones, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from collections.abc import Mapping

from tinyllm import config
from tinyllm.teachers._http.endpoint import Endpoint, Patience
from tinyllm.teachers._http.envelope import envelope_of, identity_of
from tinyllm.teachers._http.limits import Limits
from tinyllm.teachers._http.teacher import RemoteTeacher


class OpenAITeacher(RemoteTeacher):
    """Asks a model over HTTP."""

    def __init__(self, spec: config.OpenAITeacher, *, patience: Patience | None = None) -> None:
        super().__init__(spec, patience, len(spec.base_url))
        self._spec = spec

    def __repr__(self) -> str:
        return f"OpenAITeacher({self.name!r}, model={self._spec.model!r})"

    def check(self) -> None:
        """Raise `TeacherError` if the key, or another variable that is named, is not in the environment."""
        envelope_of(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Endpoint, model, and what else a person sends; see `identity_of`."""
        return identity_of(self._spec)

    def _make_endpoint(self) -> Endpoint:
        spec = self._spec
        return Endpoint(
            spec.name, envelope_of(spec), spec.model, form=spec.form, concurrency=spec.concurrency,
            limits=Limits.of(spec), patience=self._patience, manners=self._manners,
        )  # fmt: skip
