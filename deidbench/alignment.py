"""Finds the face in each photograph and warps it to a face chip. A miss is a recorded row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .geometry import CHIP_SIZE, apply, chip_template, similarity_transform, warp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .types import FloatArray

    Image = NDArray[np.uint8]  # (H, W, 3), RGB

SMALLEST_FACE = 20  # pixels, in a photograph
SMALLEST_IN_CHIP = 0.25  # of the side: a chip is full of its face, so small ones need no search


@dataclass(frozen=True)
class Aligned:
    """Face chips of N photographs. Rows where no face was found hold zeros and NaN landmarks."""

    chips: Tensor
    """(N, 3, S, S) uint8 RGB."""
    landmarks: Tensor
    """(N, 5, 2) float32, in chip pixels."""
    found: Tensor
    """(N,) bool."""
    transforms: Tensor
    """(N, 2, 3) float32, from photograph to chip pixels; NaN where there is no face."""


class Aligner:
    """MTCNN (Zhang et al. 2016, weights inside facenet-pytorch) and a similarity warp.

    With several faces in view the one nearest the centre of the image counts. ``aligned=True``
    takes images as chips: they are resized at most, and the detector only finds the landmarks.
    """

    def __init__(
        self, size: int = CHIP_SIZE, *, aligned: bool = False, device: str = "cpu"
    ) -> None:
        self.size = size
        self.aligned = aligned
        self.device = device
        self._detector = _load_detector(device)

    def __call__(self, images: Sequence[Image]) -> Aligned:
        """Align photographs of any sizes.

        Args:
            images: uint8 RGB arrays (H, W, 3).
        """
        if self.aligned:
            images = [_resize(image, self.size) for image in images]
        landmarks = self.detect(images, chips=self.aligned)
        rows = [self._chip(image, points) for image, points in zip(images, landmarks, strict=True)]
        return Aligned(
            torch.stack([chip for chip, _, _ in rows]),
            torch.stack([points for _, points, _ in rows]),
            torch.from_numpy(np.isfinite(landmarks).all((1, 2))),
            torch.stack([transform for _, _, transform in rows]),
        )

    def chip_of(self, image: Image, transform: Tensor) -> Tensor:
        """The chip (3, S, S) uint8 of a photograph, by the transform of another version of it."""
        if self.aligned:
            return _planes(_resize(image, self.size))
        return self._warped(image, transform)

    def detect(self, images: Sequence[Image], *, chips: bool = False) -> FloatArray:
        """Landmarks in image pixels, (N, 5, 2) float32; NaN where no face was found.

        ``chips`` says that the images are face chips, which saves the search for small faces.
        """
        smallest = SMALLEST_IN_CHIP * self.size if chips else SMALLEST_FACE
        self._detector.min_face_size = smallest
        landmarks = np.full((len(images), 5, 2), np.nan, np.float32)
        for indices in _by_shape(images):
            if min(images[indices[0]].shape[:2]) < smallest:
                continue  # no such face fits in, and the detector fails on so few pixels
            stack = np.stack([images[i] for i in indices])
            with torch.inference_mode():
                boxes, _, points = self._detector.detect(stack, landmarks=True)
            for index, candidates, faces in zip(indices, boxes, points, strict=True):
                if candidates is not None and len(candidates):
                    landmarks[index] = faces[_nearest_centre(candidates, stack.shape[1:3])]
        return landmarks

    def _chip(self, image: Image, landmarks: FloatArray) -> tuple[Tensor, Tensor, Tensor]:
        points = torch.from_numpy(landmarks)
        if self.aligned:
            return _planes(image), points, torch.eye(2, 3)
        if not bool(points.isfinite().all()):
            black = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
            return black, points, torch.full((2, 3), torch.nan)
        transform = similarity_transform(points[None], chip_template(self.size))
        moved = apply(transform, points[None])[0]
        return self._warped(image, transform[0]), moved, transform[0]

    def _warped(self, image: Image, transform: Tensor) -> Tensor:
        return to_uint8(warp(_planes(image)[None].float(), transform[None], self.size)[0] / 255)


def _planes(image: Image) -> Tensor:
    """(H, W, 3) -> (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_uint8(faces: Tensor) -> Tensor:
    """[0, 1] floats to the 8 bits that a published image has."""
    return (faces.clamp(0, 1) * 255).round().to(torch.uint8)


def to_float(chips: Tensor) -> Tensor:
    """8-bit chips to float32 in [0, 1]."""
    return chips.float() / 255


def _load_detector(device: str) -> Any:
    from facenet_pytorch import MTCNN

    detector = MTCNN(keep_all=True, device=torch.device(device), post_process=False).eval()
    return detector.to(memory_format=torch.channels_last)  # a third faster on a CPU: its pooling


def _by_shape(images: Sequence[Image]) -> list[list[int]]:
    """Indices of images of equal shape: the detector batches only those."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    return list(groups.values())


def _nearest_centre(boxes: FloatArray, shape: tuple[int, ...]) -> int:
    centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
    middle = np.array([shape[1] / 2, shape[0] / 2])
    return int(((centres - middle) ** 2).sum(1).argmin())


def _resize(image: Image, size: int) -> Image:
    from PIL import Image as Pillow

    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Pillow.fromarray(image).resize((size, size), Pillow.Resampling.LANCZOS))
