"""The tables of a report, as cells that a template prints without knowing what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from deidbench.results.schema import MetricRow, PairKind

from . import frontier, numbers, reading
from .reading import Run

PAIR_TITLES: dict[str, str] = {
    "cross": "Other photos: the gallery holds another photo of the same person (the headline)",
    "official": "The dataset's own pair list",
    "same": "Same photo: the gallery holds the very photo that was treated",
}
AS_IN_THE_ATTACK = ("T2", "T3", "T3f", "T5")
"""Attackers who know the method: their thresholds come from faces that are treated too."""
FLIPPED = "AUC clearly below 0.5: identity is encoded with its sign flipped; turn the score around"
VIEWS = {
    "landmarks": "attacker knows where the face is",
    "system": "attacker loses the face: counts as no match",
    "conditional": "lost faces left out",
}


Column = tuple[str, tuple[str, float] | None]
"""A metric and, where it has one, its setting ('far', 0.01)."""


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
    flag: str = ""
    """A word or two that must not be missed."""
    prose: bool = False
    """Whether it is a text that wraps."""
    heat: float | None = None
    """How far an attacker gets, from 0 (guessing) to 1; colours the cell."""


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


def prose(text: str) -> Cell:
    """A cell with a sentence."""
    return Cell(numbers.plain(text), prose=True)


def titles(*names: str) -> list[tuple[str, str]]:
    """Column titles without settings."""
    return [(name, "") for name in names]


def glance(runs: Sequence[Run], far: float | None) -> Table:
    """Attacker success of each recognizer, a column a threat, with bars."""
    threats = _attacks(runs)
    what = "Attacker's AUC"
    if far is not None:
        treated = [threat for threat in AS_IN_THE_ATTACK if threat in threats]
        what = f"Share of genuine pairs that are still accepted, at {numbers.odds(far)}"
        what += f" (thresholds fixed on other people: untreated{_for_them(treated)})"
        what += "; AUC below it, where 0.5 is guessing"
    columns = [(f"{t} {reading.ATTACKS[t].partition(':')[0]}", "") for t in threats]
    table = Table(
        "glance", f"{what}. Long bars are bad for privacy.", [*titles(_by(runs)), *columns]
    )
    for title, label, run, name in _by_recognizer(runs):
        table.extend(title, [label, *(_glance(table, run, t, name, far) for t in threats)])
    return table


def heat(runs: Sequence[Run], far: float | None) -> Table:
    """All attacks at one look: a cell for each threat and recognizer, darker where it succeeds."""
    threats = _attacks(runs)
    what = "AUC, where 0.5 is guessing"
    if far is not None:
        what = f"Share of genuine pairs accepted at {numbers.odds(far)}; AUC below it"
    columns = [(f"{t} {reading.ATTACKS[t].partition(':')[0]}", "") for t in threats]
    table = Table(
        "heat", f"{what}. The stronger the colour, the more the attacker still achieves; "
        "T0, untreated, is the ceiling.", [*titles("recognizer"), *columns],
    )  # fmt: skip
    for run in runs:
        for name in run.recognizers:
            cells = [_heat(run, threat, name, far) for threat in threats]
            table.extend(_of_many(run, runs), [head(name), *cells])
    return table


def _heat(run: Run, threat: str, name: str, far: float | None) -> Cell:
    row, auc = run.success(threat, name, far), run.success(threat, name, None)
    if row is None:
        return Cell(numbers.DASH, tone="none")
    if row.value is None:
        return Cell("n/a", tone="none")
    worst = run.worst(far)
    told = f"AUC {numbers.value(auc)}" if auc and auc.value is not None and far else ""
    share = row.value if far is not None else 2 * abs(row.value - 0.5)
    return Cell(
        numbers.percent(row.value, 2) if far is not None else numbers.value(row), more=told,
        heat=round(min(max(share, 0.0), 1.0), 3),
        flag="worst" if worst and (worst.threat, worst.recognizer) == (threat, name) else "",
    )  # fmt: skip


def trade_off(runs: Sequence[Run], far: float | None) -> Table:
    """What the chart of privacy and utility shows, in numbers."""
    rate = [] if far is None else [numbers.title("tar", far)]
    heads = titles("run" if len(runs) > 1 else "method", "LPIPS", "AUC", "attack by AUC")
    heads += titles(*rate, *(["attack by rate"] if rate else []))
    about = "The strongest attack on each run, and how much the image changes; 95 % intervals."
    table = Table("frontier", about, heads)
    by_rate = {spot.run.letter: spot for spot in frontier.spots(runs, far)} if rate else {}
    swept = {run.letter: sweep.title for sweep in frontier.sweeps(runs) for run in sweep.runs}
    for spot in sorted(frontier.spots(runs, None), key=lambda s: swept.get(s.run.letter, "~")):
        run = spot.run
        label = _of_run(run) if len(runs) > 1 else head(run.label)
        cells = [label, table.cell(spot.change), *_spot(table, spot)]
        if rate:
            found = by_rate.get(run.letter)
            cells += _spot(table, found) if found else [Cell(""), Cell("")]
        title = swept.get(run.letter, "not swept" if swept else "")
        table.extend(title, cells)
    return table


def _spot(table: Table, spot: frontier.Spot) -> list[Cell]:
    low, high = spot.ends or (None, None)
    row = spot.row.model_copy(update={"value": spot.at, "low": low, "high": high, "note": None})
    return [table.cell(row), Cell(numbers.plain(f"{row.threat}, {row.recognizer}"))]


def failures(runs: Sequence[Run]) -> Table:
    """Images lost at each stage, a column a run."""
    names = [run.letter for run in runs] if len(runs) > 1 else ["images"]
    about = "Images of measured people that were lost, by stage."
    table = Table("failures", about, titles("stage", *names))
    for stage in _ordered(stage for run in runs for stage in run.record.failures):
        counts = [Cell(numbers.count(run.record.failures.get(stage))) for run in runs]
        table.extend("", [head(stage.replace("_", " ")), *counts])
    return table


def _attacks(runs: Sequence[Run]) -> list[str]:
    """The rungs of the ladder that some recognizer was measured on."""
    return [
        t
        for t in reading.LADDER
        if any(run.success(t, name, None) for run in runs for name in run.recognizers)
    ]


def _for_them(threats: Sequence[str]) -> str:
    """', for T2 treated': the attacks whose thresholds come from faces as in the attack."""
    *most, last = threats or [""]
    named = f"{', '.join(most)} and {last}" if most else last
    return f", for {named} treated" if named else ""


def recognizer(name: str, runs: Sequence[Run], index: int = 0) -> Table:
    """All verification metrics of one recognizer, cross-image and same-image pairs apart."""
    columns = _columns(runs, name)
    table = Table(
        f"attack{index}",
        "Landmarks of the original are known to the attacker; 95 % intervals in brackets.",
        [*titles("threat"), *map(_heading, columns), ("pairs", "genuine / impostor / failed")],
    )
    table.remarks = _refusals(runs, name, columns)
    _fill(table, runs, name, columns, _compared)
    return table


def search(name: str, runs: Sequence[Run], index: int = 0) -> Table:
    """How often a search in a gallery names the right person, by one recognizer."""
    columns = _columns(runs, name, SEARCHED)
    about = (
        "Rank-k: how often the right person is among the first k of the gallery. DIR: how often "
        "the right person is named when half of the people searched for are not in the gallery, "
        "at a share FPIR of false alarms."
    )
    table = Table(
        f"search{index}", about, [*titles("threat"), *map(_heading, columns), ("searches", "")]
    )
    table.remarks = _refusals(runs, name, columns, SEARCHED)
    _fill(table, runs, name, columns, _searches)
    return table


def _fill(
    table: Table,
    runs: Sequence[Run],
    name: str,
    columns: Sequence[Column],
    size: Callable[[Sequence[MetricRow]], str],
) -> None:
    """A row a threat and run, under the kind of pairs; its last cell says of how many."""
    threats = _ordered(threat for run in runs for threat in run.threats)
    for kind in ("cross", "official", "same"):
        for threat in sorted(threats, key=_rung):
            for run in runs:
                rows = _of_attack(run, threat, name, kind, columns)
                if rows:
                    label = _attack_label(run, threat, many=len(runs) > 1)
                    cells = [table.cell(rows.get(column)) for column in columns]
                    count = Cell(size(list(rows.values())))
                    table.extend(PAIR_TITLES[kind], [label, *cells, count])


def views(runs: Sequence[Run], far: float | None) -> Table:
    """What an attacker achieves in the three views of lost faces."""
    what = "AUC" if far is None else numbers.title("tar", far)
    heads = titles(_by(runs), "threat", *VIEWS.values(), "pairs lost")
    table = Table("views", f"{what} in the three views of lost faces.", heads)
    for title, label, run, name in _by_recognizer(runs):
        for threat in run.threats:
            found = [_in_view(run, threat, name, view, far) for view in VIEWS]
            if threat != "T0" and any(found[1:]):  # else nothing is lost on purpose
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
    keys = _ordered(setting(row, without="region") for run in runs for row in _image_rows(run))
    for key in keys:
        for run in runs:
            rows = [row for row in _image_rows(run) if setting(row, without="region") == key]
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
        {setting(row): row for row in run.rows(threat=None)
         if "region" not in row.params and choose(row)}
        for run in runs
    ]  # fmt: skip
    names = [run.letter for run in runs] if len(runs) > 1 else ["value"]
    table = Table(id_, about, titles("measure", *names))
    for key in _ordered(key for rows in chosen for key in rows):
        table.extend("", [head(key), *(table.cell(rows.get(key)) for rows in chosen)])
    return table


def linkage(runs: Sequence[Run], far: float | None) -> Table:
    """How far treated faces can be linked (T5), and how well treatment is noticed (T6)."""
    rate = [] if far is None else [numbers.title("tar", far)]
    heads = titles("attack", *rate, "AUC", "EER", "D_sys")
    about = "D_sys: 0 where nothing can be linked, 1 where everything can."
    table = Table("linkage", about, heads)
    for title, label, run, name in _by_recognizer(runs):
        found = [run.success("T5", name, f) for f in ([] if far is None else [far])]
        found += [next(iter(run.headline("T5", name, m)), None) for m in ("auc", "eer", "d-sys")]
        if any(found):
            table.extend(f"T5 linkage {title}".rstrip(), [label, *map(table.cell, found)])
    for run in runs:
        noticed = [run.detection("auc"), run.detection("eer")]
        if any(noticed):
            label = head("detector") if len(runs) == 1 else _of_run(run)
            rates = [Cell("") for _ in rate]
            cells = [*rates, *map(table.cell, noticed), Cell("")]
            table.extend("T6 detection", [label, *cells])
    return table


def learned(runs: Sequence[Run]) -> Table:
    """What the attackers who learn have chosen, by recognizer."""
    heads = titles("recognizer", "threat", "choice")
    about = "What was chosen on other people, and what it was chosen from."
    table = Table("learned", about, heads)
    for run in runs:
        for one in run.record.learned:
            cells = [head(one.recognizer), Cell(numbers.plain(one.threat)), prose(one.note)]
            table.extend(_of_many(run, runs), cells)
    return table


def restored(runs: Sequence[Run]) -> Table:
    """How like the originals the faces are that a restorer makes of treated ones (T4)."""
    heads = titles("metric", "recognizer", "treated", "restored", "images")
    about = (
        "How like the original a face is as published, and after a restorer (T4). A restored face "
        "that is more alike shows that the treatment can partly be undone."
    )
    table = Table("restored", about, heads)
    for run in runs:
        published = {(row.metric, *_sorted_params(row)): row for row in _image_rows(run)}
        for row in run.rows(threat="T4", pairs=None):
            before = published.get((row.metric, *_sorted_params(row)))
            cells = [head(setting(row)), Cell(numbers.plain(row.recognizer or ""))]
            cells += [table.cell(before), table.cell(row), Cell(numbers.count(row.n))]
            table.extend(_of_many(run, runs), cells)
    return table


def controls(run: Run) -> Table:
    """Attacks on faces where their outcome is known."""
    heads = titles("control", "recognizer", "expected", "came out")
    about = "Every attack was tried where its outcome is known; a failed one stops the run."
    table = Table(f"controls-{run.letter}", about, heads)
    for one in run.record.controls:
        texts = [prose(text) for text in (one.recognizer or "", one.expected, one.found)]
        table.extend("", [head(one.name), *texts])
    return table


def worst_groups(runs: Sequence[Run], far: float | None) -> Table:
    """Of each attack the group that it recognises best, the worst attack first."""
    metric = "auc" if far is None else "tar"
    heads = titles("attack", "recognizer", "worst group", numbers.title(metric, far), "all people")
    about = "The group of people that each attack recognises best; the worst attack first."
    table = Table("worst-groups", about, heads)
    for run in runs:
        worst = [row for row in _worst_of_groups(run, far).values() if row.threat != "T0"]
        for row in sorted(worst, key=reading.strength):
            whole = run.success(row.threat or "", row.recognizer or "", far)
            attack = Cell(numbers.plain(row.threat or ""), head=True, tone=row.threat or "")
            cells = [Cell(numbers.plain(t or "")) for t in (row.recognizer, row.group)]
            found = [table.cell(row, tone="warn"), table.cell(whole)]
            table.extend(_of_many(run, runs), [attack, *cells, *found])
    return table


def groups(runs: Sequence[Run], far: float | None) -> Table:
    """Attacker success by group, where a dataset has labels; the worst group first and marked."""
    metric = "auc" if far is None else "tar"
    heads = titles("group", "recognizer", "threat", numbers.title(metric, far))
    about = "Attacker success by group; the worst group of each attack is marked."
    table = Table("groups", about, heads)
    for run in runs:
        worst = _worst_of_groups(run, far)
        for row in _by_attack(_group_rows(run, far)):
            tone = "warn" if worst.get((row.recognizer, row.threat)) is row else ""
            names = [numbers.plain(text or "") for text in (row.recognizer, row.threat)]
            cells = [head(row.group or ""), *map(Cell, names), table.cell(row, tone=tone)]
            table.extend(_of_many(run, runs), cells)
    return table


def _group_rows(run: Run, far: float | None) -> list[MetricRow]:
    metric = "auc" if far is None else "tar"
    headline = (run.pairs, "landmarks", metric, far)
    return [
        row
        for row in run.record.rows
        if row.group is not None and (row.pairs, row.view, row.metric, _far(row)) == headline
    ]


def _worst_of_groups(run: Run, far: float | None) -> dict[tuple[str | None, str | None], MetricRow]:
    """By recognizer and threat; those without a value are nobody's worst."""
    defined = [row for row in _group_rows(run, far) if row.value is not None]
    ascending = sorted(defined, key=reading.strength, reverse=True)
    return {(row.recognizer, row.threat): row for row in ascending}


