"""What one teacher is asked: a question becomes a request with a key, and a reply becomes a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinyllm.config import RationalesSection
from tinyllm.prompts import ExampleGenerator, Prompt, teacher_prompt
from tinyllm.questions import Question
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.store import Entry, Store
from tinyllm.rationales.types import Rationale, Rejection
from tinyllm.teachers import Prompted, Teacher
from tinyllm.teachers.base import Reply, Request, Sampling, canonical, key_of


@dataclass(frozen=True, slots=True)
class Ask:
    """One question put to one teacher, for the first time or again.

    Attributes:
        place: of the question in the run's questions.
        root: key of the first sample, which all samples of the question share.
        key: key of this sample in the store.
        asked: the request as JSON, of which the key is the checksum.
    """

    place: int
    question: Question
    request: Request
    root: str
    key: str
    asked: str

    def entry(self, teacher: str, reply: Reply) -> Entry:
        """Return what is stored of this request and its reply."""
        return Entry(teacher, self.question.id, self.key, self.asked, reply)


class Requests:
    """One teacher's requests for the questions of a run; made when they are needed, and not kept.

    Attributes:
        samples: how often a question is put to the teacher until a reply passes; once where every reply is the same.
    """

    def __init__(
        self, teacher: Teacher, questions: Sequence[Question], examples: ExampleGenerator, section: RationalesSection
    ) -> None:
        self.teacher = teacher
        self.questions = questions
        self.samples = section.samples if section.temperature > 0 else 1
        self._examples = examples
        self._section = section
        self._identity = teacher.identity
        self._form = teacher.form if isinstance(teacher, Prompted) else None
        stop = teacher.stop if isinstance(teacher, Prompted) and self._form == "completion" else ()
        self._sampling = Sampling(section.max_tokens, section.temperature, section.top_p, section.seed, stop)

    def between(self, start: int, stop: int) -> list[Ask]:
        """Return the first requests of the questions at some places."""
        questions = self.questions[start:stop]
        return [
            self._ask(start + offset, question, Request(question.id, prompt, self._sampling), "")
            for offset, (question, prompt) in enumerate(zip(questions, self._prompts(start, questions), strict=True))
        ]

    def again(self, ask: Ask) -> Ask:
        """Return the request for the next sample of the same question."""
        request = replace(ask.request, sample=ask.request.sample + 1)
        return self._ask(ask.place, ask.question, request, ask.root)

    def may_ask_again(self, ask: Ask) -> bool:
        """Tell whether another sample is allowed."""
        return ask.request.sample + 1 < self.samples

    def verdict(self, question: Question, reply: Reply) -> Rationale | Rejection:
        """Return what the checks make of a reply."""
        section = self._section
        return to_rationale(question, self.teacher.name, reply, checks=section.checks, repair=section.repair)

    def _ask(self, place: int, question: Question, request: Request, root: str) -> Ask:
        asked = canonical(self._identity, request)
        key = key_of(asked)
        return Ask(place, question, request, root or key, key, asked)

    def _prompts(self, start: int, questions: Sequence[Question]) -> list[Prompt]:
        if self._form is None:
            return [Prompt()] * len(questions)
        picks = self._examples.picks(self.questions, start, start + len(questions))
        return [
            teacher_prompt(
                question,
                examples,
                form=self._form,
                teacher_forcing=self._section.teacher_forcing,
                worked=self._examples.worked,
            )
            for question, examples in zip(questions, picks, strict=True)
        ]


def answered(
    requests: Requests, store: Store, asks: Sequence[Ask]
) -> tuple[list[tuple[Ask, Rationale | Rejection]], list[Ask]]:
    """Hold the samples that are stored against the checks; return what is settled by them, and what must be asked."""
    settled: list[tuple[Ask, Rationale | Rejection]] = []
    missing: list[Ask] = []
    open_ = list(asks)
    while open_:
        replies = store.get_many([ask.key for ask in open_])
        further = []
        for ask in open_:
            reply = replies.get(ask.key)
            if reply is None:
                missing.append(ask)
                continue
            outcome = requests.verdict(ask.question, reply)
            if isinstance(outcome, Rejection) and requests.may_ask_again(ask):
                further.append(requests.again(ask))
            else:
                settled.append((ask, outcome))
        open_ = further
    return settled, missing
