"""The findings of a run in a terminal, readable from 60 columns on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deidbench.results.schema import MetricRow, RunRecord, ThresholdRecord

from . import numbers, reading
from .reading import Run

ROOMY = 84
IN_REPORT_ONLY = ("head-pose", "landmark-error", "box-iou", "age-", "gender-")
"""How the names begin of what a short summary has no room for."""
COLOURS = {"T0": "dim", "T1": "bold", "T1w": "magenta", "T2": "cyan", "P": "bold",
           "T3": "red", "T3f": "red", "T4": "yellow", "T5": "blue"}  # fmt: skip
ALWAYS = ("T1", "T1w")
"""Threats under which each recognizer has its line, however many there are."""
MOST_LINES = 12


def summary_table(record: RunRecord, width: int | None) -> RenderableType:
    """Ten to twenty lines: the worst case, who recognises whom, what is left, what is unknown.

    ``width`` in columns (at least 60); None when the terminal does not tell.
    """
    run = Run(record)
    narrow = (width or ROOMY) < ROOMY
    honest = reading.honest_fars([run])
    far = honest[-1] if honest else None
    shown = _shown(run, far)
    parts: list[RenderableType] = [
        _title(run),
        *_worst(run, far),
        _attacks(run, shown, far, narrow),
    ]
    if len(shown) < len(_measured(run)):
        parts.append(Text("but for T1 the strongest recognizer only; report: all"))
    parts += _without_recognition(run)
    if run.inverted():
        parts.append(Text("* clearly below 0.5: identity, with its sign flipped"))
    parts += [_utility(run), *_held_and_lost(record), _unknown(record)]
    return Group(*parts)


def _title(run: Run) -> Text:
    record = run.record
    kind = "synthetic faces" if record.dataset.synthetic else "real faces"
    text = Text(run.label, style="bold")
    label = numbers.plain(record.dataset.label)
    return text.append(f" on {label} ({kind}), {numbers.plain(record.protocol)}", style="not bold")


def _worst(run: Run, far: float | None) -> list[Text]:
    """The attack with the largest upper bound, by rate and by AUC."""
    rate, auc = (None if far is None else run.worst(far)), run.worst(None)
    told = [f"{_by(rate)} {_rate(rate, narrow=False)} at FAR {far:g}"] if rate else []
    if auc:
        by = "" if rate and _by(rate) == _by(auc) else f"{_by(auc)} "
        told.append(f"{by}AUC {_auc(auc, narrow=False)}")
    among = "" if reading.adapted(run.record) else " (nobody adapted)"
    return [Text(f"worst case{among}: {'; '.join(told)}", style="bold red")] if told else []


def _by(row: MetricRow) -> str:
    return numbers.plain(f"{row.threat} by {row.recognizer}")


def _measured(run: Run) -> list[tuple[str, str]]:
    """Threats and recognizers that have a line of their own."""
    pairs = ((threat, name) for threat in run.threats for name in run.recognizers)
    return [(threat, name) for threat, name in pairs if run.success(threat, name, None)]


def _shown(run: Run, far: float | None) -> list[tuple[str, str]]:
    """Those that there is room for: of many, the strongest recognizer but under T1."""
    found = _measured(run)
    if len(found) <= MOST_LINES:
        return found
    strongest = {threat: run.ranked(threat, far)[:1] for threat in run.threats}
    return [
        (threat, name)
        for threat, name in found
        if threat in ALWAYS or name in [row.recognizer for row in strongest[threat]]
    ]


def _attacks(run: Run, shown: Sequence[tuple[str, str]], far: float | None, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0) if narrow else (0, 2, 0, 0))
    for heading in ("", "recognizer", "AUC", _far_heading(far, narrow), "EER"):
        table.add_column(heading, no_wrap=True, overflow="crop")
    for threat, name in shown:
        auc = run.success(threat, name, None)
        tar = run.success(threat, name, far) if far is not None else None
        eer = next(iter(run.headline(threat, name, "eer")), None)
        cells = (
            numbers.plain(threat),
            numbers.shortened(numbers.plain(name), 19 if narrow else 40),
            _auc(auc, narrow),
            _rate(tar, narrow),
            _rate(eer, narrow, interval=False),
        )
        table.add_row(*map(Text, cells), style=COLOURS.get(threat, ""))
    return table


def _without_recognition(run: Run) -> list[Text]:
    """How linkable treated faces are, and how well treatment is noticed."""
    linked = [row for name in run.recognizers for row in run.headline("T5", name, "d-sys")]
    told = [
        f"T5 D_sys {_auc(row, narrow=False)} ({numbers.plain(row.recognizer or '')})"
        for row in sorted(linked, key=lambda one: -(one.value or 0.0))[:1]
    ]
    noticed = run.detection("auc")
    if noticed:
        told.append(f"T6 treated or not: AUC {_auc(noticed, narrow=False)}")
    return [Text("; ".join(told))] if told else []


def _utility(run: Run) -> Text:
    parts = []
    for row in run.rows(threat=None):
        if row.params.get("region", "chip") != "chip" or row.params.get("images") == "clean":
            continue
        if row.metric.startswith(IN_REPORT_ONLY):
            continue
        batch = f" (batch {row.params['batch']})" if "batch" in row.params else ""
        parts.append(f"{numbers.title(row.metric)} {numbers.value(row)}{batch}")
    return Text("utility: " + numbers.plain(", ".join(parts) or "not measured"))


def _held_and_lost(record: RunRecord) -> list[Text]:
    """The controls, and how many of the measured images were lost, and where."""
    count = len(record.controls)
    parts = [Text(f"controls: {count} held", style="green")] if count else []
    lost = [f"{n} {name.replace('_', ' ')}" for name, n in record.failures.items() if n]
    if lost:
        parts.append(Text(f"images lost: {numbers.plain(', '.join(lost))} (see images.parquet)"))
    return [Text("; ").join(parts)] if parts else []


def _lacks(threshold: ThresholdRecord) -> bool:
    return threshold.value is None and threshold.view == "landmarks"


def _unknown(record: RunRecord) -> Text:
    lacking = {(t.far, t.recognizer) for t in record.thresholds if _lacks(t)}
    refused = Counter(far for far, _ in sorted(lacking, reverse=True))
    told = {f"{name} at FAR {far:g}" for far, name in lacking}
    found = [one.what for one in record.not_measured if one.what not in told]
    found += [f"FAR {far:g} ({n} recognizer{'s' * (n > 1)})" for far, n in refused.items()]
    if not any("human" in what for what in found):
        found.append("human observers")
    return Text("not measured: " + numbers.plain("; ".join(found)), style="yellow")


def _far_heading(far: float | None, narrow: bool) -> str:
    if far is None:
        return "TAR"
    return f"TAR @ {far:g}" if narrow else f"TAR at FAR {far:g}"


def _auc(row: MetricRow | None, narrow: bool) -> str:
    if row is None or row.value is None:
        return numbers.DASH
    flag = "*" if reading.flipped(row) else ""
    if not narrow:
        return f"{numbers.number(row.value)}{flag} {numbers.interval(row)}".rstrip()
    if row.low is None or row.high is None:
        return _bare(row.value, 3) + flag
    low, high = math.floor(100 * row.low) / 100, math.ceil(100 * row.high) / 100  # outwards
    return f"{_bare(row.value, 3)}{flag} [{_bare(low, 2)},{_bare(high, 2)}]"


def _bare(value: float, places: int) -> str:
    """.834, .9998 or 1.00: few signs, as narrow screens have no room for more."""
    text = numbers.number(value) if 0.9995 <= value < 1 else f"{value:.{places}f}"
    return text.removeprefix("0") if text.startswith("0") else text[: places + 1]


def _rate(row: MetricRow | None, narrow: bool, *, interval: bool = True) -> str:
    if row is None or row.value is None:
        return numbers.DASH
    value = numbers.percent(row.value, digits=2 if narrow else 3).replace(numbers.SPACE, "")
    if narrow and 0 < row.value < 0.001:
        value = "<0.1%"
    if not interval:
        return value
    ends = numbers.interval(row, digits=2).replace(numbers.SPACE, "" if narrow else " ")
    return f"{value} {ends}".rstrip()


SWEPT = ("T1", "T1w", "T2", "T3", "T4")
"""Threats that have a column in the table of a sweep, where they were run."""


def sweep_table(records: Sequence[RunRecord], name: str, values: Sequence[float]) -> Table:
    """One line for each value of a sweep: what is lost of the image, and who still succeeds."""
    runs = [Run(record) for record in records]
    honest = reading.honest_fars(runs)
    far = honest[-1] if honest else None
    met = [threat for threat in SWEPT if any(run.ranked(threat, far) for run in runs)]
    said = "AUC" if far is None else f"TAR at FAR {far:g}"
    table = Table(box=None, pad_edge=False, caption=f"{said}, strongest recognizer")
    for heading in (name, "LPIPS", *met, "worst case"):
        table.add_column(numbers.plain(heading), no_wrap=True, overflow="crop")
    for run, value in zip(runs, values, strict=True):
        lpips = [numbers.value(row) for row in run.lpips()] or [numbers.DASH]
        best = [next(iter(run.ranked(threat, far)), None) for threat in met]
        cells = [f"{value:g}", *lpips]
        table.add_row(*cells, *(_success(row, far) for row in best), _success(run.worst(far), far))
    return table


def _success(row: MetricRow | None, far: float | None) -> str:
    shown = _auc(row, narrow=True) if far is None else _rate(row, narrow=True, interval=False)
    return shown.partition(" ")[0]
