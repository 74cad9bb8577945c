"""By how much a face's apparent age changes."""

from __future__ import annotations

import torch
from torch import Tensor

from ._deepface import DeepFaceAttribute


class AgeDifference(DeepFaceAttribute):
    """Absolute change of the age that deepface reads, in years; the lower, the better.

    That age is the mean of the model's distribution over 0 to 100 years.
    """

    name = "age-difference"
    unit = "years"
    higher_is_better = False
    model = "Age"

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """Probabilities of each age, (N, 101) each -> (N,)."""
        years = torch.arange(before.shape[1]).to(before)
        return ((before - after) @ years).abs()
