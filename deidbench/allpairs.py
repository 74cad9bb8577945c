"""Numbers of all pairs in one pass, for sets whose pairs no list could hold.

Scores have ``pairs.DECIMALS`` decimals, so that how often each of them occurs says everything: a
``ScoreGrid`` is as exact as the scores themselves, in a memory that does not grow with their
number. Scores are made by ``pairs.score``, block by block, hence equal to the last bit to those of
a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from . import pairs, statistics
from .errors import DeidbenchError, MetricUndefinedError
from .types import ScoreCounts

if TYPE_CHECKING:
    from .statistics import RocCurve, Threshold
    from .types import BoolArray, FloatArray, IntArray

STEPS = 10**pairs.DECIMALS
FARTHEST = 2**23
"""Cells on one side of 0. Beyond +-84 the numbers of float32 lie farther apart than half a step."""
BLOCK = 1 << 19  # pairs at once


@dataclass(frozen=True)
class ScoreGrid:
    """How often each score occurs, on a grid of steps of 1e-5."""

    lowest: int
    """Cell k holds the scores (lowest + k) / 1e5."""
    genuine: IntArray
    """(K,) int64."""
    impostor: IntArray
    """(K,) int64."""
    failed_genuine: int = 0
    """Comparisons that could not be made, on no cell."""
    failed_impostor: int = 0

    @property
    def scores(self) -> FloatArray:
        """The score of each cell, (K,) float32, as ``pairs.score`` rounds it."""
        cells = np.arange(self.lowest, self.lowest + len(self.genuine))
        return cells.astype(np.float32) / np.float32(STEPS)

    def counts(self, thresholds: Sequence[float] = (), *, failed: bool = True) -> ScoreCounts:
        """Every score that occurs as a bin of its own: all metrics are exact (``from_counts``).

        Args:
            thresholds: become edges, as rates at them need.
            failed: whether failed comparisons count, as refused; else they are left out.
        """
        used = np.flatnonzero(self.genuine + self.impostor)
        values = self.scores[used].astype(np.float64)
        inner = np.union1d(values, np.asarray(thresholds, np.float64))
        edges = np.concatenate([[-np.inf], inner, [np.inf]])
        place = np.searchsorted(edges, values)
        kinds = np.zeros((2, 1, len(edges) - 1))
        kinds[:, 0, place] = self.genuine[used], self.impostor[used]
        if failed:
            kinds[:, 0, 0] = self.failed_genuine, self.failed_impostor
        return ScoreCounts(edges, edges[:-1].copy(), *kinds)

    def threshold_at_far(self, far: float, *, failed: bool = True) -> Threshold:
        """As ``statistics.threshold_at_far`` of the impostor scores one by one, to the last bit."""
        return statistics.threshold_of_counts(*self._impostors(failed), far)

    def roc_curve(self, points: int = 200, *, failed: bool = True) -> RocCurve:
        """As ``statistics.roc_curve`` of the scores one by one, to the last bit."""
        scores, impostor = self._impostors(failed)
        lost = self.failed_genuine if failed else 0
        genuine = np.append(lost, self.genuine)
        if impostor.sum() == 0 or genuine.sum() == 0:
            raise MetricUndefinedError("roc: there are no genuine or no impostor scores.")
        return statistics.roc_of_counts(scores, genuine, impostor, points)

    def _impostors(self, failed: bool) -> tuple[FloatArray, IntArray]:
        lost = self.failed_impostor if failed else 0
        low = np.float32(-np.inf)
        return np.append(low, self.scores), np.append(lost, self.impostor)


@dataclass(frozen=True)
class SubjectCounts:
    """How often scores of each person fall into bins: intervals without a list of pairs.

    An impostor pair counts for both of its people.
    """

    edges: FloatArray
    centres: FloatArray
    genuine: IntArray
    """(S, K)."""
    impostor: IntArray
    """(S, K)."""

    def draws(self, weights: FloatArray) -> ScoreCounts:
        """Counts in each draw of people, weights (B, S), for ``from_counts`` of any metric.

        The weight w_i w_j of an impostor pair is replaced by w_i + w_j - 1, which differs by
        (w_i - 1)(w_j - 1): of an order in the number of people that no longer matters where pairs
        are too many for a list (the Hajek projection of a U-statistic; van der Vaart, Asymptotic
        Statistics, ch. 12). Where single pairs vary far more than people do, these intervals are
        the narrower ones: chance of pairs counts twice here, three times in w_i w_j. Counts below 0
        are set to 0.
        """
        plain = self.impostor.sum(0) / 2
        impostor = plain + (weights - 1).astype(np.float64) @ self.impostor
        genuine = weights.astype(np.float64) @ self.genuine
        return ScoreCounts(self.edges, self.centres, genuine, np.maximum(impostor, 0))


@dataclass(frozen=True)
class Tally:
    """What one pass over all pairs found."""

    grid: ScoreGrid
    people: SubjectCounts | None = None


@dataclass
class _Side:
    """Images that are compared: embeddings (N, D) and subject numbers (N,)."""

    embeddings: FloatArray
    subjects: IntArray

    def __post_init__(self) -> None:
        self.embeddings, self.subjects = np.asarray(self.embeddings), np.asarray(self.subjects)
        if self.embeddings.ndim != 2 or self.subjects.shape != self.embeddings.shape[:1]:
            raise DeidbenchError(
                "all pairs: expected embeddings (N, D) and N subject numbers, but got shapes "
                f"{self.embeddings.shape} and {self.subjects.shape}."
            )


def gallery_pairs(
    enrolled: FloatArray,
    probe: FloatArray,
    enrolled_subjects: IntArray,
    probe_subjects: IntArray,
    similarity: str,
    *,
    bins: FloatArray | None = None,
) -> Tally:
    """Each probe (M, D) with each enrolled image (N, D).

    Args:
        bins: edges of the bins that people are counted in, for intervals: see ``bin_edges``.

    Raises:
        DeidbenchError: shapes do not fit, the similarity is unknown, or a score is beyond +-84.
    """
    sides = _Side(enrolled, enrolled_subjects), _Side(probe, probe_subjects)
    return _tally(*sides, similarity, _gallery_blocks(len(enrolled), len(probe)), bins)


def cross_pairs(
    enrolled: FloatArray,
    probe: FloatArray,
    subjects: IntArray,
    similarity: str,
    *,
    bins: FloatArray | None = None,
) -> Tally:
    """Each two different images of one set once, with the sides that ``pairs.cross_pairs`` gives.

    Args:
        enrolled, probe: (N, D), the set as each side has it. bins: as for ``gallery_pairs``.

    Raises:
        DeidbenchError: shapes do not fit, the similarity is unknown, or a score is beyond +-84.
    """
    sides = _Side(enrolled, subjects), _Side(probe, subjects)
    return _tally(*sides, similarity, _cross_blocks(len(enrolled)), bins)


def grid_of_scores(genuine: FloatArray, impostor: FloatArray) -> ScoreGrid:
    """The same of scores that are there already, (G,) and (I,); rounded as ``pairs.score`` rounds.

    NaN and -inf are failed comparisons. Raises ``DeidbenchError`` for other scores beyond +-84.
    """
    builder = _Builder()
    for kind, scores in enumerate((impostor, genuine)):
        for start in range(0, len(scores), BLOCK):
            part = np.asarray(scores[start : start + BLOCK], np.float32).round(pairs.DECIMALS)
            builder.add(part, np.full(len(part), bool(kind)))
    return builder.grid()


def bin_edges(grid: ScoreGrid, thresholds: Sequence[float] = ()) -> FloatArray:
    """Edges for ``bins``, from the grid of some of the pairs: quantiles of both kinds."""
    kinds = [np.repeat(grid.scores, _thinned(kind)) for kind in (grid.genuine, grid.impostor)]
    return statistics.score_edges(*kinds, thresholds)


def _thinned(counts: IntArray, most: int = 1_000_000) -> IntArray:
    """The counts of an even sample of at most about so many scores."""
    reached = np.cumsum(counts) // max(1, int(counts.sum()) // most)
    return np.diff(reached, prepend=0)


def _gallery_blocks(enrolled: int, probes: int) -> Iterator[tuple[IntArray, IntArray]]:
    rows = max(1, BLOCK // max(probes, 1))
    every = np.arange(probes, dtype=np.int32)
    for start in range(0, enrolled, rows):
        block = np.arange(start, min(start + rows, enrolled), dtype=np.int32)
        yield np.repeat(block, probes), np.tile(every, len(block))


def _cross_blocks(images: int) -> Iterator[tuple[IntArray, IntArray]]:
    for first, second in _gallery_blocks(images, images):
        chosen = first < second
        first, second = first[chosen], second[chosen]
        swapped = (first + second) % 2 == 1
        yield np.where(swapped, second, first), np.where(swapped, first, second)


def _tally(
    enrolled: _Side,
    probe: _Side,
    similarity: str,
    blocks: Iterator[tuple[IntArray, IntArray]],
    bins: FloatArray | None,
) -> Tally:
    builder = _Builder()
    people = None
    if bins is not None:
        people = _PeopleBuilder(bins, 1 + max(enrolled.subjects.max(), probe.subjects.max()))
    for reference, probed in blocks:
        a, b = enrolled.subjects[reference], probe.subjects[probed]
        listed = pairs.PairList("cross", reference, probed, a == b, np.zeros(0, np.int32))
        scores = pairs.score(enrolled.embeddings, probe.embeddings, listed, similarity)
        builder.add(scores, listed.same)
        if people is not None:
            people.add(scores, a, b)
    return Tally(builder.grid(), people and people.counts())


@dataclass
class _Builder:
    """A grid that grows to both sides as scores come."""

    lowest: int = 0
    counts: IntArray = field(default_factory=lambda: np.zeros((2, 0), np.int64))
    failed: IntArray = field(default_factory=lambda: np.zeros(2, np.int64))

    def add(self, scores: FloatArray, same: BoolArray) -> None:
        made = scores > -np.inf  # neither -inf nor NaN
        if not made.all():
            self.failed += np.bincount(same[~made], minlength=2)
            scores, same = scores[made], same[made]
        if not scores.size:
            return
        self._reach(float(scores.min()), float(scores.max()))
        cells = np.rint(scores.astype(np.float64) * STEPS).astype(np.int64) - self.lowest
        width = self.counts.shape[1]
        first, last = int(cells.min()), int(cells.max()) + 1
        own = np.bincount(cells[same] - first, minlength=last - first)
        self.counts[1, first:last] += own
        self.counts[0, first:last] += np.bincount(cells - first, minlength=last - first) - own
        assert width == self.counts.shape[1]

    def _reach(self, low: float, high: float) -> None:
        first, last = (round(score * STEPS) if abs(score) < np.inf else FARTHEST + 1 for score in (low, high))
        if max(-first, last) > FARTHEST:
            raise DeidbenchError(
                f"all pairs: expected scores within +-{FARTHEST / STEPS:.0f}, but got {low} to "
                f"{high}; scale the embeddings."
            )
        size = self.counts.shape[1]
        start = min(first, self.lowest) if size else first
        end = max(last + 1, self.lowest + size) if size else last + 1
        if start < self.lowest or end > self.lowest + size or not size:
            grown = np.zeros((2, end - start), np.int64)
            grown[:, self.lowest - start : self.lowest - start + size] = self.counts
            self.lowest, self.counts = start, grown

    def grid(self) -> ScoreGrid:
        impostor, genuine = self.counts
        return ScoreGrid(self.lowest, genuine, impostor, int(self.failed[1]), int(self.failed[0]))


class _PeopleBuilder:
    """Counts of each person, and the sum of the scores in each bin."""

    def __init__(self, edges: FloatArray, people: int) -> None:
        self.edges, self.people = edges, people
        self.kinds = np.zeros((2, people, len(edges) - 1), np.int64)
        self.sums = np.zeros(len(edges) - 1)

    def add(self, scores: FloatArray, a: IntArray, b: IntArray) -> None:
        pass
