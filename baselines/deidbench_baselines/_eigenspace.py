"""Principal components of a set of faces."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_SAMPLE = 1024
"""Faces that the components are computed from: their time grows with the cube of this number."""


class Eigenspace:
    """The mean and the leading principal components of faces, each a row of numbers.

    Turk and Pentland 1991, "Eigenfaces for Recognition", doi 10.1162/jocn.1991.3.1.71: with fewer
    faces than pixels, the components follow from the small matrix of the faces' inner products.

    Args:
        faces: (N, D). Of more than ``LARGEST_SAMPLE`` faces, as many are used, evenly spread.
        variance: in [0, 1]; as few components are kept as explain at least this share.
    """

    def __init__(self, faces: Tensor, variance: float) -> None:
        count = min(len(faces), LARGEST_SAMPLE)
        sample = faces[torch.arange(count) * len(faces) // count]
        self._mean = sample.mean(0)
        self.axes = _leading_axes(sample - self._mean, variance)  # (C, D)

    def project(self, faces: Tensor) -> Tensor:
        """(N, D) -> coordinates (N, C)."""
        return (faces - self._mean.to(faces)) @ self.axes.to(faces).T

    def restore(self, coordinates: Tensor) -> Tensor:
        """(N, C) -> faces (N, D)."""
        return coordinates @ self.axes.to(coordinates) + self._mean.to(coordinates)


def _leading_axes(centred: Tensor, variance: float) -> Tensor:
    """(N, D), of mean 0 -> orthonormal rows (C, D), the most telling first."""
    exact = centred.double()
    values, vectors = torch.linalg.eigh(exact @ exact.T)  # ascending
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    explained = values.cumsum(0) / values.sum().clamp_min(1e-300)
    count = int((explained < variance).sum()) + (variance > 0)
    count = min(count, int((values > 1e-10 * values[0]).sum()))  # the rest is rounding error
    axes: Tensor = vectors[:, :count].T @ exact / values[:count, None].sqrt()
    return axes.to(centred)
