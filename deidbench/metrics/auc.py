"""Area under the ROC curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from deidbench.statistics import auc

from ._scores import present, share

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts


class AreaUnderCurve:
    """Probability that a genuine score is above an impostor score; a tie counts as half.

    P(g > i) + P(g = i) / 2, the Mann-Whitney statistic over G I: exact, in O(n log n). Scores of
    any range. 0.5: the attacker guesses; below it identity is encoded with its sign flipped.
    """

    name = "auc"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = False
    unit = "fraction"
    needs_threshold = False

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """In [0, 1], from all scores (G,) and (I,); raises ``MetricUndefinedError`` without any.

        >>> import numpy as np
        >>> AreaUnderCurve()(genuine=np.array([0.9, 0.4]), impostor=np.array([0.4, 0.1]))
        0.875
        """
        return auc(present(self.name, "genuine", genuine), present(self.name, "impostor", impostor))

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,) in [0, 1]: scores of one bin count as ties. NaN where a draw has no pairs."""
        below = np.cumsum(counts.impostor, axis=1) - counts.impostor / 2
        won = np.einsum("bk,bk->b", counts.genuine, below)
        return share(won, counts.genuine.sum(1) * counts.impostor.sum(1))
