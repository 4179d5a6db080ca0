"""Auto: which settings of `train` do best on validation questions; a part of train.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): all candidates train for a part of their optimizer steps,
the best of them go on, until one has ended its training. Who goes on does so from its checkpoint, and the student of
the one that is chosen is the student of the run. No step is trained twice. Test questions are not looked at.

<run>/
  auto.json               what was tried, how it did, and what was chosen
  auto/N/                 log of candidate N, and its checkpoints as long as it may go on
"""

from __future__ import annotations

import gc
import hashlib
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinyllm.config import ANSWER_TASK, Config, candidates_of
from tinyllm.config.read import SPEED_ONLY
from tinyllm.config.schema import AutoSection
from tinyllm.errors import DataError
from tinyllm.questions.types import Question, Splits
from tinyllm.stages._prepare import looked_at, prepare_training, validation, validation_scores
from tinyllm.stages._soft import supposed
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.student import mixture_settings
from tinyllm.system.files import read_json, write_json
from tinyllm.system.news import News


@dataclass(frozen=True, slots=True)
class Search:
    """What a search will try.

    Attributes:
        names: of the candidates: in what each differs from the first.
        steps: optimizer steps of each candidate's whole training.
        rungs: how many candidates train in each rung, and until which share of their steps.
        most_steps: that all of it takes, whoever goes on; the chosen student's training is among them.
        left_out: candidates for which the budget does not suffice.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    rungs: tuple[tuple[int, float], ...]
    most_steps: int
    left_out: tuple[str, ...] = ()


def search_of(config: Config, questions: int) -> Search:
    """Return what a search over so many training questions will try, within its budget."""
    candidates = candidates_of(config)
    names, steps = _names(candidates), [_steps(c, questions) for c in candidates]
    allowed = config.auto.budget * max(steps)
    for count in range(len(candidates), 0, -1):
        rungs = _rungs(config.auto, count)
        most = _most_steps(steps[:count], rungs)
        if most <= allowed or count == 1:
            break
    return Search(tuple(names[:count]), tuple(steps[:count]), rungs, most, tuple(names[count:]))


def _steps(config: Config, questions: int) -> int:
    train = config.train
    steps = train.epochs * -(-questions // train.batch_size)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def _rungs(section: AutoSection, count: int) -> tuple[tuple[int, float], ...]:
    """Return how many candidates train in each rung, and until which share; one alone is trained at once."""
    rungs = []
    for rung in range(section.rungs if count > 1 else 1):
        left = math.ceil(count / section.keep**rung)
        rungs.append((left, float(section.keep) ** (rung + 1 - section.rungs)))
    return (*rungs[:-1], (rungs[-1][0], 1.0))


def _most_steps(steps: Sequence[int], rungs: Sequence[tuple[int, float]]) -> int:
    longest, total, before = sorted(steps, reverse=True), 0, 0.0
    for count, share in rungs:
        total += sum(_until(share, n) - _until(before, n) for n in longest[:count])
        before = share
    return total


def _until(share: float, steps: int) -> int:
    """Return the optimizer step at which a rung ends."""
    return max(1, round(share * steps)) if share else 0


def _names(candidates: Sequence[Config]) -> list[str]:
    """Name each candidate by those settings in which they are not all the same."""
    told = [c.train.model_dump(mode="json") for c in candidates]
    differ = [key for key in told[0] if len({repr(of[key]) for of in told}) > 1]
    return [", ".join(f"{key} {_short(of[key])}" for key in differ) or of["method"] for of in told]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def chosen(config: Config, run: RunFolder, news: News, splits: Splits) -> Config:
    """Return the configuration that does best on validation questions, after searching for it where that is not done.

    Its checkpoint is then where the training of the run goes on. Every process has to call this.

    Raises:
        DataError: there are no validation questions with an answer.
        KeyboardInterrupt: it was interrupted; it goes on from there.
    """
    from tinyllm.student.processes import Processes

    valid = [q for q in looked_at(config, splits) if q.answer is not None]
    if not valid:
        raise DataError(
            "train.method: auto chooses by validation questions, and none has an answer: give data.valid, or data.cut.",
            page="training.md#method-auto",
        )
    halving = _Halving(config, run, news, replace(splits, test=()), valid, Processes.joined())
    number = halving.search()
    halving.hand_over(number)
    return halving.candidates[number]


@dataclass(frozen=True, slots=True)
class _Look:
    """How a candidate did on validation questions after a rung."""

    rung: int
    steps: int
    accuracy: float
    log_loss: float
    seconds: float


def _rank(look: _Look) -> tuple[float, float]:
    """Return the sort key of candidates, the best first: accuracy, and log-loss where accuracies are equal."""
    return -look.accuracy, look.log_loss


class _Halving:
    """A search and its state, which is written after each measurement."""

    def __init__(
        self, config: Config, run: RunFolder, news: News, splits: Splits, valid: Sequence[Question], processes: Any
    ) -> None:
        self._run, self._news, self._processes = run, news, processes
        self._learnt_from, self._splits = splits, replace(splits, valid=valid)
        self._file, self._folder = run.path / "auto.json", run.path / "auto"
        self._plan = search_of(config, len(supposed(config, splits)))
        self.candidates = candidates_of(config)[: len(self._plan.names)]
        self._key = self._fingerprint(config)
        known = read_json(self._file) if self._file.is_file() else {}
        self._is_of_another = bool(known) and known.get("fingerprint") != self._key
        kept = [] if self._is_of_another else known.get("candidates", [])
        self._looks: list[list[_Look]] = [[_Look(**look) for look in found["looks"]] for found in kept]
        self._looks += [[] for _ in self.candidates[len(self._looks) :]]
        processes.wait()  # until everyone has read

    def search(self) -> int:
        """Return the number of the best candidate."""
        if self._is_of_another:
            self._news.say("  note: questions, rationales or settings have changed since, so the search begins anew")
            self._discard([self._folder])
        alive = list(range(len(self.candidates)))
        for rung, (count, share) in enumerate(self._plan.rungs):
            alive = self._best(alive, rung - 1)[:count]
            left = self._plan.rungs[rung + 1][0] if rung + 1 < len(self._plan.rungs) else 1
            for number in alive:
                if len(self._looks[number]) <= rung:
                    self._looks[number].append(self._look(number, rung, share))
                    self._write(None)
                seen = [n for n in alive if len(self._looks[n]) > rung]
                self._discard([self._of(n) / "checkpoints" for n in self._best(seen, rung)[left:]])
        best = self._best(alive, len(self._plan.rungs) - 1)[0]
        self._write(best)
        return best

    def hand_over(self, number: int) -> None:
        """Put the checkpoint of a candidate where the run looks for its own."""
        if self._processes.is_first:
            for name in ("train_log.jsonl", "checkpoints"):
                source, place = self._of(number) / name, self._run.path / name
                if (self._of(number) / "checkpoints").is_dir() and source.exists():
                    _remove(place)
                    shutil.move(source, place)
        self._processes.wait()

    def _best(self, numbers: Sequence[int], rung: int) -> list[int]:
        """Sort candidates by what they did in a rung; before the first, by their place in the list."""
        return list(numbers) if rung < 0 else sorted(numbers, key=lambda n: (_rank(self._looks[n][rung]), n))

    def _look(self, number: int, rung: int, share: float) -> _Look:
        from tinyllm.student.train import train

        config, folder = self.candidates[number], self._of(number)
        began = time.monotonic()
        if self._processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
        self._processes.wait()
        self._news.say(f"  candidate {number + 1} of {len(self.candidates)}: {self._plan.names[number]}")
        prepared = prepare_training(config, self._run, self._news, self._learnt_from, processes=self._processes.count)
        plan, student, learner = prepared.plan, prepared.student, prepared.learner
        until = _until(share, len(plan))
        with self._news.task(f"Training it to step {until} of {len(plan)}", len(plan)) as task:
            result = train(
                student,
                learner,
                plan,
                config.train,
                tasks=tuple(dict.fromkeys((ANSWER_TASK, *mixture_settings(config).alpha, *prepared.targets))),
                folder=folder,
                progress=lambda done, total, note: task.update(done, total, note),
                validate=validation(config, student, learner, self._splits),
                until=until,
            )
            accuracy, log_loss = validation_scores(config, student, learner, self._splits)
            task.note = f"{100 * accuracy:.1f} % of validation questions, log-loss {log_loss:.3f}"
        del prepared, plan, student, learner
        gc.collect()  # a student and its optimizer take gigabytes, and hang in circles of references
        return _Look(rung, result.steps, accuracy, log_loss, round(time.monotonic() - began, 2))

    def _of(self, number: int) -> Path:
        return self._folder / str(number + 1)

    def _write(self, best: int | None) -> None:
        if not self._processes.is_first:
            return
        looks = [look for of in self._looks for look in of]
        write_json(
            self._file,
            {
                "fingerprint": self._key,
                "chosen": None if best is None else best + 1,
                "why": "" if best is None else self._why(best),
                "validation_questions": len(self._splits.valid),
                "steps": sum(of[-1].steps for of in self._looks if of),
                "most_steps": self._plan.most_steps,
                "seconds": round(sum(look.seconds for look in looks), 1),
                "rungs": [{"candidates": count, "share": share} for count, share in self._plan.rungs],
                "left_out": list(self._plan.left_out),
                "candidates": [
                    {
                        "number": n + 1,
                        "name": self._plan.names[n],
                        "settings": candidate.train.model_dump(mode="json"),
                        "steps": self._plan.steps[n],
                        "looks": [asdict(look) for look in self._looks[n]],
                    }
                    for n, candidate in enumerate(self.candidates)
                ],
            },
        )

    def _why(self, best: int) -> str:
        """Say by what the chosen candidate is better than the next one that was trained as far."""
        last = len(self._plan.rungs) - 1
        while last >= 0 and sum(len(of) > last for of in self._looks) < 2:
            last -= 1
        if last < 0:
            return "it is the only candidate"
        numbers = [n for n, of in enumerate(self._looks) if len(of) > last]
        other = next(n for n in self._best(numbers, last) if n != best)
        mine, theirs = self._looks[best][last], self._looks[other][last]
        by_loss = mine.accuracy == theirs.accuracy
        return (
            f"after rung {last + 1} it was right on {100 * mine.accuracy:.1f} % of the validation questions, and the "
            f"next, candidate {other + 1}, on {100 * theirs.accuracy:.1f} %"
            + (f"; its log-loss was {mine.log_loss:.3f} against {theirs.log_loss:.3f}" if by_loss else "")
        )

    def _discard(self, places: Sequence[Path]) -> None:
        if self._processes.is_first:
            for place in places:
                _remove(place)
        self._processes.wait()

    def _fingerprint(self, config: Config) -> str:
        """Return a hash of everything that the search depends on."""
        digest = hashlib.sha256()
        sections = (config.student, config.auto, *(c.train for c in self.candidates))
        for section in sections:
            digest.update(repr(section.model_dump(exclude=set(SPEED_ONLY))).encode("utf-8", "surrogatepass"))
        # All validation questions: opinions may be pooled by more of them than candidates are compared by.
        for split in (self._splits.train, self._splits.more, self._learnt_from.valid, self._splits.valid):
            for q in split:
                asked = (q.id, q.question, q.choices, q.context, q.answer)
                digest.update(repr(asked).encode("utf-8", "surrogatepass"))
        for name in ("rationales.parquet", "opinions.parquet"):
            file = self._run.path / name
            digest.update(file.read_bytes() if file.is_file() else b"")
        return digest.hexdigest()


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def chosen_in(run: RunFolder) -> Mapping[str, Any]:
    """Return what `auto.json` says was chosen, for the figures of a run; nothing where no search has ended."""
    file = run.path / "auto.json"
    known = read_json(file) if file.is_file() else {}
    number = known.get("chosen")
    if number is None:
        return {}
    return {
        "name": known["candidates"][number - 1]["name"],
        "why": known["why"],
        "steps": known["steps"],
        "seconds": known["seconds"],
    }
