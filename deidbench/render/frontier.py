"""Privacy against utility: where each run stands, and which runs are one method swept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deidbench.results.schema import MetricRow

from . import numbers, reading
from .reading import Run

Ends = tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """A run on the chart: change of the image, and the success of its strongest attacker.

    ``row`` is that attack; ``at`` and ``ends`` are its success and interval, with an AUC clearly
    below 0.5 turned round.
    """

    run: Run
    change: MetricRow
    row: MetricRow
    at: float
    ends: Ends | None
    clean: float | None
    """The same recognizer on untreated faces."""


@dataclass(frozen=True)
class Sweep:
    """Runs of one method that differ in one number, and in what follows from it, by its value."""

    name: str
    knob: str
    runs: tuple[Run, ...]
    values: tuple[float, ...]

    @property
    def title(self) -> str:
        """'gaussian-blur, strength 0.25 to 1'."""
        return numbers.plain(f"{self.name}, {self.knob} {self.values[0]:g} to {self.values[-1]:g}")


def spots(runs: Sequence[Run], far: float | None) -> list[Spot]:
    """The runs that have both: by the accept rate at a FAR, or by AUC for None."""
    worst = by_worst(runs)
    return [spot for run in runs for spot in _spot(run, far, worst)]


def by_worst(runs: Sequence[Run]) -> bool:
    """Whether every run knows its worst case; else only the naive attackers can be compared."""
    return all(run.worst(None) for run in runs)


def _spot(run: Run, far: float | None, worst: bool) -> Iterator[Spot]:
    known = run.worst(far) if worst else None
    rows = [known] if known else run.ranked("T1", far) or run.ranked("T1w", far)
    for change, row in zip(run.lpips(), rows[:1], strict=False):
        at, ends = _either_way(row)
        control = run.success("T0", row.recognizer or "", far)
        yield Spot(run, change, row, at, ends, control.value if control else None)


def _either_way(row: MetricRow) -> tuple[float, Ends | None]:
    """An AUC and its interval; below 0.5 an attacker turns the score around."""
    at, ends = row.value or 0.0, interval(row)
    if not reading.flipped(row):
        return at, ends
    return 1 - at, ends and (1 - ends[1], 1 - ends[0])


def interval(row: MetricRow) -> Ends | None:
    """Low and high end, where there is an interval."""
    return None if row.low is None or row.high is None else (row.low, row.high)


def sweeps(runs: Sequence[Run]) -> list[Sweep]:
    """Runs of one method on the same faces at several values of one number, by method."""
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        method, faces = run.record.method, run.record.dataset.sha256
        key = (method.name, method.version, method.weights_sha256, faces)
        groups.setdefault(key, []).append(run)
    return [sweep for group in groups.values() for sweep in _swept(group)]


def family(run: Run, runs: Sequence[Run]) -> int:
    """A number for each sweep and each run that is in none, in the order of the runs."""
    leader = {one.letter: one.letter for one in runs}
    for sweep in sweeps(runs):
        first = min(sweep.runs, key=runs.index)
        leader |= {one.letter: first.letter for one in sweep.runs}
    return list(dict.fromkeys(leader.values())).index(leader[run.letter])


def _swept(group: Sequence[Run]) -> Iterator[Sweep]:
    settings = [_settings(run) for run in group]
    names = dict.fromkeys(name for one in settings for name in one)
    varied = [name for name in names if len({_text(one.get(name)) for one in settings}) > 1]
    for knob in varied[:1]:  # the strength where it varies: settings may follow from it
        ordered = sorted(group, key=lambda run: _value(run, knob))
        values = {name: [_value(run, name) for run in ordered] for name in varied}
        numeric = all(math.isfinite(one) for column in values.values() for one in column)
        if numeric and _rises(values[knob]) and all(map(_monotone, values.values())):
            name = ordered[0].record.method.name
            yield Sweep(name, knob, tuple(ordered), tuple(values[knob]))


def _value(run: Run, name: str) -> float:
    """A setting as a number; NaN for what is none."""
    found = _settings(run).get(name)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return math.nan
    return float(found)


def _rises(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _monotone(values: Sequence[float]) -> bool:
    return list(values) in (sorted(values), sorted(values, reverse=True))


def _settings(run: Run) -> dict[str, Any]:
    return {"strength": run.record.method.strength, **run.record.method.parameters}


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
