"""Which arguments of `vllm serve` can change a reply: all except those in a closed list."""

from __future__ import annotations

import re
from collections.abc import Sequence

# An argument belongs here if it only changes where, when or in which batches the same numbers are computed, or what the
# server logs. Rounding may differ then, as it does when other requests share a batch. Arguments about the weights, the
# precision of the cache, the prompt, the sampling or the decoding (quantization, kv-cache-dtype, seed, chat-template,
# generation-config, speculative-config, hf-overrides, …) do not belong here, nor do arguments of unknown effect.
_SPEED_ONLY = frozenset((
    # memory
    "gpu-memory-utilization", "kv-cache-memory-bytes", "swap-space", "cpu-offload-gb", "block-size",
    "num-gpu-blocks-override", "enable-sleep-mode",
    # what is computed together, and in which order
    "max-num-seqs", "max-num-batched-tokens", "enable-prefix-caching", "prefix-caching-hash-algo",
    "enable-chunked-prefill", "disable-chunked-mm-input", "max-num-partial-prefills", "max-long-partial-prefills",
    "long-prefill-token-threshold", "scheduling-policy", "scheduler-delay-factor", "num-scheduler-steps",
    "multi-step-stream-outputs", "preemption-mode", "async-scheduling", "disable-async-output-proc", "stream-interval",
    "disable-hybrid-kv-cache-manager", "use-v2-block-manager",
    # captured graphs
    "enforce-eager", "max-seq-len-to-capture", "cuda-graph-sizes", "cudagraph-capture-sizes",
    "max-cudagraph-capture-size",
    # processes and devices that share the work
    "tensor-parallel-size", "tp", "pipeline-parallel-size", "pp", "data-parallel-size", "dp",
    "data-parallel-size-local", "dpl", "data-parallel-rank", "dpn", "data-parallel-start-rank", "dpr",
    "data-parallel-address", "dpa", "data-parallel-rpc-port", "dpp", "data-parallel-backend", "dpb",
    "data-parallel-hybrid-lb", "data-parallel-external-lb", "enable-expert-parallel",
    "distributed-executor-backend", "disable-custom-all-reduce", "max-parallel-loading-workers",
    "ray-workers-use-nsight", "api-server-count", "disable-frontend-multiprocessing", "nnodes",
    "node-rank", "master-addr", "master-port", "numa-bind",
    # where files are, and how they are read
    "download-dir", "safetensors-load-strategy", "use-tqdm-on-load", "tokenizer-pool-size", "tokenizer-pool-type",
    # logs
    "disable-log-stats", "disable-log-requests", "enable-log-requests", "enable-log-outputs", "max-log-len",
    "uvicorn-log-level", "disable-uvicorn-access-log", "enable-log-deltas", "log-config-file",
    "show-hidden-metrics-for-version", "otlp-traces-endpoint", "collect-detailed-traces", "kv-cache-metrics",
    "enable-prompt-tokens-details", "enable-server-load-tracking", "disable-fastapi-docs", "aggregate-engine-logging",
))  # fmt: skip
_VALUE = re.compile(r"[^-]|-\.?\d|-?$|$")  # not an option; a negative number is a value


def without_speed(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments that can change a reply, as they are written.

    An option is recognised in both spellings (`--max-num-seqs`, `--max_num_seqs`) and with the prefix `--no-`. A
    shortened option (`--max-num`) is kept, because its meaning depends on the version of vLLM.
    """
    kept: list[str] = []
    keeps = True
    for argument in arguments:
        if not _VALUE.match(argument):  # a value is kept or left out with its option
            name = argument.partition("=")[0].lstrip("-").replace("_", "-")
            keeps = name not in _SPEED_ONLY and name.removeprefix("no-") not in _SPEED_ONLY
        if keeps:
            kept.append(argument)
    return tuple(kept)
