"""Charts as inline SVG: no font files, no links; colours are CSS variables of the page.

No text of a run enters a chart: runs go by their letter, and names stand in the page around it.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.special import ndtri

from deidbench.results.schema import CmcCurve, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THREATS = ("T0", "T1", "T1w", "P", "T2", "T3", "T3f", "T4", "T5")
INKS = ("ink", "soft", "line", *THREATS, "genuine", "impostor", *(f"run{i}" for i in range(8)))
_PLACEHOLDER = {name: f"#0000{160 + i:02x}" for i, name in enumerate(INKS)}
DASHES: dict[str, Any] = {
    "T0": (0, (1, 1.6)), "T1": "-", "T1w": (0, (5, 1.5, 1, 1.5)), "P": (0, (2.2, 1.2)),
    "T2": (0, (5, 2)), "T3": (0, (9, 1.5)), "T3f": (0, (9, 1.5, 1, 1.5)),
    "T4": (0, (5, 1.5, 1, 1.5, 1, 1.5)), "T5": (0, (5, 1.5, 2, 1.5)),
}  # fmt: skip
MARKERS = "oDs^vPX*"
MAX_POINTS = 240
LOWEST_RATE = 1e-4  # of a DET plot: below lie single errors
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "deidbench", "font.size": 10, "axes.linewidth": 0.8,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False,
    "text.color": _PLACEHOLDER["ink"], "axes.edgecolor": _PLACEHOLDER["line"],
    "axes.labelcolor": _PLACEHOLDER["soft"], "xtick.color": _PLACEHOLDER["line"],
    "ytick.color": _PLACEHOLDER["line"], "xtick.labelcolor": _PLACEHOLDER["soft"],
    "ytick.labelcolor": _PLACEHOLDER["soft"], "grid.color": _PLACEHOLDER["line"],
    "grid.linewidth": 0.6, "axes.grid": True, "axes.axisbelow": True, "lines.linewidth": 1.8,
    "figure.facecolor": "none", "axes.facecolor": "none", "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A curve to draw: its colour (one of ``INKS``) and the threat that sets its dashes."""

    curve: Curve
    ink: str


@dataclass(frozen=True)
class RankLine:
    """The same for rank-k rates."""

    curve: CmcCurve
    ink: str


@dataclass(frozen=True)
class Point:
    """A run in the trade-off chart; intervals as (low, high), None where there is none."""

    letter: str
    ink: str
    x: float
    y: float
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


