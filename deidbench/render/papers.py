"""Figures for papers: SVG and PDF with text that stays text, in colours that all can tell apart.

The same run gives the same bytes: no dates, no random ids.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter
from scipy.special import ndtri

from deidbench.results.schema import Curve

from . import figures, frontier, numbers, reading
from .files import GENERATOR, Output
from .reading import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.0
"""Inches: two columns of a paper."""
SIDE = 2.3
MOST_NAME = 28
# Okabe and Ito 2008, "Color universal design"; black and the yellow that paper swallows are apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
OF_THREATS = dict(zip(figures.THREATS, (
    "#7F7F7F", "#D55E00", "#CC79A7", "#B8860B", "#0072B2", "#009E73", "#8B1A1A", "#6A51A3",
    "#56B4E9"), strict=True))  # fmt: skip
GENUINE, IMPOSTOR = "#0072B2", "#D55E00"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "deidbench", "pdf.fonttype": 42,
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "legend.fontsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.5,
    "lines.linewidth": 1.3, "legend.frameon": False, "text.parse_math": False,
    "figure.facecolor": "white", "axes.titlelocation": "left",
}  # fmt: skip
FORMATS = ("svg", "pdf")


def paper_figures(runs: Sequence[Run], folder: Path) -> Iterator[Output]:
    """ROC, DET, score histograms and the trade-off, each as SVG and as PDF."""
    with mpl.rc_context(STYLE):
        for name, figure in _all(runs):
            for kind in FORMATS:
                yield Output(folder / f"{name}.{kind}", _bytes(figure, kind))


def _all(runs: Sequence[Run]) -> Iterator[tuple[str, Figure]]:
    far = reading.headline_far(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.recognizers))
    if any(run.curves(name) for run, name in product(runs, names)):
        yield "roc", _curves(runs, names, _draw_roc)
        yield "det", _curves(runs, names, _draw_det)
    for run in runs:
        panels = [(name, curve) for name in run.recognizers for curve in _scores(run, name, far)]
        if panels:
            known = f"-{run.letter}" if len(runs) > 1 else ""
            yield f"histograms{known}", _histograms(run, panels, far)
    if frontier.spots(runs, None):
        yield "trade-off", _trade_off(runs, far)


def _bytes(figure: Figure, kind: str) -> bytes:
    """A figure in a file format, without a date."""
    buffer = io.BytesIO()
    about: dict[str, Any] = {"Creator": GENERATOR}
    about |= {"Date": None} if kind == "svg" else {"CreationDate": None, "Producer": None}
    figure.savefig(buffer, format=kind, metadata=about)
    return buffer.getvalue()


# Curves


def _curves(runs: Sequence[Run], names: Sequence[str], draw: Any) -> Figure:
    """A panel a recognizer, with one legend below them all."""
    columns = 3 if len(names) > 2 else 2
    lines = math.ceil(len(names) / columns)
    keys = _legend(runs)
    below = 0.16 * math.ceil(len(keys) / 4) + 0.08
    height = SIDE * lines + below
    figure = Figure(figsize=(WIDTH, height))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        draw(axes, [(run, i, curve) for i, run in enumerate(runs) for curve in run.curves(name)
                    if curve.threat in _drawn(runs)], runs)  # fmt: skip
        axes.set_title(_short(name))
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    figure.tight_layout(rect=(0, below / height, 1, 1), w_pad=1.2, h_pad=1.0)
    figure.legend(handles=keys, loc="lower center", ncols=4, borderaxespad=0.2)
    return figure


def _drawn(runs: Sequence[Run]) -> tuple[str, ...]:
    """Of several runs only some threats: each has its dashes, each run its colour."""
    return figures.THREATS if len(runs) == 1 else ("T1", "T1w", "T3")


def _look(run_index: int, threat: str, runs: Sequence[Run]) -> dict[str, Any]:
    colour = OF_THREATS[threat] if len(runs) == 1 else COLOURS[run_index % len(COLOURS)]
    return {"color": colour, "linestyle": figures.DASHES[threat]}


def _legend(runs: Sequence[Run]) -> list[Line2D]:
    met = [t for t in _drawn(runs) if any(t in run.threats for run in runs)]
    about = {t: f"{t} {reading.ATTACKS[t].partition(':')[0]}" for t in met}
    if len(runs) == 1:
        return [Line2D([], [], label=about[t], **_look(0, t, runs)) for t in met]
    named = [
        Line2D([], [], label=_short(f"{run.letter} {run.label}"), color=COLOURS[i % len(COLOURS)])
        for i, run in enumerate(runs)
    ]
    dashed = [Line2D([], [], label=about[t], color="#000000", linestyle=figures.DASHES[t])
              for t in met]  # fmt: skip
    return named + dashed


Drawn = Sequence[tuple[Run, int, Curve]]


def _draw_roc(axes: Axes, drawn: Drawn, runs: Sequence[Run]) -> None:
    found = [(figures.thinned(curve), _look(i, curve.threat, runs)) for _, i, curve in drawn]
    floor = min((float(fmr[0]) for (fmr, _), _ in found if len(fmr)), default=1e-3)
    chance = np.geomspace(floor, 1, 50)
    axes.plot(chance, chance, color="#999999", linewidth=0.7)
    for (fmr, tar), look in found:
        axes.plot(fmr, tar, **look)
    axes.set(xscale="log", xlim=(floor, 1), ylim=(-0.02, 1.02))
    axes.set(xlabel="false match rate", ylabel="genuine pairs accepted")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    axes.xaxis.set_major_locator(LogLocator(numticks=5))


def _draw_det(axes: Axes, drawn: Drawn, runs: Sequence[Run]) -> None:
    low, high = figures.error_range([curve for _, _, curve in drawn])
    ends = ndtri([low, high])
    axes.plot(ends, -ends, color="#999999", linewidth=0.7)
    for _, i, curve in drawn:
        fmr, tar = figures.thinned(curve)
        kept = (fmr >= low) & (fmr <= high)
        x, y = (ndtri(np.clip(rate[kept], low, high)) for rate in (fmr, 1 - tar))
        axes.plot(x, y, **_look(i, curve.threat, runs))
    rates = [rate for rate in (1e-4, 0.01, 0.1, 0.5, 0.9, 0.99) if low <= rate <= high]
    ticks = {"ticks": ndtri(rates), "labels": [f"{100 * rate:g}" for rate in rates]}
    axes.set_xticks(**ticks)
    axes.set_yticks(**ticks)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.set(xlabel="false match rate, %", ylabel="false non-match rate, %")


# Scores


def _scores(run: Run, name: str, far: float | None) -> Iterator[Curve]:
    """Untreated faces, the naive attacker, and the worst case where it is of this recognizer."""
    worst = run.worst(far)
    known = worst.threat if worst and worst.recognizer == name else None
    yield from (c for c in run.curves(name) if c.threat in ("T0", "T1", "T1w", known))


def _histograms(run: Run, panels: Sequence[tuple[str, Curve]], far: float | None) -> Figure:
    columns = 3
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, 1.5 * lines + 0.3))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, (name, curve) in zip(grid.flat, panels, strict=False):
        for counts, colour in ((curve.impostor_histogram, IMPOSTOR),
                               (curve.genuine_histogram, GENUINE)):  # fmt: skip
            shares = np.asarray(counts, float) / max(sum(counts), 1)
            axes.stairs(shares, curve.histogram_edges, fill=True, color=colour, alpha=0.3)
            axes.stairs(shares, curve.histogram_edges, color=colour, linewidth=0.9)
        at = run.threshold(curve.threat, name, far)
        if at is not None:
            axes.axvline(at, color="#000000", linewidth=0.8, linestyle=":")
        axes.set(ylim=(0, None), yticks=[], xlabel="similarity")
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_title(f"{_short(name)}, {curve.threat}")
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.tight_layout(rect=(0, 0.22 / figure.get_figheight(), 1, 1))
    keys = [Line2D([], [], color=GENUINE, label="genuine"),
            Line2D([], [], color=IMPOSTOR, label="impostor"),
            Line2D([], [], color="#000000", linestyle=":", label="threshold")]  # fmt: skip
    figure.legend(handles=keys, loc="lower center", ncols=3, borderaxespad=0.1)
    return figure


# Privacy and utility


def _trade_off(runs: Sequence[Run], far: float | None) -> Figure:
    rates = list(dict.fromkeys([None, far]))
    keys = _families(runs)
    below = 0.2 * math.ceil(len(keys) / 3) + 0.1
    height = 2.7 + below
    figure = Figure(figsize=(WIDTH if len(rates) > 1 else WIDTH / 2, height))
    grid = figure.subplots(1, len(rates), squeeze=False)
    for axes, rate in zip(grid[0], rates, strict=True):
        _draw_trade_off(axes, runs, rate)
    figure.tight_layout(rect=(0, below / height, 1, 1), w_pad=2)
    figure.legend(handles=keys, loc="lower center", ncols=3, borderaxespad=0.2)
    return figure


def _families(runs: Sequence[Run]) -> list[Line2D]:
    swept = {run.letter: sweep.title for sweep in frontier.sweeps(runs) for run in sweep.runs}
    named: dict[int, str] = {}
    for run in runs:
        label = swept.get(run.letter) or (f"{run.letter} " if len(runs) > 1 else "") + run.label
        named.setdefault(frontier.family(run, runs), label)
    return [
        Line2D([], [], label=numbers.shortened(label, 40), linestyle="-" if label in swept.values()
               else "", marker=figures.MARKERS[i % 8], color=COLOURS[i % len(COLOURS)])
        for i, label in named.items()
    ]  # fmt: skip


def _draw_trade_off(axes: Axes, runs: Sequence[Run], far: float | None) -> None:
    spots = frontier.spots(runs, far)
    place = {spot.run.letter: (spot.change.value or 0.0, spot.at) for spot in spots}
    for sweep in frontier.sweeps(runs):
        points = [place[run.letter] for run in sweep.runs if run.letter in place]
        colour = COLOURS[frontier.family(sweep.runs[0], runs) % len(COLOURS)]
        axes.plot(*zip(*points, strict=True), color=colour) if points else None
    for spot in spots:
        i = frontier.family(spot.run, runs)
        _draw_spot(axes, spot, COLOURS[i % len(COLOURS)], figures.MARKERS[i % 8])
        if len(runs) > 1:
            axes.annotate(spot.run.letter, place[spot.run.letter], (4, 3),
                          textcoords="offset points")  # fmt: skip
    axes.axhline(0.5 if far is None else far, color="#777777", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, None), ylim=(0.46, 1.02) if far is None else (-0.04, 1.04))
    axes.set_xlabel("change of the image (LPIPS)")
    axes.set_ylabel("AUC of the strongest attacker" if far is None
                    else f"genuine pairs accepted, FAR {far:g}")  # fmt: skip
    if far is not None:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_spot(axes: Axes, spot: frontier.Spot, colour: str, marker: str) -> None:
    x, y = spot.change.value or 0.0, spot.at
    ends = frontier.interval(spot.change), spot.ends
    errors = [
        None if pair is None else [[max(at - pair[0], 0)], [max(pair[1] - at, 0)]]
        for at, pair in zip((x, y), ends, strict=True)
    ]
    axes.errorbar(x, y, xerr=errors[0], yerr=errors[1], color=colour, marker=marker, markersize=5,
                  elinewidth=0.9)  # fmt: skip


def _short(name: str) -> str:
    return numbers.shortened(numbers.plain(name), MOST_NAME)
