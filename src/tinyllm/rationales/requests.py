"""What one teacher is asked: a question becomes a request with a key, and a reply becomes a verdict."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from tinyllm.config import RationalesSection
from tinyllm.errors import TeacherError
from tinyllm.prompts import ExampleGenerator, Prompt, teacher_prompt
from tinyllm.questions import Question
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.types import UNFINISHED, Rejection, Verdict
from tinyllm.replies import Entry, Store
from tinyllm.teachers import Prompted, Teacher
from tinyllm.teachers.base import Adapting, ParameterRefused, Reply, Request, Sampling, canonical, key_of
from tinyllm.teachers.manners import LENGTHS, SAMPLING, WITHOUT_THOUGHTS, Manners, SentForm, formed, without

_ROOM = 4096
"""Tokens for the thoughts of a teacher that was seen to think, where nothing is set."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question put to one teacher, for the first time or again.

    Attributes:
        place: of the question in the run's questions.
        wanted: the request as it would be sent to an endpoint that takes everything.
        request: as it is sent to this one.
        room: how often the room for thoughts was enlarged.
        form: in which the request is sent.
        root: names the question to every process, whatever that has learnt of the endpoint.
        key: key of this sample, sent in this way, in the store.
        asked: what is sent as JSON, of which the key is the checksum.
    """

    place: int
    question: Question
    wanted: Request
    request: Request
    room: int
    form: SentForm
    root: str
    key: str
    asked: str

    def entry(self, teacher: str, reply: Reply) -> Entry:
        """Return what is stored of this request and its reply."""
        return Entry(teacher, self.question.id, self.key, self.asked, reply)


class Requests:
    """One teacher's requests for the questions of a run; made when they are needed, and not kept.

    Attributes:
        manners: how the teacher is asked; see `learn`.
        samples: how often a question is put to the teacher until a reply passes; once where every reply is the same.
    """

    def __init__(
        self,
        teacher: Teacher,
        questions: Sequence[Question],
        examples: ExampleGenerator,
        section: RationalesSection,
        *,
        omit: Collection[str] = (),
        thinking_tokens: int | None = None,
        manners: Manners = Manners(),
    ) -> None:
        self.teacher = teacher
        self.questions = questions
        temperature = section.sampling("temperature")
        self.samples = section.samples if temperature > 0 or "temperature" in omit else 1
        self._examples = examples
        self._section = section
        self._written = section.written
        self._omit = omit
        self._thinking_tokens = thinking_tokens
        self._identity = teacher.identity
        self._form = teacher.form if isinstance(teacher, Prompted) else None
        stop = teacher.stop if isinstance(teacher, Prompted) and self._form == "completion" else ()
        self._sampling = Sampling(
            section.max_tokens, temperature, section.sampling("top_p"), int(section.sampling("seed")), stop
        )
        self.manners = manners
        self._tell()

    def with_teacher(self, teacher: Teacher) -> Requests:
        """Return the same requests for a teacher that stands for this one and is known by the same identity."""
        other = copy.copy(self)
        other.teacher = teacher
        other._tell()
        return other

    # --- how the teacher is asked ---------------------------------------------------------------------------------

    def learn(self, refused: ParameterRefused) -> str:
        """Take in that the endpoint does not take a part of a request; return it in words for the person.

        Raises:
            TeacherError: the person has set it, so it is theirs to decide; or nothing can be left out.
        """
        written = {*self._written}
        if refused.most_tokens is not None and refused.most_tokens < self._section.max_tokens:
            written.add("max_tokens")
        changed = without(self.manners, refused.names, written, refused.most_tokens)
        if changed is None or changed == self.manners:
            raise TeacherError(self._not_taken(refused, written))
        before, self.manners = self.manners, changed
        self._tell()
        return f"'{self.teacher.name}': the endpoint {_difference(before, changed)}. It says: {refused}"

    def saw(self, outcome: Verdict) -> bool:
        """Take in what a reply was worth; return whether that taught anything that has to be remembered."""
        thinks = self._thinking_tokens is None and isinstance(outcome, Rejection) and outcome.reason == UNFINISHED
        if self.manners.worked and (self.manners.thinks or not thinks):
            return False
        self.manners = replace(self.manners, worked=True, thinks=self.manners.thinks or thinks)
        self._tell()
        return True

    def _tell(self) -> None:
        if isinstance(self.teacher, Adapting):
            self.teacher.manners = self.manners

    def _not_taken(self, refused: ParameterRefused, written: Collection[str]) -> str:
        """Say that a part of the request is not taken and cannot be left out."""
        name = next((n for n in refused.names if n in written or n in LENGTHS), refused.names[0])
        remedy = f"take `rationales.{name}` out of the configuration"
        if name in SAMPLING:
            remedy += f", or write `omit: [{name}]` for this teacher alone"
        if refused.most_tokens is not None:
            remedy = f"set `rationales.max_tokens` to {refused.most_tokens} or less"
        elif name not in written:
            remedy = "ask a model or an endpoint that takes it"
        return (
            f"Teacher '{self.teacher.name}': the endpoint does not take `{name}`: {refused}\n  To do: {remedy}. "
            "Replies that came before are kept."
        )

    # --- from questions to requests -------------------------------------------------------------------------------

    def between(self, start: int, stop: int) -> list[Ask]:
        """Return the first requests of the questions at some places."""
        questions = self.questions[start:stop]
        return [
            self._ask(start + offset, question, Request(question.id, prompt, self._sampling), 0, "")
            for offset, (question, prompt) in enumerate(zip(questions, self._prompts(start, questions), strict=True))
        ]

    def again(self, ask: Ask, outcome: Rejection) -> Ask | None:
        """Return the request for the next sample of the same question; None if no other is allowed.

        After a thought that was cut off it has more room, and counts as a sample also where every reply is the same.
        """
        unfinished = outcome.reason == UNFINISHED
        samples = self._section.samples if unfinished and self._thinking_tokens != 0 else self.samples
        sample = ask.wanted.sample + 1
        if sample >= samples:
            return None
        return self._ask(ask.place, ask.question, replace(ask.wanted, sample=sample), ask.room + unfinished, ask.root)

    def variants(self, ask: Ask) -> list[Ask]:
        """Return the ways in which a sample may have been asked for; the last is how it is asked for now."""
        roomier = ask.room == 0 and self.manners.thinks and self._thinking_tokens is None
        rooms, forms = (0, 1) if roomier else (ask.room,), (*self.manners.earlier, self.manners.form)
        if len(rooms) == len(forms) == 1 and ask.form == self.manners.form:
            return [ask]
        return [
            self._ask(ask.place, ask.question, ask.wanted, room, ask.root, form) for room in rooms for form in forms
        ]

    def verdict(self, question: Question, reply: Reply) -> Verdict:
        """Return what the checks make of a reply."""
        section = self._section
        return to_rationale(question, self.teacher.name, reply, checks=section.checks, repair=section.repair)

    @property
    def thinking_tokens(self) -> int:
        """Tokens for thoughts that a first request has by now."""
        return self._room(1 if self.manners.thinks and self._thinking_tokens is None else 0)

    def longest_replies(self) -> list[int]:
        """Return the most tokens of each sample's reply, if a question takes all of them.

        Of a teacher that was never asked it is not known whether it thinks, so that is counted in.
        """
        may_think = self.manners.thinks or not self.manners.worked
        if self._thinking_tokens is not None or may_think:
            samples = self._section.samples if self._thinking_tokens != 0 else self.samples
            return [self._sampling.max_tokens + self._room(k) for k in range(samples)]
        return [self._sampling.max_tokens] * self.samples

    def _room(self, enlarged: int) -> int:
        if self._thinking_tokens is None:
            return _ROOM << (enlarged - 1) if enlarged else 0
        return self._thinking_tokens << enlarged

    def _ask(
        self, place: int, question: Question, wanted: Request, room: int, root: str, form: SentForm | None = None
    ) -> Ask:
        form = self.manners.form if form is None else form
        request = wanted
        if tokens := self._room(room):
            longest = self._sampling.max_tokens + tokens
            request = replace(wanted, sampling=replace(wanted.sampling, max_tokens=longest))
        sent = formed(request, form, self._written, self._omit, self._sampling.max_tokens)
        asked = canonical(self._identity, sent)
        key = key_of(asked)
        if not root:
            root = key if sent is wanted else key_of(canonical(self._identity, wanted))
        return Ask(place, question, wanted, sent, room, form, root, key, asked)

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


def _difference(before: Manners, after: Manners) -> str:
    """What an endpoint was found to want, in words."""
    gone = ", ".join(f"`{name}`" for name in after.form.dropped if name not in before.form.dropped)
    if gone:
        return f"does not take {gone}, which is no longer sent; its own default holds"
    if after.form.most_tokens != before.form.most_tokens:
        return f"takes at most {after.form.most_tokens:,} tokens as the length of a reply"
    if after.length_field != before.length_field:
        return f"takes the length of a reply as `{after.length_field}`"
    if after.form.system != before.form.system:
        return "takes no system message; its text now begins the user's"
    if after.thoughts_off != before.thoughts_off:
        fields = ", ".join(f"`{name}`" for name in WITHOUT_THOUGHTS[after.thoughts_off])
        return f"is asked with {fields}, so that the model answers without a thought"
    return "answers in streams only" if after.stream != before.stream else "takes no `stream_options`"


def answered(requests: Requests, store: Store, asks: Sequence[Ask]) -> tuple[list[tuple[Ask, Verdict]], list[Ask]]:
    """Hold the samples that are stored against the checks; return what is settled by them, and what must be asked."""
    settled: list[tuple[Ask, Verdict]] = []
    missing: list[Ask] = []
    for ask, walked in walk(requests, store, asks):
        if isinstance(walked, Ask):
            missing.append(walked)
        else:
            settled.append((ask, walked))
    return settled, missing


def walk(
    requests: Requests,
    store: Store,
    asks: Sequence[Ask],
    heard: Callable[[Ask, Reply, Verdict], None] | None = None,
) -> Iterator[tuple[Ask, Verdict | Ask]]:
    """Go through the stored samples of some questions; yield of each the last request and its outcome.

    The outcome is the request itself where it has no reply yet. A stored reply counts whatever is known by now of the
    teacher: one that was got with less room for thoughts, or in an earlier form, is not asked for again.

    Args:
        heard: told every reply on the way, and what the checks make of it.
    """
    open_ = list(asks)
    while open_:
        variants = [requests.variants(ask) for ask in open_]
        replies = store.get_many([ask.key for several in variants for ask in several])
        open_ = []
        for several in variants:
            ask = next((ask for ask in several if ask.key in replies), several[-1])
            reply = replies.get(ask.key)
            if reply is None:
                yield ask, ask
                continue
            outcome = requests.verdict(ask.question, reply)
            if heard is not None:
                heard(ask, reply, outcome)
            next_ask = requests.again(ask, outcome) if isinstance(outcome, Rejection) else None
            if next_ask is None:
                yield ask, outcome
            else:
                open_.append(next_ask)
