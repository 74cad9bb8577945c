"""What all restorers share: their fingerprint, their pixels, and images beyond their border."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]  # (H, W, 3), RGB


def fingerprint(name: str, version: int, memory: Mapping[str, Any]) -> str:
    """64 hex digits that change with the name, the version, and every value of the memory."""
    state = hashlib.sha256(f"{name}/{version}".encode())
    for key in sorted(memory):
        values = np.ascontiguousarray(memory[key])
        state.update(f"/{key}/{values.dtype.str}/{values.shape}/".encode())
        state.update(values.tobytes())
    return state.hexdigest()


def on_pixels(faces: Tensor, function: Callable[[Pixels], Pixels]) -> Tensor:
    """Each of the faces (N, 3, H, W) in [0, 1] through a function of one 8-bit picture."""
    if not len(faces):
        return faces.clone()
    pixels = (faces * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    done = torch.from_numpy(np.stack([function(face) for face in pixels]))
    return done.permute(0, 3, 1, 2).contiguous().to(faces) / 255


def reflected(faces: Tensor, radius: int) -> Tensor:
    """(..., H, W) -> (..., H + 2 radius, W + 2 radius): the image goes on, mirrored at its edge.

    The edge pixel is repeated, which keeps the mean, and mirrors repeat, so that any radius will
    do.
    """
    rows, columns = (_mirrored(side, radius).to(faces.device) for side in faces.shape[-2:])
    return faces[..., rows[:, None], columns]


def gaussian(sigma: float) -> Tensor:
    """Weights of a Gaussian of ``sigma`` pixels out to 4 sigma, (2 radius + 1,), float64; sum 1."""
    radius = max(int(4 * sigma + 0.5), 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / max(sigma, 1e-9)).square())
    return weights / weights.sum()


def filtered(faces: Tensor, kernel: Tensor) -> Tensor:
    """(N, C, H, W) through a separable filter, a line of weights (K,) of odd length."""
    channels, radius = faces.shape[1], len(kernel) // 2
    lines = kernel.to(faces).expand(channels, 1, 1, -1)
    padded = reflected(faces, radius)
    along = torch.nn.functional.conv2d(padded, lines, groups=channels)
    return torch.nn.functional.conv2d(along, lines.transpose(2, 3), groups=channels)


def _mirrored(side: int, radius: int) -> Tensor:
    """(side + 2 radius,): which pixel of a line shows at each place, from -radius on."""
    places = torch.arange(-radius, side + radius) % (2 * side)
    return torch.minimum(places, 2 * side - 1 - places)
