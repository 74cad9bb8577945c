"""What counts as a regression: rules, how they are written, and which numbers break them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deidbench.errors import DeidbenchError

from .rows import Row, dotted, short, suffix

DEFAULT = "default"
"""The rule that holds when no other is given; it may be named beside others."""
LEVEL = 0.05
"""How often the default rule may raise an alarm although nothing changed."""
_RULE = re.compile(r"(?P<name>.+?)\s*(?P<sign>[<>]=?)\s*(?P<number>[^\s%]+)\s*(?P<percent>%?)")
_SYNTAX = (
    "write 'NAME > +0.02' or 'NAME < -5%': a name, one of > >= < <=, and a difference with its "
    "sign, of the number itself or in percent of BASE"
)


@dataclass(frozen=True)
class Rule:
    """What counts as a regression: a difference beyond a bound."""

    text: str
    name: str
    sign: str
    bound: float
    relative: bool
    """Whether the bound is a share of BASE."""


@dataclass(frozen=True)
class Regression:
    """A number that broke a rule."""

    rule: str
    name: str
    told: str
    """One line in plain words."""


def parse_rule(text: str) -> Rule:
    """A rule from its text, such as ``worst_case.tar > +0.02`` or ``images_per_second < -20%``.

    Raises ``DeidbenchError`` when it is malformed, and says how it is written.
    """
    if text.strip().casefold() == DEFAULT:
        return Rule(DEFAULT, DEFAULT, ">", 0.0, relative=False)
    shown = short(text)
    found = _RULE.fullmatch(text.strip())
    if not found:
        raise DeidbenchError(f"--fail-on: '{shown}' is no rule; {_SYNTAX}.")
    number = found["number"]
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise DeidbenchError(f"--fail-on: '{shown}': '{short(number)}' is no number; {_SYNTAX}.")
    if bound and number[0] not in "+-":
        raise DeidbenchError(
            f"--fail-on: '{shown}': a bound is a difference from BASE and has a sign. Did you mean "
            f"'{found['name']} {found['sign']} +{number}{found['percent']}'?"
        )
    relative = found["percent"] == "%"
    bound = bound / 100 if relative else bound
    return Rule(shown, found["name"], found["sign"], bound, relative)


def regressions(
    rules: Sequence[Rule], rows: Sequence[Row], *, certain: bool
) -> Iterator[Regression]:
    """Each number that broke one of the rules."""
    for rule in rules:
        if rule.name == DEFAULT:
            yield from (_default_regression(row) for row in rows if _surely_worse(row))
            continue
        chosen = _chosen(rule, rows)
        for row in chosen:
            _check_direction(rule, row)
            if _passes(rule, row, certain=certain):
                yield Regression(rule.text, row.name, f"{_told(row)}; rule: {rule.text}")


def _surely_worse(row: Row) -> bool:
    return row.verdict == "worse" and row.p is not None and row.p <= LEVEL


def _default_regression(row: Row) -> Regression:
    return Regression(DEFAULT, row.name, f"{_told(row)}; surely worse (p = {row.p:.2g})")


def _told(row: Row) -> str:
    interval = "" if row.low is None else f" [{row.low:+.3g}, {row.high:+.3g}]"
    percent = "" if row.kind != "speed" or row.ratio is None else f" ({100 * row.ratio:+.0f} %)"
    return (
        f"{row.name}: {row.base:.4g} -> {row.head:.4g}, difference {row.difference:+.3g}"
        f"{interval}{percent}"
    )


def _chosen(rule: Rule, rows: Sequence[Row]) -> list[Row]:
    """The rows that a rule names; each must have a difference, or the rule would guard nothing."""
    wanted = _folded(rule.name)
    found = [row for row in rows if wanted in map(_folded, (row.name, *row.aliases))]
    if not found:
        raise DeidbenchError(f"--fail-on: {_unknown(rule.name, rows)}")
    for row in found:
        if row.difference is None:
            why = short(row.note or "one of the runs has no value")
            raise DeidbenchError(f"--fail-on: cannot judge '{rule.text}': {row.name}: {why}.")
    return found


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


def _unknown(name: str, rows: Sequence[Row]) -> str:
    known = sorted({one for row in rows for one in (row.name, *row.aliases)})
    close = difflib.get_close_matches(_folded(name), known, n=1)
    by_fold = {_folded(one): one for one in known}
    close = close or difflib.get_close_matches(_folded(name), list(by_fold), n=1)
    hint = f" Did you mean '{by_fold.get(close[0], close[0])}'?" if close else ""
    usual = [one for one in known if "@" not in one and one.count(".") <= 1]
    return f"no number is called '{short(name)}'.{hint} There are, among others: {listed(usual)}."


def listed(names: Sequence[str]) -> str:
    """As many names as a line holds."""
    return ", ".join(names[:24])


def _check_direction(rule: Rule, row: Row) -> None:
    """A rule that can only be broken by getting better is a slip, and would guard nothing."""
    worse = None if row.higher_is_better is None else "<" if row.higher_is_better else ">"
    if worse and rule.sign[0] != worse:
        way = "falls" if worse == "<" else "rises"
        sign = "-" if worse == "<" else "+"
        percent = "%" if rule.relative else ""
        size = f"{abs(rule.bound) * (100 if rule.relative else 1):g}"
        raise DeidbenchError(
            f"--fail-on: '{rule.text}' asks the wrong way: {row.name} is worse when it {way}. "
            f"Did you mean '{rule.name} {worse} {sign}{size}{percent}'?"
        )


def _passes(rule: Rule, row: Row, *, certain: bool) -> bool:
    """Whether the difference, or with ``certain`` its whole interval, is beyond the bound."""
    difference = row.difference or 0.0
    if certain:
        if row.low is None or row.high is None:
            raise DeidbenchError(
                f"--fail-on: '{rule.text}': {row.name} has no interval, so nothing is certain "
                "about it. Leave out --certain."
            )
        difference = row.low if rule.sign[0] == ">" else row.high
    bound = rule.bound
    if rule.relative:
        if not row.base:
            raise DeidbenchError(
                f"--fail-on: '{rule.text}': {row.name} is 0 in BASE, of which no percentage can be "
                "taken. Write the bound without %."
            )
        bound *= abs(row.base)
    beyond = difference > bound if rule.sign[0] == ">" else difference < bound
    return beyond or (rule.sign.endswith("=") and difference == bound)


# What rules may call a row


def with_aliases(rows: Sequence[Row], far: float | None) -> list[Row]:
    """The rows with all that rules may call them; ``far`` is the headline rate."""
    batches = [row.params.get("batch", 0) for row in rows if row.kind == "speed"]
    largest = max((one for one in batches if not isinstance(one, str)), default=None)
    return [replace(row, aliases=tuple(_aliases(row, far, largest))) for row in rows]


def _aliases(row: Row, far: float | None, batch: float | None) -> Iterator[str]:
    """``T3.tar`` is every recognizer under T3; without '@', the headline rate or largest batch."""
    bare, _, at = row.name.rpartition("@")
    usual = (row.params.get("far") in (None, far)) and (row.params.get("batch") in (None, batch))
    if at and bare and usual:
        yield bare
    if row.kind == "attack":
        group = dotted(row.threat, row.metric)
        yield group + suffix(row.params.get("far"))
        if usual and "far" in row.params:
            yield group
