"""Eigenfaces: each face by no more than what it shares with the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from deidbench.errors import DeidbenchError

from ._eigenspace import Eigenspace
from ._settings import checked_strength


class Eigenface:
    """Projects each face on the leading principal components of the set, and back.

    As few components are kept as explain a share 1 - s^2 of the variance for strength s, so that
    a strength means the same for every size of set: 0 keeps all, which leaves the faces of the
    set, 0.5 (default) keeps three quarters, 1 keeps none: everybody becomes the mean face.
    The components of large sets come from 1024 of their faces; then 0 keeps only those.

    Source: Turk and Pentland 1991, doi 10.1162/jocn.1991.3.1.71.

    Raises:
        DeidbenchError: the strength lies outside [0, 1].
    """

    name = "eigenface"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        self.strength: float | None = checked_strength(self.name, strength)
        self._variance = 1 - self.strength**2
        self._space: Eigenspace | None = None

    def fit(self, faces: Tensor, subjects: Sequence[str]) -> None:
        """Learn the components of (N, 3, H, W), N at least 1; who is shown changes nothing."""
        if not len(faces):
            raise DeidbenchError("eigenface: there are no faces to fit; give at least one.")
        self._shape = faces.shape[1:]
        self._space = Eigenspace(faces.flatten(1), self._variance)

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, of few components. The seed changes nothing.

        Raises:
            DeidbenchError: ``fit`` was not called, or with faces of another size.
        """
        if self._space is None or faces.shape[1:] != self._shape:
            raise DeidbenchError(
                "eigenface: it treats the faces of the set that it was fitted on; call fit first, "
                "with faces of the same size."
            )
        space = self._space
        return space.restore(space.project(faces.flatten(1))).reshape(faces.shape).clamp(0, 1)
