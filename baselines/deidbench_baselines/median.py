"""Median filter: removes what is small, and keeps edges sharp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._settings import checked_strength

LEVELS = 255


class Median:
    """Replaces each value by the median of a square window around it, channel by channel.

    The window reaches r = s (1 + s) / 10 of the shorter side to each side for strength s, rounded
    to pixels, so that a strength means the same at every resolution: 0 leaves the face, 0.5
    (default) is about 1/13 (12 px at 160 px), 1 is 1/5. Beyond the border the image is reflected
    about its edge. Values are rounded to 8 bits first.

    By threshold decomposition (Fitch, Coyle, Gallagher 1984, doi 10.1109/TASSP.1984.1164468): the
    median is the number of levels that most of the window reaches. Its time does not depend on
    the window.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "median"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        self.strength: float | None = checked_strength(self.name, strength)
        self._radius_per_side = self.strength * (1 + self.strength) / 10

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, filtered. The seed changes nothing."""
        radius = round(self._radius_per_side * min(faces.shape[-2:]))
        if radius == 0:
            return faces.clone()
        return torch.stack([_median(face, radius) for face in faces]) if len(faces) else faces


def _median(face: Tensor, radius: int) -> Tensor:
    """(3, H, W) -> the same. One face at a time stays in a processor's cache."""
    rows, columns = (_window_matrix(side, radius).to(face) for side in face.shape[-2:])
    levels = (face * LEVELS).round()
    half = (2 * radius + 1) ** 2 / 2
    lowest, highest = int(levels.min()), int(levels.max())
    median = torch.full_like(face, lowest)
    for level in range(lowest + 1, highest + 1):
        reached = (levels >= level).to(face)
        median += (rows @ reached @ columns.T) > half  # whole numbers: exact in any precision
    return median / LEVELS


def _window_matrix(side: int, radius: int) -> Tensor:
    """(side, side): how often each pixel of a line lies in the window of each."""
    places = torch.arange(side)[:, None] + torch.arange(-radius, radius + 1)
    places = places % (2 * side)
    sources = torch.minimum(places, 2 * side - 1 - places)
    return torch.zeros(side, side).scatter_add_(1, sources, torch.ones(sources.shape))
