"""`tinyllm init`: a configuration to start from, fitted to a file of questions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tinyllm.errors import ConfigError

_TEMPLATE = """\
# A TinyLLM run. `tinyllm check {path}` finds mistakes before anything is spent; `tinyllm run {path}` does it all.
# Every setting, with its default: docs/configuration.md
name: {name}

data:
{data}
teachers:                       # each writes rationales for the training questions
  - {{name: smollm2, kind: llamacpp, model: smollm2-135m-instruct}}
  - {{name: gemma3, kind: llamacpp, model: gemma3-270m}}
  # An API, or a server of your own; the key is read from the environment:
  # - {{name: big, kind: openai, model: gpt-4o-mini, api_key_env: OPENAI_API_KEY}}
  # - {{name: mine, kind: openai, model: llama3, base_url: http://127.0.0.1:11434/v1, api_key_env: null}}

rationales:
  examples: {{strategy: random, count: 2}}
  max_tokens: 96                # longest reply, in the teacher's tokens

student:
  model: smollm2-135m-instruct  # or google/flan-t5-small, a folder, a .gguf file
  adapter: lora                 # or full
  layout: cloze                 # rank the choices without showing them; `labelled` shows them (T5, larger students)

train:
  method: tinyllm               # or fine-tuning, or step-by-step with one teacher
  alpha: 0.5                    # weight of each teacher's loss; or one a teacher: {{smollm2: 1.0, gemma3: 0.1}}
  max_input_tokens: 512
  epochs: 2
"""

_STARTER = """\
  dataset: starter              # 320 questions that come with TinyLLM; put your own file here:
  # train: questions.csv        # columns: question, choices (or choices: [A, B, C, D]), answer
"""

_FILE = """\
  train: {file}
  cut: {{valid: 0.1, test: 0.2}}  # or give files: valid: …, test: …
{fields}  on_invalid: error             # drop: leave bad rows out and name them in the report
"""


def write_config(path: Path, data: Path | None) -> None:
    """Write a configuration for a file of questions, or for the starter dataset.

    Raises:
        ConfigError: there is a file already.
        DataError: the questions file cannot be read.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already; give another name, or remove it.")
    section = (
        _STARTER if data is None else _FILE.format(file=json.dumps(str(data), ensure_ascii=False), fields=_fields(data))
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (data or path).stem).strip("-._") or "run"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(name).removesuffix("...\n").strip()  # `2024` and `no` are no texts without quotes
    path.write_text(_TEMPLATE.format(path=path, name=text, data=section), encoding="utf-8")


def _fields(data: Path) -> str:
    """Return a `fields:` line where the file's columns are not named as TinyLLM expects."""
    from tinyllm.questions.guess import guess_fields

    fields = guess_fields(data)
    if not fields:
        return ""
    text = yaml.safe_dump(fields, default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True)
    return f"  fields: {text.strip()}\n"
