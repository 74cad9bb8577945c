"""Equal error rate."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._scores import present

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts


class EqualErrorRate:
    """Error rate where false matches and false non-matches are equally frequent.

    Each score is a threshold t with FMR(t) = P(i >= t) and FNMR(t) = P(g < t). Where no t makes
    them equal, the two neighbouring operating points around the crossing are joined by a line, as
    on the drawn ROC: what root finding on scikit-learn's interpolated ``roc_curve`` gives. The
    convex hull is not taken. 0.5: the attacker guesses.
    """

    name = "eer"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = True
    unit = "fraction"
    needs_threshold = False

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """In [0, 1], from all scores (G,) and (I,); raises ``MetricUndefinedError`` without any.

        >>> import numpy as np
        >>> EqualErrorRate()(genuine=np.array([0.9, 0.4]), impostor=np.array([0.6, 0.1]))
        0.5
        """
        genuine = present(self.name, "genuine", genuine)
        impostor = present(self.name, "impostor", impostor)
        scores = np.append(np.sort(np.concatenate([genuine, impostor])), np.inf)

        def rates(point: np.float64) -> tuple[float, float]:
            fmr = np.count_nonzero(impostor >= point) / impostor.size
            return fmr, np.count_nonzero(genuine < point) / genuine.size

        def crossed(index: int) -> bool:
            fmr, fnmr = rates(scores[index])
            return fnmr >= fmr

        after = scores[bisect_left(range(scores.size), True, key=crossed)]
        # At the lowest score FMR = 1 and FNMR = 0, so there is always a point before the crossing.
        before = scores[np.searchsorted(scores, after) - 1]
        points = np.array([rates(before), rates(after)]).T
        return float(_crossing(points[:1], points[1:])[0])

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,) in [0, 1], with the bin edges as thresholds. NaN where a draw has no pairs."""
        fnmr, below = _cumulative(counts.genuine), _cumulative(counts.impostor)
        return _crossing(1 - below, fnmr)


def _cumulative(weights: FloatArray) -> FloatArray:
    """(B, K) -> (B, K + 1): share of each draw's weight below each edge; NaN without weight."""
    below = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=below[:, 1:])
    total = below[:, -1:].copy()
    return np.divide(below, total, out=np.full_like(below, np.nan), where=total > 0)


def _crossing(fmr: FloatArray, fnmr: FloatArray) -> FloatArray:
    """(B, T) rates over rising thresholds, from (1, 0) to (0, 1) -> (B,) where they are equal."""
    gap = fnmr - fmr
    after = np.maximum(np.argmax(gap >= 0, axis=1), 1)  # no crossing only in rows of NaN
    rows = np.arange(len(gap))
    start, end = gap[rows, after - 1], gap[rows, after]
    low, high = fnmr[rows, after - 1], fnmr[rows, after]
    return np.asarray(low + (high - low) * start / (start - end))
