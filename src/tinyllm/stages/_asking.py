"""The teachers of a run, with its store and its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.config import BudgetSection, Config, PromptedTeacher, StudentSection, TeacherConfig
from tinyllm.errors import RunFolderError, TeacherError, TinyLLMError
from tinyllm.questions.types import Question
from tinyllm.rationales.forecast import Forecast
from tinyllm.rationales.generate import Ended, Stop
from tinyllm.spending.budget import Budget
from tinyllm.stages._folds import Folds
from tinyllm.stages._loops import completed
from tinyllm.stages._progress import GenerationNews, run_asking
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News
from tinyllm.teachers import Teacher

if TYPE_CHECKING:
    from tinyllm.opinions.collect import OpinionCollection
    from tinyllm.rationales.collect import Collection
    from tinyllm.rationales.forecast import CountTokens
    from tinyllm.rationales.requests import Requests
    from tinyllm.replies import ReadOnlyStore, Store

CHUNK = 256
_BATCH_HOURS = 24.0  # what the provider promises for a batch; most are faster


MakeRequests = Callable[["Teacher", TeacherConfig, "Store | None"], "Requests"]


def ways_of_asking(teacher: Teacher, spec: TeacherConfig, store: Store | None) -> dict[str, Any]:
    """Return what a teacher's section and the store say of how it is asked, as arguments of its requests."""
    from tinyllm.teachers.manners import Manners

    return {
        "omit": getattr(spec, "omit", ()),
        "thinking_tokens": getattr(spec, "thinking_tokens", None),
        "manners": Manners() if store is None else store.manners(teacher.identity),
    }


