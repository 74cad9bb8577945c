"""True accept rate at a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ._scores import accepted, checked, first_accepted_bin, given, present, share

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts


class TrueAcceptRate:
    """Share of the genuine pairs that match: score >= threshold. A failed pair (-inf) does not.

    The threshold comes from other people; impostor scores are not used and may be empty.
    """

    name = "tar"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = False
    unit = "fraction"
    needs_threshold = True

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """In [0, 1]. Raises ``MetricUndefinedError`` when there are no genuine scores."""
        checked(self.name, "impostor", impostor)
        return accepted(present(self.name, "genuine", genuine), given(self.name, threshold))

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,), exact in each draw; NaN where a draw has no genuine pairs."""
        start = first_accepted_bin(self.name, counts, threshold)
        return share(counts.genuine[:, start:].sum(1), counts.genuine.sum(1))
