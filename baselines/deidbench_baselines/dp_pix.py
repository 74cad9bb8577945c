"""DP-Pix: pixelation whose noise bounds what a few pixels can reveal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deidbench.errors import DeidbenchError

from ._settings import checked_count, checked_strength, require_one
from .pixelate import _pooling


class DPPix:
    """Replaces each cell of b x b pixels by its mean plus Laplace noise, clipped to [0, 1].

    The noise of a channel has the scale 255 m / (b^2 epsilon) grey levels (Fan 2018, DBSec, "Image
    Pixelization with Differential Privacy", doi 10.1007/978-3-319-95729-6_10). Cells that the
    border cuts have fewer pixels, each of which counts more: their number takes the place of b^2.

    What it promises: the paper treats grey images. By itself, each colour channel is
    epsilon-differentially private for images that differ in at most m pixels. The three channels
    of such a pixel change together, so that a colour image has 3 epsilon. Several photographs of
    a person add up likewise. With m far below the size of a face this does not promise that the
    person cannot be recognised; and it holds only against those who do not know the seed.

    Args:
        strength: moves epsilon = 1 / (8 s^2): 0.5 (default) is the paper's 0.5; 1 is 1/8; 0 adds
            no noise and promises nothing.
        epsilon: the budget of a channel, in place of a strength.
        m: how many pixels may differ.
        b: side of a cell in pixels.

    Raises:
        DeidbenchError: a setting is out of its range, or strength and epsilon are both given.
    """

    name = "dp-pix"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(
        self,
        strength: float | None = None,
        epsilon: float | None = None,
        m: int = 16,
        b: int = 16,
    ) -> None:
        require_one(self.name, "epsilon", strength, epsilon)
        self.strength: float | None = None
        if epsilon is None:
            self.strength = checked_strength(self.name, strength)
            epsilon = 1 / (8 * self.strength**2) if self.strength**2 else math.inf
        elif not 0 < epsilon < math.inf:
            raise DeidbenchError(f"{self.name}: epsilon must be above 0, but got {epsilon}.")
        self.epsilon = epsilon
        self.m, self.b = checked_count(self.name, "m", m), checked_count(self.name, "b", b)

    @property
    def parameters(self) -> Mapping[str, int | float | str]:
        """m, b, and epsilon where there is noise."""
        noisy = {"epsilon": self.epsilon} if math.isfinite(self.epsilon) else {}
        return {"m": self.m, "b": self.b, **noisy}

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, of noisy cells: their noise is set by the seed."""
        height, width = faces.shape[-2:]
        means, scales = self.means(faces), self.scales(height, width)
        # Drawn on the CPU, so that a seed means the same noise on every device.
        generator = torch.Generator().manual_seed(seed)
        draws = torch.empty(2, *means.shape, dtype=torch.float64).exponential_(generator=generator)
        noise = scales * (draws[0] - draws[1])  # such a difference has Laplace's distribution
        cells = (means + noise.to(faces)).clamp(0, 1)
        rows, columns = (self._cells(side, faces.device) for side in (height, width))
        return cells[..., rows[:, None], columns]

    def means(self, faces: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, rows, columns), the mean of each cell."""
        rows, columns = (_pooling(self._cells(side, faces.device)) for side in faces.shape[-2:])
        return rows.to(faces) @ (faces @ columns.to(faces).T)

    def scales(self, height: int, width: int) -> Tensor:
        """(rows, columns): the scale of the noise, for values in [0, 1]; float64 on the CPU."""
        rows, columns = (self._cells(side).bincount().double() for side in (height, width))
        return self.m / (torch.outer(rows, columns) * self.epsilon)

    def _cells(self, side: int, device: torch.device | None = None) -> Tensor:
        return torch.arange(side, device=device) // self.b
