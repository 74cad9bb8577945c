"""Downscaling: the face as a distant camera sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from ._settings import checked_strength


class Downscale:
    """Shrinks each face to a thumbnail and enlarges that again, bicubic both ways.

    The thumbnail has 4 / s^2 pixels along a side for strength s, as many as ``pixelate`` has
    blocks, so that a strength means the same at every resolution: 0 leaves the face, 0.5
    (default) is 16 pixels, 1 is 4 pixels. Shrinking widens the kernel against aliasing (Keys 1981,
    doi 10.1109/TASSP.1981.1163711, a = -0.5, as Pillow does).

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "downscale"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        self.strength: float | None = checked_strength(self.name, strength)
        self._share_per_pixel = self.strength**2 / 4

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, without detail. The seed changes nothing."""
        if not len(faces):
            return faces.clone()
        height, width = faces.shape[-2:]
        thumbnails = _resized(faces, [self._pixels(height), self._pixels(width)])
        return _resized(thumbnails, [height, width]).clamp(0, 1)

    def _pixels(self, side: int) -> int:
        return round(1 / max(self._share_per_pixel, 1 / side))


def _resized(images: Tensor, size: list[int]) -> Tensor:
    """(N, 3, H, W) -> (N, 3, *size). Not clamped: a kernel may overshoot."""
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
