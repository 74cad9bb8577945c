"""Finds the grid of a mosaic in the treated faces, and enlarges its blocks to a smooth face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ._restorers import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.types import FloatArray, IntArray

VERSION = 1
QUIET = 4  # a step between blocks is this much larger than those within them
LEAST = 0.25 / 255  # mean step that is seen at all
STIFFNESS = 1e-4  # how much a smooth face counts against exact block means


def find_grid(treated: Tensor) -> tuple[IntArray, IntArray] | None:
    """First rows and first columns of the blocks that all faces (N, C, H, W) are made of.

    None when they are no mosaic. A grid may begin anywhere, and sizes of blocks may differ by 1.
    """
    rows = _starts((treated[..., 1:, :] - treated[..., :-1, :]).abs().mean((0, 1, 3)))
    columns = _starts((treated[..., 1:] - treated[..., :-1]).abs().mean((0, 1, 2)))
    return None if rows is None or columns is None else (rows, columns)


def _starts(steps: Tensor) -> IntArray | None:
    """Where blocks begin, by the mean step (S - 1,) between neighbours; None without a grid."""
    values = steps.double().cpu().numpy()
    if not len(values):
        return None
    within = np.quantile(values, 0.25)  # blocks have 2 pixels or more: most steps lie within one
    starts = np.flatnonzero(values > max(QUIET * within, LEAST)) + 1
    sizes = np.diff(starts)
    ends = (starts[0], len(values) + 1 - starts[-1]) if len(sizes) else ()
    if not len(sizes) or np.ptp(sizes) > 1 or max(ends) > sizes.min() + 1 or sizes.max() < 2:
        return None
    return np.append(0, starts)


def enlarging(starts: IntArray, side: int) -> FloatArray:
    """(side, blocks): from the means of blocks along a line to its smoothest pixels.

    These have the given means, and the least sum of squared second differences: a smoothing spline
    through an exact model of the mosaic, where an ordinary enlargement only guesses its kernel.
    """
    edges = np.append(starts, side)
    block = np.repeat(np.arange(len(starts)), np.diff(edges))
    means = (block == np.arange(len(starts))[:, None]) / np.diff(edges)[:, None]
    bend = np.diff(np.eye(side), 2, axis=0)
    curved = means.T @ means + STIFFNESS * bend.T @ bend
    return np.asarray(np.linalg.solve(curved, means.T))


class SuperResolution:
    """A restorer that enlarges block means. Memory: ``rows``, ``columns`` of ``find_grid``."""

    name = "super-resolution"

    def __init__(self, memory: Mapping[str, NDArray[Any]]) -> None:
        self.fingerprint = fingerprint(self.name, VERSION, memory)
        self._rows, self._columns = memory["rows"], memory["columns"]

    def to(self, device: Any) -> SuperResolution:
        """There are no weights to move."""
        return self

    def __call__(self, faces: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, enlarged from its blocks."""
        rows, columns = (
            _line(starts, side).to(faces)
            for starts, side in zip((self._rows, self._columns), faces.shape[-2:], strict=True)
        )
        return (rows @ faces @ columns.T).clamp(0, 1)


def _line(starts: IntArray, side: int) -> Tensor:
    """(side, side): means of blocks, then the smooth line through them."""
    edges = np.append(starts, side)
    sizes = np.diff(edges)
    first = np.zeros((len(starts), side))
    for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        first[row, start : start + size] = 1 / size
    return torch.from_numpy(enlarging(starts, side) @ first).float()


def learn_blocks(treated: Tensor) -> dict[str, NDArray[Any]]:
    """Memory of the grid of treated faces (N, 3, S, S); empty when they are no mosaic."""
    grid = find_grid(treated)
    return {} if grid is None else {"rows": grid[0], "columns": grid[1]}
