"""How far a comparison tells that two templates are of one person, score by score.

Gomez-Barrero, Galbally, Rathgeb, Busch, IEEE TIFS 13(6):1406, 2018; ISO/IEC 30136 took it up.
With LR(s) = p(s | mated) / p(s | non-mated) and equal priors (omega = 1),

    D(s) = 2 LR/(1 + LR) - 1 = (p_m - p_n) / (p_m + p_n) where LR > 1, else 0
    D_sys = integral of p(s | mated) D(s) ds.

Densities are shares in ``BINS`` groups of scores, each with about as much of p_m + p_n as any
other: as D is a smooth function of that mass, few groups are enough. A share is uncertain, and its
positive part is then too large on average: where nothing is linkable, plain shares of 784
independent mated scores give 0.030. So the variance v of each D is taken off its square, and
D - v/D is what remains, or 0: 0.010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ._scores import present

if TYPE_CHECKING:
    from deidbench.types import FloatArray, IntArray

BINS = 16  # even: classes that do not overlap then share no group


class LinkabilityCurve(NamedTuple):
    """D (K,) between scores ``edges`` (K + 1,), from the lowest finite score to the highest."""

    edges: FloatArray
    local: FloatArray


def linkability(genuine: FloatArray, impostor: FloatArray) -> FloatArray:
    """Counts (B, K) in rising groups of scores -> D of each, (B, K) in [0, 1].

    0 for a group without counts; NaN in a row without genuine or without impostor counts.
    """
    mated, other = shares(genuine), shares(impostor)
    both = mated + other
    local = _ratio(mated - other, both)
    # The variance of a quotient of two independent shares, to first order.
    slopes = other / genuine.sum(1, keepdims=True) + mated / impostor.sum(1, keepdims=True)
    variance = _ratio(4 * mated * other * slopes, both**4)
    remains = np.where(local > 0, local - _ratio(variance, local), 0)
    return np.asarray(np.where(np.isnan(both), np.nan, np.maximum(remains, 0)))


def shares(counts: FloatArray) -> FloatArray:
    """Counts (B, K) -> shares (B, K) of each row; NaN in a row without counts."""
    total = counts.sum(1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0))


def group_starts(genuine: FloatArray, impostor: FloatArray) -> IntArray:
    """Shares (K,) of both kinds in rising cells -> the first cell of each group, (<= BINS,).

    A cell lies in the group that the middle of its mass lies in: cells are never divided, so that
    equal scores stay together.
    """
    mass = (genuine + impostor) / 2
    middle = np.cumsum(mass) - mass / 2
    return np.asarray(np.unique((middle * BINS).astype(np.int64), return_index=True)[1])


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)


def distinct(genuine: FloatArray, impostor: FloatArray) -> tuple[FloatArray, FloatArray]:
    """All different scores, (K,) rising, and how often each kind has them, (2, K)."""
    scores, cell_of = np.unique(np.concatenate([genuine, impostor]), return_inverse=True)
    kinds = np.split(cell_of, [genuine.size])
    return scores, np.array([np.bincount(kind, minlength=scores.size) for kind in kinds], float)


def linkability_curve(genuine: FloatArray, impostor: FloatArray) -> LinkabilityCurve:
    """D(s) over the finite scores (G,) and (I,), for drawing.

    Raises ``MetricUndefinedError`` when a kind has no score.
    """
    genuine = present("d-sys", "genuine", np.asarray(genuine)[np.asarray(genuine) > -np.inf])
    impostor = present("d-sys", "impostor", np.asarray(impostor)[np.asarray(impostor) > -np.inf])
    scores, counts = distinct(genuine, impostor)
    starts = group_starts(*shares(counts))
    local = linkability(*np.add.reduceat(counts, starts, axis=1)[:, None])[0]
    return LinkabilityCurve(np.append(scores[starts], scores[-1]), local)
