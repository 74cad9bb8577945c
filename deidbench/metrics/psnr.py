"""Peak signal-to-noise ratio."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ._images import Weightless, checked_pair


class PSNR(Weightless):
    """10 log10(1 / MSE) of each image in dB, over all channels, for a data range of 1.

    The higher, the more alike. +inf for identical images: there is no error to measure, and a cap
    would be invented. Records report the mean over the images that changed, and how many did.
    """

    name = "psnr"
    version = 1
    kind: Literal["image"] = "image"
    higher_is_better = True
    unit = "dB"

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,) float32. Raises ``DeidbenchError`` on other input."""
        original, treated = checked_pair(self.name, original, treated)
        return -10 * (original - treated).square().mean((1, 2, 3)).log10()
