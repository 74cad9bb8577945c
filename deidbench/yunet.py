"""YuNet, a small face detector that finds faces of about 10 to 300 pixels, run by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import assets
from .errors import DeidbenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float32]
    Image = NDArray[np.uint8]  # (H, W, 3), RGB

ASSET = "yunet"
MOST_FACES = 5000  # candidates of one image before non-maximum suppression


@dataclass(frozen=True)
class Faces:
    """K faces of one image, in its pixels, the surest first."""

    boxes: FloatArray
    """(K, 4) float32: left, top, right, bottom. A box may reach beyond the image."""
    landmarks: FloatArray
    """(K, 5, 2) float32, in the order of deidbench.types: the eye on the viewer's left first."""
    scores: FloatArray
    """(K,) float32 in [0, 1]."""

    def __len__(self) -> int:
        return len(self.scores)


class YuNet:
    """YuNet (Wu et al. 2023, doi 10.1007/s11633-023-1423-y), weights of the OpenCV zoo.

    Args:
        threshold: the least score of a face, in [0, 1].
        overlap: intersection over union from which on the less sure of two boxes is dropped.
    Raises:
        AssetUnavailableError: its weights cannot be had.
        DeidbenchError: the installed OpenCV cannot read them.
    """

    def __init__(self, *, threshold: float = 0.6, overlap: float = 0.3) -> None:
        self._network = _load(assets.fetch(ASSET), threshold, overlap)

    def detect(self, images: Sequence[Image]) -> list[Faces]:
        """The faces of each image, found at the size that the image has.

        Faces of more than about 300 pixels are found in a smaller copy only.

        Args:
            images: uint8 RGB arrays (H, W, 3) of any sizes.
        """
        return [self._detect(image) for image in images]

    def _detect(self, image: Image) -> Faces:
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, rows = self._network.detect(np.ascontiguousarray(image[..., ::-1]))  # it wants BGR
        if rows is None:
            rows = np.empty((0, 15), np.float32)
        rows = rows[np.argsort(-rows[:, 14], kind="stable")]
        left_top, size = rows[:, :2], rows[:, 2:4]
        boxes = np.concatenate([left_top, left_top + size], 1)
        return Faces(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14])


def _load(path: Path, threshold: float, overlap: float) -> Any:
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # 5.0 warns of its own default
    try:
        return cv2.FaceDetectorYN.create(str(path), "", (320, 320), threshold, overlap, MOST_FACES)
    except cv2.error as error:
        raise DeidbenchError(
            f"OpenCV {cv2.__version__} cannot read {path.name}. "
            "pip install --upgrade opencv-python-headless, or delete the file and run "
            "'deidbench assets fetch yunet'."
        ) from error
    finally:
        cv2.utils.logging.setLogLevel(level)
