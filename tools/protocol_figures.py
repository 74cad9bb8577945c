"""Draws docs/images/protocol: one figure for each number of a run, for docs/numbers.md.

Charts are of simulated scores, drawn by the program's own metrics and statistics; faces are those
of the embedded set, which shows no real person.

Usage: python tools/protocol_figures.py [NAME ...]
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray
from scipy.special import ndtri

from deidbench import plugins, statistics
from deidbench.identification import cmc, open_searches, search
from deidbench.metrics._linkability import linkability_curve

Scores = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]

OUT = Path(__file__).parents[1] / "docs" / "images" / "protocol"
INK, SOFT, LINE = "#1c2430", "#556070", "#dcdcd4"
SAME, OTHER, GOOD = "#0069a8", "#c44e00", "#00805e"
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "deidbench", "font.family": FONT, "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "text.color": INK,
    "axes.titlesize": 10, "axes.titlelocation": "left", "axes.linewidth": 0.8,
    "lines.linewidth": 2, "figure.facecolor": "white", "axes.facecolor": "white",
    "figure.constrained_layout.use": True, "text.parse_math": False,
}  # fmt: skip
HEAPS = np.linspace(-0.25, 0.85, 111)
SAME_LABEL, OTHER_LABEL = "two photos of one person", "photos of two people"
THRESHOLD = 0.28


# Building blocks


def draw_scores(separation: float, genuine: int = 4000, impostor: int = 40_000) -> Scores:
    """Invented similarities: normal, impostors around 0.1, both with a deviation of 0.1."""
    random = np.random.default_rng(7)
    near = random.normal(0.1 + 0.1 * separation, 0.1, genuine)
    return near, random.normal(0.1, 0.1, impostor)


def metric(name: str) -> Any:
    """One of the program's own metrics."""
    return plugins.load("metrics", name)()


