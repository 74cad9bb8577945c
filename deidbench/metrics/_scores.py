"""What the verification metrics share: checks of scores, and sums over counted bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from deidbench.errors import DeidbenchError, MetricUndefinedError

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts

ScoreKind = Literal["genuine", "impostor", "before", "after"]


def checked(metric: str, kind: ScoreKind, scores: FloatArray) -> FloatArray:
    """The scores as a floating array (P,), which may be empty; -inf marks a failed comparison.

    Raises:
        DeidbenchError: they are not a vector, or hold NaN or +inf.
    """
    array = np.asarray(scores)
    if array.ndim != 1:
        raise DeidbenchError(f"{metric}: expected {kind} scores (P,), but got shape {array.shape}.")
    # One pass: the maximum is NaN as soon as one score is.
    if array.size and not array.max() < np.inf:
        raise DeidbenchError(
            f"{metric}: expected {kind} scores that are finite or -inf (a comparison that failed), "
            f"but got {array.max()}; mark failures as -inf."
        )
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def present(metric: str, kind: ScoreKind, scores: FloatArray) -> FloatArray:
    """As ``checked``, and raises ``MetricUndefinedError`` when there are none."""
    if np.size(scores) == 0:
        raise MetricUndefinedError(f"{metric}: there are no {kind} scores; check the pair list.")
    return checked(metric, kind, scores)


def given(metric: str, threshold: float | None) -> np.float64:
    """The threshold, in the precision that scores are compared in.

    A Python float would be rounded to the type of float32 scores; this is not.
    """
    if threshold is None or not threshold > -np.inf:
        raise DeidbenchError(f"{metric}: expected a threshold, but got {threshold}; give a number.")
    return np.float64(threshold)


def accepted(scores: FloatArray, threshold: np.float64) -> float:
    """Share of the scores that match: those at or above the threshold."""
    return float(np.count_nonzero(scores >= threshold) / scores.size)


def first_accepted_bin(metric: str, counts: ScoreCounts, threshold: float | None) -> int:
    """Index of the bin that starts at the threshold."""
    value = given(metric, threshold)
    index = int(np.searchsorted(counts.edges, value))
    if index == len(counts.edges) or counts.edges[index] != value:
        raise DeidbenchError(
            f"{metric}: the threshold {value} is no edge of the counted bins; "
            "name it when the scores are counted."
        )
    return index


def share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """part / whole, (B,) float64; NaN where the whole is 0."""
    ratio: FloatArray = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=ratio, where=whole > 0)
