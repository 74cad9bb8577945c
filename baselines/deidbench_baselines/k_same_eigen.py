"""k-Same-Eigen: the average of k people, by their principal components."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from deidbench.errors import DeidbenchError

from ._eigenspace import Eigenspace
from ._k_same import KSame, Space


class KSameEigen(KSame):
    """k-Same with people compared and averaged by the principal components of the set.

    A projection is linear: with all components this is k-Same-Pixel. Fewer leave out what only
    few people show.

    Args:
        strength: moves k, as for all k-Same methods.
        k: the least number of people in a cluster, in place of a strength.
        variance: in (0, 1]; as few components are kept as explain this share.

    Raises:
        DeidbenchError: a setting is out of its range, or strength and k are both given.
    """

    name = "k-same-eigen"

    def __init__(
        self, strength: float | None = None, k: int | None = None, variance: float = 0.9
    ) -> None:
        super().__init__(strength, k)
        if not 0 < variance <= 1:
            raise DeidbenchError(f"{self.name}: variance must be in (0, 1], but got {variance}.")
        self.variance = variance

    @property
    def parameters(self) -> Mapping[str, int | float | str]:
        """k and variance."""
        return {"k": self.k, "variance": self.variance}

    def _space(self, people: Tensor) -> Space:
        return Eigenspace(people, self.variance)
