"""Filters that wash out what a method has added to a face, without knowing the method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ._restorers import filtered, fingerprint, gaussian, on_pixels

if TYPE_CHECKING:
    from ._restorers import Pixels

VERSION = 1
QUALITY = 75  # Pillow's own default, about that of messengers
BLUR = 1 / 160  # sigma, of the shorter side
SHRINK = 2  # times smaller, and back
WINDOW = 5  # pixels, of the median
NEIGHBOURS, NEARNESS = 7, 2.0  # pixels: the window of the denoiser, and sigma within it
NOISE_FLOOR = 2.0  # levels: a face without noise is smoothed as one with a little
NORMAL_MAD = 0.6745  # median of |x| for a standard normal x


@dataclass(frozen=True)
class Purifier:
    """A restorer that knows nothing of the method."""

    name: str
    filter: Callable[[Tensor], Tensor]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the name and ``VERSION``."""
        return fingerprint(self.name, VERSION, {})

    def to(self, device: Any) -> Purifier:
        """There are no weights to move."""
        return self

    def __call__(self, faces: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, purified."""
        return self.filter(faces).clamp(0, 1) if len(faces) else faces.clone()


def purifiers() -> list[Purifier]:
    """The five that ``standard-v1`` names."""
    return [
        Purifier("jpeg-75", partial(on_pixels, function=compressed)),
        Purifier("blur", blurred),
        Purifier("resize", resized),
        Purifier("median", partial(on_pixels, function=median)),
        Purifier("denoise", partial(on_pixels, function=denoised)),
    ]


def compressed(pixels: Pixels) -> Pixels:
    """(H, W, 3) through a JPEG file of quality 75, colours subsampled as is common."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    with Image.open(file) as image:
        return np.array(image)


def blurred(faces: Tensor) -> Tensor:
    """(N, C, H, W) through a narrow Gaussian."""
    return filtered(faces, gaussian(BLUR * min(faces.shape[-2:])))


def resized(faces: Tensor) -> Tensor:
    """(N, C, H, W) to half the side and back, by cubic interpolation."""
    size = faces.shape[-2:]
    small = [max(side // SHRINK, 1) for side in size]
    down = interpolate(faces, small, mode="bicubic", antialias=True)
    return interpolate(down, size, mode="bicubic")


def median(pixels: Pixels) -> Pixels:
    """(H, W, 3): each value becomes the median of the window around it, channel by channel."""
    import cv2

    return np.asarray(cv2.medianBlur(pixels, WINDOW), np.uint8)


def denoised(pixels: Pixels) -> Pixels:
    """(H, W, 3) by a bilateral filter: pixels are averaged that are near and of a like colour.

    How alike is 3 standard deviations of the noise, which is estimated from the face.

    Source: Tomasi, Manduchi, ICCV 1998, doi 10.1109/ICCV.1998.710815.
    """
    import cv2

    spread = 3 * max(noise_level(pixels), NOISE_FLOOR)
    done = cv2.bilateralFilter(pixels, NEIGHBOURS, spread, NEARNESS)
    return np.asarray(done, np.uint8)


def noise_level(pixels: Pixels) -> float:
    """Standard deviation of the noise in levels, of (H, W, 3), from its finest diagonal details.

    Source: Donoho, Johnstone, Biometrika 1994, doi 10.1093/biomet/81.3.425: the median of the
    finest wavelet coefficients is next to free of the picture itself.
    """
    if min(pixels.shape[:2]) < 2:
        return 0.0
    diagonal = np.diff(np.diff(pixels.astype(np.float32), axis=0), axis=1) / 2
    return float(np.median(np.abs(diagonal)) / NORMAL_MAD)
