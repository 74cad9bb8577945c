"""False match rate at a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ._scores import accepted, checked, first_accepted_bin, given, present, share

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts


class FalseMatchRate:
    """Share of the impostor pairs that match: score >= threshold. A failed pair (-inf) does not.

    An error of the attacker, hence better for the defender when high: where strangers match too,
    a match says little. Genuine scores are not used and may be empty (ISO/IEC 19795-1).
    """

    name = "fmr"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = True
    unit = "fraction"
    needs_threshold = True

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """In [0, 1]. Raises ``MetricUndefinedError`` when there are no impostor scores."""
        checked(self.name, "genuine", genuine)
        return accepted(present(self.name, "impostor", impostor), given(self.name, threshold))

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,), exact in each draw; NaN where a draw has no impostor pairs."""
        start = first_accepted_bin(self.name, counts, threshold)
        return share(counts.impostor[:, start:].sum(1), counts.impostor.sum(1))
