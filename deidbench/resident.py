"""How much memory this process holds, and the most that it has held."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")


def forget_peak() -> None:
    """Count the most memory of this process from now on, where Linux lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def held_bytes() -> float | None:
    """What this process holds now; None where only the most is known."""
    return _status("VmRSS")


def peak_bytes() -> float | None:
    """The most that this process has held; on Linux since ``forget_peak``.

    Not by ``ru_maxrss`` there: a new process starts with the largest size of the one that started
    it. None where the system does not say.
    """
    most = _status("VmHWM")
    if most is not None:
        return most
    try:
        import resource
    except ImportError:  # Windows
        return None
    scale = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * scale


def _status(field: str) -> float | None:
    try:
        lines = STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
        return 1024 * float(next(x for x in lines if x.startswith(f"{field}:")).split()[1])
    except (OSError, StopIteration):
        return None