class Asking:
    """The teachers of a run with its store and its budget.

    Args:
        store: None where nobody is to be asked.
        run: whose account the store keeps.
        make: what each teacher is asked.
        on_ray: ask over a Ray cluster.
        will_ask: whether what teachers need has to be there.
        needs_keys: False: keys that are missing are kept in `missing_keys`, and the others are forecast.
    """

    def __init__(
        self,
        config: Config,
        specs: Sequence[TeacherConfig],
        questions: Sequence[Question],
        store: Store | None,
        run: RunFolder,
        make: MakeRequests,
        *,
        on_ray: bool = False,
        will_ask: bool = True,
        needs_keys: bool = True,
    ) -> None:
        from tinyllm.teachers import make_teachers

        self._config = config
        self._section = config.rationales
        self._on_ray = on_ray
        self._specs = {spec.name: spec for spec in specs}
        # Also of teachers that are not in use now: what they have cost counts.
        self._prices = {t.name: t.price if isinstance(t, PromptedTeacher) else None for t in config.teachers}
        self._store = store
        self._run = run

        def requests(teacher: Teacher) -> Requests:
            return make(teacher, self._specs[teacher.name], store)

        self._folds: dict[str, Folds] = {}
        self.missing_keys: list[TinyLLMError] = []
        # A key that is missing is no obstacle where every reply is in the store.
        journal = None if store is None else store.path.with_name(store.path.name + ".batches")
        teachers = make_teachers(
            specs,
            questions,
            journal,
            lambda t: will_ask and self._works_here(t) and self._is_needed(requests(t)),
            lambda spec: self._student(spec, questions),
            None if needs_keys else self.missing_keys,
        )
        self._requests = [requests(teacher) for teacher in teachers]

    @property
    def is_priced(self) -> bool:
        """Whether asking costs money."""
        return any(self._prices[name] is not None for name in self._specs)

    def forecasts(self, news: News, *, first: int | None = None) -> tuple[Forecast, ...]:
        """Return what asking each teacher will take; those whose rationales are at hand take nothing.

        Args:
            first: about the first so many questions only; see `ask`.
        """
        from tinyllm.rationales.forecast import forecast
        from tinyllm.teachers.base import AtHand

        asked = [r for r in self._requests if not isinstance(r.teacher, AtHand)]
        made: list[Forecast] = []
        if not asked:
            return ()
        with news.task("Forecast", len(asked)) as task:
            for requests in asked:
                spec = self._specs[requests.teacher.name]
                made.append(
                    forecast(
                        requests,
                        self._store,
                        price=self._prices[spec.name],
                        count=_tokenizer_of(spec, requests.teacher),
                        requests_per_minute=getattr(spec, "requests_per_minute", None),
                        tokens_per_minute=getattr(spec, "tokens_per_minute", None),
                        hours=_BATCH_HOURS if spec.kind == "openai-batch" else None,
                        first=first,
                    )
                )
                if spec.name in self._folds:
                    made[-1] = self._with_training(made[-1], requests)
                task.update(len(made))
        return tuple(made)

    def _with_training(self, forecast: Forecast, requests: Requests) -> Forecast:
        """Add the time in which out-of-fold students are trained."""
        folds = self._folds[forecast.teacher]
        if not (lacking := len(folds.to_train(self._missing(requests)))):
            return forecast
        hours = (forecast.hours or 0.0) + folds.hours(lacking)
        return replace(forecast, hours=hours, basis=f"{forecast.basis}; {lacking} out-of-fold students are trained")

    def ask(self, news: News, label: str, *, first: int | None = None) -> None:
        """Ask for everything that the store does not hold.

        Args:
            first: about the first so many questions only.

        Raises:
            TeacherError: teachers can answer nothing more; the others have finished by then.
            RunFolderError: something is to be asked, and the store cannot be written.
            KeyboardInterrupt: it was interrupted; every reply that came is stored.
        """
        from tinyllm.replies import ReadOnlyStore
        from tinyllm.teachers.base import AtHand, Resumable

        asked = [r.teacher for r in self._requests if not isinstance(r.teacher, AtHand)]
        if self._store is None or not asked:
            return
        if isinstance(self._store, ReadOnlyStore):
            self._must_be_complete(self._store)
            news.say(f"  note: the store {self._store.path} is only read, since every reply is in it")
            return
        for requests in self._requests:
            if requests.teacher.name in self._folds:
                self._folds[requests.teacher.name].score(self._missing(requests, first), news)
        budget, store = self._budget(self._store), self._store
        in_turn = frozenset(t.name for t in asked if t.local)

        def lost() -> int:  # in this process nothing is paid
            return sum(s.lost for name, s in store.spent(budget.run).items() if name not in in_turn)

        before = lost()
        # What is open was left by a killed process: this one has the lock of the only folder of the account. A provider
        # keeps its batches.
        for teacher in asked if self._run.owns_account else ():
            if not (teacher.local or isinstance(teacher, Resumable)):
                before -= store.lapse(budget.run, teacher.name)
        total = sum(min(first or len(r.questions), len(r.questions)) for r in self._requests if r.teacher in asked)
        with news.task(label, total) as task:
            notes = [t.note for t in asked if isinstance(t, Resumable)]
            progress = GenerationNews(news, budget, self._prices, in_turn, notes)
            task.look = progress.look
            try:
                ended = self._engine(progress, news, budget, first)
            finally:
                if not self._store.spent(budget.run):
                    self._run.forget_account()
        if ended.stopped == "budget":
            news.say(
                f"  The budget has no room for another request ({budget.left()}); what was not asked is listed as "
                "'unasked'. To go on, raise rationales.budget and run the same command again."
            )
        if (number := lost() - before) > 0:
            news.say(
                f"  {number:,} attempt{'s' if number > 1 else ''} ended without a word on the cost (time-outs, cut "
                "connections, requests under way when the teacher was given up or TinyLLM was killed). Each is charged "
                "with the most that it can have cost."
            )
        if ended.errors:
            raise TeacherError("\n".join(map(str, ended.errors)), page=ended.errors[0].page)

    def opinions(self, given: dict[str, str]) -> OpinionCollection:
        """Return what the teachers think, as a stream.

        Args:
            given: the keys of opinions that come with the questions, by teacher.
        """
        from tinyllm.opinions.collect import OpinionCollection
        from tinyllm.opinions.requests import OpinionRequests

        return OpinionCollection([r for r in self._requests if isinstance(r, OpinionRequests)], given, self._store)

    def costs(self, collection: OpinionCollection) -> dict[str, float | None]:
        """Return what the replies of each teacher cost by its price; None where it has none."""
        from tinyllm.spending.charges import cost

        return {
            name: None
            if (price := self._prices[name]) is None
            else cost(price, u.prompt_tokens, u.completion_tokens, u.cached_tokens)
            for name, u in collection.usage.items()
        }

    def collection(self) -> Collection:
        """Return what the teachers gave, as a stream."""
        from tinyllm.rationales.collect import Collection

        return Collection(self._requests, self._store)

    def _budget(self, store: Store) -> Budget:
        """Return the budget with what this run has spent, whichever teachers it had then."""
        counts = {}
        if self._section.budget != BudgetSection():
            for spec in self._specs.values():
                if isinstance(spec, PromptedTeacher) and spec.tokenizer is not None:
                    counts[spec.name] = _counter(spec.tokenizer)
        account = self._run.account()
        spent = store.spent(account, self._prices)
        return Budget(self._section.budget, self._prices, spent, run=account, counts=counts)

    def _engine(self, progress: GenerationNews, news: News, budget: Budget, first: int | None) -> Ended:
        from tinyllm.rationales.generate import generate

        store, section = self._store, self._section
        assert store is not None  # noqa: S101

        async def here(stop: Stop) -> Ended:
            progress.stop = stop
            return await generate(self._requests, store, progress, budget=budget, stop=stop, first=first)

        async def on_a_cluster(stop: Stop) -> Ended:
            from tinyllm.rationales.ray_engine import generate_on_ray

            progress.stop = stop
            return await generate_on_ray(
                self._requests, self._specs, store, progress,
                budget=budget, stop=stop, first=first,
                address=section.ray_address, workers=section.ray_workers,
            )  # fmt: skip

        return run_asking(on_a_cluster if self._on_ray else here, news)

    def _must_be_complete(self, store: ReadOnlyStore) -> None:
        from tinyllm.teachers.base import AtHand

        open_ = [r.teacher.name for r in self._requests if not isinstance(r.teacher, AtHand) and self._is_needed(r)]
        if open_:
            raise RunFolderError(
                f"{store.why}\n  It can be read, but not all replies of {', '.join(open_)} are in it, and "
                "what is asked has to be stored. Make the store writable, or copy it and give the copy's path as "
                "`rationales.store`."
            )

    def _student(self, spec: TeacherConfig, questions: Sequence[Question]) -> Teacher | None:
        """Return a student that is asked for its opinions; None for any other teacher."""
        if spec.kind != "student":
            return None
        from tinyllm.scoring.teacher import StudentAsTeacher

        teacher = StudentAsTeacher(spec, questions, lambda question: self._folds[spec.name].scores(question))
        if spec.folds:
            self._folds[spec.name] = Folds(spec, teacher.identity["sha256"], self._run)
        return teacher

    def _works_here(self, teacher: Teacher) -> bool:
        """Whether what a teacher needs must be on this machine, not on the workers of a cluster."""
        if not self._on_ray:
            return True
        from tinyllm.rationales.ray_engine import travels

        return not travels(self._specs[teacher.name])

    def _is_needed(self, requests: Requests) -> bool:
        """Whether anything of a teacher is not in the store."""
        return self._store is None or any(True for _ in self._missing(requests))

    def _missing(self, requests: Requests, first: int | None = None) -> Iterator[Question]:
        """Yield the questions of which something is not in the store; of the first so many questions only."""
        from tinyllm.rationales.requests import answered
        from tinyllm.replies import ReadOnlyStore

        total = min(first or len(requests.questions), len(requests.questions))
        for start in range(0, total, CHUNK):
            missing = requests.between(start, min(start + CHUNK, total))
            if self._store is not None:
                missing = answered(requests, self._store, missing)[1]
            if isinstance(self._store, ReadOnlyStore):  # what failed before is not tried again
                failed = requests.failures(self._store, missing)
                missing = [ask for ask in missing if ask.place not in failed]
            yield from (ask.question for ask in missing)


def _tokenizer_of(spec: TeacherConfig, teacher: Teacher) -> CountTokens | None:
    """A teacher's tokenizer, if it is named or at hand."""
    from tinyllm.teachers.base import Counting

    named = spec.tokenizer if isinstance(spec, PromptedTeacher) else None
    if named is None and isinstance(teacher, Counting):
        return lambda texts: completed(_counted(teacher, texts))
    model = named or getattr(spec, "model", None)
    if model is None or (named is None and not Path(model).is_dir()):
        return None
    count = _counter(model)
    return lambda texts: list(map(count, texts))


def _counter(model: str) -> Callable[[str], int]:
    from tinyllm.student.model import load_tokenizer

    tokenizer, _ = load_tokenizer(StudentSection(model=model))
    return lambda text: len(tokenizer(text)["input_ids"])


async def _counted(teacher: Teacher, texts: Sequence[str]) -> list[int]:
    from tinyllm.teachers.base import Counting

    async with teacher:
        assert isinstance(teacher, Counting)  # noqa: S101
        return await teacher.tokens(texts)
