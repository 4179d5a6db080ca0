"""Students on disk: load from the hub, a folder or a GGUF file; add LoRA; save as a plain transformers model."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from tinyllm.config import ANSWER_TASK, Layout, LoraSection, StudentSection
from tinyllm.errors import MissingDependencyError, StudentError, did_you_mean, first_line
from tinyllm.student._positions import Bound
from tinyllm.student._untrained import NAME as UNTRAINED
from tinyllm.student._untrained import untrained
from tinyllm.student._ways import from_config
from tinyllm.student.encode import Encoder
from tinyllm.student.learner import Learner
from tinyllm.system.packaged import cache_folder, known_models, model_file, sha256

_TOLERANCE = 1e-3  # of the greatest logit: merging adapters rounds
CARD_FILE = "tinyllm.json"
"""In the student's folder: the prefixes and the layout it was trained with."""
_SURE = 8  # characters of a prefix without its teacher, so that it is no usual word


@dataclass(frozen=True, slots=True)
class StudentCard:
    """What is needed, besides the files of the model, to ask a student.

    Attributes:
        prefixes: the prefix of each task: `answer`, and one per teacher.
        layout: how question and choices are written out.
        max_input_tokens: longest input; the context is cut to fit.
        temperature: the scores of choices are divided by it before the softmax.
        reasons_as: the teacher whose kind of rationale it writes and reads before it answers; empty: it answers at
            once.
        max_rationale_tokens: the longest such rationale.
    """

    prefixes: Mapping[str, str]
    layout: Layout = "labelled"
    max_input_tokens: int = 1024
    temperature: float = 1.0
    reasons_as: str = ""
    max_rationale_tokens: int = 96

    @property
    def teachers(self) -> tuple[str, ...]:
        """The teachers whose kind of rationale the student has learnt to write."""
        return tuple(task for task in self.prefixes if task != ANSWER_TASK)

    @property
    def next_prompts(self) -> tuple[str, ...]:
        """How the lines of a prompt begin. A student that does not end its rationale may go on with such a line."""
        prefixes = {self.prefixes[ANSWER_TASK].rstrip()}
        for teacher in self.teachers:
            before = self.prefixes[teacher].partition(teacher)[0].rstrip()
            prefixes.add(before if len(before) >= _SURE else self.prefixes[teacher].rstrip())  # with any teacher
        return (*sorted(prefixes - {""}), "Question:", "Context:", "Choices:", "Answer Choices:")

    def own_rationale(self, text: str) -> str:
        """Return a rationale without what a student writes after it: the next prompt, or lines that it repeats."""
        kept: list[str] = []
        for line in text.strip().splitlines():
            words, _, last = line.strip().rpartition(": ")
            names_teacher = bool(words) and last.strip(" .'\"") in self.teachers
            if kept and (line.startswith(self.next_prompts) or names_teacher or (line.strip() and line in kept)):
                break
            kept.append(line)
        return "\n".join(kept).strip()

    def has_ended(self, text: str) -> bool:
        """Return whether the whole lines of a rationale show that the rest is not part of it."""
        whole = text[: text.rfind("\n") + 1].strip()
        return bool(whole) and self.own_rationale(whole) != "\n".join(whole.splitlines())

    def encoder(
        self, tokenizer: Any, *, is_encoder_decoder: bool, max_target_tokens: int = 256, share_prompt: bool = True
    ) -> Encoder:
        """Return the encoder that turns questions into tokens as this student expects."""
        return Encoder(
            tokenizer,
            is_encoder_decoder=is_encoder_decoder,
            layout=self.layout,
            max_input_tokens=self.max_input_tokens,
            max_target_tokens=max_target_tokens,
            share_prompt=share_prompt,
        )


Company = Literal["any", "of one length", "none"]
"""Which prompts may be in one batch without changing what the student writes."""


