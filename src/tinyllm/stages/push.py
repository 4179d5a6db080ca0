"""Push: sends the student of a run to the Hugging Face hub, with a model card that states its accuracy."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.config import Config, compares_by_token
from tinyllm.errors import RunFolderError, TinyLLMError
from tinyllm.stages._auto import trained_with
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_json
from tinyllm.system.news import News
from tinyllm.system.packaged import packaged_models

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_HUB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True)
class _Pushed:
    """The files that were sent to the hub, or would be sent.

    Attributes:
        files: size in bytes, by name.
        url: the address of the commit; None if nothing was sent.
    """

    repo: str
    files: dict[str, int]
    card: str
    url: str | None


def push_run(
    config: Config,
    run: RunFolder,
    repo: str,
    news: News,
    *,
    licence: str = "",
    base_model: str = "",
    public: bool = False,
    upload: bool = False,
) -> _Pushed:
    """Send the student of a run to the hub. Without `upload`, only return what would be sent.

    The files are `tinyllm.json`, the files that it lists (their checksums are tested), and a new model card. No
    questions, rationales or predictions of the run are sent.

    Args:
        repo: OWNER/NAME. The repository is created if it does not exist.
        licence: the hub's identifier of the licence, as `apache-2.0`. An upload needs it.
        base_model: the name of the base model on the hub. It is needed if the student started from a local folder or
            file.
        public: whether everyone may read a repository that is created here.
        upload: whether the files are sent.

    Raises:
        RunFolderError: there is no trained student.
        StudentError: a file of the student is damaged.
        TinyLLMError: a name is not a name on the hub, the licence is missing, or the hub refuses.
    """
    from tinyllm.report import scorers
    from tinyllm.student.card import model_card
    from tinyllm.student.model import CARD_FILE, check_files

    if not run.is_trained:
        raise RunFolderError(f"{run.path} has no trained student. Run `tinyllm train` first.")
    if not _HUB_NAME.fullmatch(repo):
        raise TinyLLMError(f"'{repo[:80]}' is not the name of a repository on the hub. Write it as OWNER/NAME.")
    if upload and not licence:
        raise TinyLLMError(
            "An upload needs the licence of the student. Give it with --license (apache-2.0, mit, other, …). It must "
            "agree with the licences of the base model, the teachers' outputs and the questions."
        )
    if licence and not _LICENCE.fullmatch(licence):
        raise TinyLLMError(
            f"'{licence[:80]}' is not an identifier of a licence on the hub. They have small letters and no blanks, as "
            "apache-2.0, mit, cc-by-4.0 or other: https://hf.co/docs/hub/repositories-licenses"
        )
    known = read_json(run.student / CARD_FILE).get("sha256") or {}
    if not known:
        raise RunFolderError(f"{run.student} was saved without checksums. Run `tinyllm train` again, then push it.")
    with news.task("Checking the files"):
        check_files(run.student, known)
    learnt = read_json(run.train_result)
    config = trained_with(config, run, learnt)
    named = config.student.model_copy(update={"model": _base_model(config.student.model, base_model)})
    figures = read_json(run.metrics) if run.metrics.is_file() else {}
    card = model_card(
        config.model_copy(update={"name": repo.partition("/")[2], "student": named}),
        learnt,
        licence,
        _results(figures, scorers(by_token=compares_by_token(config.student.layout))),
    )
    files = {"README.md": len(card.encode())}
    files |= {name: (run.student / name).stat().st_size for name in (CARD_FILE, *known)}
    url = (
        _upload(repo, run.student, card, [name for name in files if name != "README.md"], public, news)
        if upload
        else None
    )
    return _Pushed(repo, files, card, url)


def _base_model(model: str, given: str) -> str:
    """Return the name of the base model on the hub. A local path is refused, because others cannot use it."""
    packaged = {each.name: each.source.removeprefix(_HUB) for each in packaged_models()}
    found = given or packaged.get(model, model)
    if not _HUB_NAME.fullmatch(found) or (not given and Path(model).exists()):
        raise TinyLLMError(
            f"The model card must name the base model, and '{model}' is not a name on the hub. Give the name with "
            "--base-model OWNER/NAME."
        )
    return found


def _results(figures: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Return a table of the accuracies by every scorer, with the most frequent answer and guessing as baselines.

    Args:
        labels: the scorers in words, the headline first. The layout of the student fixes it before any test.
    """
    from tinyllm.report import verdict_in_words

    after: Mapping[str, Any] = figures.get("accuracy", {})
    used = [name for name in labels if name in after]
    if not used:
        return "The student was not evaluated on test questions, so its accuracy is not known."
    headline, n = labels[used[0]].lower(), max(after[name]["n"] for name in used)
    before = figures.get("before", {})
    rows = [
        (name, when, of[name]) for name in used for when, of in (("before", before), ("after", after)) if name in of
    ]
    fixed = f"The headline scorer is {headline}: the form of the prompt fixed it before the test."
    warnings: Mapping[str, int] = figures.get("data", {}).get("warnings", {})
    learnt = [f"{number} × {text}" for text, number in warnings.items() if text.startswith("test question that")]
    lines = [
        f"Accuracy on {n} test questions. It is too high: {'; '.join(learnt)}. {fixed}"
        if learnt
        else f"Accuracy on {n} test questions that it was not trained on. {fixed}",
        "",
        "| scorer | | accuracy | 95 % interval |",
        "|---|---|---:|---:|",
        *(
            f"| {labels[name].lower()} | {when} training | {_percent(found['value'])} | "
            f"{_percent(found['ci95'][0])} to {_percent(found['ci95'][1])} |"
            for name, when, found in rows
        ),
        f"| | always the most frequent answer of training | {_percent(figures['majority'])} | |",
        f"| | guessing | {_percent(figures['chance'])} | |",
        "",
        verdict_in_words(figures, used[0], labels[used[0]]),
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _upload(repo: str, student: Path, card: str, names: list[str], public: bool, news: News) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi, get_session
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    transport = sys.modules[type(get_session()).__module__.partition(".")[0]]  # httpx or httpx2, by the hub's version
    hub = HfApi()
    sent = [CommitOperationAdd("README.md", card.encode())]
    sent += [CommitOperationAdd(name, student / name) for name in names]
    try:
        with news.task(f"Sending {len(sent)} files to {repo}"):
            hub.create_repo(repo, private=not public, exist_ok=True)
            done = hub.create_commit(repo, sent, commit_message="Add a student trained by TinyLLM")
    except HFValidationError as error:
        raise TinyLLMError(f"The hub does not allow this name of a repository: {error} Choose another name.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        how = " Log in with `hf auth login`, or set HF_TOKEN to a token that may write." if status in (401, 403) else ""
        raise TinyLLMError(f"The hub refuses ({status}): {error.server_message or error}.{how}") from None
    except (transport.HTTPError, OSError, ValueError) as error:
        raise TinyLLMError(
            f"Sending to {hub.endpoint} failed: {error}. Check the network, then run the same command again. It sends "
            "what is missing."
        ) from None
    return str(done.commit_url)
