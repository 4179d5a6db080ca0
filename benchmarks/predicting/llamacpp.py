"""llama.cpp scoring choices: `python -m benchmarks.predicting.llamacpp EXPORT JOB` prints JSON.

llama.cpp's server is asked for one token of one choice at a time, with a bias that makes it the one that is sampled.
Its own cache holds the prompt, and four questions are under way at once. It has no call that scores a whole text.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.predicting.ours import WARM
from benchmarks.training.models import peak_bytes
from tinyllm.export import open_export
from tinyllm.questions.types import Question


def main(folder: str, job_file: str) -> None:
    """Score and print; loading is not timed."""
    job = json.loads(Path(job_file).read_text("utf-8"))
    questions = [Question(d["id"], d["question"], tuple(d["choices"]), None) for d in job["docs"]]
    runtime = open_export(Path(folder))
    runtime.scores(questions[:WARM])
    began = time.perf_counter()
    scores = runtime.scores(questions)
    seconds = time.perf_counter() - began
    ranks = [s.mean if job["by_token"] else s.total for s in scores]
    print(json.dumps({"seconds": seconds, "chosen": [r.index(max(r)) for r in ranks], "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