def panels(
    count: int = 1, width: float = 5.4, height: float = 2.4
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with panels side by side, in inches."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(1, count, squeeze=False)[0]


def heap(axes: Axes, scores: NDArray[Any], colour: str, alpha: float = 0.3) -> float:
    """A histogram of scores as shares; its greatest height."""
    counts, _ = np.histogram(scores, HEAPS)
    shares = counts / len(scores)
    axes.stairs(shares, HEAPS, fill=True, color=colour, alpha=alpha, linewidth=0)
    axes.stairs(shares, HEAPS, color=colour, linewidth=1.2)
    return float(shares.max())


def bare(axes: Axes, label: str = "similarity score") -> None:
    """Only the x axis: heights of heaps are shares that nobody needs to read."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, None)
    axes.set_xlabel(label)


def shade(axes: Axes, scores: NDArray[Any], colour: str, *, above: bool) -> None:
    """The part of a heap on one side of the threshold."""
    chosen = scores[scores >= THRESHOLD] if above else scores[scores < THRESHOLD]
    counts, _ = np.histogram(chosen, HEAPS)
    axes.stairs(counts / len(scores), HEAPS, fill=True, color=colour, alpha=0.85, linewidth=0)


def percent(share: float, _: int = 0) -> str:
    """0.25 -> '25 %'."""
    return f"{100 * share:.0f} %"


# Verification


def scores() -> Figure:
    """Before and after treatment: the heaps move together."""
    figure = Figure(figsize=(5.4, 3.2))
    for axes, title, separation in zip(
        figure.subplots(2, 1, sharex=True), ("untreated faces", "treated faces"), (4.5, 1.2),
        strict=True,
    ):  # fmt: skip
        genuine, impostor = draw_scores(separation)
        top = max(heap(axes, impostor, OTHER), heap(axes, genuine, SAME))
        axes.set_title(title)
        bare(axes, "")
        if separation > 2:
            axes.text(0.1, 1.06 * top, OTHER_LABEL, color=OTHER, ha="center")
            axes.text(0.55, 1.06 * top, SAME_LABEL, color=SAME, ha="center")
            axes.set_ylim(0, 1.25 * top)
    axes.set_xlabel("similarity score: the larger, the more alike")
    return figure


def auc() -> Figure:
    """Three attackers, from guessing to nearly always right."""
    figure, row = panels(3, height=2.0)
    for axes, separation in zip(row, (0.0, 1.0, 3.0), strict=True):
        genuine, impostor = draw_scores(separation)
        heap(axes, impostor, OTHER)
        heap(axes, genuine, SAME)
        value = metric("auc")(genuine=genuine, impostor=impostor)
        axes.set_title(f"AUC {value:.2f}", weight="bold")
        bare(axes)
    return figure


def eer() -> Figure:
    """Both error rates over the threshold; where they cross."""
    genuine, impostor = draw_scores(2.0)
    figure, (axes,) = panels(height=2.8)
    cuts = np.linspace(-0.1, 0.6, 200)
    false_match = [(impostor >= cut).mean() for cut in cuts]
    false_non_match = [(genuine < cut).mean() for cut in cuts]
    axes.plot(cuts, false_match, color=OTHER)
    axes.plot(cuts, false_non_match, color=SAME)
    value = metric("eer")(genuine=genuine, impostor=impostor)
    at = cuts[np.argmin(np.abs(np.subtract(false_match, false_non_match)))]
    axes.plot([at], [value], "o", color=INK, markersize=7)
    axes.annotate(f"EER {value:.2f}", (at, value), (at, value + 0.22), ha="center", weight="bold",
                  arrowprops={"arrowstyle": "-", "color": INK})  # fmt: skip
    axes.text(0.0, 0.95, "two people taken for one", color=OTHER, ha="left", va="bottom")
    axes.text(0.37, 0.6, "one person taken for two", color=SAME)
    axes.set(xlabel="threshold", ylabel="error rate", ylim=(0, 1.1), xlim=(-0.1, 0.6))
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    return figure


def _at_threshold(kind: str, value: float, *, above: bool, said: str) -> Figure:
    genuine, impostor = draw_scores(2.8)
    figure, (axes,) = panels()
    chosen, colour = (genuine, SAME) if kind == "same" else (impostor, OTHER)
    top = max(heap(axes, impostor, OTHER, 0.12), heap(axes, genuine, SAME, 0.12))
    shade(axes, chosen, colour, above=above)
    axes.axvline(THRESHOLD, color=INK, linewidth=1.2, linestyle=":")
    axes.text(THRESHOLD + 0.01, 1.12 * top, "threshold: a match from here on", va="center")
    axes.text(0.6, 0.62 * top, f"{100 * value:.2g} %", color=colour, weight="bold", fontsize=14)
    axes.text(0.6, 0.48 * top, said, color=colour, va="top")
    bare(axes)
    axes.set_ylim(0, 1.22 * top)
    return figure


def tar() -> Figure:
    """Genuine pairs at or above the threshold."""
    genuine, impostor = draw_scores(2.8)
    value = metric("tar")(genuine=genuine, impostor=impostor, threshold=THRESHOLD)
    return _at_threshold(
        "same", value, above=True, said="of the pairs\nof one person\nare recognised"
    )


def fmr() -> Figure:
    """Impostor pairs at or above it."""
    genuine, impostor = draw_scores(2.8)
    value = metric("fmr")(genuine=genuine, impostor=impostor, threshold=THRESHOLD)
    return _at_threshold("other", value, above=True, said="of the pairs\nof two people\nmatch")


def fnmr() -> Figure:
    """Genuine pairs below it."""
    genuine, impostor = draw_scores(2.8)
    value = metric("fnmr")(genuine=genuine, impostor=impostor, threshold=THRESHOLD)
    return _at_threshold("same", value, above=False, said="of the pairs\nof one person\nare missed")


def det() -> Figure:
    """All thresholds at once: false matches against misses."""
    figure, row = panels(2, height=2.9)
    for separation, colour, label in ((4.5, SOFT, "untreated"), (1.2, OTHER, "treated")):
        genuine, impostor = draw_scores(separation)
        curve = statistics.roc_curve(genuine=genuine, impostor=impostor)
        row[0].plot(curve.fmr, curve.tar, color=colour)
        inner = (curve.fmr >= 1e-3) & (curve.fmr < 0.99) & (curve.tar > 0.01) & (curve.tar < 0.999)
        row[1].plot(ndtri(curve.fmr[inner]), ndtri(1 - curve.tar[inner]), color=colour)
        at = int(np.searchsorted(curve.fmr, 0.03))
        row[0].text(0.025, curve.tar[at] + 0.04, label, color=colour, ha="right", va="bottom")
    rates = np.array([0.001, 0.01, 0.1, 0.5, 0.9])
    guess = np.geomspace(1e-3, 1, 50)
    row[0].plot(guess, guess, color=LINE, linewidth=1.2)
    row[1].plot([-3.1, 1.8], [3.1, -1.8], color=LINE, linewidth=1.2)
    row[0].set(
        xscale="log", xlim=(1e-3, 1), xlabel="false match rate", ylabel="recognised", ylim=(0, 1.16)
    )
    row[0].set_xticks([1e-3, 1e-2, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
    row[0].yaxis.set_major_formatter(FuncFormatter(percent))
    ticks = {"ticks": ndtri(rates), "labels": [f"{100 * rate:g}" for rate in rates]}
    row[1].set_xticks(**ticks)
    row[1].set_yticks(**ticks)
    row[1].set(xlim=(-3.1, 1.8), ylim=(-3.1, 1.8), xlabel="false match rate, %", ylabel="missed, %")
    row[0].set_title("ROC: high is good for the attacker")
    row[1].set_title("DET: low is good for him")
    return figure


def dprime() -> Figure:
    """The distance of the means in widths of the heaps."""
    figure, row = panels(2, height=2.2)
    for axes, separation in zip(row, (0.8, 4.0), strict=True):
        genuine, impostor = draw_scores(separation)
        top = max(heap(axes, impostor, OTHER), heap(axes, genuine, SAME))
        value = metric("dprime")(genuine=genuine, impostor=impostor)
        for mean, colour in ((impostor.mean(), OTHER), (genuine.mean(), SAME)):
            axes.plot([mean, mean], [0, 1.1 * top], color=colour, linewidth=1, linestyle=":")
        axes.annotate("", (impostor.mean(), 1.08 * top), (genuine.mean(), 1.08 * top),
                      arrowprops={"arrowstyle": "<->", "shrinkA": 0, "shrinkB": 0})  # fmt: skip
        axes.set_title(f"d' = {value:.1f}", weight="bold")
        bare(axes)
        axes.set_ylim(0, 1.2 * top)
    return figure


def dodging_psr() -> Figure:
    """A hundred pairs of one person each, before and after."""
    random = np.random.default_rng(3)
    before = random.normal(0.55, 0.12, 100)
    after = before - 0.22 + random.normal(0, 0.08, 100)
    value = metric("dodging-psr")(before=before, after=after, threshold=THRESHOLD)
    matched, still = before >= THRESHOLD, after >= THRESHOLD
    order = np.argsort(~matched * 2 + (matched & ~still), kind="stable")
    colours = np.where(matched, np.where(still, OTHER, GOOD), LINE)[order]
    figure, row = panels(2, height=2.6)
    x, y = np.arange(100) % 10, 9 - np.arange(100) // 10
    row[0].scatter(x, y, c=np.where(matched, OTHER, LINE)[order], s=70)
    row[1].scatter(x, y, c=colours, s=70)
    row[0].set_title(f"before: {matched.sum()} of 100 pairs match")
    row[1].set_title(f"after: {(matched & ~still).sum()} of these no longer do")
    row[1].set_xlabel(f"dodging PSR = {(matched & ~still).sum()}/{matched.sum()} = {value:.2f}",
                      color=GOOD, weight="bold")  # fmt: skip
    for axes in row:
        axes.set(xticks=[], yticks=[], xlim=(-0.7, 9.7), ylim=(-0.7, 9.7), aspect="equal")
        axes.spines[:].set_visible(False)
    return figure


def accuracy() -> Figure:
    """Ten folds of a list of pairs, their mean and its interval."""
    random = np.random.default_rng(5)
    same = np.arange(6000) % 2 == 0
    found = random.normal(np.where(same, 0.38, 0.1), 0.1)
    folds = np.repeat(np.arange(10), 600)
    value, error = statistics.ten_fold_accuracy(found, same, folds)
    cuts = np.linspace(0.1, 0.4, 200)
    each = [
        max(np.mean((found[folds == f] >= cut) == same[folds == f]) for cut in cuts)
        for f in range(10)
    ]
    figure, (axes,) = panels(height=2.2)
    ends = [value - 2.26 * error] * 2, [value + 2.26 * error] * 2  # Student's t, 10 folds
    axes.fill_between([0.5, 10.5], *ends, color=SAME, alpha=0.18, linewidth=0)
    axes.plot([0.5, 10.5], [value] * 2, color=SAME)
    axes.plot(np.arange(1, 11), each, "o", color=INK)
    axes.text(10.7, value, f"mean {value:.3f}", color=SAME, va="center", weight="bold")
    axes.set(xlabel="fold: a tenth of the pairs", ylabel="pairs judged rightly", xlim=(0.4, 13))
    axes.set_xticks(range(1, 11))
    return figure


def over_folds() -> Figure:
    """AUC and EER of ten groups of people: mean and standard deviation."""
    figure, row = panels(2, height=2.2)
    random = np.random.default_rng(2)
    sets = [(random.normal(0.3, 0.12, 60), random.normal(0.1, 0.1, 400)) for _ in range(10)]
    for axes, name in zip(row, ("auc", "eer"), strict=True):
        values = [metric(name)(genuine=g, impostor=i) for g, i in sets]
        mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
        axes.plot(np.arange(1, 11), values, "o", color=SOFT)
        axes.errorbar([12], [mean], yerr=[deviation], fmt="o", color=SAME, capsize=5, markersize=8)
        axes.set_title(f"{name.upper()} {mean:.2f} ± {deviation:.2f}", weight="bold")
        axes.set_xticks([5.5, 12], ["ten groups", "mean ± sd"])
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(0, 14)
    return figure


# Identification


def _crowd(people: int, shots: int, noise: float) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(11)
    subjects = np.repeat(np.arange(people), shots)
    centres = random.normal(size=(people, 24))[subjects]
    spread = noise * random.normal(size=(people * shots, 24))
    return (centres + spread).astype(np.float32), subjects


def rank_k() -> Figure:
    """One search as a ranked list; all searches as the CMC, with chance."""
    figure, (ranked, axes) = panels(2, height=2.8)
    scores = np.array([0.61, 0.58, 0.52, 0.44, 0.41, 0.33, 0.28])
    colours = [SAME if i == 2 else LINE for i in range(7)]
    ranked.barh(np.arange(7), scores, color=colours, height=0.7)
    ranked.invert_yaxis()
    ranked.set_yticks(range(7), [f"{i + 1}" for i in range(7)])
    ranked.text(0.02, 2, "the right person", va="center", color="white", fontsize=9)
    ranked.set(xlabel="similarity score", ylabel="rank", title="one search")
    for noise, colour, label, at in (
        (0.9, SOFT, "untreated", (2.2, 0.8)),
        (2.6, OTHER, "treated", (2.9, 0.42)),
    ):
        embeddings, subjects = _crowd(50, 8, noise)
        curve = cmc(search(embeddings, embeddings, subjects, np.arange(400), "cosine"), "landmarks")
        axes.plot(np.arange(1, 51), curve, color=colour)
        axes.text(*at, label, color=colour)
    axes.plot(np.arange(1, 51), np.arange(1, 51) / 50, color=INK, linewidth=1, linestyle=":")
    axes.text(17, 0.24, "chance", ha="left")
    axes.set(xscale="log", xlabel="k", ylabel="found among the first k", title="all searches (CMC)",
             ylim=(0, 1.04), xlim=(1, 50))  # fmt: skip
    axes.set_xticks([1, 5, 10, 50], ["1", "5", "10", "50"])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    return figure


def open_set() -> Figure:
    """Best scores of searches for people who are, and who are not, in the gallery."""
    embeddings, subjects = _crowd(60, 12, 1.1)
    half = open_searches(
        embeddings, embeddings, subjects, np.arange(720), "cosine", seed=0, halves=1
    )[0]
    strangers = half.best_other[~half.mated]
    threshold = statistics.threshold_at_far(strangers, 0.1).value
    named = half.mated & (half.above == 0)
    found = float(np.mean(half.score[named] >= threshold) * named.sum() / half.mated.sum())
    figure, (axes,) = panels(height=2.6)
    bins = np.linspace(0.2, 1, 41)
    for values, whole, colour in (
        (strangers, len(strangers), OTHER),
        (half.score[named], half.mated.sum(), SAME),
    ):
        shares = np.histogram(values, bins)[0] / whole
        axes.stairs(shares, bins, fill=True, color=colour, alpha=0.25, linewidth=0)
        kept = np.histogram(values[values >= threshold], bins)[0] / whole
        axes.stairs(kept, bins, fill=True, color=colour, alpha=0.85, linewidth=0)
        axes.stairs(shares, bins, color=colour, linewidth=1.2)
    top = axes.get_ylim()[1]
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=":")
    axes.text(0.2, 1.28 * top, "strangers: 10 % raise\na false alarm", color=OTHER, va="top")
    axes.text(0.99, 1.28 * top, f"enrolled people: {100 * found:.0f} %\nare named rightly",
              color=SAME, va="top", ha="right")  # fmt: skip
    bare(axes, "score of the best entry of the gallery")
    axes.set_ylim(0, 1.32 * top)
    return figure


# Other attacks


def d_sys() -> Figure:
    """The two heaps of a linkage attack, and D of each score."""
    figure = Figure(figsize=(5.4, 3.2))
    upper, lower = figure.subplots(2, 1, sharex=True)
    genuine, impostor = draw_scores(1.5)
    top = max(heap(upper, impostor, OTHER), heap(upper, genuine, SAME))
    upper.text(0.0, 0.9 * top, OTHER_LABEL, color=OTHER, ha="right")
    upper.text(0.38, 0.9 * top, SAME_LABEL, color=SAME)
    bare(upper, "")
    curve = linkability_curve(genuine, impostor)
    lower.stairs(curve.local, curve.edges, color=INK, linewidth=1.8, baseline=None)
    lower.set(xlabel="similarity score of two treated faces", ylabel="D", ylim=(-0.03, 1.05),
              xlim=(HEAPS[0], HEAPS[-1]))  # fmt: skip
    value = metric("d-sys")(genuine=genuine, impostor=impostor)
    lower.text(-0.23, 0.8, f"D_sys {value:.2f}", weight="bold")
    lower.text(-0.23, 0.5, "here a score\nsays nothing", color=SOFT, va="center")
    lower.text(0.6, 0.75, "here it gives\nthe person away", color=SOFT, va="center")
    return figure


def treated_or_not() -> Figure:
    """A detector of treatment."""
    treated, clean = draw_scores(2.2)
    figure, (axes,) = panels(height=2.2)
    top = max(heap(axes, clean, SOFT), heap(axes, treated, GOOD))
    axes.text(0.0, 0.85 * top, "untouched\nphotographs", color=SOFT, ha="right")
    axes.text(0.43, 0.85 * top, "treated\nphotographs", color=GOOD)
    value = metric("auc")(genuine=treated, impostor=clean)
    axes.text(0.83, 0.85 * top, f"AUC {value:.2f}", weight="bold", ha="right")
    bare(axes, "how treated the photograph looks to the detector")
    return figure


PEOPLE, SHOTS = 30, 4


def _measured(separation: float, seed: int) -> tuple[float, float, float]:
    """An AUC with its interval by people, from invented scores of 30 people."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), SHOTS)
    first, second = np.triu_indices(len(person), 1)
    a, b = person[first], person[second]
    ease = 0.06 * random.normal(size=PEOPLE)  # some people are easier to recognise
    found = random.normal(0.1, 0.1, len(a)) + (a == b) * (0.1 * separation + ease[a])
    weights = statistics.draw_weights(PEOPLE, draws=500, seed=0)
    auc = metric("auc")
    counts = statistics.count_scores(found, a, b, weights)
    low, high = statistics.interval(auc.from_counts(counts), subjects=PEOPLE)
    return auc(genuine=found[a == b], impostor=found[a != b]), low, high


def worst_group() -> Figure:
    """The same attack on groups of people, beside everyone."""
    groups = {"everyone": 1.0, "women": 0.9, "men": 1.1, "30 to 50": 1.0, "over 50": 1.7}
    rows = {name: _measured(size, 20 + seed) for seed, (name, size) in enumerate(groups.items())}
    worst = max(list(rows)[1:], key=lambda name: rows[name][0])
    return _compared(rows, worst, f"worst group:\n{rows[worst][0]:.2f}", rows[worst][0])


def worst_case() -> Figure:
    """All attackers with their intervals; the largest upper end counts."""
    attackers = {
        "T1 naive": 0.3, "T2 treats his gallery too": 0.7, "T3 has learnt": 1.6,
        "T4 undoes it": 1.3, "T5 links photos": 0.8, "P washes it out": 0.5,
    }  # fmt: skip
    rows = {name: _measured(size, seed) for seed, (name, size) in enumerate(attackers.items())}
    worst = max(rows, key=lambda name: rows[name][2])
    return _compared(rows, worst, f"worst case:\n{rows[worst][2]:.2f} at most", rows[worst][2])


def _compared(
    rows: dict[str, tuple[float, float, float]], worst: str, said: str, at: float
) -> Figure:
    """AUCs with their intervals, a line each; what is said of the worst, where it counts."""
    figure, (axes,) = panels(height=2.6)
    for place, (name, (value, low, high)) in enumerate(rows.items()):
        colour = OTHER if name == worst else SOFT
        axes.plot([low, high], [place, place], color=colour)
        axes.plot([value], [place], "o", color=colour, markersize=7)
    axes.axvline(at, color=OTHER, linewidth=1, linestyle=":")
    axes.text(max(at, rows[worst][2]) + 0.008, 0.4, said, color=OTHER, weight="bold", va="center")
    axes.axvline(0.5, color=LINE)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set(xlim=(0.46, 1.12), xlabel="attacker's AUC with its interval (0.5 is guessing)")
    axes.set_xticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    return figure


# What numbers can carry


def _rates(seed: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Intervals of one rate, of pairs taken as independent and by people."""
    random = np.random.default_rng(seed)
    people, pairs = 40, 45
    ease = random.normal(size=people)
    matches = random.random((people, pairs)) < 1 / (1 + np.exp(-1.2 * ease[:, None]))
    rate, count = matches.mean(), people * pairs
    reach = 1.96 * np.sqrt(rate * (1 - rate) / count)
    weights = statistics.draw_weights(people, draws=500, seed=seed)
    sums = matches.sum(1).astype(float)
    draws = statistics.ratio_bootstrap(sums, np.full(people, float(pairs)), weights)
    return (rate - reach, rate + reach), statistics.interval(draws, subjects=people)


def intervals() -> Figure:
    """Thirty studies of the same attack, whose true rate is one half."""
    figure, row = panels(2, height=2.8)
    studies = [_rates(seed) for seed in range(30)]
    titles = "pairs taken as independent", "people drawn again"
    for axes, title, kind in zip(row, titles, (0, 1), strict=True):
        ends = [study[kind] for study in studies]
        held = [low <= 0.5 <= high for low, high in ends]
        for place, ((low, high), holds) in enumerate(zip(ends, held, strict=True)):
            axes.plot([low, high], [place, place], color=SAME if holds else OTHER, linewidth=1.8)
        axes.axvline(0.5, color=INK, linewidth=1, linestyle=":")
        axes.set_title(f"{title}:\n{sum(held)} of 30 hold the truth")
        axes.set(yticks=[], xlim=(0.25, 0.75), xlabel="rate that a study reports")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(FuncFormatter(percent))
    row[0].set_ylabel("30 studies")
    return figure


def rules() -> Figure:
    """How far off an observed rate may be, and what no error at all still allows."""
    figure, (thirty, three) = panels(2, height=2.8)
    counts = np.geomspace(100, 100_000, 40)
    random = np.random.default_rng(1)
    found = random.binomial(counts.astype(int)[:, None], 0.01, (40, 20_000)) / counts[:, None]
    low, high = np.quantile(found, [0.025, 0.975], axis=1)
    thirty.fill_between(counts, low, high, color=SAME, alpha=0.3, linewidth=0)
    thirty.axhline(0.01, color=SAME)
    thirty.axvspan(100, 3000, color=OTHER, alpha=0.1, linewidth=0)
    thirty.text(120, 0.0325, "too few", color=OTHER)
    thirty.set(xscale="log", ylim=(0, 0.035), xlim=(100, 100_000), xlabel="comparisons",
               ylabel="rate that is seen", title="rule of 30: true rate 1 %")  # fmt: skip
    thirty.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    three.plot(counts, 3 / counts, color=OTHER)
    three.fill_between(counts, 1e-5, 3 / counts, color=OTHER, alpha=0.15, linewidth=0)
    three.text(140, 2.2e-4, "rates that are\nstill possible", color=OTHER, va="center")
    three.set(xscale="log", yscale="log", ylim=(1e-5, 0.1), xlim=(100, 100_000),
              xlabel="comparisons without an error", title="rule of 3: at most 3/n")  # fmt: skip
    three.set_yticks([1e-4, 1e-3, 1e-2, 0.1], ["0.01 %", "0.1 %", "1 %", "10 %"])
    for axes in (thirty, three):
        axes.set_xticks([100, 1000, 10_000, 100_000], ["100", "1,000", "10,000", "100,000"])
        axes.tick_params(which="minor", length=0)
        axes.tick_params(axis="x", labelsize=9)
    return figure


# Utility without faces


def images_per_second() -> Figure:
    """What a batch saves: the start is paid once."""
    figure, (axes,) = panels(height=1.9)
    start, work = 1.0, 0.5
    for i in range(6):
        left = i * (start + work)
        axes.barh([1], [start], left=left, color=LINE, height=0.5, edgecolor="white")
        axes.barh([1], [work], left=left + start, color=SAME, height=0.5, edgecolor="white")
        axes.barh([0], [work], left=start + i * work, color=SAME, height=0.5, edgecolor="white")
    axes.barh([0], [start], color=LINE, height=0.5, edgecolor="white")
    axes.text(4.2, 0, "done: more images a second", va="center", color=SAME)
    axes.text(0, 1.42, "start", color=SOFT, fontsize=9)
    axes.text(start, 1.42, "a face", color=SAME, fontsize=9)
    axes.set_yticks([1, 0], ["one by one", "in a batch"])
    axes.set(xlabel="time", xticks=[], ylim=(-0.5, 1.7))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _of_features(name: str) -> Any:
    """A metric of sets for features that are at hand: without the network that makes them."""
    kind = plugins.load("metrics", name)
    return kind.__new__(kind)


def kid() -> Figure:
    """Two sets of images as clouds of features."""
    random = np.random.default_rng(4)
    clean = 0.4 * random.normal(size=(100, 2))
    figure, row = panels(2, height=2.7)
    for axes, title, shift in ((row[0], "near", 0.05), (row[1], "far", 0.9)):
        treated = 0.35 * random.normal(size=(100, 2)) + shift
        value = _of_features("kid")(clean, treated)
        axes.scatter(*clean.T, s=9, color=SOFT, alpha=0.7, linewidth=0)
        axes.scatter(*treated.T, s=9, color=GOOD, alpha=0.7, linewidth=0)
        axes.set_title(f"{title}: KID {round(value, 2) + 0.0:.2f}", weight="bold")
        axes.set(xticks=[], yticks=[], xlim=(-1.3, 2.1), ylim=(-1.3, 2.1), aspect="equal")
    row[1].text(-1.25, -1.2, "originals", color=SOFT)
    row[1].text(2.05, 1.9, "treated", color=GOOD, ha="right")
    return figure


def fid() -> Figure:
    """FID of two samples of the very same images: it should be 0."""
    random = np.random.default_rng(4)
    sizes = np.unique(np.geomspace(40, 4000, 12).astype(int))
    distance = _of_features("fid")
    values = [distance(random.normal(size=(n, 128)), random.normal(size=(n, 128))) for n in sizes]
    figure, (axes,) = panels(height=2.4)
    axes.plot(sizes, values, "o-", color=OTHER)
    axes.axvline(2048, color=INK, linewidth=1, linestyle=":")
    axes.axhline(0, color=SAME, linewidth=1.2)
    axes.text(41, 4, "the truth: both sets are alike", color=SAME)
    axes.text(1950, max(values) * 0.9, "enough images\nfrom here on", ha="right")
    axes.set(xscale="log", xlabel="images in each set", ylabel="FID", ylim=(-4, None))
    axes.set_xticks([50, 200, 1000, 4000], ["50", "200", "1,000", "4,000"])
    axes.tick_params(which="minor", length=0)
    axes.xaxis.set_minor_formatter(NullFormatter())
    return figure


def _readings(before: Sequence[str], after: Sequence[str], what: str) -> Figure:
    """Readings of ten faces before and after, and how many agree."""
    figure, (axes,) = panels(height=1.9, width=6.2)
    agree = [one == two for one, two in zip(before, after, strict=True)]
    for place, readings in ((1, before), (0, after)):
        for x, (reading, good) in enumerate(zip(readings, agree, strict=True)):
            axes.text(x, place, reading, ha="center", va="center", fontsize=9,
                      color=SOFT if place else (GOOD if good else OTHER))  # fmt: skip
    for x, good in enumerate(agree):
        axes.text(x, -0.85, "=" if good else "≠", ha="center", color=GOOD if good else OTHER,
                  weight="bold", va="center")  # fmt: skip
    axes.set(xlim=(-0.6, len(agree) - 0.4), ylim=(-1.4, 1.5), xticks=[])
    axes.set_yticks([1, 0], ["original", "treated"])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{what} {np.mean(agree):.2f}: {sum(agree)} of {len(agree)} alike", weight="bold"
    )
    return figure


def expression_agreement() -> Figure:
    """Invented readings of expressions."""
    before = ["happy", "calm", "calm", "sad", "happy", "calm", "angry", "happy"]
    after = ["happy", "calm", "sad", "sad", "happy", "calm", "calm", "happy"]
    return _readings(before, after, "expression-agreement")


def gender_agreement() -> Figure:
    """Invented readings of two genders."""
    before = ["man", "woman", "man", "man", "woman", "woman", "man", "woman"]
    after = ["man", "woman", "man", "woman", "woman", "woman", "man", "woman"]
    return _readings(before, after, "gender-agreement")


def age_difference() -> Figure:
    """Invented ages read before and after."""
    random = np.random.default_rng(9)
    before = random.uniform(22, 60, 9).round()
    after = (before + random.normal(0, 6, 9)).round()
    figure, (axes,) = panels(height=2.4)
    for x, (one, two) in enumerate(zip(before, after, strict=True)):
        axes.plot([x, x], [one, two], color=LINE, linewidth=4, zorder=1)
    axes.plot(before, "o", color=SOFT, label="original")
    axes.plot(after, "s", color=GOOD, label="treated")
    axes.set(xticks=[], ylabel="age that is read", xlabel="nine faces", ylim=(10, 75))
    axes.set_title(f"mean length of the bars: {np.abs(after - before).mean():.1f} years",
                   weight="bold")  # fmt: skip
    axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)
    return figure


CHARTS: dict[str, Callable[[], Figure]] = {
    "scores": scores, "auc": auc, "eer": eer, "tar": tar, "fmr": fmr, "fnmr": fnmr, "det": det,
    "dprime": dprime, "dodging-psr": dodging_psr, "accuracy": accuracy, "over-folds": over_folds,
    "rank-k": rank_k, "dir": open_set, "d-sys": d_sys, "treated-or-not": treated_or_not,
    "worst-case": worst_case, "worst-group": worst_group, "intervals": intervals, "rules": rules,
    "images-per-second": images_per_second, "kid": kid, "fid": fid,
    "expression-agreement": expression_agreement, "gender-agreement": gender_agreement,
    "age-difference": age_difference,
}  # fmt: skip


def svg(draw: Callable[[], Figure]) -> str:
    """A chart as a file of its own: the same bytes each time, with text that can be read."""
    with mpl.rc_context(STYLE):
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        draw().savefig(buffer, format="svg", metadata=nothing)
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<!DOCTYPE.*?>", "", buffer.getvalue(),
                  flags=re.S)  # fmt: skip
    # Verdana has the widths of DejaVu Sans, where that is not installed.
    text = re.sub(rf"'{FONT}'[^;\"]*", f"'{FONT}', Verdana, sans-serif", text)
    text = re.sub(r"<[^>]+>", lambda tag: _rounded(tag[0]), text)
    return re.sub(r"\n\s*", "\n", text).strip() + "\n"


def _rounded(tag: str) -> str:
    """Coordinates to hundredths of a point."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)


def main() -> None:
    """Draw all figures, or those that are named."""
    import protocol_faces

    OUT.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or [*CHARTS, *protocol_faces.PANELS]
    for name in wanted:
        if name in CHARTS:
            (OUT / f"{name}.svg").write_text(svg(CHARTS[name]), encoding="utf-8")
        else:
            protocol_faces.save(protocol_faces.PANELS[name], OUT / f"{name}.png")


if __name__ == "__main__":
    main()
