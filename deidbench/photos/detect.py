"""Finds every face of a photograph: two detectors over many sizes, and their union."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deidbench.yunet import YuNet

from .tiles import View, views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.yunet import FloatArray, Image

SAME_FACE = 0.4  # intersection over union of two boxes, from which on they show one face
LEAST_SCORE = 0.3  # of YuNet at the size of the photograph
LEAST_SCORE_ENLARGED = 0.4  # enlarged, it takes more specks for faces
LEAST_SCORE_TURNED = 0.5
MTCNN_THRESHOLDS = (0.5, 0.6, 0.6)  # below its authors' 0.6, 0.7, 0.7: a miss is worse here
SMALLEST, SMALLEST_FAST = 14, 20  # pixels


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photograph, in its pixels."""

    box: FloatArray
    """(4,) float32: left, top, right, bottom."""
    landmarks: FloatArray
    """(5, 2) float32, in the order of deidbench.types."""
    score: float
    detector: str


class Finder:
    """MTCNN and YuNet, whose finds are joined: a face is missed only where both miss it.

    By default YuNet also searches the photograph enlarged twice and turned by a quarter, a half
    and three quarters. ``fast`` leaves this out. ``quick`` is YuNet alone, as a second look.

    Raises:
        AssetUnavailableError: the weights of YuNet cannot be had.
    """

    def __init__(self, *, fast: bool = False, quick: bool = False, device: str = "cpu") -> None:
        self._fast = fast or quick
        self._yunet = YuNet(threshold=LEAST_SCORE)
        self._mtcnn = None if quick else _mtcnn(SMALLEST_FAST if fast else SMALLEST, device)

    def __call__(self, image: Image) -> list[Face]:
        """All faces of an RGB photograph (H, W, 3), the surest first."""
        found = list(self._by_mtcnn(image))
        plain = views(image, finest=1.0 if self._fast else 2.0)
        for view in plain:
            unsure = self._fast or view.scale > 1
            found += self._by_yunet(view, LEAST_SCORE_ENLARGED if unsure else LEAST_SCORE)
        for turns in () if self._fast else (1, 2, 3):
            for view in views(image, turns=turns):
                found += self._by_yunet(view, LEAST_SCORE_TURNED)
        return distinct(found)

    def _by_yunet(self, view: View, least: float) -> Iterator[Face]:
        [faces] = self._yunet.detect([view.pixels])
        for box, points, score in zip(faces.boxes, faces.landmarks, faces.scores, strict=True):
            if score >= least:
                yield _face(view, box, points, float(score), "yunet")

    def _by_mtcnn(self, image: Image) -> Iterator[Face]:
        import torch

        if self._mtcnn is None:
            return
        for view in views(image, step=4.0, coarsest=2560):
            if min(view.pixels.shape[:2]) < self._mtcnn.min_face_size:
                continue  # no such face fits in, and the detector fails on so few pixels
            with torch.inference_mode():
                boxes, scores, points = self._mtcnn.detect(view.pixels, landmarks=True)
            if boxes is not None:
                for box, score, five in zip(boxes, scores, points, strict=True):
                    yield _face(view, box, five, float(score), "mtcnn")


def distinct(faces: list[Face]) -> list[Face]:
    """The surest find of each face, by non-maximum suppression; the surest first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not kept or overlap(face.box, np.stack([one.box for one in kept])).max() <= SAME_FACE:
            kept.append(face)
    return kept


def overlap(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Intersection over union of a box (4,) with others (N, 4): (N,)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = (high - low).clip(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    union: FloatArray = (box[2:] - box[:2]).prod() + areas - common
    shares: FloatArray = common / np.maximum(union, np.float32(1e-6))
    return shares


def _face(view: View, box: Any, points: Any, score: float, detector: str) -> Face:
    ends: NDArray[np.float32] = view.back(np.array(box, np.float32).reshape(2, 2))
    straight = np.concatenate([ends.min(0), ends.max(0)])  # a turn swaps the corners
    return Face(straight, view.back(np.array(points, np.float32)), score, detector)


def _mtcnn(smallest: int, device: str) -> Any:
    import torch
    from facenet_pytorch import MTCNN

    detector = MTCNN(
        keep_all=True, min_face_size=smallest, thresholds=list(MTCNN_THRESHOLDS),
        device=torch.device(device), post_process=False,
    ).eval()  # fmt: skip
    return detector.to(memory_format=torch.channels_last)
