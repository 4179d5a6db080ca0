"""Writes the recorded opinions of the starter questions anew: `python -m benchmarks.starter`.

`tinyllm demo` uses them, because the teacher's weights are a gigabyte. They are asked for as any opinion is: by the
log-probabilities of the choices' letters, without the answer, on training and validation questions only. Needs
`tinyllm models get qwen2.5-coder-1.5b-instruct`; ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import ROOT, say
from tinyllm.config import build_config
from tinyllm.opinions.files import read_opinions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.generate import generate_run
from tinyllm.system.news import News

_QUESTIONS = ROOT / "src" / "tinyllm" / "questions" / "starter"
_TEACHER = "qwen-1.5b"
_DIGITS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and write the opinions into the files of questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs" / "starter-opinions")
    parser.add_argument("--threads", type=int, help="Threads of the teacher; default: all cores.")
    options = parser.parse_args(arguments)
    teacher = {"name": _TEACHER, "kind": "llamacpp", "model": "qwen2.5-coder-1.5b-instruct", "threads": options.threads}
    tree = {
        "data": {"dataset": "starter"},
        "teachers": [teacher],
        "opinions": {"teachers": {_TEACHER: "letters"}, "orders": 2, "splits": ["train", "valid"]},
        "student": {"model": "smollm2-135m-instruct"},
        "train": {"method": "fine-tuning", "soft": {}},
    }
    run = RunFolder(options.run_dir)
    generate_run(build_config(tree, source="the starter's opinions"), run, News())
    for split in ("train", "valid"):
        known = {o.question_id: o.probabilities for o in read_opinions(run.path, split)}
        file = _QUESTIONS / f"{split}.jsonl"
        lines = []
        for line in file.read_text("utf-8").splitlines():
            question = json.loads(line)
            question["opinions"] = {_TEACHER: [round(p, _DIGITS) for p in known[question["id"]]]}
            lines.append(json.dumps(question, ensure_ascii=False))
        file.write_text("\n".join(lines) + "\n", "utf-8")
        say(f"{split}: {len(lines)} questions")


if __name__ == "__main__":
    main()
