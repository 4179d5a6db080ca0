"""Models behind an OpenAI-compatible endpoint: hosted services, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from collections.abc import Mapping

from tinyllm import config
from tinyllm.teachers._http.endpoint import Endpoint
from tinyllm.teachers._http.envelope import envelope_of, identity_of
from tinyllm.teachers._http.limits import Pace
from tinyllm.teachers._http.look import look_at
from tinyllm.teachers._http.teacher import RemoteTeacher
from tinyllm.teachers._http.transport import Patience


class OpenAITeacher(RemoteTeacher):
    """Asks a model over HTTP."""

    def __init__(self, spec: config.OpenAITeacher, *, patience: Patience | None = None) -> None:
        super().__init__(spec, patience, len(spec.base_url))
        self._spec = spec

    def check(self) -> None:
        """Raise `TeacherError` if an environment variable is missing, such as the API key."""
        envelope_of(self._spec)

    async def look(self) -> list[str]:
        """Return what each replica answers; see `look_at`."""
        return await look_at(self.name, envelope_of(self._spec), self._spec.model)

    @property
    def identity(self) -> Mapping[str, str]:
        """Endpoint, model, and the user's own fields; see `identity_of`."""
        return identity_of(self._spec)

    def _make_endpoint(self) -> Endpoint:
        spec = self._spec
        return Endpoint(
            spec.name, envelope_of(spec), spec.model, form=spec.form, concurrency=spec.concurrency,
            pace=Pace.of(spec), patience=self._patience, manners=lambda: self.manners,
        )  # fmt: skip
