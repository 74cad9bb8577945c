"""Treats the faces of a photograph and blends them back, without a seam and without a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deidbench.errors import DeidbenchError
from deidbench.geometry import (
    CHIP_SIZE,
    apply,
    chip_template,
    inner_face_box,
    similarity_transform,
    warp,
)
from deidbench.treatment import treat_faces

from .detect import Face

if TYPE_CHECKING:
    from deidbench.types import BoolArray, Method
    from deidbench.yunet import FloatArray, Image

SMALLEST_CHIP, LARGEST_CHIP = 112, 512
BATCH_PIXELS = 16 * 512**2

# The treated region in a chip of CHIP_SIZE: a rounded square (a superellipse, |x|^4 + |y|^4 = 1)
# around this middle. It is replaced whole within the first half axes and ends at the second, which
# are near at the chin: it lies low in a chip.
MIDDLE = (80.0, 88.0)
WHOLE = (62.0, 66.0)
END = (78.0, 71.0)

SURE = 0.5  # score of a face in the treated photograph; weaker ones are mostly its blurred parts
COVERED_SHARE = 0.6  # of the oval in its box, from which on a face counts as treated
OVAL = 0.85  # of a detector's box: what of it must be face


@dataclass(frozen=True)
class Patch:
    """Where one face is cut from and put back: a square of the photograph, and its chip."""

    corner: tuple[int, int]
    """Left and top of the square; it may reach beyond the photograph."""
    side: int
    size: int
    """Of the chip, in pixels."""
    to_chip: Tensor
    """(1, 2, 3), from pixels of the square to pixels of the chip."""

    @property
    def box(self) -> FloatArray:
        """(4,) of the square, in the photograph."""
        left, top = self.corner
        return np.array([left, top, left + self.side, top + self.side], np.float32)

    def mask(self) -> FloatArray:
        """(side, side): 1 where the face is replaced, 0 where nothing changes, soft between."""
        axis = torch.arange(self.side, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
        weight = _weight(apply(self.to_chip, grid)[0] * (CHIP_SIZE / self.size))
        return np.asarray(weight.reshape(self.side, self.side).numpy(), np.float32)


def treat(
    image: Image, faces: Sequence[Face], seeds: Sequence[int], method: Method, device: str
) -> tuple[Image, BoolArray]:
    """A copy of the photograph with its faces treated, and which pixels are replaced whole.

    Small faces come first, so that near ones lie over far ones; where faces overlap, the later
    chip is cut from what is treated already, so that no original pixel comes back with it.

    Args:
        image: uint8 RGB (H, W, 3). Pixels outside all masks stay as they are.
        seeds: one for each face, for methods that draw numbers.
    """
    treated = image.copy()
    covered = np.zeros(image.shape[:2], np.bool_)
    patches = [place(face) for face in faces]
    for wave in _waves(patches):
        chips = _deidentify(treated, [(patches[i], seeds[i]) for i in wave], method, device)
        for index, chip in zip(wave, chips, strict=True):
            _put_back(treated, covered, patches[index], chip)
    return treated, covered


def place(face: Face) -> Patch:
    """The square and chip of a face: by its landmarks, or by its box where these do not fit it."""
    points = torch.from_numpy(np.array(face.landmarks, np.float32))[None]
    if not _covers(points, face.box):
        points = _landmarks_in(face.box)[None]
    to_unit = similarity_transform(points, chip_template())
    scale = float(torch.linalg.det(to_unit[:, :, :2]).sqrt())  # chip pixels per photograph pixel
    size = int(np.clip(round(CHIP_SIZE / scale / 8) * 8, SMALLEST_CHIP, LARGEST_CHIP))
    edges = torch.tensor([[[0.0, 0], [1, 0], [1, 1], [0, 1]]]) * CHIP_SIZE
    corners = apply(_inverse(to_unit), edges)[0].numpy()
    left, top = (int(v) for v in np.floor(corners.min(0)) - 1)
    side = int(np.ceil((corners.max(0) - corners.min(0)).max())) + 3
    moved = points - torch.tensor([left, top], dtype=torch.float32)
    return Patch((left, top), side, size, similarity_transform(moved, chip_template(size)))


def covered_by(faces: Sequence[Face], shape: tuple[int, int]) -> BoolArray:
    """Which pixels of a photograph (height, width) the treatment of these faces replaces whole."""
    covered = np.zeros(shape, np.bool_)
    for patch in map(place, faces):
        here, inner = _within(patch, shape)
        covered[here] |= patch.mask()[inner] == 1
    return covered


def uncovered(faces: Sequence[Face], covered: BoolArray) -> list[Face]:
    """Those faces, found after treatment, that are sure and not covered by it."""
    return [
        face for face in faces if face.score >= SURE and _share(face.box, covered) < COVERED_SHARE
    ]


def _share(box: FloatArray, covered: BoolArray) -> float:
    points = np.floor(_oval(box, np.linspace(0.1, 1.0, 10, dtype=np.float32))).astype(int)
    inside = ((points >= 0) & (points < covered.shape[::-1])).all(1)
    if not inside.any():
        return 1.0  # it lies beyond the photograph
    return float(covered[points[inside, 1], points[inside, 0]].mean())


def _oval(box: FloatArray, radii: FloatArray) -> FloatArray:
    """Points on ovals in a box, (N, 2); radius 1 touches its sides. Every oval has 32."""
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    spots = (radii[:, None, None] * circle).reshape(-1, 2)
    return np.asarray((box[:2] + box[2:]) / 2 + spots * (box[2:] - box[:2]) / 2, np.float32)


def _covers(points: Tensor, box: FloatArray) -> bool:
    """Whether a treatment by these landmarks (1, 5, 2) replaces the oval in the box whole."""
    if not bool(points.isfinite().all()):
        return False
    to_unit = similarity_transform(points, chip_template())
    if float(torch.linalg.det(to_unit[:, :, :2]).nan_to_num()) <= 0:
        return False
    oval = torch.from_numpy(_oval(box, np.array([OVAL], np.float32)))[None]
    return bool((_reach(apply(to_unit, oval)[0], WHOLE) <= 1).all())


def _landmarks_in(box: FloatArray) -> Tensor:
    """Landmarks (5, 2) of an upright face whose treated region holds the oval in the box."""
    left, top, right, bottom = inner_face_box()
    inner = torch.tensor([right - left, bottom - top])
    corners = torch.from_numpy(np.array(box, np.float32)).reshape(2, 2)
    scale = ((corners[1] - corners[0]) / (inner * 1.1)).max().clamp_min(1e-3)
    middle = torch.tensor(MIDDLE)
    return corners.mean(0) + (chip_template() - middle) * scale


def _reach(points: Tensor, axes: tuple[float, float]) -> Tensor:
    """How far points of a chip (N, 2) lie out, in units of a superellipse with these half axes."""
    scaled = (points - torch.tensor(MIDDLE)) / torch.tensor(axes)
    return scaled.pow(4).sum(-1).sqrt().sqrt()


def _weight(points: Tensor) -> Tensor:
    outward = (_reach(points, WHOLE) - 1).clamp_min(0)
    inward = (1 - _reach(points, END)).clamp_min(0)
    share = inward / (inward + outward).clamp_min(1e-6)
    return torch.where(outward == 0, 1.0, share * share * (3 - 2 * share))


def _waves(patches: Sequence[Patch]) -> list[list[int]]:
    """Indices of patches that are treated together: no two of a wave overlap, small ones first."""
    wave_of: dict[int, int] = {}
    for index in sorted(range(len(patches)), key=lambda i: patches[i].side):
        before = [wave_of[i] for i in wave_of if _touch(patches[i].box, patches[index].box)]
        wave_of[index] = max(before, default=-1) + 1
    count = max(wave_of.values(), default=-1) + 1
    return [[i for i in wave_of if wave_of[i] == wave] for wave in range(count)]


def _touch(one: FloatArray, other: FloatArray) -> bool:
    return bool((np.maximum(one[:2], other[:2]) < np.minimum(one[2:], other[2:])).all())


def _deidentify(
    image: Image, wanted: Sequence[tuple[Patch, int]], method: Method, device: str
) -> list[Tensor]:
    """Treated chips (1, 3, S, S), in order; those of one size and seed go to the method at once.

    Raises:
        DeidbenchError: the method fails on a face.
    """
    chips: dict[int, Tensor] = {}
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (patch, seed) in enumerate(wanted):
        groups.setdefault((patch.size, seed), []).append(index)
    for (size, seed), indices in groups.items():
        step = max(BATCH_PIXELS // size**2, 1)
        for start in range(0, len(indices), step):
            batch = indices[start : start + step]
            faces = torch.cat([_cut(image, wanted[i][0]) for i in batch]).to(device)
            output, problems = treat_faces(method, faces, seed=seed)
            if any(problems):
                # A file with one face untreated is no treated file.
                reason = next(problem for problem in problems if problem)
                raise DeidbenchError(f"method '{method.name}' {reason}. Use another method.")
            output = output.detach().cpu()
            chips |= {i: chip[None] for i, chip in zip(batch, output, strict=True)}
    return [chips[index] for index in range(len(wanted))]


def _cut(image: Image, patch: Patch) -> Tensor:
    """The chip of a face, (1, 3, S, S) in [0, 1]; beyond the photograph its edge goes on."""
    height, width = image.shape[:2]
    steps = np.arange(patch.side)
    rows = (patch.corner[1] + steps).clip(0, height - 1)
    columns = (patch.corner[0] + steps).clip(0, width - 1)
    square = torch.from_numpy(image[rows[:, None], columns]).permute(2, 0, 1)[None]
    return warp(square.float() / 255, patch.to_chip, patch.size).clamp(0, 1)


def _put_back(image: Image, covered: BoolArray, patch: Patch, chip: Tensor) -> None:
    here, inner = _within(patch, image.shape[:2])
    part = image[here]
    weight = patch.mask()[inner][..., None]
    back = warp(chip, _inverse(patch.to_chip), patch.side)[0].permute(1, 2, 0).numpy()[inner]
    mixed = part * (1 - weight) + back * 255 * weight
    part[...] = np.where(weight > 0, mixed.round().clip(0, 255), part).astype(np.uint8)
    covered[here] |= weight[..., 0] == 1


def _within(patch: Patch, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Where the patch lies in the photograph, and which part of the patch that is."""
    (left, top), side = patch.corner, patch.side
    here = (slice(max(top, 0), max(top + side, 0)), slice(max(left, 0), max(left + side, 0)))
    inner = (slice(max(-top, 0), max(shape[0] - top, 0)),
             slice(max(-left, 0), max(shape[1] - left, 0)))  # fmt: skip
    return here, inner


def _inverse(transforms: Tensor) -> Tensor:
    """Of similarity transforms (N, 2, 3)."""
    linear = torch.linalg.inv(transforms[:, :, :2])
    return torch.cat([linear, -linear @ transforms[:, :, 2:]], -1)
