"""PGD: projected gradient descent, the standard attack on neural networks."""

from __future__ import annotations

from torch import Tensor

from ._adversarial import Attack, projected


class PGD(Attack):
    """Signed gradient steps of 2.5 epsilon / steps from a random point, each projected back.

    Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR,
    arXiv 1706.06083. Settings, bounds and loss: as for all attacks here.
    """

    name = "pgd"

    def _attack(self, faces: Tensor, start: Tensor, epsilon: Tensor) -> Tensor:
        enrolled, size = self._enrolled(faces), 2.5 * epsilon / self.steps
        treated = projected(faces + epsilon * start, faces, epsilon)
        for _ in range(self.steps):
            step = size * self._gradient(treated, enrolled).sign()
            treated = projected(treated - step, faces, epsilon)
        return treated
