"""Structural similarity."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ._images import Weightless, checked_pair, require_size

WINDOW = 11  # taps
SIGMA = 1.5  # pixels
_BELL = [math.exp(-((tap - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for tap in range(WINDOW)]
WEIGHTS = [height / sum(_BELL) for height in _BELL]
C1, C2 = 0.01**2, 0.03**2  # (K L)^2 with the data range L = 1


class SSIM(Weightless):
    """Mean structural similarity of each image, in [-1, 1]; 1: identical, the higher the better.

    Gaussian window of 11 taps and sigma 1.5, K1 0.01, K2 0.03, data range 1; each channel by
    itself, then the mean; only where the window fits in the image. Equals scikit-image with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``.
    Wang et al., IEEE Trans. Image Process. 2004, doi 10.1109/TIP.2003.819861.
    """

    name = "ssim"
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
        # On a CPU the maps of one image stay in its cache: four times as fast as one large batch.
        size = 1 if original.device.type == "cpu" else len(original)
        chunks = zip(torch.split(original, size), torch.split(treated, size), strict=True)
        maps = (local_terms(x, y) for x, y in chunks)
        return torch.cat([(luminance * structure).mean((1, 2, 3)) for luminance, structure in maps])


def local_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast and structure: (N, 3, H, W) -> two maps (N, 3, H - 10, W - 10).

    With d = x - y, 2 mu_x mu_y = mu_x^2 + mu_y^2 - mu_d^2 and 2 s_xy = s_x^2 + s_y^2 - s_d^2: four
    averages instead of five, and no cancellation in float32 where the images agree.
    """
    error = (x - y).square()
    x, y = x - 0.5, y - 0.5  # smaller squares, smaller rounding errors
    energy = x.square() + y.square()
    mean_x, mean_y, energy, error = _blur(torch.stack([x, y, energy, error]))
    variances = (energy - mean_x.square() - mean_y.square()).clamp(min=0)
    shift = (mean_x - mean_y).square()
    brightness = (mean_x + 0.5).square() + (mean_y + 0.5).square()
    luminance = 1 - shift / (brightness + C1)
    structure = 1 - (error - shift).clamp(min=0) / (variances + C2)
    return luminance, structure


def _blur(maps: Tensor) -> Tensor:
    """Gaussian averages where the window fits, (..., H, W) -> (..., H - 10, W - 10).

    Sums of shifted maps: faster here than a convolution, and never rounded to TF32.
    """
    for axis in (-2, -1):
        length = maps.shape[axis] - WINDOW + 1
        total = WEIGHTS[0] * maps.narrow(axis, 0, length)
        for start in range(1, WINDOW):
            total.add_(maps.narrow(axis, start, length), alpha=WEIGHTS[start])
        maps = total
    return maps
