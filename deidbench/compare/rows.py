"""What a comparison is made of: its rows, how they are named, and how they are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from deidbench import statistics
from deidbench.errors import MetricUndefinedError
from deidbench.measure import PEOPLE_OF_A_PAIR

if TYPE_CHECKING:
    from deidbench.types import FloatArray

Verdict = Literal["better", "same", "worse", "not judged"]
Kind = Literal["worst case", "attack", "utility", "other", "speed"]
Params = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Row:
    """One number in both runs, and how it changed."""

    name: str
    """As rules call it: ``T3.dlib.tar@0.01``."""
    kind: Kind
    metric: str
    params: Params
    base: float | None
    head: float | None
    unit: str = ""
    higher_is_better: bool | None = None
    """As the defender sees it."""
    threat: str | None = None
    recognizer: str | None = None
    difference: float | None = None
    """HEAD minus BASE."""
    low: float | None = None
    high: float | None = None
    """Of the difference, 95 %, by draws of people; None where there are none to draw."""
    verdict: Verdict = "not judged"
    p: float | None = None
    """Of rows of the default rule: how likely any of them rises so far where nothing changed."""
    people: int | None = None
    note: str | None = None
    aliases: tuple[str, ...] = ()
    """What else rules may call it."""

    @property
    def ratio(self) -> float | None:
        """The difference as a share of BASE; None where BASE is 0 or unknown."""
        if self.difference is None or not self.base:
            return None
        return self.difference / abs(self.base)


@dataclass(frozen=True)
class Value:
    """A number of one run: its value, its ends, and its value in each draw of people, (B,)."""

    value: float
    draws: FloatArray
    low: float | None = None
    high: float | None = None
    flipped: bool = False
    """Whether it is one minus what the run records."""


@dataclass(frozen=True)
class Drawn:
    """A row with what it was made from; None where a run does not define the number."""

    row: Row
    base: Value | None = None
    head: Value | None = None

    @property
    def both(self) -> bool:
        """Whether both runs define the number."""
        return self.base is not None and self.head is not None

    @property
    def sides(self) -> tuple[Value, Value]:
        """Of BASE and HEAD, where both define the number."""
        if self.base is None or self.head is None:
            raise MetricUndefinedError(f"{self.row.name} is not defined in both runs.")
        return self.base, self.head


def judged(drawn: Drawn, people: int) -> Drawn:
    """The row with its difference, the interval of that, and the verdict."""
    if not drawn.both:
        return drawn
    base, head = drawn.sides
    difference = head.value - base.value
    row = replace(drawn.row, difference=difference)
    try:
        low, high = statistics.interval(head.draws - base.draws, subjects=max(people, 2))
    except MetricUndefinedError as error:
        return replace(drawn, row=replace(row, note=joined(row.note, str(error))))
    if low == high != 0 and row.metric in PEOPLE_OF_A_PAIR:
        # All people moved alike, so that no draw varies: others might not have.
        bound = statistics.unseen_bound(people)
        low, high = max(low - bound, -1.0), min(high + bound, 1.0)
    verdict = _verdict(low, high, row.higher_is_better)
    return replace(drawn, row=replace(row, low=low, high=high, verdict=verdict))


def _verdict(low: float, high: float, higher_is_better: bool | None) -> Verdict:
    """As the defender sees it: the interval must leave 0 out."""
    if higher_is_better is None:
        return "not judged"
    if low <= 0 <= high:
        return "same"
    return "better" if (low > 0) == higher_is_better else "worse"


def dotted(*parts: str | None) -> str:
    """``T3.dlib.tar``: the parts that there are."""
    return ".".join(plain(part) for part in parts if part).replace("-", "_")


def suffix(number: float | int | str | None) -> str:
    """``@0.01``; nothing for None."""
    return "" if number is None else f"@{number:g}" if isinstance(number, float) else f"@{number}"


def words(params: Params) -> list[str]:
    """Settings that are words, but for those that a reader takes for granted."""
    usual = {("region", "chip"), ("images", "treated")}
    return [v for k, v in params.items() if isinstance(v, str) and (k, v) not in usual]


def numbers(params: Params) -> str:
    """The suffixes of settings that are numbers."""
    return "".join(suffix(value) for value in params.values() if not isinstance(value, str))


def joined(*notes: str | None) -> str:
    """Those notes that there are, on one line."""
    return "; ".join(note for note in notes if note)


def short(value: object) -> str:
    """A value from a file, for a message."""
    text = plain("none" if value is None else str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def plain(text: str) -> str:
    """On one line, without control characters: names come from files."""
    return "".join(c if c.isprintable() else " " for c in text)
