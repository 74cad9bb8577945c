"""The tables of a report, as cells that a template prints without knowing what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from deidbench.results.schema import MetricRow, PairKind

from . import numbers, reading
from .reading import Run

PAIR_TITLES: dict[str, str] = {
    "cross": "Other photos: the gallery holds another photo of the same person (the headline)",
    "official": "The dataset's own pair list",
    "same": "Same photo: the gallery holds the very photo that was treated",
}
FLIPPED = "AUC clearly below 0.5: identity is encoded with its sign flipped; turn the score around"
VIEWS = {
    "landmarks": "attacker knows where the face is",
    "system": "attacker loses the face: counts as no match",
    "conditional": "lost faces left out",
}


@dataclass(frozen=True)
class Cell:
    """A value, its interval, footnotes, and optionally a bar (low, at, high in percent)."""

    text: str
    interval: str = ""
    marks: tuple[int, ...] = ()
    bar: tuple[float, float, float] | None = None
    tone: str = ""
    head: bool = False
    more: str = ""


@dataclass
class Table:
    """A caption, a header row and groups of rows, each under a title (may be empty)."""

    id: str
    caption: str
    head: list[tuple[str, str]]
    """Title and setting of each column."""
    groups: list[tuple[str, list[list[Cell]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def cell(self, row: MetricRow | None, *, bar: bool = False, tone: str = "") -> Cell:
        """A row as a cell; its notes become footnotes of this table."""
        if row is None:
            return Cell("")
        notes = [row.note] if row.note else []
        if reading.flipped(row):
            notes, tone = notes or [FLIPPED], "warn"
        return Cell(
            "n/a" if row.value is None else numbers.value(row),
            numbers.interval(row),
            tuple(self._mark(numbers.plain(note)) for note in notes),
            _bar(row) if bar else None,
            tone or ("none" if row.value is None else ""),
        )

    def extend(self, title: str, row: list[Cell]) -> None:
        """Add a row to the last group, or to a new one where the title differs."""
        if not self.groups or self.groups[-1][0] != title:
            self.groups.append((title, []))
        self.groups[-1][1].append(row)

    def _mark(self, note: str) -> int:
        if note not in self.notes:
            self.notes.append(note)
        return self.notes.index(note) + 1


def head(text: str) -> Cell:
    """The cell that names its row."""
    return Cell(numbers.plain(text), head=True)


def titles(*names: str) -> list[tuple[str, str]]:
    """Column titles without settings."""
    return [(name, "") for name in names]


def glance(runs: Sequence[Run], far: float | None) -> Table:
    """Attacker success of each recognizer, a column a threat, with bars."""
    threats = [t for t in reading.LADDER if any(t in run.threats for run in runs)]
    what = "Attacker's AUC"
    if far is not None:
        what = f"Share of genuine pairs that are still accepted, at {numbers.odds(far)}"
        what += " (thresholds fixed on other people: untreated, for T2 treated)"
        what += "; AUC below it, where 0.5 is guessing"
    columns = [(f"{t} {reading.ATTACKS[t].partition(':')[0]}", "") for t in threats]
    table = Table(
        "glance", f"{what}. Long bars are bad for privacy.", [*titles(_by(runs)), *columns]
    )
    for title, label, run, name in _by_recognizer(runs):
        table.extend(title, [label, *(_glance(table, run, t, name, far) for t in threats)])
    return table


def recognizer(name: str, runs: Sequence[Run], index: int = 0) -> Table:
    """All verification metrics of one recognizer, cross-image and same-image pairs apart."""
    columns = _columns(runs, name)
    heads = [
        (numbers.title(metric), "" if far is None else f"FAR {far:g}") for metric, far in columns
    ]
    table = Table(
        f"attack{index}",
        "Landmarks of the original are known to the attacker; 95 % intervals in brackets.",
        [*titles("threat"), *heads, ("pairs", "genuine / impostor / failed")],
    )
    table.remarks = _refusals(runs, name, columns)
    threats = _ordered(threat for run in runs for threat in run.threats)
    for kind in ("cross", "official", "same"):
        for threat in sorted(threats, key=_rung):
            for run in runs:
                for row in _attack(table, run, threat, name, kind, columns, many=len(runs) > 1):
                    table.extend(PAIR_TITLES[kind], row)
    return table


def views(runs: Sequence[Run], far: float | None) -> Table:
    """What an attacker achieves in the three views of lost faces."""
    what = "AUC" if far is None else numbers.title("tar", far)
    heads = titles(_by(runs), "threat", *VIEWS.values(), "pairs lost")
    table = Table("views", f"{what} in the three views of lost faces.", heads)
    for title, label, run, name in _by_recognizer(runs):
        for threat in run.threats:
            found = [_in_view(run, threat, name, view, far) for view in VIEWS]
            if threat != "T0" and any(found):
                lost = max((row.n_failed or 0 for row in found if row), default=0)
                cells = [table.cell(row) for row in found]
                table.extend(title, [label, Cell(threat), *cells, Cell(numbers.count(lost))])
    return table


def utility(runs: Sequence[Run]) -> Table:
    """Image metrics, whole chip and inner face apart."""
    regions = _ordered(row.params["region"] for run in runs for row in _image_rows(run))
    names = {"chip": "whole chip", "face": "inner face"}
    heads = titles("metric", *(names.get(region, region) for region in regions), "images")
    table = Table("utility", "Likeness of treated and original faces: utility, not privacy.", heads)
    keys = _ordered(_setting(row, without="region") for run in runs for row in _image_rows(run))
    for key in keys:
        for run in runs:
            rows = [row for row in _image_rows(run) if _setting(row, without="region") == key]
            if not rows:
                continue
            better = "higher is more alike" if rows[0].higher_is_better else "lower is more alike"
            label = Cell(key, better, head=True) if len(runs) == 1 else _of_run(run)
            found = {str(row.params["region"]): row for row in rows}
            size = Cell(numbers.count(max(row.n or 0 for row in rows)))
            cells = [table.cell(found.get(region)) for region in regions]
            table.extend("" if len(runs) == 1 else f"{key}: {better}", [label, *cells, size])
    return table


def other(runs: Sequence[Run], choose: Callable[[MetricRow], bool], id_: str, about: str) -> Table:
    """Rows without a threat and a region (detection, speed), a column a run."""
    chosen = [
        {_setting(row): row for row in run.rows(threat=None)
         if "region" not in row.params and choose(row)}
        for run in runs
    ]  # fmt: skip
    names = [run.letter for run in runs] if len(runs) > 1 else ["value"]
    table = Table(id_, about, titles("measure", *names))
    for key in _ordered(key for rows in chosen for key in rows):
        table.extend("", [head(key), *(table.cell(rows.get(key)) for rows in chosen)])
    return table


def groups(runs: Sequence[Run], far: float | None) -> Table:
    """Attacker success by group, where a dataset has labels; the worst group is marked."""
    metric = "auc" if far is None else "tar"
    heads = titles("group", "recognizer", "threat", numbers.title(metric, far))
    about = "Attacker success by group; the worst group of each attack is marked."
    table = Table("groups", about, heads)
    for run in runs:
        found = [row for row in run.record.rows if _of_group(row, run, metric, far)]
        ascending = sorted(found, key=lambda row: row.value or 0)
        worst = {(row.recognizer, row.threat): row for row in ascending}
        for row in found:
            tone = "warn" if worst[row.recognizer, row.threat] is row else ""
            names = [numbers.plain(text or "") for text in (row.recognizer, row.threat)]
            cells = [head(row.group or ""), *map(Cell, names), table.cell(row, tone=tone)]
            table.extend(f"{run.letter}  {run.label}" if len(runs) > 1 else "", cells)
    return table


def thresholds(run: Run) -> Table:
    """Decision thresholds, fixed on CALIBRATION people."""
    heads = titles("recognizer", "threat", "view", "FAR", "threshold", "impostor pairs")
    about = "Thresholds, fixed on CALIBRATION people: untreated faces, for T2 treated ones."
    table = Table(f"thresholds-{run.letter}", about, heads)
    for one in run.record.thresholds:
        row = MetricRow(metric="threshold", value=one.value, note=one.note or "undefined")
        cell = table.cell(row) if one.value is None else Cell(numbers.number(one.value))
        counts = Cell(numbers.count(one.n_impostor))
        cells = [head(one.recognizer), Cell(one.threat), Cell(one.view), Cell(f"{one.far:g}")]
        table.extend("", [*cells, cell, counts])
    return table


def _glance(table: Table, run: Run, threat: str, name: str, far: float | None) -> Cell:
    """A rate and, beside it, the AUC: no threshold can flatter that."""
    cell = table.cell(run.success(threat, name, far), bar=True, tone=threat)
    auc = run.success(threat, name, None)
    if far is None or auc is None or auc.value is None:
        return cell
    return replace(cell, more=f"AUC {numbers.value(auc)}")


def _by_recognizer(runs: Sequence[Run]) -> Iterator[tuple[str, Cell, Run, str]]:
    """Group title, row label, run and recognizer: several runs stand together by recognizer."""
    for name in _ordered(name for run in runs for name in run.recognizers):
        for run in runs:
            if name in run.recognizers and len(runs) == 1:
                yield "", head(name), run, name
            elif name in run.recognizers:
                yield numbers.plain(name), _of_run(run), run, name


def _by(runs: Sequence[Run]) -> str:
    return "recognizer" if len(runs) == 1 else "run"


def _of_run(run: Run) -> Cell:
    return Cell(run.letter, run.label, head=True)


def _rung(threat: str) -> tuple[int, str]:
    ladder = reading.LADDER
    return (ladder.index(threat) if threat in ladder else len(ladder), threat)


def _attack(
    table: Table,
    run: Run,
    threat: str,
    name: str,
    kind: PairKind | str,
    columns: Sequence[tuple[str, float | None]],
    *,
    many: bool,
) -> list[list[Cell]]:
    """The row of one attack, or none."""
    rows = list(run.rows(threat=threat, recognizer=name, pairs=kind, view="landmarks"))
    if not rows:
        return []
    by_column = {(row.metric, _far(row)): row for row in rows}
    title = f"{threat}  {run.letter}" if many else threat
    about = reading.ATTACKS.get(threat, "")
    if many:
        about = f"{run.label}; {about}" if threat == "T1w" else run.label
    counts = [
        numbers.count(max((getattr(row, n) or 0) for row in rows))
        for n in ("n_genuine", "n_impostor", "n_failed")
    ]
    label = Cell(numbers.plain(title), about, tone=threat, head=True)
    return [
        [
            label,
            *(table.cell(by_column.get(column)) for column in columns),
            Cell(" / ".join(counts)),
        ]
    ]


SHOWN = ("accuracy", "auc", "eer", "dprime", "tar", "fmr", "dodging-psr")


def _columns(runs: Sequence[Run], name: str) -> list[tuple[str, float | None]]:
    """What is defined somewhere: metrics of the whole curve first, then those by FAR."""
    seen = {
        (row.metric, _far(row))
        for run in runs
        for row in run.rows(recognizer=name, view="landmarks")
        if row.metric in SHOWN and row.value is not None
    }
    return sorted(seen, key=lambda column: (SHOWN.index(column[0]), -(column[1] or 0)))


def _refusals(
    runs: Sequence[Run], name: str, columns: Sequence[tuple[str, float | None]]
) -> list[str]:
    """Why a metric has no column, one line a reason."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for row in run.rows(recognizer=name, view="landmarks", pairs=run.pairs):
            if row.metric in SHOWN and row.value is None and (row.metric, _far(row)) not in columns:
                found.setdefault(row.note or "", []).append(numbers.title(row.metric, _far(row)))
    return [
        numbers.plain(f"Without a value: {', '.join(dict.fromkeys(what))} ({why.rstrip('.')})")
        for why, what in found.items()
    ]