@dataclass(slots=True)
class Student:
    """A model, its tokenizer, and how it is asked.

    Attributes:
        company: which prompts may be in one batch, as a probe found, by the bound that they exceed.
    """

    model: Any
    tokenizer: Any
    card: StudentCard
    company: dict[Bound | None, Company] = field(default_factory=dict)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether it is an encoder-decoder, such as T5, and not a causal model."""
        return bool(self.model.config.is_encoder_decoder)

    def encoder(self, *, max_target_tokens: int = 256, share_prompt: bool = True) -> Encoder:
        """Return the encoder of this student. `share_prompt`: as `Learner.share_prompt`."""
        return self.card.encoder(
            self.tokenizer,
            is_encoder_decoder=self.is_encoder_decoder,
            max_target_tokens=max_target_tokens,
            share_prompt=share_prompt,
        )

    def learner(self, longest: int | None = None, *, learns: bool = True) -> Learner:
        """Return the learner, with the fastest way that is right for this model.

        Args:
            longest: tokens of the longest row; None: the longest input and 256 more.
            learns: False if it will only answer.

        Raises:
            StudentError: there is no way: see `Learner.verify`.
        """
        learner = Learner(self.model, pad=int(self.tokenizer.pad_token_id))
        learner.verify(longest or self.card.max_input_tokens + 256, learns=learns)
        return learner


def load_student(section: StudentSection, card: StudentCard) -> Student:
    """Load the model to be trained, in float32.

    Raises:
        StudentError: there is no such model, or it cannot be read.
        MissingDependencyError: a GGUF file without the `llamacpp` extra.
    """
    return _read(_location(section), section.revision, card)


def load_tokenizer(section: StudentSection) -> tuple[Any, Any]:
    """Return the tokenizer and the configuration of a student. For a GGUF file, this de-quantises it once."""
    return _tokenizer_and_config(_location(section), section.revision)


def parameters_in_use(model_config: Any) -> tuple[int, int]:
    """Return the number of parameters without embeddings and head, and the number of the head. No weights are made.

    Embeddings are only looked up, and logits are computed for few tokens.
    """
    with torch.device("meta"):
        model = from_config(model_config)
    tables = {id(m.weight): m.weight.numel() for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    return int(model.num_parameters()) - sum(tables.values()), int(model.get_output_embeddings().weight.numel())


def student_folder(folder: Path) -> Path:
    """Return the folder of a student, given its own or that of its run."""
    return folder / "student" if (folder / "student").is_dir() else folder


def read_student(folder: Path) -> Student:
    """Load a student that TinyLLM saved.

    Raises:
        StudentError: the folder holds no student, or is damaged.
    """
    try:
        raw = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        known = {f.name: raw[f.name] for f in fields(StudentCard) if f.name in raw}
        card = StudentCard(**known)
    except (OSError, ValueError, TypeError):
        if (folder / "config.yaml").is_file():
            why = "its training has not ended. `tinyllm run` with its configuration continues it, if no process does"
        else:
            why = f"{CARD_FILE} is missing or cannot be read. `tinyllm train` trains one"
        raise StudentError(f"{folder} holds no student that TinyLLM saved: {why}.") from None
    check_files(folder, raw.get("sha256", {}))
    return _read(str(folder), None, card)


def check_files(folder: Path, known: Mapping[str, str]) -> None:
    """Check that the files of a model are those that were saved.

    Args:
        known: SHA-256 by name of file; empty for a student that an earlier version saved.

    Raises:
        StudentError: a file is damaged, replaced or missing.
    """
    for name, expected in known.items():
        found = sha256(folder / name) if (folder / name).is_file() else None
        if found != expected:
            what = "is missing" if found is None else f"is damaged or was replaced: its SHA-256 is {found[:16]}…"
            raise StudentError(
                f"{folder / name} {what}, and {CARD_FILE} says {expected[:16]}…. Restore the file, or make the folder "
                "again."
            )


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256, by name, of each file that the answers of a model depend on."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != CARD_FILE and f.suffix != ".md")
    return {f.relative_to(folder).as_posix(): sha256(f) for f in sorted(files)}


def add_lora(student: Student, section: LoraSection, seed: int) -> None:
    """Freeze the student and add trainable low-rank adapters to its linear layers.

    Raises:
        StudentError: the model has none of the named modules.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(seed)
    tied = _tied_modules(student.model)
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if student.is_encoder_decoder else TaskType.CAUSAL_LM,
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules="all-linear" if section.targets is None else list(section.targets),
        exclude_modules=sorted(tied) if section.targets is None else None,
    )
    modules = dict(student.model.named_modules())
    linear = {n.rpartition(".")[2] for n, m in modules.items() if isinstance(m, torch.nn.Linear) and n not in tied}
    known = f"Linear modules: {', '.join(sorted(linear))}"
    named = [n for n in sorted(tied) for t in section.targets or () if n == t or n.endswith(f".{t}")]
    if named:
        raise StudentError(
            f"student.lora.targets: {', '.join(named)} cannot have an adapter: this model uses the same weights in "
            f"{' and '.join(sorted(tied))}, and the adapter would act in only one of them. Leave it out. {known}"
        )
    try:
        student.model = get_peft_model(student.model, config)
    except ValueError as error:
        raise StudentError(f"student.lora.targets: {error} {known}") from None


def _tied_modules(model: Any) -> set[str]:
    """Return the names of all modules that share a weight with another module."""
    owners: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), set()).add(name.rpartition(".")[0])
    return {name for those in owners.values() if len(those) > 1 for name in those}


