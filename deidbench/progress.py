"""Says how far a run is: a bar with an ETA on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

PLAIN_LINE_EVERY_S = 10.0


class Progress:
    """Reports on stderr, so that stdout stays clean for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """One line of news."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def track(self, items: Sequence[T], stage: str) -> Iterator[T]:
        """The items, one by one, while their number is shown."""
        if self.quiet or not items:
            return iter(items)
        return iter(_bar(items, stage) if self.terminal else _lines(items, stage))


def _bar(items: Sequence[T], stage: str) -> Iterable[T]:
    from rich.console import Console
    from rich.progress import track

    return track(items, description=f"{stage:<12}", console=Console(stderr=True))


def _lines(items: Sequence[T], stage: str) -> Iterable[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last > PLAIN_LINE_EVERY_S:
            eta = (now - start) / done * (len(items) - done)
            print(f"{stage}: {done}/{len(items)}, about {eta:.0f} s left", file=sys.stderr)
            last = now
        yield item
    print(f"{stage}: done in {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
