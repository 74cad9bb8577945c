"""False non-match rate at a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ._scores import checked, first_accepted_bin, given, present, share

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts


class FalseNonMatchRate:
    """Share of the genuine pairs that do not match: score < threshold, or failed (-inf).

    1 - TAR. Over scores with failures counted as -inf it is the FRR of ISO/IEC 19795-1. Impostor
    scores are not used and may be empty.
    """

    name = "fnmr"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = True
    unit = "fraction"
    needs_threshold = True

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """In [0, 1]. Raises ``MetricUndefinedError`` when there are no genuine scores."""
        checked(self.name, "impostor", impostor)
        scores = present(self.name, "genuine", genuine)
        return float(np.count_nonzero(scores < given(self.name, threshold)) / scores.size)

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,), exact in each draw; NaN where a draw has no genuine pairs."""
        start = first_accepted_bin(self.name, counts, threshold)
        return share(counts.genuine[:, :start].sum(1), counts.genuine.sum(1))
