"""How far a face seems to turn: yaw, pitch and roll from five landmarks."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ._landmarks import checked_landmarks

# x to the viewer's right, y down, z away from the viewer; the distance between the eyes is 1.
# Least squares over the true landmarks and angles of synthid's method-train and attacker-train
# people (448 photographs of rendered CC0 heads), both halves made alike.
FACE = torch.tensor(
    [
        [-0.500, -0.547, 0.138],
        [0.500, -0.547, 0.138],
        [0.000, 0.062, -0.470],
        [-0.407, 0.515, 0.097],
        [0.407, 0.515, 0.097],
    ]
)


def head_pose(landmarks: Tensor) -> Tensor:
    """Yaw, pitch and roll in degrees: (N, 5, 2) in pixels -> (N, 3); NaN for lost faces.

    Yaw > 0 turns to the viewer's right, pitch > 0 lowers the head, roll > 0 turns clockwise. The
    face is first turned by yaw, then by pitch, then by roll in the plane of the image, so that
    turning or scaling the image changes only roll. Scaled orthographic projection of one generic
    face: the nearest rotation to the least-squares map from ``FACE`` to the landmarks, without
    the iterations of POSIT (DeMenthon and Davis, IJCV 1995, doi 10.1007/BF01450852).

    On the eval people of synthid, from MTCNN's landmarks: yaw correlates .96 with the truth and is
    off by 2.6 degrees on average (9.0 for whoever guesses the mean); pitch correlates .43 and is
    off by 5.6 degrees (4.1), since it shifts the points as the shape of another face does. Within
    one person's photographs the correlations are .96 and .56.
    """
    angles = torch.full((len(landmarks), 3), torch.nan, device=landmarks.device)
    several = (landmarks != landmarks[:, :1]).flatten(1).any(1)  # one point has no direction
    there = landmarks.isfinite().flatten(1).all(1) & several
    if bool(there.any()):
        angles[there] = torch.rad2deg(_angles(_rotation(landmarks[there].double()))).float()
    return angles


def _rotation(landmarks: Tensor) -> Tensor:
    """The first two rows of each face's rotation, (N, 2, 3)."""
    face = FACE.to(landmarks)
    face = face - face.mean(0)
    points = landmarks - landmarks.mean(1, keepdim=True)
    u, _, vh = torch.linalg.svd(points.mT @ torch.linalg.pinv(face).mT, full_matrices=False)
    rows: Tensor = u @ vh
    return rows


def _angles(rows: Tensor) -> Tensor:
    """Rows (N, 2, 3) of R = roll(z) pitch(x) yaw(y) -> (N, 3) in radians."""
    right, down = rows.unbind(1)
    away = torch.linalg.cross(right, down)
    yaw = torch.atan2(away[:, 0], away[:, 2])
    pitch = torch.asin(away[:, 1].clamp(-1, 1))
    roll = torch.atan2(-right[:, 1], down[:, 1])
    return torch.stack([yaw, pitch, roll], 1)


class _HeadPoseChange:
    """Absolute change of one angle of ``head_pose``; NaN where a face was lost."""

    name: str
    version = 1
    kind: Literal["landmarks"] = "landmarks"
    higher_is_better = False
    unit = "degrees"
    _angle: ClassVar[int]

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 5, 2) in pixels -> (N,) float32. Raises ``DeidbenchError`` on other shapes."""
        original, treated = checked_landmarks(self.name, original, treated)
        turn = (head_pose(treated) - head_pose(original))[:, self._angle]
        return ((turn + 180).remainder(360) - 180).abs()


class HeadPoseYaw(_HeadPoseChange):
    """By how much a face seems to turn left or right, in degrees; the lower, the better."""

    name = "head-pose-yaw"
    _angle = 0


class HeadPosePitch(_HeadPoseChange):
    """By how much a face seems to nod, in degrees; the lower, the better.

    Five points say little of pitch (``head_pose``): read it beside ``landmark-error``.
    """

    name = "head-pose-pitch"
    _angle = 1


class HeadPoseRoll(_HeadPoseChange):
    """By how much a face seems to tilt in the plane of the image, in degrees; lower is better."""

    name = "head-pose-roll"
    _angle = 2
