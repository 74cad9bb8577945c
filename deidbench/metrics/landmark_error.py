"""How far the landmarks of a face move."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ._landmarks import checked_landmarks


class LandmarkError:
    """Mean distance of the five landmarks from where they were, in distances between the eyes.

    0: none moved; the lower, the better for whoever needs the geometry of the face. It holds what
    the treatment moved and what it made the detector misread. NaN where a face was lost.
    Normalised by the eyes of the original, as in Sagonas et al., ICCV Workshops 2013.
    """

    name = "landmark-error"
    version = 1
    kind: Literal["landmarks"] = "landmarks"
    higher_is_better = False
    unit = "distances between the eyes"

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 5, 2) in pixels -> (N,) float32. Raises ``DeidbenchError`` on other shapes."""
        original, treated = checked_landmarks(self.name, original, treated)
        between_eyes = (original[:, 1] - original[:, 0]).norm(dim=-1)
        # Two eyes in one point are no face: NaN, not infinity.
        between_eyes = between_eyes.where(between_eyes > 0, float("nan"))
        distances: Tensor = (treated - original).norm(dim=-1).mean(-1) / between_eyes
        return distances
