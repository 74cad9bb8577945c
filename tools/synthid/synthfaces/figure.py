"""The mesh of head and shoulders, posed in numpy; landmarks come from here without a renderer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from . import base
from .geometry import eyeball, pose

if TYPE_CHECKING:
    from .base import Floats, Ints
    from .shot import Shot

REGIONS = {"lips": "lips", "inner": "inside-mouth", "ears": "ears"}
HEAD_CENTRE = np.array([0, 7.12, 0.75])
SENSOR = 36.0  # millimetres
# On the base mesh, dm. Detectors mark the nose a little above its tip and the mouth a little below
# its corners; these places agree with MTCNN's on average.
NOSE_AND_MOUTH = np.array([[0, 6.97, 1.67], [-0.252, 6.592, 1.418], [0.252, 6.592, 1.418]])


class Figure:
    """What all people share: topology, regions, places of the landmarks."""

    def __init__(self) -> None:
        self.mesh = base.BaseMesh()
        vertex, texture = self.mesh.quads("body")
        centre = self.mesh.vertices[vertex].mean(1)
        bust = (centre[:, 1] > 3.9) & (np.abs(centre[:, 0]) < 3.2)
        vertex, texture = vertex[bust], texture[bust]
        self.used = np.unique(vertex)
        local = np.full(len(self.mesh.vertices), -1)
        local[self.used] = np.arange(len(self.used))
        self.quads: Ints = local[vertex]
        self.canonical = self.mesh.vertices[self.used]
        self.regions = self._regions(texture)
        outer = self.regions["inner"] < 0.3
        self.outer_head = self.canonical[outer & (self.canonical[:, 1] > 5.2)]
        high = self.canonical[self.quads].mean(1)[:, 1] > 6.0
        self.head_quads = self.quads[high & outer[self.quads].all(1)]
        self.nose_and_mouth = self._landmark_vertices()

    def _regions(self, texture: Ints) -> dict[str, Floats]:
        """Masks per vertex, read from the region images at the original UVs."""
        uv = np.zeros((len(self.used), 2))
        uv[self.quads.ravel()] = self.mesh.uv[texture.ravel()]
        out = {}
        for key, name in REGIONS.items():
            image = np.asarray(Image.open(base.region_image(name)).convert("L"), float) / 255
            size = np.array(image.shape[::-1])
            pixel = np.clip((uv * size * [1, -1] + [0, size[1]]).astype(int), 0, size - 1)
            out[key] = image[pixel[:, 1], pixel[:, 0]]
        return out

    def _landmark_vertices(self) -> list[int]:
        """Local indices of the nose tip and of the corners of the mouth."""
        allowed = np.flatnonzero(self.regions["inner"] < 0.3)
        return [
            int(allowed[((self.canonical[allowed] - place) ** 2).sum(1).argmin()])
            for place in NOSE_AND_MOUTH
        ]

    def expressed(self, neutral: Floats, shot: Shot) -> Floats:
        """The whole mesh with the photograph's expression."""
        return base.morph(neutral, {f"faceunits/{unit}": w for unit, w in shot.units.items()})

    def landmarks(self, neutral: Floats, shot: Shot, size: int) -> Floats:
        """(5, 2) pixels: eyes, nose tip, corners of the mouth; the viewer's left first."""
        face = self.expressed(neutral, shot)
        body = face[self.used]
        eyes = []
        for side in ("eye_l", "eye_r"):
            centre, radius = eyeball(neutral, side)
            eyes.append(centre * [1.03, 1, 1] + [0, -0.015, radius])
        eyes.sort(key=lambda eye: eye[0])
        points = [*eyes, *body[self.nose_and_mouth]]
        return project(pose(np.array(points), shot), shot, size)


def camera_centre(shot: Shot) -> tuple[Floats, Floats]:
    """Where the camera looks and where it is."""
    centre = pose(HEAD_CENTRE, shot)
    pitch = math.radians(shot.camera_pitch)
    distance = shot.frame * shot.focal / SENSOR
    return centre, centre + distance * np.array([0, math.sin(pitch), math.cos(pitch)])


def project(points: Floats, shot: Shot, size: int) -> Floats:
    """Points (N, 3) to pixels; the centre of the top left pixel is (0, 0)."""
    _, eye = camera_centre(shot)
    pitch = math.radians(shot.camera_pitch)
    offset = points - eye
    up = offset[:, 1] * math.cos(pitch) - offset[:, 2] * math.sin(pitch)
    depth = -(offset[:, 1] * math.sin(pitch) + offset[:, 2] * math.cos(pitch))
    scale = shot.focal / SENSOR
    x = 0.5 + scale * offset[:, 0] / depth - shot.shift[0]
    y = 0.5 - scale * up / depth + shot.shift[1]
    return np.stack([x, y], 1) * size - 0.5
