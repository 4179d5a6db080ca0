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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SPINS = "1000"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_KEPT_BYTES = 1 << 30
_SIZE = 1024  # of the matrices of `peak_flops`
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
    return _from_status("VmRSS")


def peak_resident_bytes() -> int:
    """Return the peak resident memory since `forget_peak_resident`; 0 on Windows."""
    if found := _from_status("VmHWM"):
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


def total_bytes() -> int:
    """Return the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def environment() -> dict[str, Any]:
    """Return what a result depends on besides the configuration: versions, machine, date."""
    torch: Any = sys.modules.get("torch")  # not imported here: that takes seconds
    packages = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[package] = importlib.metadata.version(package)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
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


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _from_status(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
