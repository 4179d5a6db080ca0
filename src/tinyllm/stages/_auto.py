"""Auto: finds the settings of `train` that are best on the validation questions. This is a part of train.

The method is successive halving (Jamieson and Talwalkar, arXiv 1502.07943). All candidates are trained for a part of
their optimizer steps. The best ones continue from their checkpoints, until one candidate has finished its training. Its
student is the student of the run. No step is trained twice. The test questions are not used.

<run>/
  auto.json               the candidates, their figures, and which one was chosen
  auto/N/                 the log of candidate N, and its checkpoints as long as it may continue
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinyllm.config import Config, candidates_of
from tinyllm.config.read import SPEED_ONLY
from tinyllm.errors import DataError, NonFiniteLossError, RunFolderError, StudentError
from tinyllm.questions.types import Question, Splits
from tinyllm.stages._prepare import give_back_memory, looked_at, prepare_training, train_prepared, validation_scores
from tinyllm.stages._soft import supposed
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_json, write_json
from tinyllm.system.news import News, Task

ENOUGH_TO_CHOOSE = 100
"""With fewer validation questions, chance decides between settings."""

_Z95 = 1.96
_WORST_LOSS = 1e9  # JSON has no infinity


@dataclass(frozen=True, slots=True)
class Search:
    """The plan of a search.

    Attributes:
        names: the names of the candidates, made of the settings in which they differ.
        steps: the number of optimizer steps in the whole training of each candidate.
        rungs: for each rung, the number of candidates and the share of their steps at its end.
        most_steps: the largest number of steps of the search, whichever candidates continue. It includes the training
            of the chosen student.
        left_out: the names of the candidates that the budget does not allow.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    rungs: tuple[tuple[int, float], ...]
    most_steps: int
    left_out: tuple[str, ...] = ()


def search_of(config: Config, questions: int) -> Search:
    """Return the plan of a search within its budget, given the number of training questions."""
    candidates = candidates_of(config)
    names, steps = _names(candidates), [_steps(c, questions) for c in candidates]
    allowed = config.auto.budget * max(steps)
    for count in range(len(candidates), 0, -1):
        rungs = _rungs(config.auto.rungs, config.auto.keep, count)
        most = _most_steps(steps[:count], rungs)
        if most <= allowed or count == 1:
            break
    return Search(tuple(names[:count]), tuple(steps[:count]), rungs, most, tuple(names[count:]))


def few_to_choose_by(config: Config, splits: Splits) -> str:
    """Return a warning if `method: auto` has too few validation questions to tell settings apart; empty otherwise."""
    if config.train.method != "auto" or len(candidates_of(config)) < 2:
        return ""
    count = sum(q.answer is not None for q in looked_at(config, splits))
    if count >= ENOUGH_TO_CHOOSE:
        return ""
    width = 100 * _Z95 / math.sqrt(count + _Z95**2)  # Wilson's interval of an accuracy of 50 %
    return (
        f"train.method: auto compares settings on {count} validation question{'' if count == 1 else 's'}. The 95 % "
        f"interval of an accuracy on so few is up to {width:.0f} points wide, so chance decides between settings that "
        f"differ by less. Give at least {ENOUGH_TO_CHOOSE} (data.valid, data.cut.valid, train.validate_questions), or "
        "set another train.method."
    )