def roc(lines: Sequence[Line], *, key: str, label: str) -> str:
    """True accept rate over false match rate (log axis)."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.0, 2.6)
        floor = min((_floor(line.curve) for line in lines), default=1e-3)
        chance = np.geomspace(floor, 1, 50)
        axes.plot(chance, chance, color=_PLACEHOLDER["line"], linewidth=1)
        for line in lines:
            fmr, tar = _thinned(line.curve, floor)
            dashes = DASHES.get(line.curve.threat, "-")
            axes.plot(fmr, tar, color=_PLACEHOLDER[line.ink], linestyle=dashes)
        axes.set(xscale="log", xlim=(floor, 1), ylim=(-0.02, 1.02))
        axes.set(xlabel="false match rate (log)", ylabel="genuine pairs accepted")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(_one_in))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        return _svg(figure, key, label)


def det(lines: Sequence[Line], *, key: str, label: str) -> str:
    """Detection error trade-off: false non-match rate over false match rate.

    Both axes are spaced by the normal deviate: scores of two normal distributions of one width
    give a straight line, and guessing a diagonal. FNMRs of 0 and 1 stand at the edge.
    (Martin et al. 1997, Eurospeech, "The DET curve in assessment of detection task performance".)
    """
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.2, 2.86)  # equal sides
        low, high = error_range([line.curve for line in lines])
        ends = ndtri([low, high])
        axes.plot(ends, -ends, color=_PLACEHOLDER["soft"], linewidth=0.8)
        for line in lines:
            fmr, tar = _thinned(line.curve, low)
            # The way from the last point to (1, 0) is no measurement.
            drawn = (fmr >= low) & (fmr <= high)
            x, y = (ndtri(np.clip(rate[drawn], low, high)) for rate in (fmr, 1 - tar))
            dashes = DASHES.get(line.curve.threat, "-")
            axes.plot(x, y, color=_PLACEHOLDER[line.ink], linestyle=dashes)
        rates = (LOWEST_RATE if low < 1e-3 else 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99)
        shown = [rate for rate in rates if low <= rate <= high]
        ticks = {"ticks": ndtri(shown), "labels": [f"{100 * rate:g}" for rate in shown]}
        axes.set_xticks(**ticks)
        axes.set_yticks(**ticks)
        axes.set(xlim=ends, ylim=ends)
        axes.set(xlabel="false match rate, %", ylabel="false non-match rate, %")
        return _svg(figure, key, label)


def cmc(lines: Sequence[RankLine], *, key: str, label: str) -> str:
    """Share of searches whose person is among the first k, over k (log axis), and chance."""
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(3.0, 2.6)
        most = max((line.curve.n_enrolled for line in lines), default=10)
        for size in sorted({line.curve.n_enrolled for line in lines}):
            ranks = np.geomspace(1, size, 50)
            axes.plot(ranks, ranks / size, color=_PLACEHOLDER["soft"], linewidth=0.8)
        for line in lines:
            dashes = DASHES.get(line.curve.threat, "-")
            axes.plot(line.curve.rank, line.curve.rate, color=_PLACEHOLDER[line.ink],
                      linestyle=dashes)  # fmt: skip
        axes.set(xscale="log", xlim=(1, max(most, 2)), ylim=(-0.02, 1.02))
        axes.set(xlabel="first k of the gallery (log)", ylabel="right person among them")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most <= 100 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(_count))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        return _svg(figure, key, label)


def histograms(
    panels: Sequence[tuple[str, Curve]], threshold: float | None, *, key: str, label: str
) -> str:
    """Genuine and impostor scores, one panel above the other, on one axis of scores."""
    with mpl.rc_context(STYLE):
        height = 0.5 + 1.05 * len(panels)
        figure = Figure(figsize=(3.0, height))
        figure.subplots_adjust(0.03, 0.48 / height, 0.97, 1 - 0.25 / height, hspace=0.32)
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        low, high = _extent([curve for _, curve in panels])
        for axes, (title, curve) in zip(grid[:, 0], panels, strict=True):
            _bars(axes, curve.histogram_edges, curve.impostor_histogram, "impostor")
            _bars(axes, curve.histogram_edges, curve.genuine_histogram, "genuine")
            if threshold is not None and low < threshold < high:
                axes.axvline(threshold, color=_PLACEHOLDER["ink"], linewidth=1, linestyle=":")
            axes.set(xlim=(low, high), ylim=(0, None))
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.grid(False)
            axes.set_title(title, loc="left", fontsize=10, color=_PLACEHOLDER["soft"], pad=2)
        grid[-1, 0].set_xlabel("similarity score")
        return _svg(figure, key, label)


def trade_off(
    points: Sequence[Point],
    paths: Sequence[tuple[str, Sequence[str]]] = (),
    *,
    clean: float | None,
    key: str,
    label: str,
    far: float | None = None,
) -> str:
    """Attacker's success over image change, a point a run; ``clean`` is that of untreated faces.

    ``paths``: colour and letters of runs to join. Success is the accept rate at ``far``, or the
    AUC for None.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _canvas(4.4, 2.9)
        _draw_clean(axes, clean)
        for ink, letters in paths:
            joined = [next(p for p in points if p.letter == one) for one in letters
                      if any(p.letter == one for p in points)]  # fmt: skip
            axes.plot([p.x for p in joined], [p.y for p in joined], color=_PLACEHOLDER[ink],
                      linewidth=1.6, zorder=2)  # fmt: skip
        inks = list(dict.fromkeys(point.ink for point in points))
        for point in points:
            marker = MARKERS[inks.index(point.ink) % len(MARKERS)]
            _draw_point(axes, point, marker, named=len(points) > 1)
        top = max([point.x_range[1] if point.x_range else point.x for point in points], default=0)
        axes.set(
            xlim=(0, max(0.1, 1.15 * top)), ylim=(0.46, 1.02) if far is None else (-0.04, 1.04)
        )
        guessing = 0.5 if far is None else far
        axes.axhline(guessing, color=_PLACEHOLDER["soft"], linewidth=1, linestyle=":")
        axes.set_xlabel("change of the image (LPIPS, whole face chip)")
        axes.set_ylabel("attacker's AUC" if far is None else "genuine pairs accepted")
        if far is not None:
            axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        soft = _PLACEHOLDER["soft"]
        axes.annotate(f"guessing ({guessing:g})", (0, guessing), (5, 4), fontsize=9, color=soft,
                      textcoords="offset points")  # fmt: skip
        return _svg(figure, key, label)


