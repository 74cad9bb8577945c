"""How a long run behaves on a machine: stopped by a signal, quick in arithmetic, heard from."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import torch


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """True after Ctrl-C or SIGTERM; the step at hand is finished first."""
    asked = [False]

    def note(number: int, frame: FrameType | None) -> None:
        asked[0] = True

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals belong to the main thread
        old = {}
    try:
        yield lambda: asked[0]
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Aligning:
    """Progress of the alignment, a line every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.started, self.spoken = say, time.monotonic(), 0.0

    def __call__(self, done: int, total: int) -> None:
        """So many photographs of all are aligned."""
        passed = time.monotonic() - self.started
        if passed - self.spoken > 5 or done == total:
            self.spoken = passed
            self.say(f"aligned {done}/{total}  {clock(passed / done * (total - done))} left")


def listed(values: Mapping[str, float]) -> str:
    """'name 0.123  name 0.456'."""
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def say_aloud(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)


def say_nothing(line: str) -> None:
    """Say nothing."""


@contextmanager
def no_denormals() -> Iterator[None]:
    """Tiny gradients slow a CPU tenfold. The setting is put back.

    Threads take it over when they start: begin before the first tensor is computed.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
