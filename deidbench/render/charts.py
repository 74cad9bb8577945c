"""The charts of a page that stand still: which lines they hold, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from . import figures, frontier, numbers, reading
from .reading import Run


@dataclass(frozen=True)
class Panel:
    """A chart with its heading; ``svg`` is ours and needs no escaping."""

    title: str
    svg: Markup
    key: str = ""


def ink(index: int) -> str:
    """The colour of a run among several."""
    return f"run{index % 8}"


def legend(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """Colour, dashes and meaning of each line of the charts."""
    threats = [t for t in drawn(runs) if any(t in run.threats for run in runs)]
    if len(runs) == 1:
        return [(t, t, f"{t} {reading.ATTACKS[t]}") for t in threats]
    lines = [(ink(i), "T1", f"{run.letter}  {run.label}") for i, run in enumerate(runs)]
    return lines + [("soft", t, f"{t} {reading.ATTACKS[t]}") for t in threats]


def drawn(runs: Sequence[Run]) -> tuple[str, ...]:
    """Threats that have lines: of several runs only some, since each has a colour per run."""
    return figures.THREATS if len(runs) == 1 else ("T0", "T1", "T1w", "T2", "T3")


def _lines(runs: Sequence[Run], name: str) -> list[figures.Line]:
    return [
        figures.Line(curve, curve.threat if len(runs) == 1 else ink(i))
        for i, run in enumerate(runs)
        for curve in run.curves(name)
        if curve.threat in drawn(runs)
    ]


def roc(runs: Sequence[Run], name: str, index: int) -> Panel:
    """All lines of a recognizer."""
    lines, key = _lines(runs, name), f"roc{index}"
    label = f"ROC curves of {numbers.plain(name)} under {_under(lines)}"
    return Panel(name, Markup(figures.roc(lines, key=key, label=label)), key)  # noqa: S704


def det(runs: Sequence[Run], name: str, index: int) -> Panel:
    """The same lines as errors of both kinds."""
    lines, key = _lines(runs, name), f"det{index}"
    label = f"DET curves of {numbers.plain(name)} under {_under(lines)}"
    return Panel(name, Markup(figures.det(lines, key=key, label=label)), key)  # noqa: S704


def cmc(runs: Sequence[Run], names: Sequence[str]) -> Iterator[Panel]:
    """Searches in a gallery, by recognizer, where they were run."""
    for index, name in enumerate(names):
        lines = [
            figures.RankLine(curve, curve.threat if len(runs) == 1 else ink(i))
            for i, run in enumerate(runs)
            for curve in run.searches(name)
            if curve.threat in drawn(runs)
        ]
        if lines:
            label = f"CMC curves of {numbers.plain(name)} under {_under(lines)}"
            svg = figures.cmc(lines, key=f"cmc{index}", label=label)
            yield Panel(name, Markup(svg))  # noqa: S704


def _under(lines: Sequence[figures.Line | figures.RankLine]) -> str:
    threats = ", ".join(dict.fromkeys(line.curve.threat for line in lines)) or "nothing"
    return f"{threats}; the tables hold the numbers"


def histograms(runs: Sequence[Run], names: Sequence[str], far: float | None) -> Iterator[Panel]:
    """Scores of each run and recognizer under the threats that share one threshold."""
    for i, run in enumerate(runs):
        for k, name in enumerate(names):
            panels = [
                (f"{curve.threat} {reading.ATTACKS[curve.threat]}", curve)
                for curve in run.curves(name)
                if curve.threat in ("T0", "T1", "T1w")  # one threshold, fixed on clean faces
            ]
            if not panels:
                continue
            at = run.threshold("T0", name, far)
            title = f"{run.letter} {name}" if len(runs) > 1 else name
            label = f"Score histograms of {numbers.plain(title)}: genuine and impostor pairs"
            svg = figures.histograms(panels, at, key=f"hist{i}-{k}", label=label)
            yield Panel(title, Markup(svg))  # noqa: S704


def trade_off(runs: Sequence[Run], far: float | None) -> Panel | None:
    """Success of the strongest attacker over the image's change: a rate, or the AUC for None."""
    found = frontier.spots(runs, far)
    if not found:
        return None
    points = [_point(spot, runs) for spot in found]
    clean = [spot.clean for spot in found if spot.clean is not None]
    what = "attacker's AUC" if far is None else f"genuine pairs accepted, FAR {far:g}"
    listed = "; ".join(f"{p.letter}: LPIPS {p.x:.3g}, {p.y:.3g}" for p in points)
    label = f"{what} over change of the image. {listed}"
    key = "trade" if far is None else "trade-tar"
    svg = figures.trade_off(
        points, paths(runs), clean=max(clean, default=None), far=far, key=key, label=label
    )
    title = "By AUC" if far is None else f"At {numbers.odds(far)}"
    return Panel(title, Markup(svg), key)  # noqa: S704


def _point(spot: frontier.Spot, runs: Sequence[Run]) -> figures.Point:
    run, threat = spot.run, spot.row.threat
    own = threat if threat in figures.THREATS else "T1"  # a guest's has no colour
    return figures.Point(
        run.letter, own if len(runs) == 1 else run_ink(run, runs), spot.change.value or 0,
        spot.at, frontier.interval(spot.change), spot.ends,
    )  # fmt: skip


def run_ink(run: Run, runs: Sequence[Run]) -> str:
    """The colour of a run on the chart of trade-offs: runs of one sweep have the same."""
    return ink(frontier.family(run, runs))


def paths(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Colour and letters of each sweep, in the order of its values."""
    return [
        (run_ink(sweep.runs[0], runs), [run.letter for run in sweep.runs])
        for sweep in frontier.sweeps(runs)
    ]
