"""distilabel on recorded bodies: `python distilabel_run.py URL BODIES IN_FLIGHT REPLICAS` prints JSON. Runs in its own
environment; see `benchmarks.peers`.

distilabel sends a batch, waits for all of it, and sends the next. So a batch holds what may be in flight, shared among
the replicas of its step, each of which is a process.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from distilabel.models import OpenAILLM  # type: ignore[import-not-found]
from distilabel.pipeline import Pipeline  # type: ignore[import-not-found]
from distilabel.steps import LoadDataFromDicts, StepResources  # type: ignore[import-not-found]
from distilabel.steps.tasks import ChatGeneration  # type: ignore[import-not-found]


def main(url: str, bodies_file: str, in_flight: int, replicas: int) -> None:
    """Generate and print."""
    logging.disable(logging.WARNING)
    bodies = [json.loads(line) for line in Path(bodies_file).read_text("utf-8").splitlines()]
    first, batch = bodies[0], in_flight // replicas
    sampling = {"max_new_tokens": first["max_tokens"], "temperature": first["temperature"], "top_p": first["top_p"]}
    llm = OpenAILLM(model="local", base_url=url, api_key="none", generation_kwargs=sampling)
    with tempfile.TemporaryDirectory(dir=Path(bodies_file).parent) as cache:
        with Pipeline(name="bench", cache_dir=cache) as pipeline:
            load = LoadDataFromDicts(data=[{"messages": body["messages"]} for body in bodies], batch_size=in_flight)
            ask = ChatGeneration(
                llm=llm, input_batch_size=batch, use_cache=False, add_raw_input=False, add_raw_output=False,
                resources=StepResources(replicas=replicas),
            )  # fmt: skip
            load >> ask
        began = time.time()
        rows = pipeline.run(use_cache=False)["default"]["train"]
        ended = time.time()
    replies = sum(bool(text) for text in rows["generation"])
    print(json.dumps({"began": began, "ended": ended, "replies": replies}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
