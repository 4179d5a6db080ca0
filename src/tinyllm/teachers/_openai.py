"""Models behind an OpenAI-compatible endpoint: hosted services, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

from tinyllm import config
from tinyllm.teachers._http.endpoint import Endpoint
from tinyllm.teachers._http.envelope import envelope_of
from tinyllm.teachers._http.limits import Pace
from tinyllm.teachers._http.teacher import HostedTeacher, RemoteTeacher
from tinyllm.teachers._http.transport import Patience


class OpenAITeacher(HostedTeacher, RemoteTeacher):
    """Asks a model over HTTP."""

    _spec: config.OpenAITeacher

    def __init__(self, spec: config.OpenAITeacher, *, patience: Patience | None = None) -> None:
        super().__init__(spec, patience, len(spec.base_url))
        self._spec = spec

    def _make_endpoint(self) -> Endpoint:
        spec = self._spec
        return Endpoint(
            spec.name, envelope_of(spec), spec.model, form=spec.form, concurrency=spec.concurrency,
            pace=Pace.of(spec), patience=self._patience, manners=lambda: self.manners,
        )  # fmt: skip
