"""What one teacher is asked: makes requests of questions, and verdicts of replies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from tinyllm.config import RationalesSection
from tinyllm.errors import TeacherError
from tinyllm.prompts import ExampleGenerator, Prompt, teacher_prompt
from tinyllm.questions import Question
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.types import UNFINISHED, Rejection, Verdict
from tinyllm.replies import Failure, Store
from tinyllm.teachers import Prompted, Teacher
from tinyllm.teachers.base import Adapting, AtHand, ParameterRefused, Reply, Request, Sampling, canonical, key_of
from tinyllm.teachers.manners import LENGTHS, SAMPLING, WITHOUT_THOUGHTS, Manners, SentForm

_ROOM = 4096
"""Tokens for the thoughts of a teacher that has been seen to think, if nothing is configured."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request about one question, for its first sample or a later one.

    Attributes:
        place: index of the question in the run.
        wanted: the request for an endpoint that accepts all parameters.
        request: the request as it is sent to this endpoint.
        room: how often the tokens for thoughts were increased.
        form: the form in which the request is sent.
        root: identifies the question in every process, whatever the process knows about the endpoint.
        key: the key of this sample in the store.
        asked: the request as JSON; `key` is its checksum.
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


class _Repeated(Sequence[Question]):
    """Questions, each several times in a row. The list is not copied.

    Args:
        shown: returns the question as it is at one of its places, which are counted from 0.
    """

    def __init__(
        self, questions: Sequence[Question], times: int, shown: Callable[[Question, int], Question] = lambda q, _: q
    ) -> None:
        self._questions, self._times, self._shown = questions, times, shown

    def __len__(self) -> int:
        return len(self._questions) * self._times

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            first = start // self._times
            near = self._questions[first : -(-stop // self._times)]
            return [
                self._shown(near[place // self._times - first], place % self._times) for place in range(start, stop)
            ]
        place = range(len(self))[index]
        return self._shown(self._questions[place // self._times], place % self._times)


class Requests:
    """One teacher's requests for the questions of a run. They are made when needed and not kept.

    Attributes:
        manners: which forms of request the endpoint accepts; see `learn`.
        several: rationales that are wanted for a question. `questions` has it so many times in a row.
        samples: how often a question is asked until a reply passes; 1 if the teacher is deterministic.
    """

    _repeated = _Repeated

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
        self.several = 1 if isinstance(teacher, AtHand) else section.several
        self.questions = questions if self.several == 1 else self._repeated(questions, self.several)
        self._asked = questions
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
        self._use(manners)

    def with_teacher(self, teacher: Teacher) -> Requests:
        """Return the same requests for another teacher with the same identity."""
        other = copy.copy(self)
        other.teacher = teacher
        other._use(self.manners)
        return other

    # --- what the endpoint accepts ----------------------------------------------------------------------------------

    def learn(self, refused: ParameterRefused) -> str:
        """Change the requests after the endpoint refused a part of one. Return a message for the user.

        Raises:
            TeacherError: the user has set that part, or it cannot be left out.
        """
        written = {*self._written}
        if refused.limit is not None and refused.limit < self._section.max_tokens:
            written.add("max_tokens")
        changed = self.manners.without(refused.names, written, refused.limit)
        if changed is None or changed == self.manners:
            raise TeacherError(self._not_taken(refused, written))
        before = self.manners
        self._use(changed)
        return f"'{self.teacher.name}': the endpoint {_difference(before, changed)}. It says: {refused}"

    def saw(self, outcome: Verdict) -> bool:
        """Learn from a verdict. Return whether `manners` has changed and must be stored."""
        thinks = self._thinking_tokens is None and isinstance(outcome, Rejection) and outcome.reason == UNFINISHED
        if self.manners.worked and (self.manners.thinks or not thinks):
            return False
        self._use(replace(self.manners, worked=True, thinks=self.manners.thinks or thinks))
        return True

    def _use(self, manners: Manners) -> None:
        self.manners = manners
        if isinstance(self.teacher, Adapting):
            self.teacher.manners = manners

    def _not_taken(self, refused: ParameterRefused, written: Collection[str]) -> str:
        """Return the message about a part of the request that is refused and cannot be left out."""
        name = next((n for n in refused.names if n in written or n in LENGTHS), refused.names[0])
        remedy = f"take `rationales.{name}` out of the configuration"
        if name in SAMPLING:
            remedy += f", or write `omit: [{name}]` for this teacher alone"
        if refused.limit is not None:
            remedy = f"set `rationales.max_tokens` to {refused.limit} or less"
        elif name not in written:
            remedy = "ask a model or an endpoint that accepts it"
        return (
            f"Teacher '{self.teacher.name}': the endpoint does not take `{name}`: {refused}\n  To do: {remedy}. "
            "Earlier replies are kept."
        )

    # --- from questions to requests -------------------------------------------------------------------------------

    def between(self, start: int, stop: int) -> list[Ask]:
        """Return the first request of each question from place `start` to before `stop`."""
        questions = self.questions[start:stop]
        wanted = zip(questions, self._first_requests(start, questions), strict=True)
        return [self._ask(place, question, request, 0, "") for place, (question, request) in enumerate(wanted, start)]

    def _first_requests(self, start: int, questions: Sequence[Question]) -> Iterator[Request]:
        """Yield the first request for each of the questions, which begin at place `start`."""
        asked = zip(questions, self._prompts(start, questions), strict=True)
        for place, (question, prompt) in enumerate(asked, start):
            yield Request(question.id, prompt, self._sampling, self._first(place))

    def _first(self, place: int) -> int:
        """Return the number of the first sample at a place; each rationale of a question has its own."""
        return place % self.several * self._section.samples

    def tries(self, ask: Ask) -> int:
        """Return how often a rationale was asked for, this request included."""
        return ask.wanted.sample - self._first(ask.place) + 1

    def again(self, ask: Ask, outcome: Rejection) -> Ask | None:
        """Return the request for the question's next sample; None if no further sample is allowed.

        If a thought was cut off, the next request allows more tokens. It counts as a sample, also for a deterministic
        teacher.
        """
        unfinished = outcome.reason == UNFINISHED
        samples = self._section.samples if unfinished and self._thinking_tokens != 0 else self.samples
        sample = ask.wanted.sample + 1
        if self.tries(ask) >= samples:
            return None
        return self._ask(ask.place, ask.question, replace(ask.wanted, sample=sample), ask.room + unfinished, ask.root)

    def variants(self, ask: Ask) -> list[Ask]:
        """Return all requests that an earlier run may have sent for this sample. The last one is sent now."""
        roomier = ask.room == 0 and self.manners.thinks and self._thinking_tokens is None
        rooms, forms = (0, 1) if roomier else (ask.room,), (*self.manners.earlier, self.manners.form)
        if len(rooms) == len(forms) == 1 and ask.form == self.manners.form:
            return [ask]
        return [
            self._ask(ask.place, ask.question, ask.wanted, room, ask.root, form) for room in rooms for form in forms
        ]

    def failures(self, store: Store, asks: Sequence[Ask]) -> dict[int, Failure]:
        """Return the failures of requests without a reply, by place. The request may have had an earlier form."""
        sent = {ask.place: {ask.key, *(a.key for a in self.variants(replace(ask, room=0)))} for ask in asks}
        known = store.failures({key for keys in sent.values() for key in keys})
        return {place: known[key] for place, keys in sent.items() for key in keys if key in known}

    def verdict(self, question: Question, reply: Reply) -> Verdict:
        """Return what the checks make of a reply."""
        section = self._section
        return to_rationale(question, self.teacher.name, reply, checks=section.checks, repair=section.repair)

    @property
    def thinking_tokens(self) -> int:
        """Tokens for thoughts in a first request."""
        return self._room(1 if self.manners.thinks and self._thinking_tokens is None else 0)

    def longest_replies(self) -> list[int]:
        """Return the token limit of each sample, if a question takes all samples.

        A teacher that was never asked may turn out to think, so the limits include thoughts.
        """
        may_think = self.manners.thinks or not self.manners.worked
        if self._thinking_tokens is None and not may_think:
            return [self._sampling.max_tokens] * self.samples
        samples = self._section.samples if self._thinking_tokens != 0 else self.samples
        return [self._sampling.max_tokens + self._room(k) for k in range(samples)]

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
        sent = form.applied_to(request, self._written, self._omit, self._sampling.max_tokens)
        asked = canonical(self._identity, sent)
        key = key_of(asked)
        if not root:
            root = key if sent is wanted else key_of(canonical(self._identity, wanted))
        return Ask(place, question, wanted, sent, room, form, root, key, asked)

    def _prompts(self, start: int, questions: Sequence[Question]) -> list[Prompt]:
        if self._form is None:
            return [Prompt()] * len(questions)
        forcing, worked = self._section.teacher_forcing, self._examples.worked
        first, end = start // self.several, -(-(start + len(questions)) // self.several)
        once = self._examples.picks(self._asked, first, end)
        picks = [once[place // self.several - first] for place in range(start, start + len(questions))]
        return [
            teacher_prompt(question, examples, form=self._form, teacher_forcing=forcing, worked=worked)
            for question, examples in zip(questions, picks, strict=True)
        ]


def _difference(before: Manners, after: Manners) -> str:
    """Return what the endpoint was found to want, as text."""
    gone = ", ".join(f"`{name}`" for name in after.form.dropped if name not in before.form.dropped)
    if gone:
        return f"does not take {gone}. It is no longer sent, and the endpoint's default applies"
    if after.form.most_tokens != before.form.most_tokens:
        return f"takes at most {after.form.most_tokens:,} tokens as the length of a reply"
    if after.form.fewest_tokens != before.form.fewest_tokens:
        return f"takes at least {after.form.fewest_tokens} tokens as the length of a reply"
    if after.top_logprobs != before.top_logprobs:
        return f"gives at most {after.top_logprobs} log-probabilities of a token"
    if after.length_field != before.length_field:
        return f"takes the length of a reply as `{after.length_field}`"
    if after.form.system != before.form.system:
        return "takes no system message. Its text now begins the user's message"
    if after.thoughts_off != before.thoughts_off:
        fields = ", ".join(f"`{name}`" for name in WITHOUT_THOUGHTS[after.thoughts_off])
        return f"is asked with {fields}, so that the model answers without a thought"
    return "answers in streams only" if after.stream != before.stream else "takes no `stream_options`"


def answered(requests: Requests, store: Store, asks: Sequence[Ask]) -> tuple[list[tuple[Ask, Verdict]], list[Ask]]:
    """Check the stored samples. Return the requests with a final verdict, and the requests that must be sent."""
    settled: list[tuple[Ask, Verdict]] = []
    missing: list[Ask] = []
    for ask, last in walk(requests, store, asks):
        if isinstance(last, Ask):
            missing.append(last)
        else:
            settled.append((ask, last))
    return settled, missing


def walk(
    requests: Requests, store: Store, asks: Sequence[Ask], heard: Callable[[Ask, Reply, Verdict], None] | None = None
) -> Iterator[tuple[Ask, Verdict | Ask]]:
    """Go through the stored samples of some questions. Yield the last request of each question, and its verdict.

    If the last request has no reply yet, the request itself takes the place of the verdict. A stored reply is used even
    if it was requested with fewer tokens for thoughts, or in an earlier form.

    Args:
        heard: called with every reply on the way, and its verdict.
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
