"""Whether a face keeps the expression that deepface reads in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ._deepface import DeepFaceAttribute

GREY = (0.114, 0.587, 0.299)  # of blue, green, red (ITU-R BT.601, as OpenCV)
SIDE = 48


class ExpressionAgreement(DeepFaceAttribute):
    """1 where deepface reads the same of seven expressions before and after, else 0.

    Angry, disgust, fear, happy, sad, surprise or neutral. Higher is better.
    """

    name = "expression-agreement"
    unit = "fraction"
    higher_is_better = True
    model = "Emotion"

    def prepare(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, 224, 224) in BGR to grey ones (N, 1, 48, 48)."""
        grey = (crops * torch.tensor(GREY).to(crops).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
        return F.interpolate(grey, (SIDE, SIDE), mode="bilinear", align_corners=False)
