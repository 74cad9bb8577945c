"""Pixelation: the mosaic of television."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deidbench.errors import DeidbenchError


class Pixelate:
    """Replaces each block of a grid by its mean colour.

    The grid has 4 / s^2 blocks along a side for strength s, so that a strength means the same at
    every resolution: 0 leaves the face, 0.5 (default) is 16 blocks (10 px each at 160 px), 1 is
    4 blocks. Blocks of a side that they do not divide differ by at most one pixel.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "pixelate"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        strength = 0.5 if strength is None else strength
        if not 0 <= strength <= 1:
            raise DeidbenchError(f"pixelate: strength must be in [0, 1], but got {strength}.")
        self.strength: float | None = strength
        self._block_per_side = strength**2 / 4

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, pixelated. The seed changes nothing."""
        rows, columns = (self._blocks(side, faces.device) for side in faces.shape[-2:])
        means = _pooling(rows).to(faces) @ (faces @ _pooling(columns).to(faces).T)
        return means[..., rows[:, None], columns].clamp(0, 1)

    def _blocks(self, side: int, device: torch.device) -> Tensor:
        """The block, counted from 0, that each of the pixels along a side lies in: (side,)."""
        count = round(1 / max(self._block_per_side, 1 / side))
        return torch.arange(side, device=device) * count // side


def _pooling(blocks: Tensor) -> Tensor:
    """(blocks, side): its product with a line of pixels is the mean of each block."""
    members = torch.nn.functional.one_hot(blocks).T
    return members / members.sum(1, keepdim=True)
