"""What the threats share that compare embeddings as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from deidbench.types import Embeddings, FloatArray, View


class EmbeddedThreat:
    """An attack without training: enrolled and probe sides are clean or treated faces."""

    id: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    summary: ClassVar[str]
    kind: ClassVar[Literal["embeddings", "images", "recognizer", "detection"]] = "embeddings"
    enrolled: ClassVar[Literal["clean", "treated", "both"]]
    probe: ClassVar[Literal["clean", "treated"]]
    views: ClassVar[Sequence[View]] = ("landmarks", "system", "conditional")
    rekeys: ClassVar[bool] = False

    def applies(self, recognizer: str, trained_against: Sequence[str]) -> bool:
        """Any recognizer may attack, unless a threat says otherwise."""
        return True

    def attack(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """The enrolled and the probe side, (N, D) each."""
        return getattr(embeddings, self.enrolled), getattr(embeddings, self.probe)

    def calibrate(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """Clean pairs: who does not know the method has no others."""
        return embeddings.clean, embeddings.clean
