"""Whether a second detector still finds the face."""

from __future__ import annotations

import torch
from torch import Tensor

from ._yunet import ByYuNet


class FaceFoundYuNet(ByYuNet):
    """1 where YuNet finds a face on the treated chip too, 0 where it no longer does.

    NaN where it finds none on the original, so that the mean is the share of faces that stay
    findable. Higher is better for whoever must still count or blur faces.
    """

    name = "face-found-yunet"
    unit = "fraction"

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,) float32."""
        before, after = (boxes.isfinite().all(1) for boxes in self.boxes(original, treated))
        return after.float().where(before, torch.nan)
