"""Push: the student of a run goes to a repository of the Hugging Face hub, with a card that says how good it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.config import Config, compares_by_token
from tinyllm.errors import RunFolderError, TinyLLMError
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_json
from tinyllm.system.news import News
from tinyllm.system.packaged import model_states

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True)
class _Pushed:
    """What was sent to the hub, or would be.

    Attributes:
        files: bytes by name.
        card: the README.md, the first of them.
        url: of the commit; None: nothing was sent.
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
    """Send the student of a run to the hub; without `upload`, only say what would be sent.

    The files are those that `tinyllm.json` lists, checked, that file itself and a new card. Nothing of the run's
    questions, rationales or predictions is sent.

    Args:
        repo: OWNER/NAME. It is made if it is not there.
        licence: its identifier on the hub, as `apache-2.0`; nothing is sent without one.
        base_model: its name on the hub; needed where the student began as a folder or file of this machine.
        public: whether a repository that is made can be read by everyone.

    Raises:
        RunFolderError: there is no trained student.
        StudentError: a file of it is damaged.
        TinyLLMError: a name is none of the hub's, or the hub refuses.
    """
    from tinyllm.report import scorers
    from tinyllm.student.card import model_card
    from tinyllm.student.model import CARD_FILE, check_files

    if not run.is_trained:
        raise RunFolderError(f"{run.path} has no trained student; run `tinyllm train` first.")
    if not _HUB_NAME.fullmatch(repo):
        raise TinyLLMError(f"'{repo[:80]}' is no repository of the hub. Give its owner and its name: OWNER/NAME.")
    if upload and not licence:
        raise TinyLLMError(
            "Say with --license which licence the student has (apache-2.0, mit, other, …). Those of the base model, "
            "of the teachers' outputs and of the questions bind it."
        )
    known = read_json(run.student / CARD_FILE).get("sha256") or {}
    if not known:
        raise RunFolderError(f"{run.student} was saved without checksums; run `tinyllm train` anew to push it.")
    with news.task("Checking the files"):
        check_files(run.student, known)
    named = config.student.model_copy(update={"model": _base_model(config.student.model, base_model)})
    figures = read_json(run.metrics) if run.metrics.is_file() else {}
    card = model_card(
        config.model_copy(update={"name": repo.partition("/")[2], "student": named}),
        read_json(run.train_result).get("targets", {}),
        licence,
        _results(figures, next(iter(scorers(by_token=compares_by_token(config.student.layout))))),
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
    """Return the base model's name on the hub. A path of this machine is refused: it tells others nothing."""
    packaged = {state.name: state.source.removeprefix(_HUB) for state in model_states()}
    found = given or packaged.get(model, model)
    if not _HUB_NAME.fullmatch(found) or (not given and Path(model).exists()):
        raise TinyLLMError(
            f"The student began as '{model}', which is no name of the hub. Say with --base-model OWNER/NAME which "
            "model that is; a card has to name it."
        )
    return found


def _results(figures: Mapping[str, Any], scorer: str) -> str:
    """Return the accuracies as a table, beside what it takes to be no better than guessing."""
    after: Mapping[str, Any] | None = figures.get("accuracy", {}).get(scorer)
    if after is None:
        return "It was not scored on test questions, so nothing is known of that."
    before, change = figures.get("before", {}).get(scorer), figures.get("gain", {}).get(scorer)
    rows = [("before training", before)] if before else []
    lines = [
        f"Accuracy on {after['n']} test questions that it was not trained on.",
        "",
        "| | accuracy | 95 % interval |",
        "|---|---:|---:|",
        *(
            f"| {name} | {_percent(found['value'])} | {_percent(found['ci95'][0])} to {_percent(found['ci95'][1])} |"
            for name, found in [*rows, ("after training", after)]
        ),
        f"| the most frequent answer, always | {_percent(figures['majority'])} | |",
        f"| guessing | {_percent(figures['chance'])} | |",
    ]
    if change:
        low, high = (100 * bound for bound in change["ci95"])
        lines += [
            "",
            f"Training changed it by {100 * change['difference']:+.1f} points (95 % interval {low:+.1f} to "
            f"{high:+.1f}, p = {change['p']:.2g}, paired test). "
            + ("That may be chance." if change["p"] > 0.05 else "That is unlikely to be chance."),
        ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _upload(repo: str, student: Path, card: str, names: list[str], public: bool, news: News) -> str:
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    hub = HfApi()
    sent = [CommitOperationAdd("README.md", card.encode())]
    sent += [CommitOperationAdd(name, student / name) for name in names]
    try:
        with news.task(f"Sending {len(sent)} files to {repo}"):
            hub.create_repo(repo, private=not public, exist_ok=True)
            done = hub.create_commit(repo, sent, commit_message="A student that TinyLLM trained")
    except HFValidationError as error:
        raise TinyLLMError(f"The hub has no such name: {error}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        how = " Log in with `hf auth login`, or set HF_TOKEN to a token that may write." if status in (401, 403) else ""
        raise TinyLLMError(f"The hub refuses ({status}): {error.server_message or error}.{how}") from None
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise TinyLLMError(f"Sending to the hub failed: {error}. The same command sends what is missing.") from None
    return str(done.commit_url)
