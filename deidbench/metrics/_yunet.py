"""What the metrics by the YuNet detector share: where it finds the face of a chip."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from deidbench.yunet import YuNet

from ._images import Weightless, checked_pair


class ByYuNet(Weightless):
    """An image metric that compares what YuNet finds before and after, on whole chips.

    A detector that had no part in the alignment: MTCNN, which had, gives ``detection-rate``.

    Raises:
        AssetUnavailableError: its weights cannot be had.
    """

    name: str
    version = 1
    kind: Literal["image"] = "image"
    higher_is_better = True
    unit: str
    regions = ("chip",)

    def __init__(self) -> None:
        self._detector = YuNet()

    def boxes(self, original: Tensor, treated: Tensor) -> tuple[Tensor, Tensor]:
        """The surest face's (left, top, right, bottom) in pixels, (N, 4) each; NaN without a face.

        Raises:
            DeidbenchError: the images are not two batches (N, 3, H, W) in [0, 1].
        """
        original, treated = checked_pair(self.name, original, treated)
        return self._boxes(original), self._boxes(treated)

    def _boxes(self, images: Tensor) -> Tensor:
        pixels: Any = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        boxes = torch.full((len(images), 4), torch.nan)
        for row, faces in enumerate(self._detector.detect(pixels)):
            if len(faces):
                boxes[row] = torch.from_numpy(faces.boxes[0])
        return boxes.to(images.device)
