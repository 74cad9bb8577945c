"""What the metrics of landmarks share: checks of landmark pairs."""

from __future__ import annotations

from torch import Tensor

from deidbench.errors import DeidbenchError


def checked_landmarks(metric: str, original: Tensor, treated: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 (N, 5, 2); NaN may stand for lost faces.

    Raises:
        DeidbenchError: a shape is another.
    """
    for points in (original, treated):
        if points.shape != (len(original), 5, 2):
            raise DeidbenchError(
                f"{metric}: expected two tensors (N, 5, 2), but got {tuple(original.shape)} and "
                f"{tuple(treated.shape)}."
            )
    return original.float(), treated.float()
