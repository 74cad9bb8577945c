"""k-Same-Pixel: the average of k people, pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from ._k_same import KSame, Space


class Pixels:
    """Faces as they are."""

    def project(self, faces: Tensor) -> Tensor:
        """(N, D) -> the same."""
        return faces

    def restore(self, coordinates: Tensor) -> Tensor:
        """(N, D) -> the same."""
        return coordinates


class KSamePixel(KSame):
    """k-Same with people compared and averaged by their pixels."""

    name = "k-same-pixel"

    def _space(self, people: Tensor) -> Space:
        return Pixels()
