"""Cuts a photograph into views that a detector can search: sizes, tiles and quarter turns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.yunet import FloatArray, Image

TILE = 2560  # pixels: the longest side that is searched at once, which bounds the memory
OVERLAP = 256  # a face that two tiles cut is whole in one of them, or in a smaller level


@dataclass(frozen=True)
class View:
    """A part of the photograph, as a detector sees it."""

    pixels: Image
    scale: float
    """Pixels of the view per pixel of the photograph."""
    corner: tuple[int, int]
    """Left and top of the tile, in pixels of its level."""
    turns: int
    """Quarter turns to the left that the photograph made."""
    photograph: tuple[int, int]
    """Its height and width."""

    def back(self, points: FloatArray) -> FloatArray:
        """Points of the view (..., 2) in pixels of the photograph."""
        x, y = np.moveaxis(
            (points + np.array(self.corner, np.float32)) / np.float32(self.scale), -1, 0
        )
        height, width = self.photograph
        turned = {0: (x, y), 1: (width - y, x), 2: (width - x, height - y), 3: (y, height - x)}
        return np.stack(turned[self.turns], -1).astype(np.float32)


def views(
    image: Image, *, finest: float = 1.0, step: float = 2.0, coarsest: int = 640, turns: int = 0
) -> Iterator[View]:
    """Views at falling sizes: ``finest`` times the photograph, then ``step`` times smaller each.

    They end when the longest side is ``coarsest`` pixels or less.
    """
    turned = np.ascontiguousarray(np.rot90(image, turns))
    scale = finest
    while True:
        level = _resized(turned, scale)
        for top in _starts(level.shape[0]):
            for left in _starts(level.shape[1]):
                part = level[top : top + TILE, left : left + TILE]
                yield View(part, scale, (left, top), turns, image.shape[:2])
        if max(level.shape) <= coarsest:
            return
        scale /= step


def _starts(length: int) -> list[int]:
    """Where tiles begin along a side: as few as cover it, evenly spread."""
    count = 1 if length <= TILE else 1 + -(-(length - TILE) // (TILE - OVERLAP))
    last: NDArray[np.float64] = np.linspace(0, max(length - TILE, 0), count)
    return [round(start) for start in last]


def _resized(image: Image, scale: float) -> Image:
    import cv2

    if scale == 1:
        return image
    smoothing = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=smoothing), np.uint8)
