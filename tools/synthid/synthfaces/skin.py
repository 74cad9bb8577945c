"""Procedural skin: albedo and height in a cylindrical chart (azimuth, height) of the base head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import LinearNDInterpolator, interp1d
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

if TYPE_CHECKING:
    from .base import Floats
    from .person import Brow, Hair, Person, Skin

WIDTH, HEIGHT = 896, 544
LOW, HIGH = 5.3, 8.65  # vertical range of the chart, dm
AXIS_Z = 0.45
CELLS = np.array([160, 96])  # of the search for the outermost surface


@dataclass(frozen=True)
class Maps:
    """What is painted on the head; linear colours, heights in dm."""

    albedo: Floats
    height: Floats
    scalp: Floats
    """How densely hair may grow, 0 to 1."""


def chart_uv(points: Floats) -> Floats:
    """Chart coordinates in [0, 1]."""
    azimuth = np.arctan2(points[:, 0], points[:, 2] - AXIS_Z)
    return np.stack([azimuth / (2 * np.pi) + 0.5, (points[:, 1] - LOW) / (HIGH - LOW)], 1)


class Chart:
    """Position of every texel on the outermost surface of the base head."""

    def __init__(self, vertices: Floats) -> None:
        uv = chart_uv(vertices)
        radius = np.hypot(vertices[:, 0], vertices[:, 2] - AXIS_Z)
        kept = _outermost(uv, radius)
        around = np.concatenate([uv[kept] + [turn, 0] for turn in (-1, 0, 1)])
        # Rows beyond the ends: searching for points outside of the hull takes many seconds.
        ends = [[u, v] for u in np.linspace(-1.1, 2.1, 49) for v in (-0.05, 1.05)]
        values = np.concatenate([np.tile(radius[kept], 3), np.full(len(ends), 0.8)])
        surface = LinearNDInterpolator(np.concatenate([around, ends]), values, fill_value=0.8)
        u, v = np.meshgrid(
            (np.arange(0, WIDTH, 4) + 0.5) / WIDTH, (np.arange(0, HEIGHT, 4) + 0.5) / HEIGHT
        )
        r = zoom(surface(u, v), 4, order=1)
        u, v = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, (np.arange(HEIGHT) + 0.5) / HEIGHT)
        azimuth = (u - 0.5) * 2 * np.pi
        self.x, self.z = r * np.sin(azimuth), AXIS_Z + r * np.cos(azimuth)
        self.y = LOW + v * (HIGH - LOW)
        self.points = np.stack([self.x, self.y, self.z])


def _outermost(uv: Floats, radius: Floats) -> Floats:
    """One vertex a cell: ears and lips fold over themselves."""
    cells: dict[tuple[int, int], int] = {}
    for i, (a, b) in enumerate((uv * CELLS).astype(int).tolist()):
        if (a, b) not in cells or radius[i] > radius[cells[a, b]]:
            cells[a, b] = i
    return np.array(list(cells.values()))


def noise(rng: np.random.Generator, points: Floats, scale: float, octaves: int = 3) -> Floats:
    """Value noise of about unit variance at points (3, ...); features of ``scale`` dm."""
    out, amplitude, power = 0.0, 1.0, 0.0
    for _ in range(octaves):
        lattice = rng.normal(size=(24, 24, 24))
        shift = rng.uniform(0, 24, 3).reshape(3, *[1] * (points.ndim - 1))
        sample = map_coordinates(lattice, points / scale + shift, order=1, mode="grid-wrap")
        out = out + amplitude * sample * 1.6
        power += amplitude**2
        amplitude, scale = amplitude * 0.55, scale / 2
    return out / np.sqrt(power)


def spot(chart: Chart, centre: tuple[float, float], size: tuple[float, float]) -> Floats:
    """A soft spot on both sides of the face."""
    dx = (np.abs(chart.x) - centre[0]) / size[0]
    return np.exp(-0.5 * dx**2 - 0.5 * ((chart.y - centre[1]) / size[1]) ** 2)


def brow_mask(brow: Brow, points: Floats) -> Floats:
    """Density of the brows at points (3, ...)."""
    x, y, z = np.abs(points[0]), points[1], points[2]
    start = 0.135 + brow.inner
    end = start + 0.46 * brow.length
    t = np.array([0, 0.3, 0.62, 1.0])
    arch = np.array([0.045, 0.050, 0.043 + 0.035 * brow.arch, -0.03 + 0.01 * brow.arch])
    line = 7.475 + brow.height + arch + brow.tilt * (t - 0.4)
    half = np.array([0.015, 0.024, 0.019, 0.006]) * brow.thick
    at = start + t * (end - start)
    fill = (line[0], line[-1]), (half[0], half[-1])
    middle = interp1d(at, line, "quadratic", bounds_error=False, fill_value=fill[0])(x)
    width = interp1d(at, half, bounds_error=False, fill_value=fill[1])(x)
    ends = 1 / (1 + np.exp(-(x - start) / 0.014)) / (1 + np.exp((x - end) / 0.018))
    return np.clip(1.6 - np.abs(y - middle) / width, 0, 1) * ends * (z > 0.9)


def beard_mask(points: Floats, kind: str = "full") -> Floats:
    """Density of the beard at points (3, ...)."""
    x, y, z = np.abs(points[0]), points[1], points[2]
    cheek = 6.95 - 0.18 * np.clip((x - 0.1) / 0.3, 0, 1) + 0.55 * np.clip((x - 0.55) / 0.25, 0, 1)
    ramps = (cheek - y) / 0.06, (y - 5.95) / 0.15, (z - 0.35) / 0.15
    lips = np.exp(-((x / 0.31) ** 4) - ((y - 6.645) / 0.10) ** 4)
    mask = np.prod([np.clip(ramp, 0, 1) for ramp in ramps], axis=0) * (1 - lips)
    if kind == "goatee":
        return mask * np.clip((0.34 - x) / 0.06, 0, 1)
    if kind == "moustache":
        return mask * np.clip((0.3 - x) / 0.08, 0, 1) * np.clip((y - 6.66) / 0.04, 0, 1)
    return mask


def scalp_mask(points: Floats, hair: Hair, soft: float = 0.06) -> Floats:
    """Above 0 where hair grows on the head, at points (3, ...)."""
    x, y, z = points
    side = np.abs(x)
    dy = hair.hairline - 0.14 + 0.05 * np.sin(9 * x + 40 * hair.hairline) + 0.02 * np.sin(31 * x)
    heights = [6.9, 7.0, 7.45, 7.62, 7.8, 8.0, 8.12, 8.3, 8.6]
    top = np.interp(y - dy, heights, [0.2, 0.58, 0.62, 0.80, 0.98, 1.12, 1.25, 2, 2])
    bays = hair.recede * np.exp(-(((side - 0.42) / 0.22) ** 2)) * 0.42
    top = top - bays - max(0.0, hair.recede - 0.75) * 0.9
    top = top - 0.12 * np.clip((side - 0.45) / 0.3, 0, 1) * (y > 7.75)
    lowest = np.interp(z, [-0.4, 0.1, 0.35, 0.6], [6.35, 6.42, 6.75, 6.95])
    ear = 1 - np.exp(
        -(((side - 0.86) / 0.14) ** 4) - ((y - 7.13) / 0.33) ** 4 - ((z - 0.42) / 0.28) ** 4
    )
    return np.clip((top - z) / soft, 0, 1) * np.clip((y - lowest) / 0.1, 0, 1) * (ear > 0.6)


def make_maps(person: Person, chart: Chart) -> Maps:
    """Paint a person."""
    rng = np.random.default_rng(person.skin.seed)
    fine = noise(rng, chart.points, 0.03, 2)
    middle = noise(rng, chart.points, 0.14)
    melanin, blood = _pigments(rng, person, chart, middle, fine)
    _marks(rng, person, chart, melanin)
    _stubble(rng, person.hair, chart, melanin, blood)
    albedo = _colour(person.skin, np.clip(melanin, 0.01, 2), np.clip(blood, 0.02, 1.6))
    strands = np.clip(0.9 + 0.35 * noise(rng, chart.points, 0.03, 1), 0, 1)
    brow = brow_mask(person.brow, chart.points) * person.brow.density * 0.55 * strands
    albedo = albedo * (1 - brow[..., None]) + np.array(person.hair.brow_colour) * brow[..., None]
    relief = 0.0016 * fine + 0.0011 * middle + _lines(person, chart)
    scalp = scalp_mask(chart.points, person.hair, 0.10)
    return Maps(np.clip(albedo, 0, 1), gaussian_filter(relief, 0.8), np.clip(scalp, 0, 1))


def mean_colour(maps: Maps) -> Floats:
    """Mean linear colour of the middle of the face."""
    rows = slice(*(int((y - LOW) / (HIGH - LOW) * HEIGHT) for y in (6.5, 7.4)))
    return maps.albedo[rows, WIDTH // 2 - 70 : WIDTH // 2 + 70].mean((0, 1))


def _pigments(
    rng: np.random.Generator, person: Person, chart: Chart, middle: Floats, fine: Floats
) -> tuple[Floats, Floats]:
    """Melanin and blood before marks and beard."""
    skin, x, y = person.skin, chart.x, chart.y
    large, uneven = noise(rng, chart.points, 0.5), noise(rng, chart.points, 0.35, 2)
    calm = 1 / (1 + 1.8 * skin.melanin)  # dark skin: the same contrast, no patches
    variation = skin.blotch * (0.09 * large + 0.055 * middle) + 0.045 * fine + 0.05 * uneven
    melanin = skin.melanin * (1 + calm * variation)
    flush = 0.06 * skin.blotch * (middle + large) + 0.03 * fine
    flush += 0.27 * spot(chart, (0.48, 6.97), (0.17, 0.16)) * (0.5 + skin.blotch)
    flush += 0.30 * spot(chart, (0, 6.98), (0.12, 0.10)) + 0.12 * spot(chart, (0, 6.3), (0.2, 0.1))
    flush += 0.30 * (np.abs(x) > 0.8) * (y < 7.5) * (y > 6.7)
    flush -= 0.12 * spot(chart, (0, 7.8), (0.5, 0.2))
    tired = skin.under_eye * spot(chart, (0.29, 7.10), (0.16, 0.05))
    tired += 0.8 * skin.under_eye * spot(chart, (0.13, 7.22), (0.05, 0.08))
    tired += 0.3 * spot(chart, (0.31, 7.36), (0.16, 0.06))
    melanin += 0.09 * tired * (0.5 + 2 * skin.melanin)
    melanin += 0.35 * skin.makeup * spot(chart, (0.31, 7.37), (0.15, 0.05))
    flush += 0.22 * tired + 0.4 * skin.makeup * spot(chart, (0.5, 7.0), (0.16, 0.1))
    return melanin, skin.haemoglobin + flush * (0.55 + 0.45 * calm)


def _marks(rng: np.random.Generator, person: Person, chart: Chart, melanin: Floats) -> None:
    """Freckles, age spots and moles."""
    skin = person.skin
    if skin.freckles > 0.05:
        dots = np.clip(noise(rng, chart.points, 0.045, 1) - 1.5, 0, 1)
        where = np.clip(spot(chart, (0.3, 7.05), (0.4, 0.25)) + 0.35, 0, 1)
        melanin += dots * 0.34 * skin.freckles * where
    if person.age > 0.35:
        spots = np.clip(noise(rng, chart.points, 0.09, 2) - 1.7, 0, 1)
        melanin += spots * 0.5 * (person.age - 0.35)
    for _ in range(skin.moles):
        cx, cy, radius = rng.uniform(-0.65, 0.65), rng.uniform(6.2, 7.9), rng.uniform(0.006, 0.02)
        distance = ((chart.x - cx) ** 2 + (chart.y - cy) ** 2) / radius**2
        melanin += rng.uniform(0.2, 0.7) * np.exp(-(distance**2)) * (chart.z > 0.6)


def _stubble(
    rng: np.random.Generator, hair: Hair, chart: Chart, melanin: Floats, blood: Floats
) -> None:
    beard = beard_mask(chart.points) * hair.stubble
    dots = np.clip(noise(rng, chart.points, 0.02, 1) + 0.4, 0, 2)
    melanin += beard * (0.13 + 0.07 * dots) * (1 - min(0.8, 2.2 * hair.colour[0]))
    blood -= 0.15 * beard


def _colour(skin: Skin, melanin: Floats, blood: Floats) -> Floats:
    """Beer-Lambert absorption over a pale ground."""
    # Much melanin hides the blood below it.
    seen = blood * (1 - 0.45 * min(skin.melanin, 1))
    absorbed = seen[..., None] * np.array([0.11, 0.55, 0.45])
    absorbed = absorbed + melanin[..., None] * np.array([2.4, 2.95, 3.45])
    albedo = np.array([0.84, 0.67, 0.57]) * np.exp(-absorbed)
    albedo[..., 2] *= 1 - 0.28 * skin.yellow
    albedo[..., 1] *= 1 + 0.03 * skin.yellow
    return albedo


def _lines(person: Person, chart: Chart) -> Floats:
    """Relief of the lines of age: forehead, glabella, crow's feet, nose to mouth, lids."""
    rng = np.random.default_rng(person.skin.seed + 7)
    depth = np.clip(person.age * 1.5 - 0.05, 0, 1.1)
    x, y, side, front = chart.x, chart.y, np.abs(chart.x), chart.z > 0.7
    warp = 0.05 * noise(rng, chart.points, 0.3, 2)
    wave = 2 * np.pi / rng.uniform(0.10, 0.14)
    forehead = np.sin((y + warp) * wave + rng.uniform(0, 6)) ** 3 * front
    forehead *= spot(chart, (0, 7.82), (0.42, 0.13))
    glabella = np.sin((x + 0.3 * warp) * 2 * np.pi / 0.075 + np.pi / 2) * front
    glabella *= spot(chart, (0, 7.48), (0.07, 0.09))
    dx, dy = side - 0.50, y - 7.27
    feet = np.sin(np.arctan2(dy, dx) * 11 + 6 * warp) * (dx > -0.02)
    feet *= np.exp(-(((np.hypot(dx, dy) - 0.11) / 0.06) ** 2))
    fold = -np.exp(-(((side - (0.26 + (6.93 - y) * 0.42)) / 0.018) ** 2))
    fold *= np.clip((6.95 - y) / 0.06, 0, 1) * np.clip((y - 6.52) / 0.08, 0, 1)
    lid = y - (7.07 + 0.06 * np.abs(side - 0.3) / 0.2)
    bag = -np.exp(-((lid / 0.014) ** 2)) * spot(chart, (0.29, 7.07), (0.12, 0.2))
    strengths = rng.uniform([0.2, 0, 0.2, 0.4, 0.3], 1) * [0.013, 0.006, 0.010, 0.018, 0.012]
    lines = (forehead, glabella, feet, fold, bag)
    return depth * 0.5 * sum(s * line for s, line in zip(strengths, lines, strict=True))
