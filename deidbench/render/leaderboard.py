"""The leaderboard as a static site: a board that sorts and filters, and a page for each entry.

Everything that comes from an entry is a stranger's text to be escaped. Pages load nothing: their
Content-Security-Policy names the hash of the one script and the one style sheet, both inline, so
that nothing else runs should an escape ever be missed.

Charts are drawn here and not by ``figures``, which takes a tenth of a second for each: a board of
a hundred methods and ten recognizers has two thousand.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from scipy.special import ndtri

from deidbench.results.entry import Entry, Place, Ranking, slug
from deidbench.results.schema import Curve, MetricRow, PairKind, RunRecord

from . import numbers, reading, tables
from .files import Output, write_outputs
from .reading import Run

GENERATOR = "deidbench leaderboard"
COLUMNS = ("T1", "T2", "T3", "T3f", "T4", "T5")
"""Threats with a column of their own, where a ranking has them."""
DRAWN = tuple(threat for threat in reading.LADDER if threat != "T6")
"""Threats that have curves."""
LABELLED = 26
"""Points of a chart that have their name beside them; more would hide each other."""
LONGEST = 48
"""Letters of a name on the board; its own page has all of them."""


def write_board(rankings: Sequence[Ranking], out: Path) -> Path:
    """Write ``out/index.html`` and a page an entry in ``out/methods``; returns the index.

    Pages of ours are replaced, and those of entries that are gone are removed; any other file is
    left alone.

    Raises:
        DeidbenchError: a file of that name is not ours, or ``out`` cannot be written.
    """
    environment = _environment()
    groups = [_group(ranking) for ranking in _with_pages(rankings)]
    page = environment.get_template("leaderboard_method.html.j2")
    common = _common(environment)
    outputs = [
        _output(Path(out) / row.page, page.render(**common, **_method(row, group)))
        for group in groups
        for row in group.rows
    ]
    board = environment.get_template("leaderboard.html.j2").render(**common, **_board(groups))
    index = _output(Path(out) / "index.html", board)
    write_outputs([*outputs, index])
    _remove_stale(Path(out) / "methods", {output.target for output in outputs})
    return index.target


def _output(target: Path, text: str) -> Output:
    return Output(target, text.encode(), f'content="{GENERATOR}"'.encode())


def _remove_stale(folder: Path, kept: set[Path]) -> None:
    """Pages of ours whose entries are gone would be found by search engines for ever."""
    for path in folder.glob("*.html"):
        if path not in kept and f'content="{GENERATOR}"'.encode() in path.read_bytes()[:2048]:
            with suppress(OSError):
                path.unlink()


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("deidbench.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _common(environment: jinja2.Environment) -> dict[str, Any]:
    """What all pages have: our style sheet and script, and the policy that allows just these."""
    texts = {
        name: environment.get_template(f"leaderboard.{name}.j2").render() for name in ("css", "js")
    }
    digests = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in texts.items()
    }
    policy = (
        f"default-src 'none'; style-src 'sha256-{digests['css']}'; "
        f"script-src 'sha256-{digests['js']}'; base-uri 'none'; form-action 'none'"
    )
    return {
        "css": Markup(texts["css"]),  # noqa: S704 -- both are files of this package
        "js": Markup(texts["js"]),  # noqa: S704
        "policy": policy,
        "generator": GENERATOR,
        "plain": numbers.plain,
        "short": _short,
    }


# Rows and columns of the board


class _QuickRun(Run):
    """A run whose rows are found without a search through all of them."""

    @cached_property
    def _by_threat(self) -> dict[str | None, list[MetricRow]]:
        found: dict[str | None, list[MetricRow]] = {}
        for row in self.record.rows:
            found.setdefault(row.threat, []).append(row)
        return found

    @cached_property
    def _by_attack(self) -> dict[tuple[str | None, str | None], list[MetricRow]]:
        found: dict[tuple[str | None, str | None], list[MetricRow]] = {}
        for row in self.record.rows:
            found.setdefault((row.threat, row.recognizer), []).append(row)
        return found

    @cached_property
    def _by_metric(self) -> dict[str, list[MetricRow]]:
        found: dict[str, list[MetricRow]] = {}
        for row in self.record.rows:
            found.setdefault(row.metric, []).append(row)
        return found

    @cached_property
    def recognizers(self) -> list[str]:
        """As of every run."""
        return Run(self.record).recognizers

    @cached_property
    def threats(self) -> list[str]:
        """As of every run."""
        return Run(self.record).threats

    @cached_property
    def pairs(self) -> PairKind:
        """As of every run."""
        return Run(self.record).pairs

    def rows(self, **wanted: object) -> Iterator[MetricRow]:
        """As of every run."""
        wanted = {"group": None, **wanted}
        for row in self._near(wanted):
            if all(getattr(row, name) == value for name, value in wanted.items()):
                yield row

    def _near(self, wanted: dict[str, Any]) -> list[MetricRow]:
        """Fewer rows, all wanted ones among them."""
        if "threat" in wanted and "recognizer" in wanted:
            return self._by_attack.get((wanted["threat"], wanted["recognizer"]), [])
        if "metric" in wanted:
            return self._by_metric.get(wanted["metric"], [])
        if "threat" in wanted:
            return self._by_threat.get(wanted["threat"], [])
        return self.record.rows


@dataclass(frozen=True)
class Column:
    """A column of the board: its name in the address, its title, and how it sorts at first."""

    key: str
    title: str
    about: str = ""
    falling: bool = False
    """Whether the first click puts the largest on top."""
    threat: bool = False
    """Whether it holds the strongest attack of a threat."""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and what it is sorted by (None: last)."""

    text: str
    value: float | None = None
    interval: str = ""
    more: str = ""
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Mark:
    """A word about an entry that must not be missed, and why it stands there."""

    tone: str
    text: str
    why: str


