"""Methods whose outcome is known: what attackers are tried on before they are believed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLUR = 0.03
"""Standard deviation of the mild blur as a share of the chip's side: 4.8 of 160 pixels."""


class StandIn:
    """What the stand-ins share: one setting, trained against nobody."""

    name: str
    version = 1
    strength: float | None = None
    trained_against: Sequence[str] = ()


class Unchanged(StandIn):
    """Protects nobody: whoever recognises clean faces must recognise these."""

    name = "control-unchanged"

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """The same faces."""
        return faces.clone()


class Grey(StandIn):
    """Shows nothing: whoever recognises these has cheated."""

    name = "control-grey"

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """Every pixel 0.5."""
        return torch.full_like(faces, 0.5)


class MildBlur(StandIn):
    """A blur that can be undone in part: whoever restores images must gain by it."""

    name = "control-mild-blur"

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """A Gaussian blur, with mirrored borders."""
        sigma = BLUR * faces.shape[-1]
        radius = int(4 * sigma + 0.5)
        steps = torch.arange(-radius, radius + 1, dtype=faces.dtype, device=faces.device)
        weights = torch.exp(-0.5 * (steps / sigma) ** 2)
        kernel = (weights / weights.sum()).expand(3, 1, -1)
        padded = F.pad(faces, (radius,) * 4, mode="reflect")
        rows = F.conv2d(padded, kernel[:, :, None, :], groups=3)
        return F.conv2d(rows, kernel[:, :, :, None], groups=3).clamp(0, 1)
