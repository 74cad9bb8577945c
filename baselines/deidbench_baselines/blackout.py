"""A black square: the lower end of recognition, and a control of every attack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deidbench.errors import DeidbenchError


class Blackout:
    """Fills the whole chip with black, so that nothing of the face is left.

    All faces become the same image: an attacker that does better than chance has found
    something besides the face.

    Raises:
        DeidbenchError: a strength is given; there is only one setting.
    """

    name = "blackout"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        if strength is not None:
            raise DeidbenchError(
                f"blackout: it has a single setting, but got strength {strength}; leave it out."
            )
        self.strength: float | None = None

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) -> zeros of the same shape. The seed changes nothing."""
        return torch.zeros_like(faces)