@dataclass(frozen=True)
class Row:
    """An entry on the board."""

    place: Place
    run: Run
    page: str
    name: str
    cells: list[Cell]
    marks: list[Mark]
    claim: str
    attacks: str
    """JSON of every attack: threat, recognizer, value, bound, text, interval."""
    shared: bool

    @property
    def entry(self) -> Entry:
        """What it shows."""
        return self.place.entry

    @property
    def title(self) -> str:
        """Its own, or else the method's name."""
        return _short(self.entry.title or self.entry.record.method.name)

    @property
    def by(self) -> str:
        """Who answers for it, and the method's name where the title is another."""
        method = self.entry.record.method.name if self.entry.title else ""
        return " \u00b7 ".join(_short(text) for text in (method, self.entry.author) if text)

    @property
    def words(self) -> str:
        """What a search looks through."""
        told = [self.title, self.by, self.name, self.claim, *(mark.text for mark in self.marks)]
        return " ".join(told).lower()


@dataclass(frozen=True)
class Group:
    """A ranking, ready to be shown."""

    key: str
    ranking: Ranking
    columns: list[Column]
    rows: list[Row]

    @property
    def record(self) -> RunRecord:
        """What all its entries have in common."""
        return self.ranking.record

    @property
    def far(self) -> float | None:
        """Of the accept rates that it shows; None: AUCs."""
        return self.ranking.far

    @property
    def dataset(self) -> str:
        """As the filter and the address name it."""
        return slug(self.record.dataset.label)

    @property
    def protocol(self) -> str:
        """The same of the protocol."""
        return slug(self.record.protocol)

    @property
    def ranked(self) -> int:
        """How many entries have a rank."""
        return sum(row.place.rank is not None for row in self.rows)


Paged = tuple[Ranking, list[str]]


def _with_pages(rankings: Sequence[Ranking]) -> Iterator[Paged]:
    """Each ranking with the addresses of its entries' pages, no two of them alike."""
    seen: set[str] = set()
    for ranking in rankings:
        pages = []
        for place in ranking.places:
            stem = slug(place.path.removesuffix(".json").replace("/", "--"))
            names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2)))
            name = next(name for name in names if name not in seen)
            seen.add(name)
            pages.append(f"methods/{name}.html")
        yield ranking, pages


def _group(paged: Paged) -> Group:
    ranking, pages = paged
    runs: list[Run] = [_QuickRun(place.entry.record) for place in ranking.places]
    threats = [t for t in COLUMNS if any(run.ranked(t, ranking.far) for run in runs)]
    ranks = [place.rank for place in ranking.places]
    rows = [
        _row(place, run, page, ranking.far, threats, ranks.count(place.rank) > 1)
        for place, run, page in zip(ranking.places, runs, pages, strict=True)
    ]
    record = ranking.record
    key = f"{slug(record.dataset.label)}--{slug(record.protocol)}--{pages[0][8:-5]}"
    return Group(key, ranking, _columns(threats, ranking.far), rows)


