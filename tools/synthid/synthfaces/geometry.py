"""Turning, posing and normals; everything here is plain numpy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .base import HELPERS

if TYPE_CHECKING:
    from .base import Floats, Ints
    from .shot import Shot

NECK = np.array([0, 6.15, 0.35])
NECK_SHARE = 0.65  # of the yaw comes from the neck, the rest from the whole figure


def to_blender(points: Floats) -> Floats:
    """y up, z front -> Blender's z up, -y front."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-9)


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """Roll first, then pitch, then yaw; degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    ry = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    rx = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    rz = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return ry @ rx @ rz


def pose(points: Floats, shot: Shot) -> Floats:
    """Bend at the neck and turn the figure."""
    t = np.clip((points[..., 1] - 5.55) / 0.95, 0, 1)
    bend = (t * t * (3 - 2 * t))[..., None]
    neck = rotation(shot.yaw * NECK_SHARE, shot.pitch, shot.roll)
    bent = points * (1 - bend) + ((points - NECK) @ neck.T + NECK) * bend
    return bent @ rotation(shot.yaw * (1 - NECK_SHARE), 0, 0).T


def vertex_normals(vertices: Floats, quads: Ints) -> Floats:
    """Area-weighted normals."""
    normals = np.zeros_like(vertices)
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    of_face = np.cross(c - a, d - b)
    for k in range(4):
        np.add.at(normals, quads[:, k], of_face)
    return unit(normals)


def eyeball(vertices: Floats, side: str) -> tuple[Floats, float]:
    """Centre and radius of an eyeball, from the helper geometry of the whole mesh."""
    low, high = HELPERS[side]
    points = vertices[low : high + 1]
    least, most = points.min(0), points.max(0)
    radius = float(0.25 * (most[0] - least[0] + most[1] - least[1]))
    middle = 0.5 * (least + most)
    return np.array([middle[0], middle[1], least[2] + radius]), radius


def misreading(truth: Floats, found: Floats) -> float:
    """Mean distance of landmarks (5, 2), in distances between the eyes; NaN for no face."""
    between_eyes = np.linalg.norm(truth[0] - truth[1])
    return float(np.linalg.norm(found - truth, axis=1).mean() / between_eyes)
