"""Numbers of all pairs in one pass, for sets whose pairs no list could hold.

Scores have ``pairs.DECIMALS`` decimals, so that how often each of them occurs says everything: a
``ScoreGrid`` is as exact as the scores themselves, in a memory that does not grow with their
number. Scores are made by ``pairs.score_matrix``, tile by tile: equal to the last bit to those
of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import pairs, statistics
from .errors import DeidbenchError
from .types import ScoreCounts

if TYPE_CHECKING:
    from .statistics import RocCurve, Threshold
    from .types import BoolArray, FloatArray, IntArray

STEPS = 10**pairs.DECIMALS
FARTHEST = 2**23
"""Cells on one side of 0. Beyond +-84 numbers of float32 lie farther apart than half a step."""
TILE = 1024  # images of each side at once


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
        genuine = np.append(self.failed_genuine if failed else 0, self.genuine)
        return statistics.roc_of_counts(scores, genuine, impostor, points)

    def _impostors(self, failed: bool) -> tuple[FloatArray, IntArray]:
        lost = self.failed_impostor if failed else 0
        low = np.float32(-np.inf)
        return np.append(low, self.scores), np.append(lost, self.impostor)


@dataclass(frozen=True)
class PeopleCounts:
    """How often scores of each person fall into bins: intervals without a list of pairs.

    An impostor pair counts for both of its people.
    """

    edges: FloatArray
    """(K + 1,), as those of ``ScoreCounts``."""
    centres: FloatArray
    """(K,)."""
    genuine: IntArray
    """(S, K) int64."""
    impostor: IntArray
    """(S, K) int64."""

    def draws(self, weights: FloatArray) -> ScoreCounts:
        """Counts in each draw of people, weights (B, S), for ``from_counts`` of any metric.

        The weight w_i w_j of an impostor pair becomes w_i + w_j - 1: the Hajek projection of a
        statistic of pairs (van der Vaart, Asymptotic Statistics, ch. 11). The difference,
        (w_i - 1)(w_j - 1), shrinks with the number of people; what it leaves out is that w_i w_j
        counts the chance of single pairs three times, and this only twice: these intervals are
        never wider. Counts below 0 become 0.
        """
        weights = np.asarray(weights, np.float64)
        total = self.impostor.sum(0) / 2
        impostor = np.maximum(total + (weights - 1) @ self.impostor, 0)
        return ScoreCounts(self.edges, self.centres, weights @ self.genuine, impostor)


@dataclass(frozen=True)
class Tally:
    """What one pass over all pairs found."""

    grid: ScoreGrid
    people: PeopleCounts | None


def gallery_pairs(
    enrolled: FloatArray,
    probe: FloatArray,
    subjects: tuple[IntArray, IntArray],
    similarity: str,
    *,
    edges: FloatArray | None = None,
    failed: bool = True,
) -> Tally:
    """Each probe (M, D) with each enrolled image (N, D).

    Args:
        subjects: numbers from 0 of the people enrolled (N,) and probing (M,).
        similarity: as for ``pairs.score``.
        edges: bins to count people in, from ``bin_edges``; None for no intervals.
        failed: whether failed comparisons count there, as refused; else they are left out.

    Raises:
        DeidbenchError: shapes do not fit, the similarity is unknown, or a score is beyond +-84.
    """
    return _pass((enrolled, probe), subjects, similarity, None, (edges, failed))


def cross_pairs(
    enrolled: FloatArray,
    probe: FloatArray,
    subjects: IntArray,
    similarity: str,
    *,
    edges: FloatArray | None = None,
    failed: bool = True,
) -> Tally:
    """Each two different images of one set once, with the sides that ``pairs.cross_pairs`` gives.

    Args:
        enrolled, probe: (N, D), the set as each side has it. The others: as for ``gallery_pairs``.

    Raises:
        DeidbenchError: shapes do not fit, the similarity is unknown, or a score is beyond +-84.
    """
    return _pass((enrolled, probe), (subjects, subjects), similarity, _once, (edges, failed))


def grid_of_scores(genuine: FloatArray, impostor: FloatArray) -> ScoreGrid:
    """The same of scores that are there already, (G,) and (I,), rounded as ``pairs.score`` rounds.

    NaN and -inf are failed comparisons. Raises ``DeidbenchError`` for other scores beyond +-84.
    """
    counter = _GridCounter()
    for kind, scores in enumerate((impostor, genuine)):
        for start in range(0, len(scores), TILE**2):
            part = np.asarray(scores[start : start + TILE**2], np.float32)
            counter.add(kind, part.round(pairs.DECIMALS))
    return counter.grid()


def bin_edges(grid: ScoreGrid, thresholds: Sequence[float] = ()) -> FloatArray:
    """Edges to count people in: quantiles of both kinds of score, and all thresholds.

    The grid may be that of some of the pairs: any edges give sound counts.
    """
    genuine, impostor = (
        np.repeat(grid.scores, _thinned(kind)) for kind in (grid.genuine, grid.impostor)
    )
    return statistics.score_edges(genuine, impostor, thresholds)


def _thinned(counts: IntArray, most: int = 1_000_000) -> IntArray:
    """Counts of an even sample of about so many of the scores, or of all where they are fewer."""
    reached = -(-np.cumsum(counts) // max(1, int(counts.sum()) // most))
    return np.diff(reached, prepend=0)


def _once(rows: IntArray, columns: IntArray) -> BoolArray:
    """Which images are reference (rows) to which probes: the rule of ``pairs.cross_pairs``."""
    first, second = rows[:, None], columns
    swapped = (first + second) % 2 == 1
    return np.asarray((first != second) & ((first > second) == swapped))


def _pass(
    sides: tuple[FloatArray, FloatArray],
    subjects: tuple[IntArray, IntArray],
    similarity: str,
    chosen: Callable[[IntArray, IntArray], BoolArray] | None,
    people: tuple[FloatArray | None, bool],
) -> Tally:
    owners = [_subject_numbers(*each) for each in zip(sides, subjects, strict=True)]
    size = 1 + max(int(numbers.max(initial=-1)) for numbers in owners)
    counter = _GridCounter()
    by_person = None if people[0] is None else _PeopleCounter(people[0], size, people[1])
    for rows, columns in _tiles(len(sides[0]), len(sides[1])):
        matrix = pairs.score_matrix(sides[0][rows], sides[1][columns], similarity)
        a, b = np.broadcast_arrays(owners[0][rows][:, None], owners[1][columns])
        kept = slice(None) if chosen is None else chosen(rows, columns)
        tile = [np.ravel(each[kept]) for each in (matrix, a, b)]
        counter.add_both(tile[0], tile[1] == tile[2])
        if by_person:
            by_person.add(*tile)
    return Tally(counter.grid(), by_person.counts() if by_person else None)


def _tiles(rows: int, columns: int) -> Iterator[tuple[IntArray, IntArray]]:
    """All of a matrix in tiles: what is held at once does not grow with it."""
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            yield (
                np.arange(top, min(top + TILE, rows)),
                np.arange(left, min(left + TILE, columns)),
            )


def _subject_numbers(embeddings: FloatArray, subjects: IntArray) -> IntArray:
    numbers = np.asarray(subjects, np.int64)
    if np.ndim(embeddings) != 2 or numbers.shape != (len(embeddings),) or (numbers < 0).any():
        raise DeidbenchError(
            "all pairs: expected embeddings (N, D) and N subject numbers from 0, but got shapes "
            f"{np.shape(embeddings)} and {numbers.shape}, numbers from {numbers.min(initial=0)}."
        )
    return numbers


class _GridCounter:
    """A grid that grows to both sides as scores come."""

    def __init__(self) -> None:
        self._lowest = 0
        self._counts = np.zeros((2, 0), np.int64)  # impostor, genuine
        self._failed = [0, 0]

    def add_both(self, scores: FloatArray, same: BoolArray) -> None:
        self.add(0, scores[~same])
        self.add(1, scores[same])

    def add(self, kind: int, scores: FloatArray) -> None:
        """Scores (P,) on the grid; NaN and -inf are failures."""
        made = scores > -np.inf
        if not made.all():
            self._failed[kind] += int(np.count_nonzero(~made))
            scores = scores[made]
        if scores.size:
            cells = self._cells(scores)
            first = int(cells.min())
            counts = np.bincount(cells - first)
            self._grow(first, first + len(counts))
            start = first - self._lowest
            self._counts[kind, start : start + len(counts)] += counts

    def grid(self) -> ScoreGrid:
        impostor, genuine = self._counts
        return ScoreGrid(self._lowest, genuine, impostor, self._failed[1], self._failed[0])

    def _cells(self, scores: FloatArray) -> IntArray:
        low, high = float(scores.min()), float(scores.max())
        if max(-low, high) * STEPS > FARTHEST:
            raise DeidbenchError(
                f"all pairs: expected scores within +-{FARTHEST // STEPS}, but got {low:g} to "
                f"{high:g}; scale the embeddings down."
            )
        # In float64: float32 could not tell which whole number a product is next to.
        cells: IntArray = np.rint(scores.astype(np.float64) * STEPS).astype(np.int64)
        return cells

    def _grow(self, first: int, end: int) -> None:
        size = self._counts.shape[1]
        if size:
            first, end = min(first, self._lowest), max(end, self._lowest + size)
        if (first, end) != (self._lowest, self._lowest + size):
            grown = np.zeros((2, end - first), np.int64)
            start = self._lowest - first if size else 0
            grown[:, start : start + size] = self._counts
            self._lowest, self._counts = first, grown


class _PeopleCounter:
    """Counts of each person in each bin, and the sum of the scores in a bin."""

    def __init__(self, edges: FloatArray, people: int, failed: bool) -> None:
        self._edges, self._people, self._failed = edges, people, failed
        self._counts = np.zeros((2, people, len(edges) - 1), np.int64)  # impostor, genuine
        self._sums = np.zeros((2, len(edges) - 1))  # of finite scores, and how many

    def add(self, scores: FloatArray, a: IntArray, b: IntArray) -> None:
        made = scores > -np.inf
        if self._failed:
            scores = np.where(made, scores, np.float32(-np.inf))
        else:
            scores, a, b = scores[made], a[made], b[made]
        bin_of = np.searchsorted(self._edges, scores, side="right") - 1
        same = a == b
        self._count(1, a[same], bin_of[same])
        for side in (a, b):
            self._count(0, side[~same], bin_of[~same])
        finite = scores > -np.inf
        for row, terms in enumerate((scores[finite], None)):
            self._sums[row] += np.bincount(bin_of[finite], terms, len(self._edges) - 1)

    def counts(self) -> PeopleCounts:
        total, count = self._sums
        centres: FloatArray = self._edges[:-1].copy()
        np.divide(total, count, out=centres, where=count > 0)
        return PeopleCounts(self._edges, centres, self._counts[1], self._counts[0])

    def _count(self, kind: int, person: IntArray, bin_of: IntArray) -> None:
        """One tile holds few people: only their rows are counted."""
        present, row = np.unique(person, return_inverse=True)
        bins = len(self._edges) - 1
        cells = np.bincount(row * bins + bin_of, minlength=len(present) * bins)
        self._counts[kind, present] += cells.reshape(-1, bins)
