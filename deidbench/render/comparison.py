"""What changed between two runs: a page, Markdown, JSON, and a table for a terminal.

All of them are made from one record, the content of ``comparison.json``. Names in it come from run
folders and are not trusted: HTML is escaped by the template, Markdown holds names as code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import pydantic
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deidbench.errors import DeidbenchError
from deidbench.results.schema import Record

from . import numbers
from .files import Output, write_outputs
from .reading import ATTACKS, LADDER

GENERATOR = "deidbench compare"
ROOMY = 84
MOST_LINES = 18
"""Attacks that a terminal has room for; of more, those that changed."""
TONES = {"worse": "red", "better": "green", "same": "dim", "not judged": ""}
SIGNS = {"worse": "▲", "better": "▼", "same": "=", "not judged": ""}
POINTS = "pp"
"""Percentage points."""
IN_BRIEF = ("lpips", "ssim", "psnr", "ms_ssim", "detection_rate")


class Number(Record):
    """One number in both runs, and how it changed; ``difference`` is HEAD minus BASE."""

    name: str
    kind: Literal["worst case", "attack", "utility", "other", "speed"]
    metric: str
    params: dict[str, float | int | str]
    base: float | None
    head: float | None
    unit: str
    higher_is_better: bool | None
    threat: str | None
    recognizer: str | None
    difference: float | None
    low: float | None
    high: float | None
    verdict: Literal["better", "same", "worse", "not judged"]
    p: float | None
    people: int | None
    note: str | None
    aliases: list[str]

    @property
    def is_rate(self) -> bool:
        """Whether it reads best in percent."""
        fraction = self.unit == "fraction" and self.metric not in numbers.AS_FRACTION
        return self.metric in numbers.RATES or fraction

    @property
    def far(self) -> float | None:
        """The false accept rate of a true accept rate."""
        far = self.params.get("far")
        return None if far is None or isinstance(far, str) else float(far)


class RunSide(Record):
    """One of the two runs."""

    run_id: str
    created: str
    method: str
    version: int
    strength: float | None
    trained_against: list[str]

    @property
    def label(self) -> str:
        """Method and strength."""
        strength = "" if self.strength is None else f" (strength {self.strength:g})"
        return numbers.plain(f"{self.method}{strength}")


class BrokenRule(Record):
    """A number that broke a rule, and one line about it."""

    rule: str
    name: str
    told: str


class ComparisonRecord(Record):
    """Everything that ``comparison.json`` holds."""

    schema_version: Literal[1]
    generator: str
    deidbench_version: str
    outcome: Literal["same or better", "regression"]
    base: RunSide
    head: RunSide
    protocol: str
    dataset: str
    synthetic: bool
    people: int
    draws: int
    rules: list[str]
    certain: bool
    far: float | None
    tests: int
    rows: list[Number]
    regressions: list[BrokenRule]
    notes: list[str]

    @property
    def failed(self) -> bool:
        """Whether a rule was broken."""
        return self.outcome == "regression"

    def of(self, *kinds: str) -> list[Number]:
        """Rows of these kinds; attacks in the order of the ladder."""
        found = [row for row in self.rows if row.kind in kinds]
        place = {threat: i for i, threat in enumerate(LADDER)}
        return sorted(found, key=lambda row: place.get(row.threat or "", -1 if not row.threat
                                                       else len(place)))  # fmt: skip

    def headline(self) -> list[Number]:
        """The worst case, and each attack at the headline rate; its AUC where there is none."""
        metric = "auc" if self.far is None else "tar"
        worst = [row for row in self.of("worst case") if row.metric == "auc"]
        return [
            *(row for row in self.of("worst case") if row.far == self.far and metric == row.metric),
            *(worst if metric == "tar" else []),
            *(
                row
                for row in self.of("attack")
                if (row.metric, row.far) == (metric, self.far)
                and not (row.threat == "T0" and row.difference == 0)  # the control, as it must be
            ),
        ]


@dataclass(frozen=True)
class Line:
    """A row as it is shown; ``left``, ``width`` and ``point`` in percent of the bar."""

    row: Number
    title: str
    base: str
    head: str
    change: str
    interval: str
    verdict: str
    sign: str
    left: float | None
    width: float | None
    point: float | None


@dataclass(frozen=True)
class Block:
    """Lines under one heading."""

    title: str
    lines: list[Line]


def read(content: dict[str, Any]) -> ComparisonRecord:
    """A comparison from what ``comparison.json`` holds.

    Raises ``DeidbenchError`` when it is none.
    """
    try:
        return ComparisonRecord.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise DeidbenchError(f"this is no comparison: {where}: {first['msg']}.") from error


def write_comparison(found: ComparisonRecord, out: Path) -> Path:
    """Write ``index.html``, ``comparison.json`` and ``comparison.md``; returns the page's path.

    Older files of ours are replaced; any other file of these names is left alone.

    Raises:
        DeidbenchError: a file there is not ours, or ``out`` cannot be written.
    """
    mark = GENERATOR.encode()
    texts = {
        "index.html": page(found),
        "comparison.json": found.model_dump_json(indent=1) + "\n",
        "comparison.md": markdown(found),
    }
    written = write_outputs(
        [Output(Path(out) / name, text.encode(), mark) for name, text in texts.items()]
    )
    return written[0]


# The page


def page(found: ComparisonRecord) -> str:
    """One HTML page that opens offline, without a script."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deidbench.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("comparison.html.j2").render(_content(found))


