"""T2: the attacker knows the method and treats the gallery too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._embedded import EmbeddedThreat

if TYPE_CHECKING:
    from deidbench.types import Embeddings, FloatArray


class Parrot(EmbeddedThreat):
    """Treated probes against a gallery treated alike (Newton, Sweeney, Malin 2005).

    Scores of two treated faces lie elsewhere than those of clean faces: under a blur all faces look
    alike, and at a clean threshold every impostor would match. Who treats the gallery can treat his
    calibration faces too, so the thresholds come from treated pairs.
    """

    id = "T2"
    title = "parrot"
    summary = "Treated probes against a gallery that the attacker treated with the same method."
    enrolled = "treated"
    probe = "treated"

    def calibrate(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """Treated pairs, as in the attack."""
        return self.attack(embeddings)
