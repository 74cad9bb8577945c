"""Reads image files, whatever kind of pixels they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .errors import DeidbenchError


class ImageError(DeidbenchError):
    """A file is no picture that can be read; ``reason`` says why without naming it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read the image {path}: {reason}. Repair or remove the file.")
        self.reason = reason


def read_image(path: Path) -> NDArray[np.uint8]:
    """The first picture of a file, upright, as (H, W, 3) RGB in [0, 255].

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; an EXIF rotation is carried out.
    Transparency is ignored: what lies under it is in the file, hence in an attacker's hands.

    Raises:
        ImageError: the file is missing, truncated, no image, too large (Pillow's limit
            against decompression bombs), or of a pixel type without a known range.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _to_rgb(_upright(image))
    except Exception as error:  # decoders fail in many ways on damaged bytes
        raise ImageError(path, _one_line(error, path)) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the picture beside it
        return image


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits at 255, not scale them
        grey = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray((grey / 257).round().astype(np.uint8))
    return np.array(image.convert("RGB"))


def _one_line(error: Exception, path: Path) -> str:
    """What a decoder said, without the path, which may tell of the machine."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    said = said.replace(repr(str(path)), "the file").replace(str(path), "the file")
    return " ".join(said.split()) or type(error).__name__