def _content(found: ComparisonRecord) -> dict[str, Any]:
    return {
        "generator": GENERATOR,
        "found": found,
        "verdict": verdict(found),
        "rules": _rules(found),
        "cards": _cards(found),
        "headline": _blocks(found.headline()),
        "attacks": _blocks(found.of("worst case", "attack")),
        "utility": [Block("", _lines(found.of("utility")))],
        "other": [Block("", _lines(found.of("speed", "other")))],
        "odds": None if found.far is None else numbers.odds(found.far),
        "plain": numbers.plain,
    }


def verdict(found: ComparisonRecord) -> str:
    """The outcome in one sentence."""
    count = len(found.regressions)
    if not found.failed:
        return "No regression: HEAD is the same or better, by the rules that were asked."
    return f"Regression: {count} number{'s' * (count > 1)} broke a rule."


def _rules(found: ComparisonRecord) -> str:
    default = (
        f"an attack or the worst case is surely more successful (its interval leaves out 0, and "
        f"p of all {found.tests} tests together is at most 0.05)"
    )
    told = [default if rule == "default" else rule for rule in found.rules]
    certain = " A rule asks for the whole interval beyond its bound." if found.certain else ""
    return numbers.plain(f"Rules: {'; '.join(told)}.{certain}")


def _cards(found: ComparisonRecord) -> list[Line]:
    names = [row for row in found.rows if row.kind == "worst case" and row.metric == "auc"]
    names = [row for row in found.headline() if row.kind == "worst case"] or names
    brief = [row for row in found.of("utility") if row.name in ("lpips", "detection_rate")]
    return _lines([*names, *brief])


def _blocks(rows: Sequence[Number]) -> list[Block]:
    """Rows by threat, the worst case first."""
    found: dict[str, list[Line]] = {}
    for line in _lines(rows):
        found.setdefault(line.row.threat or "", []).append(line)
    return [Block(_threat(threat), group) for threat, group in found.items()]


def _threat(threat: str) -> str:
    if not threat:
        return "Worst case"
    return numbers.plain(f"{threat} {ATTACKS.get(threat, '')}".strip())


def _lines(rows: Sequence[Number]) -> list[Line]:
    """Rows as shown; bars of one metric share a scale."""
    reach: dict[str, float] = {}
    for row in rows:
        ends = [abs(x) for x in (row.difference, row.low, row.high) if x is not None]
        reach[row.metric] = max([reach.get(row.metric, 0.0), *ends])
    return [_line(row, reach[row.metric]) for row in rows]


def _line(row: Number, reach: float) -> Line:
    at = _place(row.difference, reach)
    low, high = _place(row.low, reach), _place(row.high, reach)
    drawn = at is not None and low is not None and high is not None
    return Line(
        row=row, title=title(row), base=value(row, row.base), head=value(row, row.head),
        change=change(row), interval=interval(row), verdict=row.verdict, sign=_sign(row),
        left=low if drawn else None, point=at if drawn else None,
        width=round(high - low, 2) if drawn and high is not None and low is not None else None,
    )  # fmt: skip