def _by_attack(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """Threats in the order of the ladder, and within an attack the worst group first."""
    return sorted(
        rows, key=lambda row: (_rung(row.threat or ""), row.recognizer, reading.strength(row))
    )


def _of_many(run: Run, runs: Sequence[Run]) -> str:
    """The title of a run's own rows where several runs stand together."""
    return f"{run.letter}  {run.label}" if len(runs) > 1 else ""


def _sorted_params(row: MetricRow) -> list[tuple[str, float | int | str]]:
    return sorted(row.params.items())


def thresholds(run: Run) -> Table:
    """Decision thresholds, fixed on CALIBRATION people."""
    heads = titles("recognizer", "threat", "view", "FAR", "threshold", "impostor pairs")
    seen = {one.threat for one in run.record.thresholds}
    treated = _for_them([t for t in ("T2", "T3", "T3f", "T5") if t in seen])
    about = (
        f"Thresholds, fixed on CALIBRATION people: untreated faces{treated and treated + ' ones'}."
    )
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
    worst = run.worst(far)
    if worst and (worst.threat, worst.recognizer) == (threat, name):
        cell = replace(cell, flag="worst case")
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


def _of_attack(
    run: Run, threat: str, name: str, kind: PairKind | str, columns: Sequence[Column]
) -> dict[Column, MetricRow]:
    """The rows of one attack that have a column."""
    rows = run.rows(threat=threat, recognizer=name, pairs=kind, view="landmarks")
    found = {(row.metric, _at(row)): row for row in rows}
    return {column: found[column] for column in columns if column in found}


def _attack_label(run: Run, threat: str, *, many: bool) -> Cell:
    title = f"{threat}  {run.letter}" if many else threat
    about = reading.ATTACKS.get(threat, "")
    if many:
        about = f"{run.label}; {about}" if threat == "T1w" else run.label
    return Cell(numbers.plain(title), about, tone=threat, head=True)


def _compared(rows: Sequence[MetricRow]) -> str:
    """'784 / 24,000 / 0': pairs of an attack, and how many of them lost a face."""
    return " / ".join(
        numbers.count(max((getattr(row, field) or 0) for row in rows))
        for field in ("n_genuine", "n_impostor", "n_failed")
    )


def _searches(rows: Sequence[MetricRow]) -> str:
    return numbers.count(max((row.n or row.n_genuine or 0) for row in rows))


SHOWN = ("accuracy", "auc", "auc-over-folds", "eer", "eer-over-folds", "dprime", "tar", "fmr",
         "dodging-psr")  # fmt: skip
SEARCHED = ("rank-k", "dir")
SETTINGS = {"far": "FAR {}", "k": "k = {}", "fpir": "FPIR {}", "folds": "{} folds"}
"""How the settings are written that make columns of their own."""


def _at(row: MetricRow) -> tuple[str, float] | None:
    """The setting that makes a column of its own, and its value."""
    for name in SETTINGS:
        value = row.params.get(name)
        if isinstance(value, (int, float)):
            return name, float(value)
    return None


def _heading(column: Column) -> tuple[str, str]:
    metric, at = column
    return numbers.title(metric), SETTINGS[at[0]].format(f"{at[1]:g}") if at else ""


def _columns(runs: Sequence[Run], name: str, metrics: Sequence[str] = SHOWN) -> list[Column]:
    """What is defined somewhere: metrics of the whole curve first, then those by FAR or by k."""
    seen = {
        (row.metric, _at(row))
        for run in runs
        for row in run.rows(recognizer=name, view="landmarks")
        if row.metric in metrics and row.value is not None
    }
    return sorted(seen, key=lambda column: (metrics.index(column[0]), _place(column[1])))


def _place(at: tuple[str, float] | None) -> float:
    """Rates from the largest on, ranks from the first on."""
    name, value = at or ("", 0.0)
    return value if name == "k" else -value


def _refusals(
    runs: Sequence[Run], name: str, columns: Sequence[Column], metrics: Sequence[str] = SHOWN
) -> list[str]:
    """Why a metric has no column, one line a reason."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for row in run.rows(recognizer=name, view="landmarks", pairs=run.pairs):
            column = (row.metric, _at(row))
            if row.metric in metrics and row.value is None and column not in columns:
                found.setdefault(row.note or "", []).append(_named(column))
    return [
        numbers.plain(f"Without a value: {', '.join(dict.fromkeys(what))} ({why.rstrip('.')})")
        for why, what in found.items()
    ]


def _named(column: Column) -> str:
    """'TAR at FAR 0.01', 'Rank-k at k = 5'."""
    title, setting = _heading(column)
    return f"{title} at {setting}" if setting else title


def _in_view(run: Run, threat: str, name: str, view: str, far: float | None) -> MetricRow | None:
    metric = "auc" if far is None else "tar"
    rows = run.rows(threat=threat, recognizer=name, metric=metric, pairs=run.pairs, view=view)
    return next((row for row in rows if _far(row) == far), None)


def _image_rows(run: Run) -> list[MetricRow]:
    return [row for row in run.rows(threat=None) if "region" in row.params]


def _far(row: MetricRow) -> float | None:
    far = row.params.get("far")
    return float(far) if isinstance(far, (int, float)) else None


def setting(row: MetricRow, without: str = "") -> str:
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
