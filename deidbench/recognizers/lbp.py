"""Local binary patterns: a recognizer of texture that learned from nobody.

Source: Ahonen, Hadid, Pietikainen 2006, doi 10.1109/TPAMI.2006.244.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deidbench.geometry import ARC112, align
from deidbench.types import Similarity

POINTS, RADIUS = 8, 2
LABELS = POINTS * (POINTS - 1) + 3  # uniform patterns by their angle, and all others as one
WINDOWS, SIDE = 7, 16  # along each side of the crop; pixels
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class LBP:
    """Histograms of the patterns LBP(8, 2, u2) in 7 x 7 windows of a grey 112 px crop; 2891-d.

    The similarity is minus the chi-square distance of all histograms, unweighted. The crop is
    ArcFace's; each histogram sums to 1. No weights, no gradients.
    """

    name = "lbp"
    version = 1
    similarity: Similarity = "negative-chi-square"
    differentiable = False
    by_default = False
    weights_sha256 = hashlib.sha256(
        repr((POINTS, RADIUS, WINDOWS, SIDE, GREY, ARC112.tolist())).encode()
    ).hexdigest()
    """Of what defines it, as it has no weights."""

    def to(self, device: Any) -> LBP:
        """There is nothing to move."""
        return self

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] and (N, 5, 2) in chip pixels -> (N, 2891) float32."""
        size = WINDOWS * SIDE + 2 * RADIUS  # patterns at the border need their neighbours
        crops = align(chips.detach(), landmarks, ARC112 + RADIUS, size)
        return self.describe(crops).to(chips.device)

    def describe(self, crops: Tensor) -> Tensor:
        """Aligned crops (N, 3, 116, 116) in [0, 1] -> (N, 2891) float32, on the CPU."""
        grey = torch.einsum("nchw,c->nhw", crops.cpu().double() * 255, torch.tensor(GREY).double())
        pixels = grey.round().clamp(0, 255).to(torch.uint8).numpy()
        codes = np.stack([_patterns(one) for one in pixels]) if len(pixels) else pixels
        return torch.from_numpy(_histograms(codes))


def _patterns(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from skimage import feature

    pattern: Any = feature.local_binary_pattern
    codes: NDArray[np.float64] = pattern(grey, POINTS, RADIUS, "nri_uniform")
    return codes[RADIUS:-RADIUS, RADIUS:-RADIUS].astype(np.uint8)


def _histograms(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Labels (N, 112, 112) to the share of each label in each window, (N, 7 * 7 * 59)."""
    count = len(codes)
    split = codes.reshape(count, WINDOWS, SIDE, WINDOWS, SIDE)
    windows = split.swapaxes(2, 3).reshape(-1, SIDE * SIDE).astype(np.int64)
    shifted = windows + LABELS * np.arange(len(windows))[:, None]
    found = np.bincount(shifted.ravel(), minlength=LABELS * len(windows))
    return (found.reshape(count, WINDOWS**2 * LABELS) / SIDE**2).astype(np.float32)
