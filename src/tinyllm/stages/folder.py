"""Run folders: one folder a run, locked while it is worked on, every file whole or not there.

runs/<name>/
  config.yaml  environment.json                   what was asked, and on what machine
  rationales.parquet  rejected.jsonl  yields.json  generate
  opinions.parquet  opinions.json  folds/          generate, where `opinions` names teachers
  student/  train_log.jsonl  train_result.json     train (checkpoints/ while it runs)
  learnt.npy                                      train: hashes of the training and validation questions
  auto.json  auto/                                train, with `train.method: auto`
  predictions.jsonl  metrics.json                 evaluate
  report.html                                     report
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tinyllm.config import Config, describe_differences, dump_config, load_config
from tinyllm.errors import RunFolderError, printable
from tinyllm.system.files import write_json, write_text
from tinyllm.system.machine import environment

_SHOWN_DIFFERENCES = 12
_LOOK_S = 0.2  # between two looks at a lock
_MAKES_RATIONALES = ("data", "teachers", "rationales")
_MAKES_OPINIONS = ("data", "teachers", "opinions")


def _makes_rationales(config: Config) -> tuple[str, ...]:
    """Return the settings that rationales depend on."""
    pooled = ("opinions", "train.soft") if config.rationales.pooled else ()
    return (*_MAKES_RATIONALES, *pooled)


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.student = path / "student"
        self.predictions = path / "predictions.jsonl"
        self.metrics = path / "metrics.json"
        self.train_result = path / "train_result.json"
        self.likelihoods = path / "likelihoods.json"

    def make(self, *, trial: bool = False) -> None:
        """Make the folder.

        Args:
            trial: only try whether it can be made, and leave nothing behind.

        Raises:
            RunFolderError: no folder can be there at all: a file is, or it is below `/proc`.
        """
        path = self.path
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # `exists` raises for no name that is too long since Python 3.14
        at = next(p for p in (path, *path.parents) if p.exists() or p.is_symlink())
        if not at.is_dir():
            what = f"a symbolic link to {at.readlink()}, which is not there" if not at.exists() else "a file"
            raise RunFolderError(
                f"{at} is {what}, so no folder can be made at {path}; choose another place with --run-dir."
            )
        try:
            if not trial:
                path.mkdir(parents=True, exist_ok=True)
            elif at != path:  # under a name of its own, because another process may be making the folder now
                Path(tempfile.mkdtemp(prefix=".tinyllm-", dir=at)).rmdir()
        except FileNotFoundError:
            raise RunFolderError(f"No folder can be made at {path}; choose another place with --run-dir.") from None
        except OSError as error:
            error.filename = str(path) if trial else error.filename
            raise

    @property
    def is_trained(self) -> bool:
        """Whether training came to its end."""
        return self.student.is_dir() and self.train_result.is_file()

    def forget_training(self) -> None:
        """Remove a student of other targets, and all that was said of it."""
        shutil.rmtree(self.student, ignore_errors=True)
        for file in (self.train_result, self.predictions, self.metrics, self.path / "report.html"):
            file.unlink(missing_ok=True)

    def config(self) -> Config:
        """Return the configuration this run was made with.

        Raises:
            RunFolderError: the folder holds none.
        """
        RunFolderError.check(self.path)
        if not self.config_file.is_file():
            raise RunFolderError(f"{self.path} has no config.yaml, so it is no run; `tinyllm run CONFIG` makes one.")
        return load_config(self.config_file)

    def account(self) -> str:
        """Return the name under which the store keeps what this run has spent; made when it is first needed."""
        file = self.path / ".account"
        if not file.is_file():
            write_text(file, f"{printable(self.path.resolve().name)}-{uuid.uuid4().hex[:12]}\n")
        return file.read_text(encoding="utf-8").strip()

    def forget_account(self) -> None:
        """Remove the name of the account if nothing was spent."""
        (self.path / ".account").unlink(missing_ok=True)

    @property
    def owns_account(self) -> bool:
        """Whether no other folder spends on its account, as the runs of an experiment do on one."""
        return self.account().startswith(f"{printable(self.path.resolve().name)}-")

    def share_account(self, other: RunFolder) -> None:
        """Spend on another folder's account, unless this one has its own already."""
        file = self.path / ".account"
        if not file.is_file():
            write_text(file, f"{other.account()}\n")

    @contextlib.contextmanager
    def claimed(self, config: Config, *, renews_rationales: bool = False, wait_s: float = 0.0) -> Iterator[None]:
        """Lock the folder for this process and settle that what is in it belongs to this configuration.

        What was made with other settings must not be mixed with what is made now. `evaluate` may always differ:
        predictions are made again. As long as nothing is trained, so may `student` and `train`.

        Args:
            renews_rationales: the command makes the rationales again (from the store, if they are there).
            wait_s: for another process to leave it.

        Raises:
            RunFolderError: another process is at work in it, or it belongs to another configuration.
        """
        self.make()
        with self.locked(wait_s):
            was_empty = {f.name for f in self.path.iterdir()} <= {".lock"}
            try:
                if self.config_file.is_file():
                    self.check_same(config, renews_rationales=renews_rationales)
                    if renews_rationales:
                        self._forget_other_rationales(config)
                    if not (self.path / "environment.json").exists():  # a person's own file: no run has been here yet
                        given = self.config_file.read_text(encoding="utf-8")
                        write_text(self.path / "config.given.yaml", given)
                write_text(self.config_file, dump_config(config))
                write_json(self.path / "environment.json", environment())
                yield
            except BaseException:
                # Leave no folder behind in which nothing was done. One with an account has spent something.
                done_nothing = {f.name for f in self.path.iterdir()} <= {".lock", "config.yaml", "environment.json"}
                if was_empty and done_nothing:
                    shutil.rmtree(self.path, ignore_errors=True)
                raise

    def _forget_other_rationales(self, config: Config) -> None:
        """Remove rationales that were made with other settings: if making the new ones fails, none must be left."""
        if any(d.startswith(_makes_rationales(config)) for d in describe_differences(self.config(), config)):
            for name in ("rationales.parquet", "yields.json", "rejected.jsonl"):
                (self.path / name).unlink(missing_ok=True)
        if any(d.startswith(_MAKES_OPINIONS) for d in describe_differences(self.config(), config)):
            for name in ("opinions.parquet", "opinions.json"):
                (self.path / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, wait_s: float = 0.0) -> Iterator[None]:
        """Lock the folder for this process.

        Raises:
            RunFolderError: another process still holds the lock after `wait_s` seconds.
        """
        with (self.path / ".lock").open("w") as file:
            until = time.monotonic() + wait_s
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise RunFolderError(
                            f"Another process is at work in {self.path}. Wait for it, or choose another folder with "
                            "--run-dir."
                        ) from None
                    time.sleep(_LOOK_S)
            yield

    def check(self, config: Config) -> None:
        """Check that a run with a configuration can be in this folder. Nothing is written.

        Raises:
            RunFolderError: no folder can be made, or it belongs to another configuration; see `claimed`.
        """
        self.make(trial=True)
        if self.config_file.is_file():
            self.check_same(config, renews_rationales=True)

    def check_same(self, config: Config, *, renews_rationales: bool = False) -> None:
        """Check that what is in the folder belongs to a configuration; see `claimed`.

        Raises:
            RunFolderError: it belongs to another one. The message has what differs, and what to do.
        """
        is_under_way = any(self.path.glob("checkpoints/checkpoint-*/trainer_state.json"))
        if self.student.exists() or is_under_way:
            bound: tuple[str, ...] = ("preset", "data", "teachers", "rationales", "student", "train", "auto")
            if config.train.soft is not None or self.config().train.soft is not None:
                bound = (*bound, "opinions")  # they are part of what was learnt
        elif renews_rationales:
            return
        else:
            bound = _makes_rationales(config) if (self.path / "rationales.parquet").exists() else ()
            if config.train.soft is not None and (self.path / "opinions.parquet").exists():
                bound = (*bound, *_MAKES_OPINIONS)
        different = [d for d in describe_differences(self.config(), config) if d.startswith(bound)]
        if not different:
            return
        shown = "\n".join(f"  - {d}" for d in different[:_SHOWN_DIFFERENCES])
        more = len(different) - _SHOWN_DIFFERENCES
        shown += f"\n  … and {more} more" if more > 0 else ""
        learnt = all(d.startswith(("student", "train", "auto")) for d in different)
        part = f", or its `{'student' if self.student.exists() else 'checkpoints'}` to train anew" if learnt else ""
        raise RunFolderError(
            f"{self.path} holds a run of another configuration, and mixing the two would make its figures "
            f"meaningless. What differs (there → now):\n{shown}\n"
            f"Choose another folder with --run-dir, or remove this one{part}."
        )
