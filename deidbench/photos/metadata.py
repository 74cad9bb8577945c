"""Opens a photograph for treatment and writes the treated one, without what could betray a face.

Of what surrounds the pixels only the ICC profile is kept. EXIF, maker notes, XMP, comments and text
go: thumbnails in them show the untreated face, and places and serial numbers name people too.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps

from deidbench.errors import DeidbenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.yunet import Image

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
QUALITY = 95  # of a lossy file whose own quality is not known
NO_ALPHA = ("JPEG",)


@dataclass(frozen=True)
class Photograph:
    """A decoded photograph, upright, and how its file was made."""

    pixels: Image
    """uint8 RGB (H, W, 3)."""
    alpha: NDArray[np.uint8] | None
    """(H, W)."""
    grey: bool
    encoding: dict[str, Any] = field(default_factory=dict)
    """What Pillow's ``save`` needs for a file like the original."""
    format: str = ""
    notes: tuple[str, ...] = ()
    """What the treated file will lack, in words."""


def open_photograph(path: Path) -> Photograph:
    """Decode a photograph and turn it upright, as its EXIF orientation says.

    CMYK becomes RGB (sRGB where it has a profile), 16 bits become 8, a palette becomes RGB.

    Raises:
        DeidbenchError: it is no photograph, damaged, too large, or an animation.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            warnings.filterwarnings("ignore", module="PIL", category=UserWarning)
            with Pillow.open(path) as picture:
                return _decoded(picture)
    except Exception as error:  # decoders fail in many ways on damaged bytes
        reason = " ".join(str(error).replace(str(path), path.name).split())
        raise DeidbenchError(
            f"cannot read {path.name}: {reason or type(error).__name__}. Repair or leave it out."
        ) from error


def encode(photograph: Photograph, pixels: Image, suffix: str) -> bytes:
    """The treated pixels as a file of the kind that the suffix names.

    Raises:
        DeidbenchError: that kind cannot hold the transparency of the photograph.
    """
    kind = FORMATS[suffix.lower()]
    picture = Pillow.fromarray(pixels)
    if photograph.grey:
        picture = picture.convert("L")
    if photograph.alpha is not None:
        if kind in NO_ALPHA:
            raise DeidbenchError(f"{kind} has no transparency. Choose a .png file as output.")
        picture.putalpha(Pillow.fromarray(photograph.alpha))
    same = kind == photograph.format
    options = photograph.encoding if same else _profile(photograph.encoding)
    if kind in ("JPEG", "WEBP") and not {"qtables", "lossless"} & options.keys():
        options = {"quality": QUALITY, **options}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _decoded(picture: Pillow.Image) -> Photograph:
    kind = "JPEG" if picture.format == "MPO" else str(picture.format)
    if kind not in FORMATS.values():
        raise ValueError(f"{kind} files are not treated")
    several = getattr(picture, "n_frames", 1) > 1
    if several and picture.format != "MPO":
        raise ValueError("it holds several pictures (an animation or pages); split it first")
    notes = ["only its first picture is kept"] if several else []
    if any(";16" in str(layout) for *_, layout in getattr(picture, "tile", ())):
        notes.append("16 bits a channel become 8")
    encoding = _ENCODINGS.get(kind, _plain)(picture)
    picture.load()
    upright = _upright(picture)
    grey = upright.mode in ("1", "L", "LA") or upright.mode.startswith("I")
    if upright.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        notes.append(f"{upright.mode} becomes RGB")
        upright, encoding = _to_srgb(upright), {**encoding, "icc_profile": None}
        encoding.pop("qtables", None)  # a table for each of other channels
    return Photograph(_rgb(upright), _alpha(upright), grey, encoding, kind, tuple(notes))


def _jpeg(picture: Pillow.Image) -> dict[str, Any]:
    from PIL.JpegImagePlugin import get_sampling

    sampling = get_sampling(picture)
    options = {"qtables": getattr(picture, "quantization", {}), "optimize": True}
    return _profile(picture.info) | options | ({"subsampling": sampling} if sampling >= 0 else {})


def _webp(picture: Pillow.Image) -> dict[str, Any]:
    """Lossless stays so: its chunk is called VP8L."""
    file: Any = picture.fp if hasattr(picture, "fp") else None
    file.seek(0)
    lossless = {"lossless": True, "exact": True} if b"VP8L" in file.read(1024) else {}
    return _profile(picture.info) | lossless


def _tiff(picture: Pillow.Image) -> dict[str, Any]:
    """Lossless whatever it was: JPEG inside a TIFF would change every pixel."""
    used = picture.info.get("compression", "raw")
    lossless = used if used in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate") else "tiff_lzw"
    return _profile(picture.info) | {"compression": lossless}


def _plain(picture: Pillow.Image) -> dict[str, Any]:
    return _profile(picture.info)


_ENCODINGS: dict[str, Callable[[Pillow.Image], dict[str, Any]]] = {
    "JPEG": _jpeg,
    "WEBP": _webp,
    "TIFF": _tiff,
}


def _profile(info: dict[Any, Any]) -> dict[str, Any]:
    return {"icc_profile": info.get("icc_profile")}


def _upright(picture: Pillow.Image) -> Pillow.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF says nothing about the picture beside it
        return picture


def _to_srgb(picture: Pillow.Image) -> Pillow.Image:
    profile = picture.info.get("icc_profile")
    if profile and picture.mode == "CMYK":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
            return converted or picture.convert("RGB")
        except (
            ImageCms.PyCMSError,
            OSError,
        ):  # a damaged profile: plain conversion, as without one
            pass
    return picture.convert("RGB")


def _rgb(picture: Pillow.Image) -> Image:
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is not known")
    if picture.mode.startswith("I"):  # Pillow would clip 16 bits at 255, not scale them
        grey = np.asarray(picture).astype(np.float64).clip(0, 65535)
        picture = Pillow.fromarray((grey / 257).round().astype(np.uint8))
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")  # through its palette, transparent colours too
    return np.array(picture.convert("RGB"))


def _alpha(picture: Pillow.Image) -> NDArray[np.uint8] | None:
    if picture.mode not in ("RGBA", "LA", "PA") and "transparency" not in picture.info:
        return None
    return np.array(picture.convert("RGBA").getchannel("A"))
