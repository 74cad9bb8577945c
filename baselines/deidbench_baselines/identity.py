"""Nothing at all: the upper end of recognition, and a control of every attack."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from deidbench.errors import DeidbenchError


class Identity:
    """Leaves each face as it is. Attacks on it must score as they do on clean faces.

    Raises:
        DeidbenchError: a strength is given; there is only one setting.
    """

    name = "identity"
    version = 1
    trained_against: Sequence[str] = ()

    def __init__(self, strength: float | None = None) -> None:
        if strength is not None:
            raise DeidbenchError(
                f"identity: it has a single setting, but got strength {strength}; leave it out."
            )
        self.strength: float | None = None

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> a copy. The seed changes nothing."""
        return faces.clone()
