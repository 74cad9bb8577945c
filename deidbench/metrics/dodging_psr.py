"""Dodging protection success rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from deidbench.errors import DeidbenchError, MetricUndefinedError

from ._scores import given, present

if TYPE_CHECKING:
    from deidbench.types import BoolArray, FloatArray


class DodgingSuccess:
    """Share of the genuine pairs that matched before treatment and no longer do.

    ``before`` and ``after`` (P,) are scores of the same genuine pairs in the same order; a match
    is score >= threshold, a failed comparison (-inf) is none. Impersonation is another thing.
    Where treated scores have a threshold of their own, ``threshold_before`` is that of ``before``.
    """

    name = "dodging-psr"
    version = 1
    kind: Literal["paired"] = "paired"
    higher_is_better = True
    unit = "fraction"
    needs_threshold = True

    def __call__(
        self,
        *,
        before: FloatArray,
        after: FloatArray,
        threshold: float | None = None,
        threshold_before: float | None = None,
    ) -> float:
        """In [0, 1]. Raises ``MetricUndefinedError`` when no pair matched before treatment."""
        lost, matched = self.terms(
            before=before, after=after, threshold=threshold, threshold_before=threshold_before
        )
        if not matched.any():
            raise MetricUndefinedError(
                f"dodging-psr: none of {matched.size} genuine pairs matched before treatment."
            )
        return float(np.count_nonzero(lost) / np.count_nonzero(matched))

    def terms(
        self,
        *,
        before: FloatArray,
        after: FloatArray,
        threshold: float | None = None,
        threshold_before: float | None = None,
    ) -> tuple[BoolArray, BoolArray]:
        """Numerator and denominator of each pair, (P,) and (P,), for a bootstrap of the ratio."""
        value = given(self.name, threshold)
        before = present(self.name, "before", before)
        after = present(self.name, "after", after)
        if before.size != after.size:
            raise DeidbenchError(
                "dodging-psr: expected scores of the same pairs before and after treatment, "
                f"but got {before.size} and {after.size}."
            )
        matched = before >= given(
            self.name, threshold if threshold_before is None else threshold_before
        )
        return matched & (after < value), matched
