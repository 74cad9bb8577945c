"""What the image metrics share: checks of image pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deidbench.errors import DeidbenchError

if TYPE_CHECKING:
    from typing_extensions import Self


class Weightless:
    """An image metric that holds nothing to move: it runs where the images are."""

    def to(self, device: Any) -> Self:
        """Returns self."""
        return self


def checked_pair(metric: str, original: Tensor, treated: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 (N, 3, H, W).

    Raises:
        DeidbenchError: shapes differ or are not (N, 3, H, W), or a value is not in [0, 1].
    """
    if original.shape != treated.shape or original.ndim != 4 or original.shape[1] != 3:
        raise DeidbenchError(
            f"{metric}: expected two tensors (N, 3, H, W) of one shape, but got "
            f"{tuple(original.shape)} and {tuple(treated.shape)}."
        )
    return checked(metric, "original", original), checked(metric, "treated", treated)


def require_size(metric: str, images: Tensor, smallest: int) -> None:
    """Raise ``DeidbenchError`` unless height and width are at least ``smallest``."""
    height, width = images.shape[-2:]
    if min(height, width) < smallest:
        raise DeidbenchError(
            f"{metric}: expected images of at least {smallest} x {smallest} pixels, "
            f"but got {height} x {width}; use larger images."
        )


def checked(metric: str, which: str, images: Tensor) -> Tensor:
    """Images as float32.

    Raises:
        DeidbenchError: there are none, they are no floats, or a value is not in [0, 1].
    """
    if images.numel() == 0:
        raise DeidbenchError(f"{metric}: there are no {which} images; give at least one.")
    low, high = (float(value) for value in torch.aminmax(images))  # NaN if any value is
    if not (images.is_floating_point() and low >= 0 and high <= 1):
        raise DeidbenchError(
            f"{metric}: expected {which} images as floats in [0, 1], but got {images.dtype} in "
            f"[{low:g}, {high:g}]; divide 0-255 images by 255 and remove NaN."
        )
    return images.float()
