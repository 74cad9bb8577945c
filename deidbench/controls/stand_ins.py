"""Methods whose outcome is known: what attackers are tried on before they are believed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLURS = (0.0175, 0.03, 0.045, 0.06)
"""Standard deviations of blurs as shares of the chip's side: 2.8 to 9.6 of 160 pixels."""


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

    def __init__(self, share: float) -> None:
        self.name = f"control-blur-{share:g}"
        self.share = share

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """A Gaussian blur, with mirrored borders."""
        from torchvision.transforms.functional import gaussian_blur

        sigma = self.share * faces.shape[-1]
        blurred: Tensor = gaussian_blur(faces, 2 * round(4 * sigma) + 1, sigma)
        return blurred.clamp(0, 1)