def _in_view(run: Run, threat: str, name: str, view: str, far: float | None) -> MetricRow | None:
    metric = "auc" if far is None else "tar"
    rows = run.rows(threat=threat, recognizer=name, metric=metric, pairs=run.pairs, view=view)
    return next((row for row in rows if _far(row) == far), None)


def _of_group(row: MetricRow, run: Run, metric: str, far: float | None) -> bool:
    headline = row.pairs == run.pairs and row.view == "landmarks"
    return row.group is not None and headline and row.metric == metric and _far(row) == far


def _image_rows(run: Run) -> list[MetricRow]:
    return [row for row in run.rows(threat=None) if "region" in row.params]


def _far(row: MetricRow) -> float | None:
    far = row.params.get("far")
    return float(far) if isinstance(far, (int, float)) else None


def _setting(row: MetricRow, without: str = "") -> str:
    """'LPIPS (net alex)' of a metric and its settings."""
    params = ", ".join(
        f"{value} images" if key == "images" else f"{key} {value}"
        for key, value in row.params.items()
        if key != without
    )
    return numbers.plain(numbers.title(row.metric) + (f" ({params})" if params else ""))


def _bar(row: MetricRow) -> tuple[float, float, float] | None:
    if row.value is None:
        return None
    low = row.value if row.low is None else row.low
    high = row.value if row.high is None else row.high
    low, at, high = (round(100 * min(max(end, 0), 1), 2) for end in (low, row.value, high))
    return low, at, high


def _ordered(values: Iterable[object]) -> list[str]:
    return [str(value) for value in dict.fromkeys(values)]
