"""A language model that transformers runs in this process. This imports torch, so import it late."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jinja2
import torch
import transformers

from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError, first_line
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers._transformers import device_of
from tinyllm.teachers.base import FinishReason, Reply, Request, RequestFailed, Sampling

_TAIL_TOKENS = 16  # stop sequences are searched in so many last tokens


class LocalModel:
    """A model and its tokenizer. `answer` answers a batch.

    Raises:
        TeacherError: the model cannot be loaded.
    """

    def __init__(self, spec: config.TransformersTeacher) -> None:
        self._spec = spec
        device = device_of(spec)
        options = {"revision": spec.revision, "trust_remote_code": False}
        try:
            settings = transformers.AutoConfig.from_pretrained(spec.model, **options)
            self._encoder_decoder = bool(settings.is_encoder_decoder)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(spec.model, **options)
            family = transformers.AutoModelForSeq2SeqLM if self._encoder_decoder else transformers.AutoModelForCausalLM
            model = family.from_pretrained(
                spec.model, **options, config=settings, use_safetensors=True, dtype=getattr(torch, spec.dtype)
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"Teacher '{spec.name}': '{spec.model}' needs a package that is not installed: {first_line(error)}"
            ) from None
        except (OSError, ValueError, KeyError) as error:
            raise TeacherError(
                f"Teacher '{spec.name}': cannot load '{spec.model}'"
                f"{f' at revision {spec.revision}' if spec.revision else ''}: {first_line(error)}\n"
                "  To do: give a folder with config.json, tokenizer and *.safetensors (no .bin, no remote code), "
                "or owner/name of a model on the Hugging Face hub. When offline, only downloaded models are available."
            ) from None
        self._model = model.to(device).eval()
        self._device = device
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        # New tokens are appended on the right, so a causal model needs its padding on the left.
        self._tokenizer.padding_side = "right" if self._encoder_decoder else "left"
        if spec.form == "chat" and not self._tokenizer.chat_template:
            raise TeacherError(f"Teacher '{spec.name}': '{spec.model}' has no chat template. Set `form: completion`.")

    def answer(self, requests: Sequence[Request]) -> list[Reply | RequestFailed]:
        """Answer requests. Either all of them have options, or none has."""
        return self.rate(requests) if requests[0].options else self.generate(requests)

    def generate(self, requests: Sequence[Request]) -> list[Reply | RequestFailed]:
        """Generate replies with the same sampling parameters. Shapes: (batch, padded prompt) in, (batch, reply) out."""
        began = time.perf_counter()
        sampling = requests[0].sampling
        rows = [self._encode(r.prompt) for r in requests]
        answers: list[Reply | RequestFailed] = [self._too_long(row, sampling) for row in rows]  # type: ignore[misc]
        fitting = [i for i, failed in enumerate(answers) if failed is None]
        if fitting:
            replies = self._run([rows[i] for i in fitting], sampling, _seed([requests[i] for i in fitting]))
            latency = time.perf_counter() - began
            for i, (text, finish, count) in zip(fitting, replies, strict=True):
                answers[i] = Reply(text, finish, len(rows[i]), count, latency)
        return answers

    def rate(self, requests: Sequence[Request]) -> list[Reply | RequestFailed]:
        """Return for each option the sum of its tokens' log-likelihoods after the prompt, and the number of tokens."""
        began = time.perf_counter()
        pairs = [
            (place, self._encode(r.prompt), list(self._tokenizer(option, add_special_tokens=False)["input_ids"]))
            for place, r in enumerate(requests)
            for option in r.options
        ]
        most = getattr(self._model.config, "max_position_embeddings", None)
        long = {p for p, prompt, option in pairs if most is not None and len(prompt) + len(option) > most}
        fitting = [pair for pair in pairs if pair[0] not in long]
        found: dict[int, list[tuple[float, int]]] = {}
        for start in range(0, len(fitting), self._spec.batch_size):
            some = fitting[start : start + self._spec.batch_size]
            for (place, _, option), total in zip(some, self._log_likelihoods([p[1:] for p in some]), strict=True):
                found.setdefault(place, []).append((total, len(option)))
        latency = time.perf_counter() - began
        words = f"a prompt and a choice are longer than '{self._spec.model}' takes ({most} tokens)"
        return [
            RequestFailed(words, "too_long")
            if place in long
            else Reply(
                "", "stop", sum(len(p) for at, p, _ in pairs if at == place), 0, latency,
                message=json.dumps({"option_logprobs": found[place]}),
            )
            for place in range(len(requests))
        ]  # fmt: skip

    @torch.inference_mode()
    def _log_likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Return the log-likelihoods of options after their prompts. Logits: (batch, length, vocabulary)."""
        pad = self._tokenizer.pad_token_id
        if self._encoder_decoder:
            batch = self._tokenizer.pad({"input_ids": [p for p, _ in pairs]}, return_tensors="pt").to(self._device)
            labels = _padded([option for _, option in pairs], pad).to(self._device)
            with _memory_errors(self._spec):
                logits = self._model(**{k: batch[k] for k in ("input_ids", "attention_mask")}, labels=labels).logits
            spans = [(0, option) for _, option in pairs]
        else:
            rows = [prompt + option for prompt, option in pairs]
            tokens = _padded(rows, pad).to(self._device)
            mask = _padded([[1] * len(row) for row in rows], 0).to(self._device)
            with _memory_errors(self._spec):
                logits = self._model(input_ids=tokens, attention_mask=mask).logits
            spans = [(len(prompt) - 1, option) for prompt, option in pairs]
        totals = []
        for row, (at, option) in enumerate(spans):
            shares = torch.log_softmax(logits[row, at : at + len(option)].float(), dim=-1)  # (option, vocabulary)
            totals.append(float(shares[torch.arange(len(option)), torch.tensor(option)].sum()))
        return totals

    def _run(self, rows: list[list[int]], sampling: Sampling, seed: int) -> list[tuple[str, FinishReason, int]]:
        batch = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._device)
        start = 1 if self._encoder_decoder else batch["input_ids"].shape[1]  # 1: the decoder's start token
        greedy = sampling.temperature == 0
        how = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        stops = transformers.StoppingCriteriaList([_Stopped(self._tokenizer, sampling.stop, start)])
        devices = [self._device] if self._device.type == "cuda" else []
        # `fork_rng` restores torch's global generator afterwards.
        with torch.inference_mode(), torch.random.fork_rng(devices=devices), _memory_errors(self._spec):
            torch.manual_seed(seed)
            out = self._model.generate(
                **{k: batch[k] for k in ("input_ids", "attention_mask")},
                max_new_tokens=sampling.max_tokens, do_sample=not greedy, num_beams=1, **how,
                pad_token_id=self._tokenizer.pad_token_id, stopping_criteria=stops,
            )  # fmt: skip
        return [self._decode(row[start:].tolist(), sampling) for row in out]

    def _encode(self, prompt: Prompt) -> list[int]:
        if not prompt.messages:
            return list(self._tokenizer(prompt.text)["input_ids"])
        try:
            text = self._template(prompt.messages)
        except jinja2.TemplateError:  # the template accepts no system message: put it before the first one
            system, first, *rest = prompt.messages
            text = self._template([Message(first.role, f"{system.content}\n\n{first.content}"), *rest])
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _template(self, messages: Sequence[Message]) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _too_long(self, row: list[int], sampling: Sampling) -> RequestFailed | None:
        # T5 has relative positions and states no limit. A model that states a limit breaks beyond it.
        most = getattr(self._model.config, "max_position_embeddings", None)
        needed = len(row) + (0 if self._encoder_decoder else sampling.max_tokens)
        if most is None or needed <= most:
            return None
        return RequestFailed(f"prompt and reply need {needed} tokens, '{self._spec.model}' has {most}")

    def _decode(self, tokens: list[int], sampling: Sampling) -> tuple[str, FinishReason, int]:
        ends = self._model.generation_config.eos_token_id
        stop_ids = set(ends if isinstance(ends, list) else [ends]) - {None}
        end = next((i for i, token in enumerate(tokens) if token in stop_ids), None)
        tokens = tokens if end is None else tokens[:end]
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        cut = _first_stop(text, sampling.stop)
        count = sum(token != self._tokenizer.pad_token_id for token in tokens)
        finish: FinishReason = "stop" if end is not None or cut is not None else "length"
        return text[:cut], finish, count


class _Stopped(transformers.StoppingCriteria):
    """Stops a row as soon as its last new tokens contain a stop sequence."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._start = start

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:  # (B, T) → (B,)
        tails = input_ids[:, max(self._start, input_ids.shape[1] - _TAIL_TOKENS) :]
        texts = self._tokenizer.batch_decode(tails, skip_special_tokens=True) if self._stop else [""] * len(tails)
        ended = [_first_stop(text, self._stop) is not None for text in texts]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


def _padded(rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """Return the rows padded on the right: (rows, longest)."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
    return min((at for s in stop if (at := text.find(s)) >= 0), default=None)


def _seed(requests: Sequence[Request]) -> int:
    """Return the seed of a batch. It depends on the questions, so that batches differ in their random numbers."""
    named = repr([(r.sampling.seed, r.sample, r.question_id) for r in requests])
    return int.from_bytes(hashlib.sha256(named.encode("utf-8", "surrogatepass")).digest()[:4], "big")


@contextlib.contextmanager
def _memory_errors(spec: config.TransformersTeacher) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TeacherError(
            f"Teacher '{spec.name}': out of memory: {first_line(error)}\n"
            f"  To do: lower `batch_size` ({spec.batch_size}) or `rationales.max_tokens`, or use `dtype: bfloat16`."
        ) from None
