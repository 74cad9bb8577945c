"""The log of a training run: one JSON object a line, and TensorBoard's where it is installed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

LOG = "log.jsonl"


class Log:
    """Where numbers go; with nothing given, nowhere."""

    def __init__(self, lines: TextIO | None = None, board: Any = None) -> None:
        self._lines, self._board = lines, board

    def write(self, step: int, seconds: float, values: Mapping[str, Any]) -> None:
        """Numbers by name, or by name within one group."""
        if self._lines:
            row = {"step": step, "seconds": round(seconds, 1), **values}
            self._lines.write(json.dumps(row) + "\n")
            self._lines.flush()
        if self._board:
            for name, value in _flat(values):
                self._board.add_scalar(name, value, step)


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in value.items())
        else:
            yield f"training/{name}", value


@contextmanager
def opened_log(folder: Path, step: int) -> Iterator[Log]:
    """Go on with the log in a folder after this step; what a killed run wrote later is dropped."""
    _cut(folder / LOG, step)
    with (folder / LOG).open("a", encoding="utf-8") as lines:
        if find_spec("tensorboard") is None:
            yield Log(lines)
            return
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1) as board:
            yield Log(lines, board)


def _cut(path: Path, step: int) -> None:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _step(line) <= step]
    if kept != lines:
        path.write_text("".join(kept), encoding="utf-8")


def _step(line: str) -> float:
    """The step that a line tells of; infinite for one that tells of none: no log ends a run."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


@contextmanager
def silent_log() -> Iterator[Log]:
    """A log that keeps nothing."""
    yield Log()
