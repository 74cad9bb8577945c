"""Time that is a program's own: without that in which others held its processor."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

THREAD = Path("/proc/thread-self/schedstat")
TASKS = Path("/proc/self/task")
LEAST = 1e-7


def own_seconds(work: Callable[[], object]) -> float:
    """Seconds that a call takes, without those that its thread was ready and had no processor.

    Sleeping, and waiting for a file or another thread, count. Where the system does not tell (all
    but Linux), it is the time on the clock.
    """
    # In this order, an interruption between two readings makes the time longer, never shorter.
    start = time.perf_counter()
    waited = _waited()
    work()
    waited = _waited() - waited
    return max(time.perf_counter() - start - waited, LEAST)


def processor_times() -> tuple[int, int] | None:
    """Nanoseconds that all threads of this process ran, and that they waited to run.

    None where the system does not tell.
    """
    try:
        rows = [file.read_bytes().split() for file in TASKS.glob("*/schedstat")]
        ran, waited = (sum(int(row[column]) for row in rows) for column in (0, 1))
    except (OSError, IndexError, ValueError):
        return None
    return (ran, waited) if rows else None


def waited_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Of the time between that threads wanted a processor, the share that they waited for one."""
    if before is None or after is None:
        return None
    ran, waited = (max(0, b - a) for a, b in zip(before, after, strict=True))
    return waited / (ran + waited) if ran + waited else None


def _waited() -> float:
    """Seconds that this thread was ready and waited for a processor; 0 where nobody knows."""
    try:
        return int(THREAD.read_bytes().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
