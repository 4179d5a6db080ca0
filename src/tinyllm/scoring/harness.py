"""Scoring a student by lm-evaluation-harness: tasks from our questions, and our student as a model of the harness.

The text of a task is the student's prompt with the prefix that asks for the answer. So the harness's own `hf` model can
score these tasks, too. This module needs the extra `lm-eval`; `_require` checks it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import MissingDependencyError, StudentError, TinyLLMError
from tinyllm.questions.types import Question
from tinyllm.scoring._passes import branch_scores
from tinyllm.scoring.score import score_options
from tinyllm.student import to_device
from tinyllm.student.encode import Branch, Row, question_text
from tinyllm.student.model import Student, StudentCard
from tinyllm.student.plan import cut
from tinyllm.system.files import write_jsonl, write_text

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
elif importlib.util.find_spec("lm_eval") is not None:
    from lm_eval.api.model import LM
else:
    LM = object

_LOG = logging.getLogger(__name__)
_PREFIX = "tinyllm_"
"""Begins the name of each of our tasks, so that it differs from all names of the harness."""


def _require() -> None:
    """Raise unless lm-evaluation-harness is installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingDependencyError("lm-evaluation-harness is missing: pip install 'tinyllm-distill[lm-eval]'")


def _task(name: str, **source: Any) -> dict[str, Any]:
    """Return a multiple-choice task with the metrics `acc` (total log-likelihood) and `acc_norm` (per character)."""
    return {
        "task": _PREFIX + name,
        "test_split": "test",
        "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        "metadata": {"version": 1},
        **source,
    }


def _harness_task(name: str, questions: Sequence[Question], card: StudentCard) -> dict[str, Any]:
    """Return a task over these questions, in the layout and with the prefix of a student."""

    def dataset(**_: Any) -> dict[str, Any]:
        from datasets import Dataset

        rows = [
            {
                "id": q.id, "question": q.question, "context": q.context or "", "choices": list(q.choices),
                "answer": q.known_answer,
            }
            for q in questions
        ]  # fmt: skip
        return {"test": Dataset.from_list(rows)}

    return _task(
        name,
        custom_dataset=dataset,
        doc_to_text=lambda doc: _prompt_text(_question(doc), card),
        doc_to_choice=lambda doc: doc["choices"],
        doc_to_target=lambda doc: doc["answer"],
    )


def write_task(folder: Path, name: str, questions: Sequence[Question], card: StudentCard) -> Path:
    """Write a task with its questions for the harness's own command, and return the task's file.

    `lm_eval --model hf --model_args pretrained=… --tasks tinyllm_NAME --include_path FOLDER` then scores any model.
    """
    rows = folder / f"{name}.jsonl"
    write_jsonl(
        rows,
        (
            {"text": _prompt_text(q, card), "choices": list(q.choices), "answer": q.known_answer, "id": q.id}
            for q in questions
        ),
    )
    task = _task(
        name,
        dataset_path="json",
        dataset_kwargs={"data_files": {"test": str(rows.resolve())}},
        doc_to_text="{{text}}",
        doc_to_choice="{{choices}}",
        doc_to_target="{{answer}}",
    )
    file = folder / f"{_PREFIX}{name}.yaml"
    write_text(file, yaml.safe_dump(task, sort_keys=False, allow_unicode=True))
    return file


def _prompt_text(question: Question, card: StudentCard) -> str:
    """Return the prompt of a causal student: the question, then the prefix that asks for the answer on its own line."""
    if card.reasons_as:
        raise StudentError(
            "This student writes a rationale before it answers (train.rationales: before), and lm-evaluation-harness "
            "compares the choices at once. Score it with `tinyllm evaluate`."
        )
    context, body = question_text(question, card.layout)
    return context + body.rstrip("\n") + "\n" + card.prefixes[ANSWER_TASK].rstrip()


def score(student: Student, tasks: Mapping[str, Sequence[Question]], batch_tokens: int = 4096) -> dict[str, Any]:
    """Have the harness score a student on the questions of each task, and return the results by task.

    Raises:
        MissingDependencyError: the harness is not installed.
    """
    _require()
    import lm_eval
    from lm_eval.tasks import TaskManager

    asked = [_harness_task(name, questions, student.card) for name, questions in tasks.items()]
    found = lm_eval.simple_evaluate(
        _HarnessStudent(student, batch_tokens), tasks=asked, bootstrap_iters=0, log_samples=False,
        task_manager=TaskManager(include_defaults=False),  # reading all tasks of the harness takes seconds
    )  # fmt: skip
    results: dict[str, Any] = found["results"]
    return {name: results[_PREFIX + name] for name in tasks}


