"""Gaussian noise: a dark room, or the first idea of many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._settings import checked_strength


class Noise:
    """Adds white Gaussian noise to every pixel and channel, then clips to [0, 1].

    sigma = s^2 of the range for strength s at 160 x 160 pixels: 0 leaves the face, 0.5 (default)
    is 0.25 (64 grey levels), 1 is 1. It grows with the root of the number of pixels, so that a
    strength means the same at every resolution: what is left after averaging down to one size is
    alike.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "noise"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        self.strength: float | None = checked_strength(self.name, strength)
        self._sigma_at_160 = self.strength**2

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, noisy: each face with its own noise, by the seed."""
        height, width = faces.shape[-2:]
        sigma = self._sigma_at_160 * (height * width) ** 0.5 / 160
        # Drawn on the CPU, so that a seed means the same noise on every device.
        noise = torch.randn(faces.shape, generator=torch.Generator().manual_seed(seed))
        noisy: Tensor = faces + sigma * noise.to(faces)
        return noisy.clamp(0, 1)