def _steps(config: Config, questions: int) -> int:
    train = config.train
    steps = train.epochs * -(-questions // train.batch_size)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def _rungs(most: int, keep: int, count: int) -> tuple[tuple[int, float], ...]:
    """Return the rungs of `Search`. A single candidate is trained to its end in one rung."""
    rungs = []
    for rung in range(most if count > 1 else 1):
        left = math.ceil(count / keep**rung)
        rungs.append((left, float(keep) ** (rung + 1 - most)))
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
    """Name each candidate by the settings in which the candidates differ."""
    told = [c.train.model_dump(mode="json") for c in candidates]
    differ = [key for key in told[0] if len({repr(of[key]) for of in told}) > 1]
    names = [
        ", ".join(f"{key} {_short(of[key], [o[key] for o in told])}" for key in differ if _matters(key, of))
        for of in told
    ]
    return [name or of["method"] for name, of in zip(names, told, strict=True)]


def _matters(key: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a setting changes anything: fine-tuning uses no rationales."""
    return key not in ("rationales", "alpha") or settings["method"] != "fine-tuning"


def _short(value: Any, values: Sequence[Any]) -> str:
    """Return a setting in a few words. Of a section, the settings that differ; the first, if none does."""
    if isinstance(value, dict):
        sections = [of for of in values if isinstance(of, dict)]
        differ = [key for key in value if len({repr(of.get(key)) for of in sections}) > 1] or list(value)[:1]
        return " ".join(f"{key} {_short(value[key], ())}" for key in differ)
    if isinstance(value, float):
        return f"{value:.3g}"
    return "off" if value is None else str(value)


def chosen(config: Config, run: RunFolder, news: News, splits: Splits, *, may_search: bool = True) -> Config:
    """Return the configuration that is best on the validation questions. Search for it, unless that is done.

    The training of the run then continues from its checkpoint. Every process must call this.

    Args:
        may_search: False: change nothing.

    Raises:
        DataError: no validation question has an answer.
        RunFolderError: these settings and questions have not been searched, and `may_search` is False.
        KeyboardInterrupt: the user interrupted it. The next call continues the search.
    """
    from tinyllm.student.processes import Processes

    valid = [q for q in looked_at(config, splits) if q.answer is not None]
    if not valid:
        raise DataError(
            "train.method: auto compares settings on validation questions, and no validation question has an answer. "
            "Set data.valid or data.cut, or choose another train.method.",
            page="training.md#method-auto",
        )
    processes = Processes.joined() if may_search else Processes(0, 1)
    halving = _Halving(config, run, news, replace(splits, test=()), valid, processes)
    if not may_search:
        if halving.found is None:
            raise RunFolderError(
                "train.method: auto has not chosen yet what is learnt from these questions with these settings; "
                "`tinyllm train` searches, and `tinyllm check` says what it will try."
            )
        return halving.candidates[halving.found]
    number = halving.search()
    halving.hand_over(number)
    return halving.candidates[number]


@dataclass(frozen=True, slots=True)
class _Look:
    """The figures of a candidate on the validation questions after a rung.

    Attributes:
        failed: why it could not be trained so far; its figures are then the worst.
    """

    rung: int
    steps: int
    accuracy: float
    log_loss: float
    seconds: float
    failed: str = ""


def _rank(look: _Look) -> tuple[float, float]:
    """Return the key that sorts the best candidate first: by accuracy, then by log-loss."""
    return -look.accuracy, look.log_loss


class _Halving:
    """A search. Its state is written to `auto.json` after each measurement."""

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
        number = None if self._is_of_another else known.get("chosen")
        self.found: int | None = None if number is None else int(number) - 1
        self._looks: list[list[_Look]] = [[_Look(**look) for look in found["looks"]] for found in kept]
        self._looks += [[] for _ in self.candidates[len(self._looks) :]]
        processes.wait()  # until all processes have read the file

    def search(self) -> int:
        """Return the number of the best candidate."""
        if self.found is not None:
            return self.found
        if self._is_of_another:
            self._news.say(
                "  note: the questions, rationales, opinions or settings have changed, so the search starts again"
            )
            self._discard([self._folder])
        alive = list(range(len(self.candidates)))
        with self._news.task("Trying settings", self._plan.most_steps) as task:
            for rung, (count, share) in enumerate(self._plan.rungs):
                alive = self._best(alive, rung - 1)[:count]
                left = self._plan.rungs[rung + 1][0] if rung + 1 < len(self._plan.rungs) else 1
                missing = [n for n in alive if len(self._looks[n]) <= rung]
                for number in missing:
                    self._looks[number].append(self._look(number, rung, share, task))
                    self._write(None)
                    seen = [n for n in alive if len(self._looks[n]) > rung]
                    self._discard([self._of(n) / "checkpoints" for n in self._best(seen, rung)[left:]])
                if missing:
                    self._tell(alive, rung, left)
            best = self._best(alive, len(self._plan.rungs) - 1)[0]
            if failed := self._looks[best][-1].failed:
                self._discard([self._file, self._folder])
                raise StudentError(
                    f"train.method: auto has no setting left to train. The last one, {best + 1}. "
                    f"{self._plan.names[best]}, failed: {failed}\nTake it out of auto.candidates, or change it."
                )
            task.update(self._trained(), self._trained(), f"chosen: {best + 1}. {self._plan.names[best]}")
        self._write(best)
        return best

    def _tell(self, alive: Sequence[int], rung: int, left: int) -> None:
        """Print one line for each candidate of a round, the best first."""
        kept = "kept" if rung + 1 < len(self._plan.rungs) else "chosen"
        for place, n in enumerate(self._best(alive, rung)):
            accuracy = 100 * self._looks[n][rung].accuracy
            outcome = f"{accuracy:.1f} %, {kept if place < left else 'stopped'}"
            outcome = "failed" if self._looks[n][rung].failed else outcome
            self._news.say(f"  round {rung + 1}: {outcome}: {n + 1}. {self._plan.names[n]}")

    def _trained(self) -> int:
        """Return the number of optimizer steps so far, of all candidates."""
        return sum(of[-1].steps for of in self._looks if of)

    def hand_over(self, number: int) -> None:
        """Move the checkpoint of a candidate to the place where the training of the run looks for it."""
        if self._processes.is_first:
            for name in ("train_log.jsonl", "checkpoints"):
                source, place = self._of(number) / name, self._run.path / name
                if (self._of(number) / "checkpoints").is_dir() and source.exists():
                    _remove(place)
                    shutil.move(source, place)
        self._processes.wait()

    def _best(self, numbers: Sequence[int], rung: int) -> list[int]:
        """Sort candidates by their figures in a rung; before the first rung, by their place in the list."""
        return list(numbers) if rung < 0 else sorted(numbers, key=lambda n: (_rank(self._looks[n][rung]), n))

    def _look(self, number: int, rung: int, share: float, task: Task) -> _Look:
        config, folder = self.candidates[number], self._of(number)
        began = time.monotonic()
        if self._processes.is_first:
            folder.mkdir(parents=True, exist_ok=True)
        self._processes.wait()
        mine = self._looks[number][-1].steps if self._looks[number] else 0
        others = self._trained() - mine
        note = f"round {rung + 1} of {len(self._plan.rungs)}, setting {number + 1}"
        task.update(others + mine, note=note)
        prepared = prepare_training(
            config, self._run, News(quiet=True), self._learnt_from, processes=self._processes.count
        )

        def advance(step: int, _total: int, _note: str) -> None:
            task.update(others + step, note=note)

        until = _until(share, len(prepared.plan))
        try:
            steps = train_prepared(config, prepared, self._splits, folder, advance, until).steps
            accuracy, log_loss = validation_scores(config, prepared.student, prepared.learner, self._splits)
            failed = ""
        except NonFiniteLossError as error:  # all processes meet it: the loss is a sum over them
            steps, accuracy, log_loss, failed = until, 0.0, _WORST_LOSS, str(error)
            self._news.say(f"  note: setting {number + 1} ({self._plan.names[number]}) is left: {failed}")
        del prepared
        give_back_memory()
        return _Look(rung, steps, accuracy, log_loss, round(time.monotonic() - began, 2), failed)

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
                "steps": self._trained(),
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
        """Return a sentence that compares the chosen candidate with the best other one that was trained as far."""
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
            f"after rung {last + 1} its accuracy on the validation questions was {100 * mine.accuracy:.1f} %, and that "
            f"of the next best candidate, number {other + 1}, was {100 * theirs.accuracy:.1f} %"
            + (f". Its log-loss was {mine.log_loss:.3f}, the other's {theirs.log_loss:.3f}" if by_loss else "")
        )

    def _discard(self, places: Sequence[Path]) -> None:
        if self._processes.is_first:
            for place in places:
                _remove(place)
        self._processes.wait()

    def _fingerprint(self, config: Config) -> str:
        """Return a hash of all inputs of the search."""
        digest = hashlib.sha256()
        sections = (config.student, config.auto, *(c.train for c in self.candidates))
        for section in sections:
            digest.update(repr(section.model_dump(exclude=set(SPEED_ONLY))).encode("utf-8", "surrogatepass"))
        # All validation questions count: the weights of opinions may be fitted on more of them than are compared here.
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
    """Return the chosen candidate from `auto.json`, for the figures of a run; nothing if no search has ended."""
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


def trained_with(config: Config, run: RunFolder, figures: Mapping[str, Any]) -> Config:
    """Return the configuration of a finished training: with `method: auto`, that of the chosen candidate.

    Args:
        figures: those of the training (`train_result.json`).
    """
    name, file = figures.get("chosen", {}).get("name"), run.path / "auto.json"
    known = read_json(file)["candidates"] if name is not None and file.is_file() else ()
    for candidate in known:
        if candidate["name"] == name:
            train = type(config.train).model_validate(candidate["settings"])
            return config.model_copy(update={"train": train})
    return config
