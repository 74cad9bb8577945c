"""Structural similarity over several scales."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ._images import Weightless, checked_pair, require_size
from .ssim import WINDOW, local_terms

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the paper, finest scale first


class MultiScaleSSIM(Weightless):
    """Structural similarity of each image at up to 5 scales, in [0, 1]; 1: identical.

    Contrast and structure are compared at each scale, luminance at the coarsest alone; each image
    is half of the one before. The higher, the better. Five scales need 176 pixels for the window of
    11 taps: a smaller image has as many as it is large enough for, and their weights are scaled
    to a sum of 1 (chips of 160 pixels and their inner faces have 4). A scale whose mean contrast
    and structure is negative counts as 0, since a negative number has no such power.
    Window and constants are those of SSIM.
    Wang, Simoncelli and Bovik, Asilomar 2003, doi 10.1109/ACSSC.2003.1292216, equation 7.
    """

    name = "ms-ssim"
    version = 1
    kind: Literal["image"] = "image"
    higher_is_better = True
    unit = "similarity"

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,) float32.

        Raises:
            DeidbenchError: the images are smaller than the window, or not in [0, 1].
        """
        original, treated = checked_pair(self.name, original, treated)
        require_size(self.name, original, WINDOW)
        weights = scale_weights(min(original.shape[-2:]))
        # One by one on a CPU, as for SSIM: the maps stay in its cache.
        size = 1 if original.device.type == "cpu" else len(original)
        chunks = zip(torch.split(original, size), torch.split(treated, size), strict=True)
        return torch.cat([_over_scales(x, y, weights) for x, y in chunks])


def scale_weights(side: int) -> list[float]:
    """Weights of the scales at which the window fits into an image of that side; their sum is 1."""
    count = min(len(SCALE_WEIGHTS), 1 + int(math.log2(side // WINDOW)))
    total = sum(SCALE_WEIGHTS[:count])
    return [weight / total for weight in SCALE_WEIGHTS[:count]]


def _over_scales(x: Tensor, y: Tensor, weights: list[float]) -> Tensor:
    product = x.new_ones(len(x))
    for number, weight in enumerate(weights, 1):
        luminance, similarity = local_terms(x, y)
        if number == len(weights):
            similarity = luminance * similarity
        product = product * similarity.mean((1, 2, 3)).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product
