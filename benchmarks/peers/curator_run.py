"""curator on recorded bodies: `python curator_run.py URL BODIES IN_FLIGHT` prints JSON. Runs in its own environment;
see `benchmarks.peers`.

The litellm backend is the one that runs without the network; a provider in the model's name lets it run without a
forecast of costs, too. The limits are so high that they never hold anything up.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {
    "TELEMETRY_ENABLED": "false", "CURATOR_VIEWER": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "CURATOR_DISABLE_CACHE": "true", "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}  # fmt: skip

from bespokelabs import curator  # type: ignore[import-not-found]


def main(url: str, bodies_file: str, in_flight: int) -> None:
    """Generate and print."""
    logging.disable(logging.WARNING)
    bodies = [json.loads(line) for line in Path(bodies_file).read_text("utf-8").splitlines()]
    first = bodies[0]
    with tempfile.TemporaryDirectory(dir=Path(bodies_file).parent) as cache:
        os.environ["CURATOR_CACHE_DIR"] = cache
        llm = curator.LLM(
            model_name="openai/local",
            backend="litellm",
            backend_params={
                "base_url": url,
                "max_concurrent_requests": in_flight,
                "max_requests_per_minute": 10_000_000,
                "max_tokens_per_minute": 10_000_000_000,
            },
            generation_params={key: first[key] for key in ("max_tokens", "temperature", "top_p")},
        )
        began = time.time()
        rows = llm([body["messages"] for body in bodies]).dataset
        ended = time.time()
    replies = sum(bool(text) for text in rows["response"])
    print(json.dumps({"began": began, "ended": ended, "replies": replies}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
