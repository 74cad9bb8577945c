"""Kernel Inception distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._inception import InceptionDistance

if TYPE_CHECKING:
    from deidbench.types import FloatArray

SUBSET = 1000  # images, as the authors and torch-fidelity have it
SUBSETS = 100


class KernelInceptionDistance(InceptionDistance):
    """Squared maximum mean discrepancy of two sets of images; about 0 for sets that are alike.

    The lower, the better. Unbiased at any number of images, hence a little below 0 now and then.
    Kernel (x y / 2048 + 1)^3; mean over 100 random subsets of 1,000 images, or of all images where
    there are fewer.
    Binkowski et al., ICLR 2018, arXiv 1801.01401.
    """

    name = "kid"

    def __call__(self, original: FloatArray, treated: FloatArray) -> float:
        """Features (N, 2048) and (M, 2048). Raises ``MetricUndefinedError`` below 2 images."""
        import torch
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

        sides = self._sets(original, treated)
        size = subset_size(min(map(len, sides)))
        whole = all(len(side) == size for side in sides)  # then all subsets are the same
        found = kid_features_to_metric(
            *map(torch.from_numpy, sides), kid_subset_size=size, verbose=False,
            kid_subsets=1 if whole else SUBSETS,
        )  # fmt: skip
        return float(found[KEY_METRIC_KID_MEAN])

    def note(self, n: int) -> str:
        """What a reader must know of a number made of n images."""
        return f"subsets of {subset_size(n)} images"


def subset_size(n: int) -> int:
    """How many images are compared at once."""
    return min(n, SUBSET)
