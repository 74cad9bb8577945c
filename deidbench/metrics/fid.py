"""Frechet Inception distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._inception import InceptionDistance

if TYPE_CHECKING:
    from deidbench.types import FloatArray

ENOUGH = 2048  # images: with fewer, a covariance of 2,048 features has no full rank


class FrechetInceptionDistance(InceptionDistance):
    """Distance of two sets of images, each taken as one Gaussian of features; 0: alike.

    The lower, the better. Biased upwards, the more the fewer the images: compare only numbers of
    sets of one size.
    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)), Heusel et al., NeurIPS 2017, arXiv 1706.08500.
    """

    name = "fid"

    def __call__(self, original: FloatArray, treated: FloatArray) -> float:
        """Features (N, 2048) and (M, 2048). Raises ``MetricUndefinedError`` below 2 images."""
        (mean_1, root_1), (mean_2, root_2) = map(_moments, self._sets(original, treated))
        # With C = R^T R, the square roots of the eigenvalues of C1 C2 are the singular values of
        # R1 R2^T: no root of a singular matrix is needed, and few images cost little.
        common = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
        spread = np.square(root_1).sum() + np.square(root_2).sum()
        return max(0.0, float(np.square(mean_1 - mean_2).sum() + spread - 2 * common))

    def note(self, n: int) -> str | None:
        """What a reader must know of a number made of n images."""
        if n >= ENOUGH:
            return None
        return f"made of {n} images: below {ENOUGH} FID is far too high; prefer KID"


def _moments(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean (D,), and R with R^T R the covariance: at most D rows."""
    mean = features.mean(0)
    centred = (features - mean) / np.sqrt(len(features) - 1)
    if len(centred) > mean.size:
        centred = np.asarray(np.linalg.qr(centred, mode="r"))
    return mean, centred