def _draw_clean(axes: Axes, clean: float | None) -> None:
    if clean is None:
        return
    axes.plot([0], [clean], marker="o", markersize=8, markerfacecolor="none",
              color=_PLACEHOLDER["T0"], clip_on=False, zorder=3)  # fmt: skip
    axes.annotate("untreated", (0, clean), (6, -15), textcoords="offset points",
                  color=_PLACEHOLDER["soft"])  # fmt: skip


def _draw_point(axes: Axes, point: Point, marker: str, *, named: bool) -> None:
    colour = _PLACEHOLDER[point.ink]
    for ends, horizontal in ((point.x_range, True), (point.y_range, False)):
        if ends is not None:
            x, y = (ends, (point.y,) * 2) if horizontal else ((point.x,) * 2, ends)
            axes.plot(x, y, color=colour, linewidth=1.4, zorder=2)
    axes.plot([point.x], [point.y], marker=marker, markersize=8, color=colour, zorder=4)
    if named:
        axes.annotate(point.letter, (point.x, point.y), (8, 6), textcoords="offset points",
                      color=_PLACEHOLDER["ink"], weight="bold")  # fmt: skip


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure, in inches, with margins for the labels of both axes."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.8 / width, 0.48 / height, 1 - 0.12 / width, 1 - 0.1 / height)
    return figure, figure.subplots()


def _bars(axes: Axes, edges: Sequence[float], counts: Sequence[int], ink: str) -> None:
    shares = np.asarray(counts, float) / max(sum(counts), 1)
    colour = _PLACEHOLDER[ink]
    axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3, linewidth=0)
    axes.stairs(shares, edges, color=colour, linewidth=1.3)


def _extent(curves: Sequence[Curve]) -> tuple[float, float]:
    """The range of scores that any panel uses, with a small margin."""
    used = [
        np.asarray(curve.histogram_edges)[i : i + 2]
        for curve in curves
        for i in np.flatnonzero(np.add(curve.genuine_histogram, curve.impostor_histogram))
    ]
    if not used:
        return 0.0, 1.0
    ends = np.concatenate(used)
    margin = 0.02 * float(np.ptp(ends))
    return float(ends.min()) - margin, float(ends.max()) + margin


def _floor(curve: Curve) -> float:
    positive = [rate for rate in curve.fmr if rate > 0]
    return max(min(positive, default=0.1), 1e-8) if min(positive, default=1) < 1 else 0.1


def error_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """The rates that both axes of a DET plot run between."""
    rates = np.concatenate([[0.01, 0.9], *(
        side for curve in curves for side in (curve.fmr, 1 - np.asarray(curve.tar, float))
    )])  # fmt: skip
    between = rates[(rates > 0) & (rates < 1)]
    return max(float(between.min()), LOWEST_RATE), min(float(between.max()), 0.995)


def thinned(curve: Curve) -> tuple[Any, Any]:
    """False match and true accept rates (P,), few enough to draw and rising."""
    return _thinned(curve, _floor(curve))


def _thinned(curve: Curve, floor: float) -> tuple[Any, Any]:
    """At most ``MAX_POINTS`` points, evenly spread on the log axis; ends kept."""
    order = np.lexsort((curve.tar, curve.fmr))
    fmr, tar = np.asarray(curve.fmr, float)[order], np.asarray(curve.tar, float)[order]
    seen = np.flatnonzero(fmr > 0)
    if len(seen) > MAX_POINTS:
        targets = np.geomspace(max(fmr[seen[0]], floor), max(fmr[-1], floor), MAX_POINTS)
        seen = np.unique([seen[0], *np.searchsorted(fmr, targets, "right") - 1, seen[-1]])
    return fmr[seen], tar[seen]


def _one_in(rate: float, _: int) -> str:
    power = round(-np.log10(rate))
    units = ("1:1", "1:10", "1:100", "1:1k", "1:10k", "1:100k", "1:1M", "1:10M", "1:100M")
    return units[power] if 0 <= power < len(units) else ""


def _count(number: float, _: int) -> str:
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def _percent(share: float, _: int) -> str:
    return f"{100 * share:.0f} %"


def _svg(figure: Figure, key: str, label: str) -> str:
    """The drawing as an element of an HTML page; its ids begin with ``key``."""
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    view = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg class="chart" role="img" aria-label="{html.escape(label)}"'
    head = f"{head} {view.group() if view else ''}>"
    text = re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)  # a label may hold backslashes
    text = text.replace("xlink:href", "href")
    text = re.sub(r'(\bid="|url\(#|href="#)', lambda found: f"{found[1]}{key}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", text)
    for name, colour in _PLACEHOLDER.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text)