def _place(number: float | None, reach: float) -> float | None:
    """Percent of the bar, whose middle is no change."""
    return None if number is None or not reach else round(50 + 48 * number / reach, 2)


def _sign(row: Number) -> str:
    """An arrow the way the number went, where that matters."""
    if row.verdict in ("same", "not judged"):
        return SIGNS[row.verdict]
    return "▲" if (row.difference or 0) > 0 else "▼"


# How a number is written


def title(row: Number) -> str:
    """What is measured: 'dlib TAR at FAR 0.01', 'LPIPS, face'."""
    settings = [
        v if isinstance(v, str) else f"{k} {v:g}"
        for k, v in row.params.items()
        if (k, v) not in _USUAL and k != "far"
    ]
    who = row.recognizer or ("" if row.kind == "attack" else row.threat or "")
    told = f"{who} {numbers.title(row.metric, row.far)}".strip()
    return numbers.plain(", ".join([told, *settings]))


_USUAL = {("region", "chip"), ("images", "treated")}


def value(row: Number, number: float | None) -> str:
    """A value with its unit; an en dash where there is none."""
    if number is None:
        return numbers.DASH
    if row.is_rate:
        return numbers.percent(number)
    unit = numbers.UNITS.get(row.unit, "")
    return f"{numbers.number(number)}{numbers.SPACE}{unit}".rstrip()


def change(row: Number, digits: int = 3) -> str:
    """The difference with its sign: percentage points of rates, percent of speeds."""
    if row.difference is None:
        return numbers.DASH
    if row.kind == "speed":
        if not row.base:
            return numbers.DASH
        return f"{_signed(100 * row.difference / abs(row.base), 2)}{numbers.SPACE}%"
    if row.is_rate:
        return f"{_signed(100 * row.difference, digits)}{numbers.SPACE}{POINTS}"
    unit = numbers.UNITS.get(row.unit, "")
    return f"{_signed(row.difference, digits)}{numbers.SPACE}{unit}".rstrip()


def interval(row: Number, digits: int = 3) -> str:
    """'[-1.2, +3.4]' in the unit of the difference."""
    if row.low is None or row.high is None:
        return ""
    scale = 100 if row.is_rate else 1
    ends = (_signed(scale * end, digits) for end in (row.low, row.high))
    return f"[{f',{numbers.SPACE}'.join(ends)}]"


def _signed(number: float, digits: int = 3) -> str:
    """+2.1, -0.034 or 0: three significant digits, at most five places, never +0."""
    rounded = round(float(f"{number:.{digits}g}"), 5)
    if not rounded:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{'+' if rounded > 0 else numbers.MINUS}{abs(rounded):,.{min(max(places, 0), 5)}f}"


# Markdown


def markdown(found: ComparisonRecord) -> str:
    """For a pull request or the summary of a workflow: the verdict, the headline, all numbers."""
    base, head = found.base, found.head
    lines = [
        f"## {'❌' if found.failed else '✅'} {verdict(found)}",
        "",
        f"HEAD {_code(head.label)} version {head.version} against BASE {_code(base.label)} version "
        f"{base.version}, protocol {_code(found.protocol)} on {_code(found.dataset)} "
        f"({found.people} people measured).",
        "",
        *(f"- {_code(one.told)}" for one in found.regressions),
        *([""] if found.regressions else []),
        *_md_table([*found.headline(), *_brief(found)]),
        "",
        "Differences are HEAD minus BASE with 95 % intervals, on the same comparisons of the same "
        f"people; {POINTS}: percentage points.",
        *(f"\n> {_text(note)}" for note in found.notes),
        "",
        "<details><summary>All numbers</summary>",
        "",
        *_md_table([row for row in found.rows if row.difference is not None]),
        "",
        "</details>",
        "",
        f"<!-- {GENERATOR} {_comment(found.deidbench_version)} -->",
        "",
    ]
    return "\n".join(lines)


def _brief(found: ComparisonRecord) -> list[Number]:
    """What the terminal and the top of the Markdown say of utility and speed."""
    chosen = [row for row in found.of("utility") if row.name in IN_BRIEF]
    return [*chosen, *(row for row in found.of("speed") if "images_per_second" in row.aliases)]


