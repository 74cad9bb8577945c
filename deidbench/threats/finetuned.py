"""T3f: as T3, and the recognizer itself learns from treated faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from deidbench.errors import DeidbenchError

from ._embedded import EmbeddedThreat
from ._maps import lost_as_a_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.types import Embeddings, FaceLesson, FloatArray, Recognizer, Similarity

    from ._finetuning import Schedule

    Memory = Mapping[str, NDArray[Any]]


class Finetuned(EmbeddedThreat):
    """Treated probes against a gallery in both versions, by a recognizer trained on such faces.

    A copy of the recognizer learns to tell ATTACKER-TRAIN people apart, clean and treated alike,
    with an additive-margin cosine loss (CosFace, Wang et al. 2018). It stops where it recognises
    the held people best; not to learn at all is one of the choices. A probe is compared with both
    versions of an enrolled face, by the mean of the two cosines.

    Args:
        schedule: how long and how fast it learns, in place of what suits the device.
    """

    id = "T3f"
    title = "adapted, fine-tuned"
    summary = "As T3, by a recognizer that was itself trained on treated faces of other people."
    kind = "recognizer"
    enrolled = "both"
    probe = "treated"

    similarity: Similarity = "cosine"
    note: str | None = None
    """How it went with the recognizer that was adapted last."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        self._schedule = schedule

    def learn(self, lesson: FaceLesson, recognizer: Recognizer) -> dict[str, NDArray[Any]]:
        """The weights that changed, those of a linear layer behind, and how it went.

        Raises:
            DeidbenchError: no gradient reaches the recognizer's weights.
        """
        from ._finetuning import FULL, SMALL, fine_tuned

        if not getattr(recognizer, "differentiable", True) or not hasattr(recognizer, "parameters"):
            raise DeidbenchError(
                f"{self.id}: recognizer '{recognizer.name}' cannot be trained: it has no "
                "gradients. Leave it out, or choose a protocol without this attack."
            )
        fits = SMALL if lesson.device == "cpu" else FULL
        return fine_tuned(lesson, recognizer, self._schedule or fits)

    def adapted(self, memory: Memory, recognizer: Recognizer) -> Recognizer:
        """A copy of the recognizer that remembers; its weights have another digest."""
        from ._finetuning import CURVE, Tuned

        self.note = _note(memory[CURVE].tolist())
        tuned: Recognizer = Tuned(recognizer, memory)
        return tuned

    def attack(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """The enrolled and the probe side, (N, 2 D) each; a lost face stays a row of NaN."""
        from ._finetuning import both_sides

        sides = both_sides(embeddings.clean, embeddings.treated, embeddings.treated)
        enrolled, probe = (lost_as_a_whole(side) for side in sides)
        return enrolled, probe

    def calibrate(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """As the attack: who has the method can treat his calibration faces too."""
        return self.attack(embeddings)


def _note(areas: list[float]) -> str:
    if not areas:
        return "not trained: too few people were held back to say when to stop"
    plain, start, *learning = areas
    states = ["as it is", "with a linear layer", *(f"look {i + 1}" for i in range(len(learning)))]
    return (
        f"{states[int(np.argmax(areas))]} of {len(learning)}; AUC among people held back: "
        f"as it is {plain:.3f}, with a linear layer {start:.3f}, best {max(areas):.3f}"
    )
