"""Decidability index d'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from deidbench.errors import MetricUndefinedError

from ._scores import present, share

if TYPE_CHECKING:
    from deidbench.types import BoolArray, FloatArray, ScoreCounts


class DPrime:
    """Distance of the two means in pooled standard deviations.

    (mu_g - mu_i) / sqrt((s_g^2 + s_i^2) / 2) with population variances; 0: no separation,
    negative: the sign is flipped. Undefined when all scores of each kind are equal, and when a
    comparison failed (-inf): moments need finite scores. Daugman, Int. J. Comput. Vis. 2000.
    """

    name = "dprime"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = False
    unit = "standard deviations"
    needs_threshold = False

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """Any finite number, from all scores (G,) and (I,). Raises ``MetricUndefinedError``."""
        genuine = present(self.name, "genuine", genuine)
        impostor = present(self.name, "impostor", impostor)
        if min(genuine.min(), impostor.min()) == -np.inf:
            raise MetricUndefinedError("dprime: failed comparisons (-inf) have no mean; drop them.")
        if np.ptp(genuine) == 0 and np.ptp(impostor) == 0:
            raise MetricUndefinedError("dprime: the scores of each kind are all equal: no spread.")
        means = genuine.mean(dtype=np.float64), impostor.mean(dtype=np.float64)
        variance = (genuine.var(dtype=np.float64) + impostor.var(dtype=np.float64)) / 2
        return float((means[0] - means[1]) / np.sqrt(variance))

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,), each score taken as the mean of its bin. NaN where a draw does not define it."""
        finite = np.isfinite(counts.centres)
        centres = np.where(finite, counts.centres, 0)
        means, variances = zip(
            *(_moments(weights, centres) for weights in (counts.genuine, counts.impostor)),
            strict=True,
        )
        spread = np.sqrt((variances[0] + variances[1]) / 2)
        failed = (counts.genuine + counts.impostor)[:, ~finite].any(1)
        flat = _one_bin(counts.genuine) & _one_bin(counts.impostor)
        return np.where(failed | flat, np.nan, share(means[0] - means[1], spread))


def _moments(weights: FloatArray, centres: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and population variance of each draw, (B,) and (B,)."""
    total = weights.sum(1)
    mean = share(weights @ centres, total)
    squares = (weights * (centres - mean[:, None]) ** 2).sum(1)
    return mean, share(squares, total)


def _one_bin(weights: FloatArray) -> BoolArray:
    return np.asarray(np.count_nonzero(weights, axis=1) <= 1)
