"""Which images are compared, and how alike two embeddings are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import DeidbenchError
from .types import Pair, Sample

if TYPE_CHECKING:
    from .types import BoolArray, FloatArray, IntArray

DECIMALS = 5
"""Of a score. What lies below comes from how faces were batched, not from faces: without rounding,
a method that paints all faces alike would leak who shared a batch with whom."""
CHUNK = 1 << 16  # pairs scored at once: two 128-d float32 sides stay in the processor's cache
WIDTH = 128  # of longer embeddings, fewer pairs at once: the memory stays the same


@dataclass(frozen=True)
class PairList:
    """P comparisons by sample index. Which side is treated is the threat's business."""

    kind: Literal["cross", "same", "official"]
    reference: NDArray[np.int32]
    probe: NDArray[np.int32]
    same: BoolArray
    """Whether both sides show one person, (P,)."""
    fold: IntArray


def cross_pairs(indices: Sequence[int], subjects: IntArray) -> PairList:
    """Each two different images once, (n^2 - n)/2 pairs: what a gallery holds.

    One list serves all threats, so that their numbers are of the very same comparisons. The sides
    change places from pair to pair: each image is reference and probe about equally often, whatever
    its name, and no pose or light stands on one side alone.
    """
    chosen = np.asarray(indices, dtype=np.int32)
    first, second = np.triu_indices(len(chosen), k=1)
    swapped = (first + second) % 2 == 1
    reference, probe = np.where(swapped, second, first), np.where(swapped, first, second)
    return _pair_list("cross", chosen[reference], chosen[probe], subjects)


def same_image_pairs(indices: Sequence[int], subjects: IntArray) -> PairList:
    """Each image with its own treated version; reported apart from cross-image pairs."""
    chosen = np.asarray(indices, dtype=np.int32)
    return _pair_list("same", chosen, chosen, subjects)


def with_impostors(own: PairList, cross: PairList) -> PairList:
    """Same-image pairs followed by the impostor pairs of another list."""
    impostor = ~cross.same
    return PairList(
        "same",
        np.concatenate([own.reference, cross.reference[impostor]]),
        np.concatenate([own.probe, cross.probe[impostor]]),
        np.concatenate([own.same, cross.same[impostor]]),
        np.concatenate([own.fold, cross.fold[impostor]]),
    )


def official_pairs(pairs: Sequence[Pair], samples: Sequence[Sample]) -> PairList:
    """The list that a dataset brings, with its folds."""
    index: Mapping[str, int] = {sample.id: i for i, sample in enumerate(samples)}
    columns = [(index[p.reference], index[p.probe], p.same, p.fold) for p in pairs]
    if not columns:
        raise DeidbenchError("this dataset has no official pair list. Use --pairs cross.")
    reference, probe, same, fold = (np.array(column) for column in zip(*columns, strict=True))
    return PairList(
        "official", reference.astype(np.int32), probe.astype(np.int32), same.astype(bool), fold
    )


def score(enrolled: FloatArray, probe: FloatArray, pairs: PairList, similarity: str) -> FloatArray:
    """Similarity of each pair, (P,) float32, larger = more alike; NaN where a side is NaN.

    Rounded to ``DECIMALS``.

    Args:
        enrolled, probe: (N, D) embeddings of all samples.
        similarity: 'cosine', 'negative-euclidean' (minus the distance), or 'negative-chi-square'
            (minus the sum of (a - b)^2 / (a + b) over the bins of two histograms; bins that are
            empty on both sides count nothing).
    Raises:
        DeidbenchError: the similarity is another one.
    """
    compare = _known(similarity)
    if similarity == "cosine":
        enrolled, probe = _unit(enrolled), _unit(probe)
    scores = np.empty(len(pairs.reference), np.float32)
    step = min(CHUNK, max(1, CHUNK * WIDTH // max(enrolled.shape[1], 1)))
    for start in range(0, len(scores), step):
        part = slice(start, start + step)
        a, b = enrolled[pairs.reference[part]], probe[pairs.probe[part]]
        scores[part] = compare(a, b)
    return scores.round(DECIMALS)


def score_matrix(enrolled: FloatArray, probe: FloatArray, similarity: str) -> FloatArray:
    """The scores (N, M) float32 of each of N images with each of M, to the last bit as ``score``.

    Sums are made in the order that ``score`` makes them in, which a matrix product does not.
    Arguments and errors as there.
    """
    compare = _known(similarity)
    if similarity == "cosine":
        dots: FloatArray = np.einsum("ij,kj->ik", _unit(enrolled), _unit(probe))
        return dots.astype(np.float32, copy=False).round(DECIMALS)
    scores = np.empty((len(enrolled), len(probe)), np.float32)
    for row, one in zip(scores, enrolled, strict=True):
        row[:] = compare(np.tile(one, (len(probe), 1)), probe)
    return scores.round(DECIMALS)


def _known(similarity: str) -> Callable[[FloatArray, FloatArray], FloatArray]:
    if similarity not in _SIMILARITIES:
        raise DeidbenchError(
            f"no similarity called '{similarity}'. Known: {', '.join(_SIMILARITIES)}."
        )
    return _SIMILARITIES[similarity]


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    dots: FloatArray = np.einsum("ij,ij->i", a, b)
    return dots


def _negative_euclidean(a: FloatArray, b: FloatArray) -> FloatArray:
    a -= b  # both are copies
    scores: FloatArray = -np.sqrt(_dot(a, a))
    return scores


def _negative_chi_square(a: FloatArray, b: FloatArray) -> FloatArray:
    total = a + b
    a -= b
    parts: FloatArray = np.divide(a * a, total, out=np.zeros_like(a), where=total != 0)
    scores: FloatArray = -parts.sum(1)
    return scores


_SIMILARITIES: Mapping[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "cosine": _dot,
    "negative-euclidean": _negative_euclidean,
    "negative-chi-square": _negative_chi_square,
}


def _unit(embeddings: FloatArray) -> FloatArray:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: FloatArray = embeddings / np.maximum(norms, 1e-12)
    return unit


def _pair_list(
    kind: Literal["cross", "same"],
    reference: NDArray[np.int32],
    probe: NDArray[np.int32],
    subjects: IntArray,
) -> PairList:
    same = subjects[reference] == subjects[probe]
    return PairList(kind, reference, probe, same, np.zeros(len(reference), np.int32))
