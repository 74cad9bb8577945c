"""MI-FGSM: gradient steps with momentum, which carry over better to other recognizers."""

from __future__ import annotations

import torch
from torch import Tensor

from ._adversarial import Attack, projected

DECAY = 1.0


class MIFGSM(Attack):
    """Signed steps of epsilon / steps along a sum of gradients, each divided by its L1 norm.

    Dong et al. 2018, "Boosting Adversarial Attacks with Momentum", CVPR, arXiv 1710.06081,
    equations 6 and 7, decay 1. The paper starts at the image itself; here the first step is
    random, since the loss has no gradient there. Settings, bounds and loss: as for all attacks.
    """

    name = "mi-fgsm"

    def _attack(self, faces: Tensor, start: Tensor, epsilon: Tensor) -> Tensor:
        enrolled, size = self._enrolled(faces), epsilon / self.steps
        treated = projected(faces + size * start, faces, epsilon)
        momentum = torch.zeros_like(faces)
        for _ in range(self.steps):
            gradient = self._gradient(treated, enrolled)
            norm = gradient.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-30)
            momentum = DECAY * momentum + gradient / norm
            treated = projected(treated - size * momentum.sign(), faces, epsilon)
        return treated
