"""What is asked of the machine's own libraries, so that numeric code is not held up by them."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SPINS = "1000"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES = 1 << 30
_PACKAGES = ("tinyllm-distill", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "pyarrow")


def spin_shortly() -> None:
    """Let waiting threads go to sleep soon, unless the environment says how they are to wait.

    GNU's OpenMP, which torch and llama.cpp share, lets a thread that waits spin for milliseconds. That gains little
    while nothing else runs, and beside other work everyone waits for everyone: replies then take twice to four
    times as long (docs/log.md). Must be settled before the first of these libraries is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, up to blocks of a gigabyte, for what it asks for next.

    Linux's C library gives large blocks back at once, and fetches them anew, page by page, for the next tensor: a tenth
    of the time of training on a CPU (docs/log.md). Elsewhere, and with another C library, this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            library.mallopt(setting, _KEPT_BYTES)


def resident_bytes() -> int:
    """Return the memory that this process holds now; 0 where that cannot be told (not on Linux)."""
    return _of_status("VmRSS")


def peak_resident_bytes() -> int:
    """Return the most memory that this process has held since `forget_peak_resident`; on Windows 0."""
    if found := _of_status("VmHWM"):
        return found
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_resident() -> None:
    """Let `peak_resident_bytes` begin at what is held now; does nothing where the system cannot (not on Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def total_bytes() -> int:
    """Return how much memory the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _gpu() -> str | None:
    """Return the name of the GPU that torch computes on; None without one, or where torch is not loaded."""
    torch: Any = sys.modules.get("torch")  # seconds, which nobody spends for a name
    if torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def environment() -> dict[str, Any]:
    """Return what a result depends on besides the configuration: versions, machine, date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        **({"gpu": name} if (name := _gpu()) else {}),
        "packages": dict(_versions()),
    }


def machine_name(environment: Mapping[str, Any]) -> str:
    """Return the machine of an `environment`, in words; two of the same kind have one name."""
    own = f"{environment.get('processor')}, {environment.get('cores')} cores"
    gpu = environment.get("gpu")
    return f"{gpu} ({own})" if gpu else own


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)


def _of_status(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
