"""Swirls a face about its middle: it hides less than it seems to, since it can be undone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench.errors import DeidbenchError


class Swirl:
    """Turns each pixel about the middle of the face, most at the middle and not at all at the rim.

    A pixel at distance r from the middle is turned by ``2 pi s (1 - r / R)^2`` for strength s, up
    to R at the nearest border: 0 leaves the face, 0.5 (default) is half a turn at the middle.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "swirl"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        strength = 0.5 if strength is None else strength
        if not 0 <= strength <= 1:
            raise DeidbenchError(f"swirl: strength must be in [0, 1], but got {strength}.")
        self.strength: float | None = strength

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, swirled. The seed changes nothing."""
        height, width = faces.shape[-2:]
        y, x = (_centred(side, faces) for side in (height, width))
        y, x = torch.meshgrid(y, x, indexing="ij")  # pixels from the middle, (H, W)
        share = torch.hypot(x, y) / max((min(height, width) - 1) / 2, 1)
        angle = 2 * torch.pi * float(self.strength or 0) * (1 - share).clamp_min(0).square()
        sources = (
            (x * angle.cos() - y * angle.sin()) * 2 / width,
            (x * angle.sin() + y * angle.cos()) * 2 / height,
        )
        grid = torch.stack(sources, -1).expand(len(faces), -1, -1, -1)
        swirled = F.grid_sample(faces, grid, padding_mode="reflection", align_corners=False)
        return swirled.clamp(0, 1)


def _centred(side: int, like: Tensor) -> Tensor:
    """Distances of the pixels along a side from its middle, (side,)."""
    return torch.arange(side, dtype=like.dtype, device=like.device) - (side - 1) / 2
