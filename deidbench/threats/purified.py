"""P: the attacker knows that something was done to the faces, and tries to wash it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ._embedded import EmbeddedThreat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deidbench.types import FaceLesson, Restorer

    Memory = Mapping[str, NDArray[np.generic]]


class Purified(EmbeddedThreat):
    """Treated probes behind the best of five filters: JPEG, blur, resizing, median, denoising.

    It breaks what hides in fine detail, as adversarial noise does (Guo et al. 2018, Countering
    adversarial images using input transformations, arXiv 1711.00117).
    """

    id = "P"
    title = "purified"
    summary = "As T1, behind the best of five filters: JPEG, blur, resize, median, denoise."
    kind = "images"
    enrolled = "clean"
    probe = "treated"
    views = ("landmarks",)
    learns = False

    def learn(self, lesson: FaceLesson) -> dict[str, NDArray[np.generic]]:
        """Nothing: a filter knows no faces."""
        return {}

    def restorers(self, memory: Memory) -> Sequence[Restorer]:
        """The five filters."""
        from ._purifiers import purifiers

        return purifiers()  # type: ignore[return-value]
