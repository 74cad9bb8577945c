"""Frames of glasses as thin tubes: two rims, a bridge and two temples. There are no lenses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .geometry import eyeball, unit

if TYPE_CHECKING:
    from .base import Floats
    from .shot import Glasses

AHEAD = 0.13  # dm from the front of the eyeball to the rim


def frame_lines(glasses: Glasses, vertices: Floats, skin: Floats) -> list[tuple[Floats, bool]]:
    """Centre lines of the tubes, and whether each is closed; for an unposed head."""
    eyes = [eyeball(vertices, side) for side in ("eye_l", "eye_r")]
    eyes.sort(key=lambda eye: eye[0][0])
    front = max(eye[2] + radius for eye, radius in eyes) + AHEAD
    centres = [np.array([eye[0] * 1.03, eye[1] - 0.01, front]) for eye, _ in eyes]
    rims = [_rim(glasses, centre) for centre in centres]
    forward = max(_depth_inside(rim, skin) for rim in rims)
    for k in (0, 1):
        rims[k] += [0, 0, forward]
        centres[k] += [0, 0, forward]
    lines = [(rim, True) for rim in rims]
    lines.append((_bridge(glasses, centres), False))
    lines += [(_temple(glasses, centre, skin), False) for centre in centres]
    return lines


def _depth_inside(rim: Floats, skin: Floats) -> float:
    """How far a rim must come forward to clear brow and cheek; the nose is between the rims."""
    front = skin[skin[:, 2] > 0.8]
    points = rim[np.abs(rim[:, 0]) > 0.17]
    near = np.linalg.norm(points[:, None, :2] - front[None, :, :2], axis=2) < 0.04
    depth = np.where(near, front[None, :, 2] + 0.03 - points[:, None, 2], 0)
    return float(np.clip(depth.max(), 0, 0.25))


def _rim(glasses: Glasses, centre: Floats) -> Floats:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    power = 2 / glasses.roundness
    x = centre[0] + glasses.width * np.sign(c) * np.abs(c) ** power
    y = centre[1] + glasses.height * np.sign(s) * np.abs(s) ** power
    # The face curves back at its sides, and so does a frame.
    return np.stack([x, y, centre[2] - 0.16 * x**2], 1)


def _bridge(glasses: Glasses, centres: list[Floats]) -> Floats:
    t = np.linspace(0, 1, 9)
    inner = [centres[0][0] + glasses.width, centres[1][0] - glasses.width]
    x = inner[0] + t * (inner[1] - inner[0])
    y = centres[0][1] + 0.3 * glasses.height + 0.05 * np.sin(np.pi * t)
    return np.stack([x, y, centres[0][2] - 0.16 * x**2], 1)


def _temple(glasses: Glasses, centre: Floats, skin: Floats) -> Floats:
    side = np.sign(centre[0])
    start = np.array([centre[0] + side * glasses.width, centre[1] + 0.25 * glasses.height, 0])
    start[2] = centre[2] - 0.16 * start[0] ** 2
    back = np.linspace(start[2] - 0.2, 0.5, 7)
    wide = np.maximum.accumulate([_half_width(skin, z) for z in back])
    points = np.stack([side * (wide + 0.02), np.linspace(start[1], 7.34, 7), back], 1)
    return np.concatenate([np.linspace(start, points[0], 4)[:-1], points])


def _half_width(skin: Floats, z: float) -> float:
    """Half the width of the head beside the eyes, ears left out."""
    near = (np.abs(skin[:, 1] - 7.32) < 0.12) & (np.abs(skin[:, 2] - z) < 0.12)
    return float(np.abs(skin[near, 0]).max(initial=0.6))


def tube(line: Floats, radius: float, *, closed: bool) -> tuple[Floats, list[list[int]]]:
    """A tube of eight sides around a centre line."""
    n, sides = len(line), 8
    ahead = np.roll(line, -1, 0) - np.roll(line, 1, 0) if closed else np.gradient(line, axis=0)
    along = unit(ahead)
    first = unit(np.cross(along, [0.05, 0.1, 1.0] if closed else [0.1, 1.0, 0.05]))
    second = np.cross(along, first)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = first[:, None] * np.cos(angle) + second[:, None] * np.sin(angle)
    points = (line[:, None] + radius * ring).reshape(-1, 3)
    faces = []
    for i in range(n if closed else n - 1):
        for k in range(sides):
            a, b = i * sides, (i + 1) % n * sides
            faces.append([a + k, a + (k + 1) % sides, b + (k + 1) % sides, b + k])
    return points, faces