def _md_table(rows: Iterable[Number]) -> Iterator[str]:
    yield "| number | BASE | HEAD | difference | |"
    yield "|---|---|---|---|---|"
    for row in rows:
        told = f"{change(row)} {interval(row)}".strip()
        mark = {"worse": "**worse**", "better": "better", "same": "same"}.get(row.verdict, "")
        cells = (_code(row.name), value(row, row.base), value(row, row.head), told, mark)
        yield f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    """A name as code: neither markup nor a mention nor a column begins in there."""
    return f"`{numbers.plain(text).replace('`', chr(39)).replace('|', '¦').strip() or ' '}`"


def _text(text: str) -> str:
    """A sentence of ours that may hold a name: whatever could begin markup is written as code."""
    plain = numbers.plain(text)
    return plain if plain.translate(_HARMLESS).strip() == "" else _code(plain)


_HARMLESS = {ord(c): None for c in
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:;()-'"}  # fmt: skip


def _comment(text: str) -> str:
    return "".join(c for c in text if c.isalnum() or c in ".+")


# The terminal


def terminal(found: ComparisonRecord, width: int | None) -> RenderableType:
    """The verdict, the broken rules, and a table; ``width`` in columns, at least 60."""
    narrow = (width or ROOMY) < ROOMY
    head, base = found.head.label, found.base.label
    parts: list[RenderableType] = [
        Text(f"{head} against {base}", style="bold"),
        Text(f"HEAD minus BASE, 95 % intervals; {numbers.plain(found.protocol)} on "
             f"{numbers.plain(found.dataset)}, {found.people} people"),
        _table(found, narrow=narrow),
    ]  # fmt: skip
    hidden = len(found.headline()) - len(_shown(found))
    if hidden:
        parts.append(Text(f"{hidden} attacks that did not change are left out"))
    parts += [Text(numbers.plain(note), style="yellow") for note in found.notes]
    parts.append(Text(verdict(found), style="bold red" if found.failed else "bold green"))
    parts += [Text(f"  {numbers.plain(one.told)}", style="red") for one in found.regressions]
    return Group(*parts)


def _shown(found: ComparisonRecord) -> list[Number]:
    rows = found.headline()
    if len(rows) <= MOST_LINES:
        return rows
    broken = {one.name for one in found.regressions}
    return [
        row
        for row in rows
        if row.kind == "worst case" or row.verdict in ("better", "worse") or row.name in broken
    ]


def _table(found: ComparisonRecord, *, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 2, 0, 0))
    for heading in ("", "BASE", "HEAD", "difference", ""):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    for row in [*_shown(found), *_brief(found)]:
        verdict = "" if row.verdict == "not judged" else row.verdict
        sides = (_bare(row, one, narrow) for one in (row.base, row.head))
        name = _shortened(_name(row, found.far), 17 if narrow else 40)
        cells = (name, *sides, _told(row, narrow), verdict)
        table.add_row(*map(Text, cells), style=TONES[row.verdict])
    return table


def _told(row: Number, narrow: bool) -> str:
    if not narrow:
        return f"{change(row)} {interval(row)}".strip().replace(numbers.SPACE, " ")
    difference = change(row, 2) if row.kind == "speed" else change(row, 2).split(numbers.SPACE)[0]
    return f"{difference} {interval(row, 2)}".strip().replace(numbers.SPACE, "")


def _bare(row: Number, number: float | None, narrow: bool) -> str:
    text = value(row, number)
    if narrow and row.is_rate and number is not None:
        text = numbers.percent(number, digits=2).replace(numbers.SPACE, "")
    return text.split(numbers.SPACE)[0] if narrow else text.replace(numbers.SPACE, " ")


def _name(row: Number, far: float | None) -> str:
    """The name without the rate that the heading tells."""
    if row.kind == "speed":
        return "images/s"
    at = "" if far is None else f"@{far:g}"
    return numbers.plain(row.name.removesuffix(at) if at and row.far == far else row.name)


def _shortened(name: str, room: int) -> str:
    """Cut in the middle: names of a family differ at their ends."""
    if len(name) <= room:
        return name
    tail = room // 2
    return f"{name[: room - tail - 1]}…{name[-tail:]}"
