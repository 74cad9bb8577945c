"""Gaussian blur: what news pictures and street views are most often treated with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deidbench.errors import DeidbenchError


class GaussianBlur:
    """Blurs with a Gaussian whose width is a share of the chip.

    sigma = s (1 + s) / 16 of the shorter side for strength s, so that a strength means the same
    at every resolution: 0 leaves the face, 0.5 (default) is about 1/21 (7.5 px at 160 px), 1 is
    1/8. The kernel ends at 4 sigma; beyond the border the image is reflected about its edge,
    which keeps its mean.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "gaussian-blur"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        strength = 0.5 if strength is None else strength
        if not 0 <= strength <= 1:
            raise DeidbenchError(f"gaussian-blur: strength must be in [0, 1], but got {strength}.")
        self.strength: float | None = strength
        self._sigma_per_side = strength * (1 + strength) / 16

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, blurred. The seed changes nothing."""
        height, width = faces.shape[-2:]
        sigma = self._sigma_per_side * min(height, width)
        rows, columns = (_blur_matrix(side, sigma).to(faces) for side in (height, width))
        return (rows @ (faces @ columns)).clamp(0, 1)


def _blur_matrix(side: int, sigma: float) -> Tensor:
    """Symmetric (side, side) whose product with a line of pixels is the blurred line.

    As a matrix, a kernel wider than the image needs no padding: each weight is added to the
    pixel that repeated reflection shows at its place.
    """
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / max(sigma, 1e-9)).square())
    places = (torch.arange(side)[:, None] + offsets) % (2 * side)
    sources = torch.minimum(places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, (kernel / kernel.sum()).expand(side, -1))
