"""How well the box of a second detector stays where it was."""

from __future__ import annotations

from torch import Tensor

from ._yunet import ByYuNet


class BoxIoUYuNet(ByYuNet):
    """Intersection over union of YuNet's boxes before and after, in [0, 1]; 1: the same box.

    Higher is better. NaN where either face is not found: ``face-found-yunet`` says how often.
    """

    name = "box-iou-yunet"
    unit = "fraction"
    by_default = False

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,) float32."""
        before, after = self.boxes(original, treated)
        least, most = before.maximum(after), before.minimum(after)  # NaN stays NaN in both
        overlap = (most[:, 2:] - least[:, :2]).clamp(min=0).prod(1)
        return overlap / (_area(before) + _area(after) - overlap)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)