class _HarnessStudent(LM):
    """A student as a model of the harness. The continuations of a text share one pass over it. Batches are packed.

    A document of one of our tasks is asked exactly as TinyLLM asks it. A document of another task is asked as the
    harness writes it.
    """

    def __init__(self, student: Student, batch_tokens: int = 4096) -> None:
        super().__init__()
        self._student = student
        self._learner = student.learner(learns=False)
        self._encoder = student.encoder(share_prompt=self._learner.share_prompt)
        self._batch_tokens = batch_tokens

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether greedy decoding would write it.

        The second value is always False for our own tasks, because their metrics do not use it.
        """
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        ours: dict[tuple[str | None, int | None], list[int]] = {}
        others = []
        for place, request in enumerate(requests):
            if str(request.task_name).startswith(_PREFIX):
                ours.setdefault((request.task_name, request.doc_id), []).append(place)
            else:
                others.append(place)
        questions = [_question(requests[places[0]].doc) for places in ours.values()]
        scores = score_options(self._student, self._learner, questions, batch_tokens=self._batch_tokens)
        for places, of in zip(ours.values(), scores, strict=True):
            for place in places:
                found[place] = of.unended[requests[place].idx], False
        for place, value in zip(others, self._of_texts([requests[p].args for p in others]), strict=True):
            found[place] = value
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:  # noqa: ARG002
        """Refuse: a student answers questions, and does not model running text."""
        raise TinyLLMError("A student has no perplexity of running text. Choose tasks with choices.")

    def generate_until(self, requests: list[Instance]) -> list[str]:  # noqa: ARG002
        """Refuse: see `loglikelihood_rolling`."""
        raise TinyLLMError("A student is not scored on tasks that generate text here. Use `tinyllm evaluate`.")

    @torch.no_grad()
    def _of_texts(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Score (text, continuation) pairs. Pairs with the same text share one pass over it."""
        of_text: dict[str, list[int]] = {}
        for place, (text, _) in enumerate(pairs):
            of_text.setdefault(text, []).append(place)
        prompts = {text: self._encoder.text(text) for text in of_text}
        longest = self._student.card.max_input_tokens
        if long := sum(len(tokens) > longest for tokens in prompts.values()):
            _LOG.warning(
                "%d of %d texts are longer than %d tokens: their beginning is cut", long, len(prompts), longest
            )
        rows = [
            self._rows(self._encoder.cut_text(prompts[text]), [(str(p), pairs[p][1]) for p in places])
            for text, places in of_text.items()
        ]
        scores = branch_scores(self._learner, rows, self._batch_tokens)
        totals = {name: score for of in scores for name, score in of.items()}
        greedy = self._greedy([row for of in rows for row in of])
        return [(totals[str(place)].total, greedy[str(place)]) for place in range(len(pairs))]

    def _rows(self, tokens: tuple[int, ...], continuations: Sequence[tuple[str, str]]) -> list[Row]:
        branches = tuple(Branch(name, (), self._encoder.continuation(words)) for name, words in continuations)
        row = Row("", tokens, branches)
        shares = self._learner.share_prompt and not self._student.is_encoder_decoder
        return [row] if shares else row.apart()

    def _greedy(self, rows: Sequence[Row]) -> dict[str, bool]:
        """Return for each branch whether every token of it is the likeliest one."""
        found: dict[str, bool] = {}
        weights = [tuple(1.0 for _ in row.branches) for row in rows]
        for micro in cut([replace(r) for r in rows], weights, self._learner.shape(self._batch_tokens)):
            batch = to_device(self._learner.collate(micro, ()), self._learner.device)
            hit = (self._learner.target_logits(batch).argmax(-1) == batch["labels"]).tolist()
            owners = batch["branch_ids"].tolist()
            names = [b.task for row in micro.rows for b in row.branches]
            for owner, is_hit in zip(owners, hit, strict=True):
                found[names[owner]] = found.get(names[owner], True) and is_hit
        return found


def _question(doc: Mapping[str, Any]) -> Question:
    return Question(doc["id"], doc["question"], tuple(doc["choices"]), int(doc["answer"]), doc["context"] or None)
