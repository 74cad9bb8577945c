"""People made of numbers, for attackers who learn on embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deidbench.metrics.auc import AreaUnderCurve
from deidbench.pairs import cross_pairs, score
from deidbench.types import Embeddings, Lesson

if TYPE_CHECKING:
    from deidbench.types import FloatArray, IntArray

DIMENSIONS = 16


def people(
    count: int = 24, images: int = 5, *, size: int = DIMENSIONS, spread: float = 0.7, seed: int = 0
) -> tuple[FloatArray, IntArray]:
    """Embeddings (count images, size) around one point a person, and whose they are."""
    draw = np.random.default_rng(seed)
    centres = np.repeat(draw.normal(size=(count, size)), images, axis=0)
    rows = centres + spread * draw.normal(size=centres.shape) + 0.3
    return rows.astype(np.float32), np.repeat(np.arange(count), images)


def rotation(size: int = DIMENSIONS, seed: int = 9) -> FloatArray:
    """Orthogonal (size, size)."""
    drawn = np.random.default_rng(seed).normal(size=(size, size))
    return np.linalg.qr(drawn)[0].astype(np.float32)


def lesson(
    clean: FloatArray, treated: FloatArray, subjects: IntArray,
    rekeyed: FloatArray | None = None, *, similarity: str = "cosine", seed: int = 0,
) -> Lesson:  # fmt: skip
    """Every fourth person is held."""
    held = subjects % 4 == 3
    return Lesson(Embeddings(clean, treated, rekeyed), subjects, held, similarity, seed)  # type: ignore[arg-type]


def attack_auc(
    enrolled: FloatArray, probe: FloatArray, subjects: IntArray, similarity: str = "cosine"
) -> float:
    """AUC as a run measures it."""
    listed = cross_pairs(range(len(subjects)), subjects)
    scores = score(enrolled, probe, listed, similarity)
    return AreaUnderCurve()(genuine=scores[listed.same], impostor=scores[~listed.same])
