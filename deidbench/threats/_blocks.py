"""Finds the grid of a mosaic in the treated faces, and enlarges its blocks to a smooth face."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
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


def averaging(starts: IntArray, side: int) -> FloatArray:
    """(blocks, side): from the pixels of a line to the means of its blocks."""
    sizes = np.diff(np.append(starts, side))
    block = np.repeat(np.arange(len(starts)), sizes)
    return np.asarray((block == np.arange(len(starts))[:, None]) / sizes[:, None])


def enlarging(starts: IntArray, side: int) -> FloatArray:
    """(side, blocks): from the means of blocks along a line to its smoothest pixels.

    These have the given means, and the least sum of squared second differences: a smoothing spline
    through an exact model of the mosaic, where an ordinary enlargement only guesses its kernel.
    """
    means, bend = averaging(starts, side), np.diff(np.eye(side), 2, axis=0)
    stiff = means.T @ means + STIFFNESS * bend.T @ bend
    return np.asarray(np.linalg.solve(stiff, means.T))


class SuperResolution:
    """A restorer that enlarges block means. Memory: ``rows``, ``columns`` of ``find_grid``."""

    name = "super-resolution"

    def __init__(self, memory: Mapping[str, NDArray[Any]]) -> None:
        self.fingerprint = fingerprint(self.name, VERSION, memory)
        self._rows, self._columns = (tuple(memory[key].tolist()) for key in ("rows", "columns"))

    def to(self, device: Any) -> SuperResolution:
        """There are no weights to move."""
        return self

    def __call__(self, faces: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, enlarged from its blocks."""
        height, width = faces.shape[-2:]
        rows, columns = _line(self._rows, height), _line(self._columns, width)
        return (rows.to(faces) @ faces @ columns.to(faces).T).clamp(0, 1)


@lru_cache(maxsize=8)
def _line(starts: tuple[int, ...], side: int) -> Tensor:
    """(side, side): from the pixels of a line to the means of its blocks, and on to smooth ones."""
    begin = np.array(starts)
    return torch.from_numpy(enlarging(begin, side) @ averaging(begin, side)).float()


def learn_blocks(treated: Tensor) -> dict[str, NDArray[Any]]:
    """Memory of the grid of treated faces (N, 3, S, S); empty when they are no mosaic."""
    grid = find_grid(treated)
    return {} if grid is None else {"rows": grid[0], "columns": grid[1]}
