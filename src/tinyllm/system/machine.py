"""Memory and threads of this process, and the facts about the machine that are stored with a result."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_STATUS = "/proc/self/status"
_SPINS = "1000"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_KEPT_BYTES = 1 << 30
_SIZE = 1024  # of the matrices of `peak_flops`
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_PACKAGES = ("tinyllm-distill", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pyarrow")


def spin_shortly() -> None:
    """Limit how long idle OpenMP threads spin, unless the environment already sets a wait policy.

    In GNU OpenMP, which torch and llama.cpp share, an idle thread spins for milliseconds. With other work on the
    machine this makes replies two to four times slower (docs/log.md). Call this before either library is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def keep_freed_memory() -> None:
    """Let this process reuse freed memory blocks of up to a gigabyte.

    By default glibc returns large blocks to Linux at once and requests them again, page by page, for the next tensor.
    That takes a tenth of the training time on a CPU (docs/log.md). Without Linux and glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            library.mallopt(setting, _KEPT_BYTES)


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where it is unknown (not on Linux)."""
    return _bytes(_STATUS, "VmRSS")


def peak_resident_bytes() -> int:
    """Return the peak resident memory since `forget_peak_resident`; 0 on Windows."""
    if found := _bytes(_STATUS, "VmHWM"):
        return found
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_resident() -> None:
    """Reset the peak of `peak_resident_bytes` to the current value. Does nothing outside Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@dataclass(frozen=True, slots=True)
class _Capacity:
    """What this process may use.

    Attributes:
        cores: processors. In a container, the machine may have more.
        free_memory: available bytes, limited by the container; half of all if unknown.
    """

    cores: int
    memory: int
    free_memory: int


def capacity() -> _Capacity:
    """Return the processors and the memory that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = _bytes("/proc/meminfo", "MemAvailable") or memory // 2
    with contextlib.suppress(OSError, ValueError):  # there is no such file, or it contains `max`
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return _Capacity(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1, memory, free)


def environment() -> dict[str, Any]:
    """Return what a result depends on besides the configuration: versions, machine, date."""
    torch: Any = sys.modules.get("torch")  # not imported here: that takes seconds
    flags = _told("/proc/cpuinfo", "flags").split()
    packages = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[package] = importlib.metadata.version(package)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _told("/proc/cpuinfo", "model name") or platform.processor(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "cores": os.cpu_count(),
        **({"gpu": str(torch.cuda.get_device_name())} if torch is not None and torch.cuda.is_available() else {}),
        "packages": packages,
    }


def peak_flops(precision: str = "fp32", rounds: int = 5) -> float:
    """Return the operations a second of a large matrix product on this machine: the best of some rounds."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    size = _SIZE if device is None or device.type == "cpu" else 8 * _SIZE
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def machine_name(environment: Mapping[str, Any]) -> str:
    """Return a name for the machine of an `environment`. Machines of the same type have the same name."""
    own = f"{environment.get('processor')}, {environment.get('cores')} cores"
    gpu = environment.get("gpu")
    return f"{gpu} ({own})" if gpu else own


def _told(file: str, name: str) -> str:
    """Return the value of the first line `name: value` of a file of Linux; empty if there is none."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return ""


def _bytes(file: str, name: str) -> int:
    """Return a size that a file of Linux has in kB; 0 if it has none."""
    return int(_told(file, name).removesuffix("kB") or 0) * 1024