def _columns(threats: Sequence[str], far: float | None) -> list[Column]:
    what = _measure(far)
    return [
        Column("worst", "Worst case", f"{what}, by the attack with the largest upper bound"),
        *(Column(t, f"{t} {_noun(t)}", reading.MEANINGS[t], threat=True) for t in threats),
        Column("strength", "Strength", "Of the method, in [0, 1], larger = stronger"),
        Column("lpips", "LPIPS", "Change of the image; lower is more alike"),
        Column("ssim", "SSIM", "Likeness of the image; higher is more alike", falling=True),
        Column("found", "Faces found", "Treated faces that a detector still finds", falling=True),
        Column(
            "speed", "Images/s", "Of one machine each; beside it time over blur's", falling=True
        ),
        Column("memory", "Memory", "Peak that the method adds, by 'deidbench bench'"),
    ]


def _noun(threat: str) -> str:
    return reading.ATTACKS[threat].partition(":")[0]


def _measure(far: float | None) -> str:
    return "Attacker's AUC" if far is None else numbers.title("tar", far)


def _row(
    place: Place, run: Run, page: str, far: float | None, threats: Sequence[str], shared: bool
) -> Row:
    cells = [
        _worst_cell(run.worst(far)),
        *(_attack_cell(run.ranked(threat, far)[:1]) for threat in threats),
        _strength_cell(place.entry.record.method.strength),
        _plain_cell(run.lpips()),
        _plain_cell(
            [r for r in run.rows(metric="ssim", threat=None) if r.params.get("region") == "chip"]
        ),
        _plain_cell(list(_detection(run))),
        _speed_cell(run, place.entry.bench),
        _memory_cell(place.entry.bench),
    ]
    attacks = json.dumps(list(_attacks(run, far)), separators=(",", ":"))
    shared = shared and place.rank is not None
    return Row(place, run, page, run.label, cells, list(_marks(place, run)),
               _claimed(place.entry, far), attacks, shared)  # fmt: skip


def _worst_cell(row: MetricRow | None) -> Cell:
    if row is None or row.value is None:
        return Cell(numbers.DASH)
    who = f"{row.threat}, {_short(row.recognizer or '?')}"
    return Cell(numbers.value(row), row.high, numbers.interval(row), who, _bar(row))


def _attack_cell(rows: Sequence[MetricRow]) -> Cell:
    for row in rows:
        return Cell(numbers.value(row), row.value, numbers.interval(row, 2),
                    _short(row.recognizer or ""))  # fmt: skip
    return Cell(numbers.DASH)


def _plain_cell(rows: Sequence[MetricRow]) -> Cell:
    for row in rows:
        if row.value is not None:
            return Cell(numbers.value(row), row.value)
    return Cell(numbers.DASH)


def _strength_cell(strength: float | None) -> Cell:
    return Cell(numbers.DASH) if strength is None else Cell(f"{strength:g}", strength)


def _detection(run: Run) -> Iterator[MetricRow]:
    found = run.rows(metric="detection-rate", threat=None)
    yield from (row for row in found if row.params.get("images") == "treated")
    yield from run.rows(metric="face-found-yunet", threat=None)


def _bar(row: MetricRow) -> tuple[float, float, float]:
    ends = [row.value if end is None else end for end in (row.low, row.value, row.high)]
    low, at, high = (round(100 * min(max(end or 0.0, 0), 1), 1) for end in ends)
    return low, at, high


def _speed_cell(run: Run, bench: dict[str, Any] | None) -> Cell:
    best = max(_batches(bench), key=lambda one: one[0], default=None)
    if best:
        ratio = f"{numbers.number(best[1])}{numbers.SPACE}\u00d7 blur" if best[1] else ""
        return Cell(numbers.number(best[0]), best[0], more=ratio)
    rows = [row for row in run.rows(metric="images-per-second") if row.value]
    if not rows:
        return Cell(numbers.DASH)
    row = max(rows, key=lambda one: one.value or 0.0)
    return Cell(numbers.number(row.value or 0.0), row.value)