def save_student(student: Student, folder: Path, model_card: str) -> None:
    """Write the student so that plain `from_pretrained(folder)` loads it. Adapters are merged into the weights.

    The folder appears complete or not at all, and only if the student that is read from it gives the same logits.

    Raises:
        StudentError: it gives other logits.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    expected = _logits_on_a_probe(student)
    model = student.model.merge_and_unload() if hasattr(student.model, "merge_and_unload") else student.model
    student.model = model
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch, _quietly():
        made = Path(scratch) / folder.name
        model.save_pretrained(made, safe_serialization=True)
        student.tokenizer.save_pretrained(made)
        card = asdict(student.card) | {"sha256": checksums(made)}
        (made / CARD_FILE).write_text(json.dumps(card, indent=2, ensure_ascii=False), encoding="utf-8")
        (made / "README.md").write_text(model_card, encoding="utf-8")
        found = _logits_on_a_probe(_read(str(made), None, student.card))
        if not (found - expected).abs().max() <= _TOLERANCE * expected.abs().max():
            raise StudentError(
                "What was saved does not answer as the student that was trained, and is not kept; the checkpoints are. "
                "This is a fault of TinyLLM or of the libraries beneath it: please report it, with environment.json."
            )
        usual = (made / CARD_FILE).stat().st_mode  # as the umask says; safetensors makes files for their owner alone
        for file in made.iterdir():
            if file.is_file():
                file.chmod(usual & 0o777)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


@torch.no_grad()
def _logits_on_a_probe(student: Student) -> torch.Tensor:
    """Return a student's logits for a few tokens, on the CPU."""
    model = student.model
    was_training = model.training
    model.eval()
    tokens = (torch.arange(32) * 37 % model.config.get_text_config().vocab_size)[None].to(model.device)
    logits: torch.Tensor = model(
        input_ids=tokens, **({"decoder_input_ids": tokens[:, :8]} if student.is_encoder_decoder else {})
    ).logits
    model.train(was_training)
    return logits.float().cpu()


# --- sources -----------------------------------------------------------------------------------------------------


def _location(section: StudentSection) -> str:
    """Return the name on the hub, or a folder. A GGUF file is de-quantised into a folder once."""
    if section.model == UNTRAINED:
        with _quietly():
            return str(untrained(cache_folder() / "students"))
    if section.model in known_models():
        return str(_dequantised(model_file(section.model)))
    path = Path(section.model)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise StudentError(f"student.model: no file {path}.{did_you_mean(section.model, _known())}")
        return str(_dequantised(path))
    if "/" not in section.model and not path.exists() and (meant := did_you_mean(section.model, _known())):
        # Without a network, the hub's client would try for half a minute.
        raise StudentError(f"student.model: cannot load '{section.model}'. There is no such folder here.{meant}")
    return section.model


def _known() -> tuple[str, ...]:
    return (*known_models(), UNTRAINED)


def _tokenizer_and_config(location: str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    source = {"revision": revision} if revision else {}
    with _loading(location), _quietly():
        config = AutoConfig.from_pretrained(location, trust_remote_code=False, **source)
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False, **source)
    if tokenizer.eos_token_id is None:
        raise StudentError(f"student.model: the tokenizer of '{location}' has no end-of-text token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, config


def _read(location: str, revision: str | None, card: StudentCard) -> Student:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    tokenizer, config = _tokenizer_and_config(location, revision)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    source = {"revision": revision} if revision else {}
    with _loading(location), _quietly():
        model, found = kind.from_pretrained(
            location,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **source,
        )
    if found["missing_keys"]:
        some = ", ".join(sorted(found["missing_keys"])[:3])
        raise StudentError(
            f"student.model: '{location}' lacks weights ({some}, …), which would be random; it is another kind of "
            "model, or its download is not complete."
        )
    if torch.accelerator.is_available():
        model = model.to(torch.accelerator.current_accelerator())
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if hasattr(model.config, "rescale_every"):  # RWKV: weights that are scaled in place while it answers would be saved
        model.config.rescale_every = 0
    return Student(model, tokenizer, card)


@contextlib.contextmanager
def _loading(location: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        raise StudentError(
            f"student.model: cannot load '{location}'.{did_you_mean(location, _known())} Give a name on the "
            f"Hugging Face hub (needs the network), a folder with safetensors weights, a .gguf file, or one of "
            f"{', '.join(_known())}. {_why(error)}"
        ) from None


def _why(error: Exception) -> str:
    """Say why a model cannot be loaded, without the words of the hub's client."""
    said = first_line(error)
    if "Repo id" in said:
        return "There is no such folder or file here, and this is no name on the hub."
    if "couldn't connect" in said.lower() or "offline mode" in said.lower():
        return "The hub cannot be reached, and the model was not downloaded before."
    if "is not a local folder" in said:
        return "There is no such folder here, and the hub has no model of this name, or shows it to members only."
    return f"The loader says: {said}"


def _dequantised(path: Path) -> Path:
    """Return a folder with the weights of a GGUF file as safetensors. It is made once."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependencyError(
            "Reading a GGUF file needs the package gguf: pip install 'tinyllm-distill[llamacpp]'",
            page="teachers.md#packaged-models",
        )
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache_folder() / "students" / f"{path.stem}-{key}"
    if folder.is_dir():
        return folder
    from tinyllm.student._gguf import read_gguf

    with _quietly():
        try:
            tokenizer, model = read_gguf(path)
        except Exception as error:  # the reader of a damaged file raises whatever it stumbles over
            raise StudentError(f"student.model: cannot read {path} as a GGUF model: {first_line(error)}") from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, _quietly():
        made = Path(scratch) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        with contextlib.suppress(OSError):  # another process may have made it meanwhile
            made.rename(folder)
    return folder


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the progress bars and warnings of transformers. TinyLLM reports what matters."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        # De-quantising draws a bar that knows no switch; news go to the stream that stderr was at the start.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        hf_logging.set_verbosity(level)
        hf_logging.enable_progress_bar()
