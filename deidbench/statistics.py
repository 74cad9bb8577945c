"""Thresholds, curves, and the subject-clustered bootstrap that every interval comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .errors import DeidbenchError, MetricUndefinedError
from .types import ScoreCounts

if TYPE_CHECKING:
    from .types import BoolArray, FloatArray, IntArray

RULE_OF_30 = 30  # errors needed to trust an error rate: Doddington et al., Speech Commun. 2000
BINS, FEWEST_BINS = 200, 50
MATRIX_WORK = 2e11  # multiply-adds spent on one set of scores before bins are merged: seconds
SPARSE_COST = 10  # of a multiply-add with a sparse matrix, in those with a dense one


@dataclass(frozen=True)
class Threshold:
    """A decision threshold: a comparison matches when its score is at or above ``value``."""

    far: float
    value: float
    n_impostor: int
    achieved_fmr: float


class RocCurve(NamedTuple):
    """Operating points (P,) by falling threshold, from FMR 0 to (1, 1)."""

    threshold: FloatArray
    fmr: FloatArray
    tar: FloatArray


class Histogram(NamedTuple):
    """Counts of scores (K,) between edges (K + 1,)."""

    edges: FloatArray
    genuine: IntArray
    impostor: IntArray


def threshold_at_far(impostor: FloatArray, far: float) -> Threshold:
    """The smallest threshold whose share of accepted impostors (I,) is at most ``far``.

    The FAR is a step function of the threshold: it falls just above an impostor score, so the
    threshold is the number that follows that score in its own precision. Nothing is interpolated.

    Raises:
        MetricUndefinedError: ``far`` is below 30/I, too few impostors to measure it (rule of 30).
        DeidbenchError: ``far`` is not between 0 and 1, or a score is NaN or +inf.
    """
    impostor = _checked("impostor", impostor)
    if not 0 < far < 1:
        raise DeidbenchError(f"expected a target FAR between 0 and 1, but got {far}.")
    count = impostor.size
    if count == 0 or far < RULE_OF_30 / count:
        raise MetricUndefinedError(_too_few(count, far))
    ranked = np.partition(impostor, count - 1 - _allowed(count, far))
    value = _just_above(ranked[count - 1 - _allowed(count, far)])
    return Threshold(far, float(value), count, float(np.count_nonzero(impostor >= value) / count))


def threshold_of_counts(scores: FloatArray, counts: IntArray, far: float) -> Threshold:
    """``threshold_at_far`` of impostor scores (K,), rising, of which each occurs counts (K,) times.

    Raises as that does.
    """
    if not 0 < far < 1:
        raise DeidbenchError(f"expected a target FAR between 0 and 1, but got {far}.")
    count = int(counts.sum())
    if count == 0 or far < RULE_OF_30 / count:
        raise MetricUndefinedError(_too_few(count, far))
    refused = _ranked(scores, counts, np.array([count - 1 - _allowed(count, far)]))
    value = _just_above(refused)[0]
    return Threshold(far, float(value), count, float(counts[scores >= value].sum() / count))


def roc_of_counts(
    scores: FloatArray, genuine: IntArray, impostor: IntArray, points: int = 200
) -> RocCurve:
    """``roc_curve`` of scores (K,), rising, and how often each kind has them, (K,) each.

    Raises ``MetricUndefinedError`` when there are no genuine or impostor scores.
    """
    for kind, counts in (("genuine", genuine), ("impostor", impostor)):
        if not counts.sum():
            raise MetricUndefinedError(f"there are no {kind} scores; check the pair list.")
    count = int(impostor.sum())
    accepted = np.unique(np.geomspace(1, count, points).round().astype(int))[:-1]
    refused = _ranked(scores, impostor, count - 1 - np.append(0, accepted))
    threshold = np.append(np.unique(_just_above(refused))[::-1], -np.inf)
    first = np.searchsorted(scores, threshold)
    below = [np.append(0, np.cumsum(kind))[first] for kind in (impostor, genuine)]
    fmr, tar = (count - below[0]) / count, (genuine.sum() - below[1]) / genuine.sum()
    return RocCurve(threshold, fmr, tar)


def roc_curve(genuine: FloatArray, impostor: FloatArray, points: int = 200) -> RocCurve:
    """At most ``points`` + 1 exact operating points, evenly spaced in log FMR, for drawing.

    Each is the upper left corner of a step: the smallest threshold with that FMR. The ends are
    FMR 0 and (1, 1). Raises ``MetricUndefinedError`` when there are no genuine or impostor scores.
    """
    genuine = np.sort(_present("genuine", genuine))
    impostor = np.sort(_present("impostor", impostor))
    count = impostor.size
    accepted = np.unique(np.geomspace(1, count, points).round().astype(int))[:-1]
    refused = impostor[count - 1 - np.append(0, accepted)]  # the best score that is not accepted
    threshold = np.append(np.unique(_just_above(refused))[::-1], -np.inf)
    fmr = (count - np.searchsorted(impostor, threshold)) / count
    tar = (genuine.size - np.searchsorted(genuine, threshold)) / genuine.size
    return RocCurve(threshold, fmr, tar)


def histogram(genuine: FloatArray, impostor: FloatArray, bins: int = 60) -> Histogram:
    """Counts of both kinds of score in bins of one width; failed comparisons are left out.

    Raises ``MetricUndefinedError`` when there is no finite score.
    """
    genuine, impostor = (
        _finite(_checked("genuine", genuine)), _finite(_checked("impostor", impostor))
    )  # fmt: skip
    pooled = np.concatenate([genuine, impostor])
    if pooled.size == 0:
        raise MetricUndefinedError("histogram: no comparison has a finite score.")
    edges = np.histogram_bin_edges(pooled.astype(np.float64), bins)
    return Histogram(edges, np.histogram(genuine, edges)[0], np.histogram(impostor, edges)[0])


def draw_weights(n_subjects: int, draws: int = 2000, seed: int = 0) -> FloatArray:
    """How often each subject is drawn in each resample, (draws, n_subjects) float32.

    The same seed and number of subjects give the same draws, so that methods are compared on the
    same resamples (paired). Raises ``MetricUndefinedError`` for fewer than two subjects.
    """
    if n_subjects < 2:
        raise MetricUndefinedError(f"bootstrap: expected 2 or more subjects, but got {n_subjects}.")
    drawn = np.random.default_rng(seed).integers(n_subjects, size=(draws, n_subjects))
    cells = drawn + n_subjects * np.arange(draws)[:, None]
    weights = np.bincount(cells.ravel(), minlength=cells.size).reshape(draws, n_subjects)
    return weights.astype(np.float32)


def count_scores(
    scores: FloatArray,
    a: IntArray,
    b: IntArray,
    weights: FloatArray,
    thresholds: Sequence[float] = (),
    *,
    bins: int | None = None,
) -> ScoreCounts:
    """Scores in bins, weighted for each draw of subjects: the two-way clustered bootstrap.

    A genuine pair of subject i weighs w_i, an impostor pair of i and j weighs w_i w_j.

    Args:
        scores: (P,), -inf for failed comparisons, which get a bin of their own.
        a: (P,) subject numbers of one side, from 0; b: of the other. Genuine where they are equal.
        weights: (B, S) from ``draw_weights``; ones give the plain counts.
        thresholds: become edges, so that rates at them are exact.
        bins: about how many; by default 200, fewer where subjects are so many that it would
            take minutes.

    Raises:
        DeidbenchError: a score is NaN or +inf, or subject numbers do not fit.
    """
    scores = _checked("comparison", scores)
    a, b = _subject_numbers(scores, a, weights), _subject_numbers(scores, b, weights)
    same = a == b
    bins = bins or _affordable_bins(scores.size, weights)
    edges = _edges(scores[same], scores[~same], thresholds, bins)
    bin_of = np.searchsorted(edges, scores, side="right") - 1
    impostor_pairs = bin_of[~same], a[~same], b[~same]
    return ScoreCounts(
        edges=edges,
        centres=_centres(scores, bin_of, edges),
        genuine=_genuine_counts(bin_of[same], a[same], weights, len(edges) - 1),
        impostor=_impostor_counts(*impostor_pairs, weights, len(edges) - 1),
    )


def count_images(
    treated: FloatArray, clean: FloatArray, owner: IntArray, weights: FloatArray
) -> ScoreCounts:
    """As ``count_scores``, for one score an image: an image of person i weighs w_i.

    Args:
        treated: (N,) finite.
        clean: (N,) finite.
        owner: (N,) subject numbers.
        weights: (B, S).
    """
    edges = _edges(treated, clean, (), BINS)
    bins = [np.searchsorted(edges, scores, side="right") - 1 for scores in (treated, clean)]
    pooled = np.concatenate([treated, clean])
    return ScoreCounts(
        edges=edges,
        centres=_centres(pooled, np.concatenate(bins), edges),
        genuine=_genuine_counts(bins[0], owner, weights, len(edges) - 1),
        impostor=_genuine_counts(bins[1], owner, weights, len(edges) - 1),
    )


def score_edges(
    genuine: FloatArray, impostor: FloatArray, thresholds: Sequence[float] = (), bins: int = BINS
) -> FloatArray:
    """Edges of about so many bins, (K + 1,): where ``count_scores`` puts them for these scores."""
    return _edges(genuine, impostor, thresholds, bins)


def ratio_bootstrap(
    numerator: FloatArray, denominator: FloatArray, weights: FloatArray
) -> FloatArray:
    """Ratio of sums in each draw, (B,); NaN where the denominator is 0.

    For means clustered by subject: ``numerator`` (S,) sums of a subject's values, ``denominator``
    (S,) how many they are, ``weights`` (B, S).
    """
    part = weights @ np.asarray(numerator, np.float64)
    whole = weights @ np.asarray(denominator, np.float64)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def interval(
    values: FloatArray, level: float = 0.95, *, subjects: int | None = None
) -> tuple[float, float]:
    """Percentile interval of the draws (B,) that define the number.

    Args:
        subjects: how many people were drawn from. Percentiles of few are too narrow: a resample of
            S people varies (S - 1)/S as much as a sample does, and the tails are those of a normal
            distribution, not of Student's. With this number the percentiles lie as far out as both
            ask for (the expanded percentile interval of Hesterberg, Am. Stat. 69:371, 2015).
            Simulated with 28 people, 95 % intervals of AUC, EER and TAR hold the truth 92 to 96
            times of 100 with it, 89 to 95 times without (tests/test_coverage.py).

    Raises ``MetricUndefinedError`` when more than half of the draws do not define the number, and
    for fewer than two subjects.
    """
    values = np.asarray(values)
    defined = values[np.isfinite(values)]
    if defined.size == 0 or 2 * defined.size < values.size:
        raise MetricUndefinedError(
            f"no interval: only {defined.size} of {values.size} bootstrap draws define the number."
        )
    tail = (1 - level) / 2 if subjects is None else _expanded_tail(level, subjects)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _expanded_tail(level: float, subjects: int) -> float:
    from scipy.special import stdtrit  # Student's t

    if subjects < 2:
        raise MetricUndefinedError(f"no interval: expected 2 or more people, but got {subjects}.")
    reach = float(stdtrit(subjects - 1, (1 + level) / 2)) * math.sqrt(subjects / (subjects - 1))
    return NormalDist().cdf(-reach)


def unseen_bound(people: int, level: float = 0.95) -> float:
    """Largest rate that ``people`` of whom none showed the event leave possible, in (0, 1].

    The bootstrap of a rate of 0 is the interval [0, 0]: it knows no one but these people. If a
    share p of all people shows the event at all, none of n shows it with probability (1 - p)^n;
    the rate over their comparisons is at most p. Two-sided: 1 - ((1 - level)/2)^(1/n), about
    3.7/n at 95 % (one-sided it would be the rule of three, 3/n: Hanley and Lippman-Hand,
    JAMA 249:1743, 1983). One minus it bounds a rate of 1 from below. For pairs of two people
    count half of the people: only pairs without a person in common are independent.

    Raises ``MetricUndefinedError`` when there is no one.
    """
    if people < 1:
        raise MetricUndefinedError("no bound: there are no people; check the pair list.")
    return float(1 - ((1 - level) / 2) ** (1 / people))


def auc(genuine: FloatArray, impostor: FloatArray) -> float:
    """P(g > i) + P(g = i) / 2 for scores (G,) and (I,), none of them empty: Mann-Whitney."""
    # Both are sorted: a search in order stays in the processor's cache.
    rows, columns = np.sort(genuine), np.sort(impostor)
    below = int(np.searchsorted(columns, rows, "left").sum())
    not_above = int(np.searchsorted(columns, rows, "right").sum())
    return (below + not_above) / (2 * rows.size * columns.size)


def attacker_auc(auc: float) -> float:
    """AUC of an attacker who may flip the sign of the scores, in [0.5, 1]."""
    return max(auc, 1 - auc)


def ten_fold_accuracy(scores: FloatArray, same: BoolArray, folds: IntArray) -> tuple[float, float]:
    """Mean accuracy over the folds and its standard error, as for LFW's View 2.

    Each fold is judged by the threshold with the best accuracy on all other folds: half-way between
    the neighbouring scores of that cut, the lowest cut of several equally good ones. A failed
    comparison (-inf) never matches.

    Args:
        scores: (P,).
        same: (P,) whether a pair is genuine.
        folds: (P,) fold numbers.

    Raises ``MetricUndefinedError`` for fewer than two folds.
    """
    scores = _present("comparison", scores).astype(np.float64)
    same, folds = np.asarray(same, bool), np.asarray(folds)
    names = np.unique(folds)
    if len(names) < 2:
        raise MetricUndefinedError(f"accuracy: expected 2 or more folds, but got {len(names)}.")
    accuracies = []
    for name in names:
        held = folds == name
        threshold = _most_accurate(scores[~held], same[~held])
        accuracies.append(np.mean((scores[held] >= threshold) == same[held]))
    error = np.std(accuracies, ddof=1) / math.sqrt(len(names))
    return float(np.mean(accuracies)), float(error)


def _allowed(count: int, far: float) -> int:
    """How many of ``count`` impostors may be accepted: the largest m with m / count <= far."""
    floor = int(far * count)
    return floor + 1 if (floor + 1) / count <= far else floor


def _ranked(scores: FloatArray, counts: IntArray, places: IntArray) -> FloatArray:
    """The scores at these places, from 0, of the sorted scores that the counts stand for."""
    return np.asarray(scores[np.searchsorted(np.cumsum(counts), places, side="right")])


def _just_above(scores: FloatArray) -> FloatArray:
    return np.nextafter(scores, scores.dtype.type(np.inf))


def _too_few(count: int, far: float) -> str:
    needed = math.ceil(RULE_OF_30 / far)
    bound = f"; with no error seen the 95 % bound would be {3 / count:.2g}" if count else ""
    return f"too few impostors for FAR {far:g}: {count} of the {needed} needed (rule of 30){bound}."


def _most_accurate(scores: FloatArray, same: BoolArray) -> float:
    distinct = np.unique(_finite(scores))
    halfway = (distinct[:-1] + distinct[1:]) / 2
    cuts = np.concatenate([distinct[:1], halfway, [np.inf]])
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    right = genuine.size - np.searchsorted(genuine, cuts) + np.searchsorted(impostor, cuts)
    return float(cuts[np.argmax(right)])


def _is_dense(pairs: float, subjects: int) -> bool:
    """Whether a dense matrix of the pairs of one bin is multiplied faster than a sparse one."""
    return SPARSE_COST * pairs > subjects**2


def _affordable_bins(pairs: int, weights: FloatArray) -> int:
    """``BINS``, or fewer where as many dense products would take minutes."""
    draws, subjects = weights.shape
    if not _is_dense(pairs / BINS, subjects):
        return BINS
    return int(np.clip(MATRIX_WORK / (draws * subjects**2), FEWEST_BINS, BINS))


def _edges(
    genuine: FloatArray, impostor: FloatArray, thresholds: Sequence[float], bins: int
) -> FloatArray:
    """Half the edges at quantiles of each kind of score, and all thresholds. (K + 1,) float64."""
    kinds = [np.sort(_finite(scores)) for scores in (genuine, impostor)]
    each = max((bins - len(thresholds)) // 2, 2)
    quantiles = [_quantiles(scores, each) for scores in kinds if scores.size]
    # The lowest finite score is the first quantile, so -inf has the first bin to itself.
    return np.unique(np.concatenate([[-np.inf, np.inf], thresholds, *quantiles]))


def _quantiles(ranked: FloatArray, count: int) -> FloatArray:
    """Scores at even steps of the normal deviate, the axis of a DET plot: tails are resolved."""
    normal = NormalDist()
    reach = -normal.inv_cdf(1 / (ranked.size + 1))
    shares = [normal.cdf(step) for step in np.linspace(-reach, reach, count)]
    shares[0], shares[-1] = 0, 1
    return np.asarray(ranked[np.round(np.multiply(shares, ranked.size - 1)).astype(int)])


def _centres(scores: FloatArray, bin_of: IntArray, edges: FloatArray) -> FloatArray:
    """Mean score of each bin; the lower edge of an empty one."""
    count = np.bincount(bin_of, minlength=len(edges) - 1)
    total = np.bincount(bin_of, scores, minlength=len(edges) - 1)
    centres: FloatArray = edges[:-1].copy()
    return np.divide(total, count, out=centres, where=count > 0)


def _genuine_counts(
    bin_of: IntArray, subject: IntArray, weights: FloatArray, bins: int
) -> FloatArray:
    subjects = weights.shape[1]
    cells = np.bincount(subject * bins + bin_of, minlength=subjects * bins)
    return (weights @ cells.reshape(subjects, bins).astype(np.float32)).astype(np.float64)


def _impostor_counts(
    bin_of: IntArray, a: IntArray, b: IntArray, weights: FloatArray, bins: int
) -> FloatArray:
    """Sum of w_a w_b in each bin, (B, K), as w' M w with M (S, S) the pairs of one bin.

    One bin at a time: memory holds S S + B S numbers at most, however many bins there are.
    """
    order = np.argsort(bin_of.astype(np.int16), kind="stable")  # a radix sort
    a, b = a[order], b[order]
    starts = np.searchsorted(bin_of[order], np.arange(bins + 1))
    drawn = np.ascontiguousarray(weights.T)
    counts = np.zeros((len(weights), bins))
    for index, (start, end) in enumerate(pairwise(starts)):
        if start < end:
            matrix = _pair_matrix(a[start:end], b[start:end], len(drawn))
            counts[:, index] = np.einsum("sb,sb->b", matrix @ drawn, drawn)
    return counts


def _pair_matrix(a: IntArray, b: IntArray, subjects: int) -> Any:
    """How often each two subjects are compared, (S, S) float32: dense, or sparse where it is."""
    if _is_dense(len(a), subjects):
        pairs = np.bincount(a * subjects + b, minlength=subjects**2).astype(np.float32)
        return pairs.reshape(subjects, subjects)
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(a), np.float32), (a, b)), shape=(subjects, subjects))


def _subject_numbers(scores: FloatArray, numbers: IntArray, weights: FloatArray) -> IntArray:
    numbers = np.asarray(numbers, np.int64)
    lowest, highest = numbers.min(initial=0), numbers.max(initial=0)
    if numbers.shape != scores.shape or lowest < 0 or highest >= weights.shape[1]:
        raise DeidbenchError(
            f"bootstrap: expected {scores.size} subject numbers from 0 to {weights.shape[1] - 1}, "
            f"but got {numbers.size} from {lowest} to {highest}; number them as the weights do."
        )
    return numbers


def _finite(scores: FloatArray) -> FloatArray:
    return scores[scores > -np.inf]


def _present(kind: str, scores: FloatArray) -> FloatArray:
    if np.size(scores) == 0:
        raise MetricUndefinedError(f"there are no {kind} scores; check the pair list.")
    return _checked(kind, scores)


def _checked(kind: str, scores: FloatArray) -> FloatArray:
    array = np.asarray(scores)
    # One pass: the maximum is NaN as soon as one score is.
    if array.ndim != 1 or (array.size and not array.max() < np.inf):
        raise DeidbenchError(
            f"expected {kind} scores (P,) that are finite or -inf (failed), but got shape "
            f"{array.shape} with maximum {array.max() if array.size else None}; mark failures -inf."
        )
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
