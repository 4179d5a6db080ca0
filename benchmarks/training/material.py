"""What is learnt in the benchmarks of training: rows of real questions and real teachers' rationales, as token numbers.

A job is a JSON file, so that contenders in other environments can read it:

    model       what `models.build` makes a student of
    batch       questions in an optimizer step
    questions   for each: its id and its rows {task, prompt, prefix, target}; share, scale where choices are compared
    apart       true: a row a branch, though the student could share prompts
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tinyllm.config import ANSWER_TASK, AnswerKind, DataSection, Layout, StudentSection
from tinyllm.questions import load_splits
from tinyllm.student._rows import Choice
from tinyllm.student.encode import Branch, Encoder, Row
from tinyllm.student.mixture import MixtureSettings, Target, mix
from tinyllm.student.model import load_tokenizer

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
T5_VOCABULARY = 32_128


class FoldedTokenizer:
    """SmolLM2's tokenizer with its numbers folded into T5's vocabulary: real lengths, where T5's own is not at hand."""

    eos_token_id, bos_token_id, pad_token_id = 1, None, 0

    def __init__(self) -> None:
        self._inner, _ = load_tokenizer(StudentSection(model="smollm2-135m-instruct"))

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:
        """Return the tokens of a text."""
        tokens = self._inner(text, **options).input_ids
        return SimpleNamespace(input_ids=[2 + t % (T5_VOCABULARY - 128) for t in tokens])


def arc_t5(questions: int, *, batch: int = 16) -> dict[str, Any]:
    """ARC with both of the authors' teachers, for a student of FLAN-T5-small's shape; prompts of at most 100 tokens."""
    tokenizer: Any = FoldedTokenizer()
    encoder = Encoder(tokenizer, is_encoder_decoder=True)
    return _job("t5-small", batch, encoder, "arc", questions, 2, longest=100)


def pubmedqa_smollm(questions: int, teachers: int, *, batch: int = 8) -> dict[str, Any]:
    """PubMedQA with its abstracts, for SmolLM2-135M; teachers beyond the second are copies of the two."""
    tokenizer, _ = load_tokenizer(StudentSection(model="smollm2-135m-instruct"))
    return _job("smollm2", batch, Encoder(tokenizer, is_encoder_decoder=False), "pubmedqa", questions, teachers)


def arc_answers(questions: int, answer: AnswerKind, layout: Layout, *, batch: int = 16) -> dict[str, Any]:
    """ARC's questions of four choices for SmolLM2-135M, answers alone."""
    tokenizer, _ = load_tokenizer(StudentSection(model="smollm2-135m-instruct"))
    encoder = Encoder(tokenizer, is_encoder_decoder=False, layout=layout)
    train = load_splits(DataSection(folder=DATA / "arc", on_invalid="drop")).train
    kept = [q for q in train if len(q.choices) == 4][:questions]
    targets = mix("fine-tuning", kept, (), MixtureSettings({ANSWER_TASK: "predict: "}, {}, answer))
    of_question = {q.id: [t for t in targets if t.question_id == q.id] for q in kept}
    made = [{"id": q.id, "rows": _rows(encoder.rows(q, of_question[q.id]))} for q in kept]
    return {"model": "smollm2", "batch": batch, "questions": made}


def _job(
    model: str, batch: int, encoder: Encoder, dataset: str, count: int, teachers: int, longest: int = 1 << 20
) -> dict[str, Any]:
    given = ("flan-t5-xl", "llama-2-7b-chat")
    kept = []
    for question in load_splits(DataSection(folder=DATA / dataset, on_invalid="drop")).train:
        texts = [question.rationales.get(given[m % 2], "").strip() for m in range(teachers)]
        if all(len(text) > 15 for text in texts):
            targets = [Target(question.id, ANSWER_TASK, "predict: ", question.answer_text, 1.0)]
            targets += [
                Target(question.id, f"teacher{m}", f"explain as teacher{m}: ", text, 1.0)
                for m, text in enumerate(texts)
            ]
            rows = encoder.rows(question, targets)
            if all(len(row.prompt) <= longest for row in rows):
                kept.append({"id": question.id, "rows": _rows(rows)})
        if len(kept) == count:
            break
    return {"model": model, "batch": batch, "questions": kept}


def _rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"task": b.task, "prompt": list(row.prompt), "prefix": list(b.prefix), "target": list(b.target)}
        | ({"share": b.share, "scale": b.scale} if isinstance(b, Choice) else {})
        for row in rows
        for b in row.branches
    ]


def rows_of(question: dict[str, Any], *, shared: bool) -> list[Row]:
    """Return a question's rows as TinyLLM takes them: in one, where tasks share the prompt."""
    branches = [_branch(r) for r in question["rows"]]
    prompts = [tuple(r["prompt"]) for r in question["rows"]]
    if shared:
        return [Row(question["id"], prompts[0], tuple(branches))]
    return [Row(question["id"], p, (b,)) for p, b in zip(prompts, branches, strict=True)]


def _branch(row: dict[str, Any]) -> Branch:
    task, prefix, target = row["task"], tuple(row["prefix"]), tuple(row["target"])
    if "share" in row:
        return Choice(task, prefix, target, share=row["share"], scale=row["scale"])
    return Branch(task, prefix, target)


def write_job(job: dict[str, Any], file: Path) -> Path:
    """Write a job."""
    file.write_text(json.dumps(job), "utf-8")
    return file
