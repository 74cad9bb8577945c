"""Global linkability D_sys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ._linkability import distinct, group_starts, linkability, shares
from ._scores import present

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts


class SystemLinkability:
    """How far two treated faces can be told to be of one person: 0 not at all, 1 always.

    The mean over genuine scores of D(s), the local linkability, with equal priors: Gomez-Barrero et
    al., IEEE TIFS 13(6):1406, 2018, and ISO/IEC 30136. D is 0 where a score speaks against one
    person. How densities are estimated says ``_linkability``.

    It is an estimate. Where nothing is linkable it is 0.29/sqrt(G) on average for G independent
    genuine scores (0.010 for 784), more where those of a person depend on each other; elsewhere it
    is too small by 0.015 at most for 200 genuine scores of normal distributions, by 0.007 for
    3,000. Its interval covers well (93 to 100 of 100 simulated sets of 28 or 60 people) but for
    where nothing is linkable: draws repeat the chance of the sample, and it begins just above 0.
    A failed comparison (-inf) counts as the lowest score.
    """

    name = "d-sys"
    version = 1
    kind: Literal["verification"] = "verification"
    higher_is_better = False
    unit = "fraction"
    needs_threshold = False
    threats: Sequence[str] = ("T5",)
    """Where it is measured; a number of other attacks would mean nothing."""

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """In [0, 1], from all scores (G,) and (I,); raises ``MetricUndefinedError`` without any.

        >>> import numpy as np
        >>> SystemLinkability()(genuine=np.array([0.9, 0.8]), impostor=np.array([0.2, 0.1]))
        1.0
        """
        genuine = present(self.name, "genuine", genuine)
        impostor = present(self.name, "impostor", impostor)
        _, counts = distinct(genuine, impostor)
        return float(_of_cells(counts[:1], counts[1:])[0])

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """(B,) in [0, 1], with the same groups of bins in all draws. NaN without pairs."""
        return _of_cells(counts.genuine, counts.impostor)


def _of_cells(genuine: FloatArray, impostor: FloatArray) -> FloatArray:
    """Counts (B, K) in rising cells -> (B,). Groups follow from the mean over the draws."""
    defined = (genuine.sum(1) > 0) & (impostor.sum(1) > 0)
    values = np.full(len(genuine), np.nan)
    if not defined.any():
        return values
    kinds = genuine[defined], impostor[defined]
    starts = group_starts(*(shares(kind).mean(0) for kind in kinds))
    mated, other = (np.add.reduceat(kind, starts, axis=1) for kind in kinds)
    values[defined] = (shares(mated) * linkability(mated, other)).sum(1)
    return values