def _batches(bench: dict[str, Any] | None) -> Iterator[tuple[float, float]]:
    """Images a second, and time over that of blur, for each size of batch that was measured."""
    batches = (bench or {}).get("batches")
    for one in batches if isinstance(batches, list) else []:
        if isinstance(one, dict):
            speed, ratio = _number(one.get("images_per_second")), one.get("time_ratio_to_blur")
            if speed:
                yield speed, _number(ratio)


def _memory_cell(bench: dict[str, Any] | None) -> Cell:
    memory = (bench or {}).get("memory")
    peaks = [
        _number(one.get("peak_mib"))
        for one in (memory if isinstance(memory, list) else [])
        if isinstance(one, dict)
    ]
    most = max(peaks, default=0.0)
    return Cell(f"{numbers.number(most)}{numbers.SPACE}MiB", most) if most else Cell(numbers.DASH)


def _number(value: Any) -> float:
    """A positive number, or 0 for anything else: a bench file is free in its form."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known and 0 < value < 1e15 else 0.0


def _attacks(run: Run, far: float | None) -> Iterator[list[Any]]:
    """Of every attack what the board needs to show it in place of the strongest."""
    for threat in run.threats:
        if threat in ("T0", "T6"):
            continue
        for row in run.ranked(threat, far):
            high = row.high if row.high is not None else row.value
            yield [threat, _short(row.recognizer or ""), row.value, high, numbers.value(row),
                   numbers.interval(row, 2)]  # fmt: skip


def _marks(place: Place, run: Run) -> Iterator[Mark]:
    entry, method = place.entry, place.entry.record.method
    if entry.unreliable:
        yield Mark("bad", "unreliable", numbers.plain(entry.unreliable))
    elif place.unranked:
        yield Mark("quiet", "not ranked", numbers.plain(place.unranked))
    if entry.external:
        yield Mark("good", "external", "Measured by somebody who is not the method's author.")
    seen = [name for name in method.trained_against if name in run.recognizers]
    if seen:
        why = "The method saw this attacker in training, so it counts as T1w and never as T1."
        yield Mark("warn", f"trained against {_listed(seen)}", why)
    if method.trained_on_metrics:
        why = "The method had this in its loss, which flatters it."
        titles = [numbers.title(name) for name in method.trained_on_metrics]
        yield Mark("warn", f"trained on {_listed(titles)}", why)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_short(name) for name in names[:4]) + (" …" if len(names) > 4 else "")


def _claimed(entry: Entry, far: float | None) -> str:
    """The author's worst number, to stand beside what was found; one of the board's kind if any."""
    rows = [r for r in entry.claim.rows if r.value is not None] if entry.claim else []
    rates = [row for row in rows if row.metric in ("tar", "auc", "worst-case-tar")]
    alike = [
        r for r in rates if (r.metric == "auc") == (far is None) and r.params.get("far") == far
    ]
    if not rates:
        return ""
    row = min(alike or rates, key=reading.strength)
    who = ", ".join(_short(name) for name in (row.threat, row.recognizer) if name)
    return f"The author claims {_titled(row)} {numbers.value(row)}{f' ({who})' if who else ''}"


def _titled(row: MetricRow) -> str:
    far = row.params.get("far")
    return numbers.title(row.metric, far if isinstance(far, float) else None)


def _short(text: str, room: int = LONGEST) -> str:
    """On one line, without control characters, cut in the middle."""
    text = numbers.plain(text)
    return text if len(text) <= room else f"{text[: room - 13]}…{text[-12:]}"


# The pages


def _board(groups: Sequence[Group]) -> dict[str, Any]:
    """What the template of the board prints."""
    records = [group.record for group in groups]
    attacks = [(row.run, group.far) for group in groups for row in group.rows]
    threats = {t for run, _ in attacks for t in run.threats} - {"T0", "T6"}
    names = {_short(name) for run, _ in attacks for name in run.recognizers}
    return {
        "groups": groups,
        "datasets": _options(record.dataset.label for record in records),
        "protocols": _options(record.protocol for record in records),
        "threats": [t for t in reading.LADDER if t in threats],
        "recognizers": sorted(names),
        "attack_titles": reading.ATTACKS,
        "meanings": [(t, _noun(t), reading.MEANINGS[t]) for t in reading.LADDER],
        "charts": {group.key: _trade_off(group) for group in groups},
        "adapted": {group.key: _learned_attacks(group) for group in groups},
        "summaries": {group.key: _summary(group.record) for group in groups},
        "count": sum(len(group.rows) for group in groups),
        "made": max(row.entry.record.created for group in groups for row in group.rows)[:10],
        "measure": _measure,
        "odds": numbers.odds,
    }


def _options(names: Iterable[str]) -> list[tuple[str, str]]:
    """A value for the address and a text, each once."""
    return sorted({slug(name): _short(name) for name in names}.items())


def _summary(record: RunRecord) -> str:
    """What the protocol says of itself."""
    told = record.protocol_settings.get("summary", "")
    return _short(" ".join(told.split()), 400) if isinstance(told, str) else ""


def _learned_attacks(group: Group) -> bool:
    return any(reading.adapted(row.entry.record) for row in group.rows)


def _method(row: Row, group: Group) -> dict[str, Any]:
    """What the template of a page prints."""
    run, far = row.run, group.far
    shown = (tables.glance([run], far), tables.linkage([run], far), tables.utility([run]))
    return {
        "row": row,
        "group": group,
        "record": run.record,
        "sentences": reading.summary(run, far),
        "claims": _claim_table(row.entry, run),
        "tables": [table for table in shown if table.groups],
        "learned": tables.learned([run]),
        "curves": list(_curves(run)),
        "legend": [(t, f"{t} {reading.ATTACKS[t]}") for t in DRAWN if t in run.threats],
        "bench": list(_flat(row.entry.bench or {}))[:200],
        "facts": _facts(row),
        "gaps": [(numbers.plain(g.what), numbers.plain(g.why)) for g in run.record.not_measured],
        "measure": _measure,
    }


def _claim_table(entry: Entry, run: Run) -> list[tuple[str, str, str]]:
    """What the author says, what he says about it, and what was found."""
    found = []
    for row in entry.claim.rows if entry.claim else []:
        title = numbers.plain(_titled(row))
        who = ", ".join(numbers.plain(name) for name in (row.threat, row.recognizer) if name)
        told = f"{numbers.value(row)} {numbers.interval(row)}".strip()
        found.append((f"{title} {who and f'({who})'}".strip(), told, _counterpart(row, run)))
    return found


def _counterpart(claimed: MetricRow, run: Run) -> str:
    rows = run.rows(metric=claimed.metric, threat=claimed.threat, recognizer=claimed.recognizer)
    for row in rows:
        same = all(row.params.get(key) == value for key, value in claimed.params.items())
        if same and row.pairs in (claimed.pairs or run.pairs, None) and row.view in (
            claimed.view or "landmarks", None
        ):  # fmt: skip
            return f"{numbers.value(row)} {numbers.interval(row)}".strip()
    return "not measured here"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A free record as names and values: {'a': {'b': 1}} -> ('a b', '1')."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name} {key}".strip())
    elif isinstance(value, list):
        for number, part in enumerate(value, 1):
            yield from _flat(part, f"{name} {number}")
    elif value is not None:
        number = isinstance(value, float)
        yield (
            _short(name.replace("_", " "), 80),
            numbers.number(value) if number else _short(str(value), 200),
        )


def _facts(row: Row) -> list[tuple[str, str]]:
    """Versions and hashes: what makes the numbers comparable."""
    record = row.entry.record
    facts = [
        ("entry", row.place.path), ("SHA-256 of the entry", row.place.sha256),
        ("SHA-256 of its scores", row.entry.scores.sha256), ("run", record.run_id),
        ("made", record.created), ("deidbench", record.deidbench_version),
        ("protocol", record.protocol),
        ("dataset", f"{record.dataset.label}, version {record.dataset.version}"),
        ("SHA-256 of the dataset", record.dataset.sha256),
        ("SHA-256 of the split", record.split.sha256),
        ("SHA-256 of the method's weights", record.method.weights_sha256 or "no weights"),
        *((f"{one.name} (recognizer, version {one.version})", one.weights_sha256 or one.status)
          for one in record.recognizers),
        *((f"{key} (setting)", str(value)) for key, value in record.method.parameters.items()),
        ("seed", str(record.seed)), ("device", record.machine.gpu or record.machine.cpu),
    ]  # fmt: skip
    return [(_short(name, 80), _short(value, 200)) for name, value in facts]


# Charts


@dataclass(frozen=True)
class Tick:
    """A line of the grid and its label."""

    at: int
    text: str


@dataclass(frozen=True)
class Drawn:
    """A line of a chart: its threat, and its points as SVG writes them."""

    threat: str
    points: str


@dataclass(frozen=True)
class Chart:
    """ROC and DET curves of one recognizer, in units of the viewBox."""

    name: str
    label: str
    x: list[Tick]
    y: list[Tick]
    lines: list[Drawn]
    x_title: str
    y_title: str
    chance: str


LEFT, TOP, WIDE, HIGH = 104, 16, 520, 400
"""Of the area that is drawn in; the viewBox is 640 by 500."""
ODDS = ("all", "1:10", "1:100", "1:1k", "1:10k", "1:100k")
RATES = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99)


def _curves(run: Run) -> Iterator[tuple[str, Chart, Chart]]:
    for name in run.recognizers:
        curves = [curve for curve in run.curves(name) if curve.threat in DRAWN]
        if curves:
            yield numbers.plain(name), _roc(name, curves), _det(name, curves)


def _roc(name: str, curves: Sequence[Curve]) -> Chart:
    """True accept rate over false match rate (log axis)."""
    power = math.floor(math.log10(_smallest(curves)))
    low = 10.0**power

    def x(rates: Any) -> Any:
        return LEFT + WIDE * (np.log10(np.maximum(rates, low)) - power) / -power

    def y(rates: Any) -> Any:
        return TOP + HIGH * (1 - np.asarray(rates))

    lines = [Drawn(c.threat, _points(x(c.fmr), y(c.tar))) for c in curves]
    rates = np.geomspace(low, 1, 60)
    ticks = [Tick(int(x(10.0**p)), ODDS[-p]) for p in range(power, 1)]
    marks = [Tick(int(y(share)), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]
    about = f"ROC curves of {numbers.plain(name)}; the tables hold the numbers"
    return Chart(name, about, ticks, marks, lines, "false matches", "genuine pairs accepted",
                 _points(x(rates), y(rates)))  # fmt: skip


def _det(name: str, curves: Sequence[Curve]) -> Chart:
    """False non-match rate over false match rate, on axes of the normal deviate."""
    low, high = max(_smallest(curves), 1e-4), 0.995
    ends = ndtri([low, high])

    def along(rates: Any) -> Any:
        return (ndtri(np.clip(rates, low, high)) - ends[0]) / (ends[1] - ends[0])

    lines = []
    for curve in curves:
        fmr, fnmr = np.asarray(curve.fmr), 1 - np.asarray(curve.tar)
        drawn = (fmr >= low) & (fmr <= high)  # the way to the corners is no measurement
        x, y = along(fmr[drawn]), along(fnmr[drawn])
        lines.append(Drawn(curve.threat, _points(LEFT + WIDE * x, TOP + HIGH * (1 - y))))
    shown = [rate for rate in RATES if low <= rate <= high]
    texts = [f"{100 * rate:g}" for rate in shown]
    ticks = [Tick(int(LEFT + WIDE * along(r)), t) for r, t in zip(shown, texts, strict=True)]
    marks = [Tick(int(TOP + HIGH * (1 - along(r))), t) for r, t in zip(shown, texts, strict=True)]
    rates = np.linspace(low, high, 60)
    chance = _points(LEFT + WIDE * along(rates), TOP + HIGH * (1 - along(1 - rates)))
    about = f"DET curves of {numbers.plain(name)}; the tables hold the numbers"
    return Chart(name, about, ticks, marks, lines, "false match rate, %",
                 "false non-match rate, %", chance)  # fmt: skip


def _smallest(curves: Sequence[Curve]) -> float:
    """The lowest rate of false matches that is drawn."""
    rates = np.concatenate([np.asarray(curve.fmr, float) for curve in curves])
    seen = rates[(rates > 0) & (rates < 1)]
    return float(np.clip(seen.min() if seen.size else 0.01, 1e-5, 0.05))


def _points(x: Any, y: Any) -> str:
    """Points on whole units, each once: a curve of thousands is no longer than the chart is wide.

    Sorted from left to right; what is no number is left out.
    """
    both = np.column_stack([x, y])
    both = both[np.isfinite(both).all(1)]
    both = both[np.argsort(both[:, 0], kind="stable")].round().astype(int)
    new = np.ones(len(both), bool)
    new[1:] = (both[1:] != both[:-1]).any(1)
    if new.sum() > 4 * WIDE:
        new &= np.arange(len(both)) % math.ceil(new.sum() / (4 * WIDE)) == 0
    return " ".join(f"{a},{b}" for a, b in both[new].tolist())


@dataclass(frozen=True)
class Spot:
    """An entry in the chart of privacy and utility."""

    row: Row
    x: int
    y: int
    low: int
    high: int
    label: str
    label_y: int
    left: bool
    """Whether its label stands on the left."""
    told: str


@dataclass(frozen=True)
class Scatter:
    """The chart of privacy and utility of one ranking."""

    spots: list[Spot]
    x: list[Tick]
    y: list[Tick]
    label: str


SCATTER_TOP, SCATTER_WIDE, SCATTER_HIGH = 48, 760, 368


def _trade_off(group: Group) -> Scatter | None:
    """The worst case over the change of the image; best is low and left."""
    found = []
    for row in group.rows:
        worst, change = row.run.worst(group.far), row.run.lpips()
        if worst and worst.value is not None and change:
            found.append((row, worst, change[0].value or 0.0))
    if not found:
        return None
    right = max(0.05, 1.08 * max(x for *_, x in found))
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 10, 1e9) if right / s <= 8)
    x = [Tick(int(LEFT + SCATTER_WIDE * i * step / right), f"{i * step:g}")
         for i in range(int(right / step) + 1)]  # fmt: skip
    y = [Tick(_height(share), f"{share:.0%}" if group.far else f"{share:g}")
         for share in (0, 0.25, 0.5, 0.75, 1)]  # fmt: skip
    spots = _spots(found, right, named=len(found) <= LABELLED)
    label = f"{_measure(group.far)} of the worst case over change of the image (LPIPS), an entry a "
    return Scatter(spots, x, y, f"{label}point; the table holds the numbers")


def _height(share: float) -> int:
    return int(SCATTER_TOP + SCATTER_HIGH * (1 - min(max(share, 0), 1)))


Box = tuple[int, int, int]
"""From, to, and height of the middle of a line of text."""


def _spots(
    found: Sequence[tuple[Row, MetricRow, float]], right: float, *, named: bool
) -> list[Spot]:
    """Points with labels that cover neither each other nor a point, as far as there is room."""
    at = [int(LEFT + SCATTER_WIDE * change / right) for _, _, change in found]
    heights = [_height(worst.value or 0.0) for _, worst, _ in found]
    taken: list[Box] = [(x - 9, x + 9, y) for x, y in zip(at, heights, strict=True)]
    spots = []
    for x, y, (row, worst, change) in zip(at, heights, found, strict=True):
        strength = row.entry.record.method.strength
        told = "" if strength is None else f" {strength:g}"
        label = f"{_short(row.title, 24)}{told}" if named else ""
        left, middle = _room(x, y, 10 * len(label), taken)
        ends = (worst.value if end is None else end for end in (worst.low, worst.high))
        low, high = (_height(end or 0.0) for end in ends)
        about = f"{_short(row.name)}: {numbers.value(worst)}, LPIPS {change:.3g}"
        spots.append(Spot(row, x, y, low, high, label, middle + 6, left, about))
    return spots


def _room(x: int, y: int, width: int, taken: list[Box]) -> tuple[bool, int]:
    """On which side of a point its label finds room, and how high; the place is then taken."""
    steps = [0, *(sign * step for step in range(8, 120, 8) for sign in (1, -1))]
    for step, left in itertools.product(steps, (False, True)):
        start = x - 13 - width if left else x + 13
        inside = start > LEFT and start + width < LEFT + SCATTER_WIDE + 30
        clear = all(
            abs(y + step - height) >= 18 or end <= start or begin >= start + width
            for begin, end, height in taken
        )
        if inside and clear and y + step > TOP - 4:
            break
    else:
        left, step, start = False, 0, x + 13
    taken.append((start, start + width, y + step))
    return left, y + step
