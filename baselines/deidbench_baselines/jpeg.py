"""JPEG compression: what a messenger or a web page does to a face anyway."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ._settings import checked_strength


class Jpeg:
    """Saves each face as a JPEG and reads it again, by the real codec (libjpeg, through Pillow).

    Quality = 100 (1 - s)^2 for strength s, rounded, at least 1: 0 is 100, which loses little more
    than the rounding to 8 bits, 0.5 (default) is 25, 1 is 1. Colours are not subsampled, so that
    the quality alone decides. The codec's blocks have 8 pixels at any resolution: a strength says
    more about a small face than about a large one, as it does in real use.

    Source: ISO/IEC 10918-1; Wallace 1992, doi 10.1109/30.125072.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "jpeg"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        self.strength: float | None = checked_strength(self.name, strength)
        self._quality = max(1, round(100 * (1 - self.strength) ** 2))

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, compressed. The seed changes nothing."""
        if not len(faces):
            return faces.clone()
        pixels = (faces * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        treated = torch.from_numpy(np.stack([self._compressed(face) for face in pixels]))
        return treated.permute(0, 3, 1, 2).contiguous().to(faces) / 255

    def _compressed(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self._quality, subsampling=0)
        with Image.open(file) as image:
            return np.array(image)
