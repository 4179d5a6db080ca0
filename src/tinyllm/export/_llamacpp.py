"""A runtime that computes a GGUF export with llama.cpp, in this process.

llama.cpp has no request that scores a given text. So each token of a choice is requested with a bias that forces
llama.cpp to sample it. The reply has the log-probability of the model without the bias. The prompt stays in the cache.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import MissingDependencyError, StudentError
from tinyllm.export._scores import Progress, counted, option_scores, silence
from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import OptionScores
from tinyllm.student.encode import Encoder
from tinyllm.student.model import StudentCard
from tinyllm.system.machine import capacity

_GREEDY = {"temperature": 0.0, "samplers": ["temperature"], "cache_prompt": True, "post_sampling_probs": False}
_BIAS = 1e6
_SLOTS = 4


class LlamaCppRuntime:
    """A GGUF file that llama.cpp serves on a loopback address, as long as this object exists."""

    name = "llama.cpp"

    def __init__(self, file: Path, card: StudentCard, encoder: Encoder) -> None:
        self.card, self.encoder = card, encoder
        self._server = _served(file, card.max_input_tokens + 512)
        self._address = urlsplit(self._server.listening_address).netloc
        self._threads = ThreadPoolExecutor(_SLOTS)
        with contextlib.closing(http.client.HTTPConnection(self._address, timeout=600)) as connection:
            connection.request("GET", "/slots")  # a server that is stopped before its loop runs never ends
            connection.getresponse().read()

    def scores(self, questions: Sequence[Question], progress: Progress = silence) -> list[OptionScores]:
        """Return the scores of each question. Several questions are computed in parallel."""
        return list(counted(self._threads.map(self._scored, questions), len(questions), progress))

    def texts(
        self, questions: Sequence[Question], teacher: str, max_new_tokens: int, progress: Progress = silence
    ) -> list[str]:
        """Return the texts from greedy decoding."""

        def written(question: Question) -> str:
            prompt = list(self.encoder.generation_prompt(question, self.card.prefixes[teacher]))
            body = {"prompt": prompt, "n_predict": max_new_tokens, "return_tokens": True}
            body["stop"] = [f"\n{begin}" for begin in self.card.next_prompts]
            return self.card.own_rationale(self.encoder.read(self._asked(body)["tokens"]))

        return list(counted(self._threads.map(written, questions), len(questions), progress, f"writing as {teacher}"))

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a text, from llama.cpp's tokenizer."""
        told = self._asked({"content": text, "add_special": True, "parse_special": False}, "/tokenize")
        return tuple(told["tokens"])

    def _scored(self, question: Question) -> OptionScores:
        scored = []
        for row in self.encoder.options(question, self.card.prefixes[ANSWER_TASK]):
            for branch in row.branches:
                prompts = ([*row.prompt, *branch.target[:place]] for place in range(len(branch.target)))
                scored.append((branch, list(map(self._log_probability, prompts, branch.target))))
        return option_scores(question, scored)

    def _log_probability(self, prompt: list[int], token: int) -> float:
        reply = self._asked({"prompt": prompt, "n_predict": 1, "n_probs": 1, "logit_bias": [[token, _BIAS]]})
        told = reply["completion_probabilities"][0]
        if told["id"] != token:
            raise StudentError(
                f"llama.cpp sampled token {told['id']}, expected {token}. Install another version of xllamacpp, or "
                "export the student to onnx."
            )
        return float(told["logprob"])

    def _asked(self, body: dict[str, Any], path: str = "/completion") -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._address, timeout=600)
        try:
            connection.request("POST", path, json.dumps(body | _GREEDY), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            told: dict[str, Any] = json.loads(reply.read())
        finally:
            connection.close()
        if reply.status != 200:
            raise StudentError(f"llama.cpp cannot compute this request. It says: {told.get('error', told)}")
        return told


def _served(file: Path, context_tokens: int) -> Any:
    try:
        import xllamacpp
    except ImportError:
        raise MissingDependencyError(
            "A GGUF export needs the package xllamacpp: pip install 'tinyllm-distill[llamacpp]'"
        ) from None
    cores = capacity().cores
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = _SLOTS
    params.n_ctx = _SLOTS * context_tokens
    params.cpuparams.n_threads = cores
    params.cpuparams_batch.n_threads = cores
    params.swa_full = True
    params.cache_ram_mib = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.warmup = False
    params.verbosity = -1
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise StudentError(f"llama.cpp cannot load {file}: {error}. Export the student again.") from None
