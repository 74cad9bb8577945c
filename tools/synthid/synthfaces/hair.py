"""Hair as strands that follow a direction field and are kept outside the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from .geometry import unit, vertex_normals
from .skin import beard_mask, brow_mask, noise, scalp_mask

if TYPE_CHECKING:
    from .base import Floats, Ints
    from .figure import Figure
    from .person import Hair, Person
    from .shot import Shot

DOWN = np.array([0, -1.0, 0])


@dataclass(frozen=True)
class Style:
    """How hair is cut and combed; lengths in dm."""

    length: float
    lift: float
    comb: str
    count: int = 7000
    gravity: float = 0.0
    away: float = 0.03
    segments: int = 8
    side: float = 1.0
    """Length at the sides, relative to the crown."""
    curl: float = 0.0
    wave: float = 0.0
    radius: float = 0.013


STYLES: dict[str, Style | None] = {
    "bald": None,
    "buzz": Style(0.06, 0.8, "down", away=0, segments=3, radius=0.009),
    "crew": Style(0.17, 0.75, "forward", away=0.01, segments=4, side=0.5, radius=0.010),
    "short": Style(0.38, 0.35, "forward", gravity=0.1, segments=6, side=0.35),
    "spiky": Style(0.42, 0.9, "up", gravity=0, segments=6, side=0.3),
    "side": Style(0.75, 0.25, "part", gravity=0.12, away=0.04, side=0.3),
    "quiff": Style(0.7, 0.75, "back", gravity=0.05, away=0.05, side=0.22),
    "slick": Style(1.0, 0.12, "back", gravity=0.1, away=0.03, segments=9, side=0.5),
    "receding": Style(0.35, 0.25, "back", 5600, 0.1, 0.02, 6, 0.5),
    "fringe": Style(0.58, 0.18, "fringe", gravity=0.3, away=0.05, segments=9, side=0.5),
    "short_curly": Style(0.42, 0.7, "down", 6500, 0.05, 0.06, 10, 0.6, 1.0),
    "curly": Style(0.9, 0.5, "down", 6000, 0.12, 0.1, 14, 0.5, 0.9),
    "afro": Style(0.6, 1.0, "none", 7200, 0, 0.3, 14, 0.8, 1.0),
    "medium": Style(1.7, 0.2, "part", 6400, 0.45, 0.08, 12),
    "pixie": Style(0.62, 0.22, "fringe", 7000, 0.25, 0.06, 9, 0.6),
    "bob": Style(2.2, 0.2, "part", 6400, 0.6, 0.1, 14),
    "wavy_bob": Style(2.1, 0.3, "part", 6400, 0.55, 0.14, 18, wave=1.0),
    "long": Style(4.2, 0.15, "part", 6400, 0.7, 0.08, 18),
    "longside": Style(4.0, 0.25, "part", 6400, 0.6, 0.1, 18, wave=0.5),
    "wavy": Style(3.4, 0.3, "part", 6400, 0.6, 0.14, 22, wave=1.2),
    "swept": Style(3.2, 0.3, "back", 6400, 0.45, 0.1, 18),
    "curly_long": Style(3.2, 0.35, "part", 6000, 0.55, 0.16, 24, curl=0.8),
    "fringe_long": Style(3.6, 0.12, "bangs", 6800, 0.65, 0.06, 16),
    "tied": Style(1.3, 0.02, "tie", 6400, away=0.02, segments=10),
    "bun": Style(1.3, 0.02, "tie", 6400, away=0.02, segments=10),
}
TIES = {"tied": np.array([0, 7.55, -0.62]), "bun": np.array([0, 8.2, -0.35])}
SCALP_TINT = {"bald": 0.18, "buzz": 0.75, "crew": 0.8, "receding": 0.8}


@dataclass(frozen=True)
class Strands:
    """(N, points, 3) strands of one kind, and their radius at the root."""

    material: str
    points: Floats
    radius: float


@dataclass(frozen=True)
class Roots:
    """Where strands begin: (N, 3) positions, normals, and places on the base mesh."""

    at: Floats
    normals: Floats
    canonical: Floats


@dataclass(frozen=True)
class _Surface:
    points: Floats
    normals: Floats
    tree: cKDTree


def grow_all(figure: Figure, body: Floats, person: Person, shot: Shot) -> list[Strands]:
    """Hair, brows and beard of an unposed head with its expression."""
    rng = np.random.default_rng(shot.hair_seed)
    normals = vertex_normals(body, figure.quads)
    out = []
    style = STYLES[shot.style]
    if style is not None:
        roots = _roots(
            rng, figure, body, lambda p: scalp_mask(p, person.hair, 0.15) > 0.3, style.count
        )
        solid = (figure.canonical[:, 1] > 4.6) & (figure.regions["ears"] < 0.3)
        solid &= figure.regions["inner"] < 0.3
        surface = _Surface(body[solid], normals[solid], cKDTree(body[solid]))
        points = grow(rng, roots, shot.style, person.hair, shot.part, surface)
        out.append(Strands("hair", points, style.radius))
        if shot.style in TIES:
            out.append(Strands("hair", _knot(rng, TIES[shot.style]), style.radius))
    brow = person.brow
    count = int(1500 * brow.density * max(0.6, brow.thick))
    roots = _roots(rng, figure, body, lambda p: brow_mask(brow, p), count)
    out.append(Strands("brow", _brow_strands(rng, roots), 0.0024))
    return out + _beard(rng, figure, body, person.hair)


def _beard(rng: np.random.Generator, figure: Figure, body: Floats, hair: Hair) -> list[Strands]:
    if hair.beard in ("none", "stubble"):
        return []
    full = hair.beard == "full"
    length = hair.beard_length if full else min(0.09, hair.beard_length)
    count = {"full": 5000, "goatee": 1500, "moustache": 350}[hair.beard]
    share = 0.5 if hair.beard == "moustache" else 0.8
    roots = _roots(rng, figure, body, lambda p: share * beard_mask(p, hair.beard), count)
    return [Strands("beard", _beard_strands(rng, roots, length), 0.003)]


def _roots(
    rng: np.random.Generator,
    figure: Figure,
    body: Floats,
    mask: Callable[[Floats], Floats],
    count: int,
) -> Roots:
    """Area-weighted roots on the head where ``mask`` of the base position allows."""
    quads, canonical = figure.head_quads, figure.canonical
    triangles: Ints = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    a, b, c = (canonical[triangles[:, k]] for k in range(3))
    # A triangle counts if any of its corners or its middle could carry a root.
    near = sum(np.asarray(mask(p.T), float) for p in (a, b, c, (a + b + c) / 3)) > 0
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) * near
    if area.sum() <= 0:
        return Roots(*(np.zeros((0, 3)) for _ in range(3)))
    chosen = triangles[rng.choice(len(triangles), count * 4, p=area / area.sum())]
    r1, r2 = np.sqrt(rng.random((count * 4, 1))), rng.random((count * 4, 1))
    weights = np.hstack([1 - r1, r1 * (1 - r2), r1 * r2])[..., None]
    places = (canonical[chosen] * weights).sum(1)
    kept = np.flatnonzero(rng.random(len(places)) < mask(places.T))[:count]
    corner = body[chosen[kept]]
    normals = unit(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]))
    return Roots((corner * weights[kept]).sum(1), normals, places[kept])


def grow(
    rng: np.random.Generator, roots: Roots, name: str, hair: Hair, part: float, surface: _Surface
) -> Floats:
    """Strands (N, segments + 1, 3) of a style."""
    style = STYLES[name]
    if style is None or not len(roots.at):
        return np.zeros((0, 2, 3))
    n = len(roots.at)
    length = style.length * rng.uniform(0.8, 1.1, n)
    length *= 1 + 0.15 * noise(rng, roots.canonical.T, 0.4, 2)
    length *= np.interp(
        roots.canonical[:, 1], [6.9, 7.7, 8.2], [style.side, min(1, style.side + 0.15), 1]
    )
    comb = np.zeros((n, 3))
    if style.comb != "none":
        comb, length = _comb(rng, roots, name, part, np.maximum(length, 0.03))
    points = _march(rng, roots, style, comb, length, surface)
    curl = style.curl * (0.5 + 0.5 * hair.curl) + 0.25 * hair.curl * (style.length > 0.5)
    points = _curled(rng, points, curl, style.wave, length)
    if style.length > 0.3 and style.comb != "none":
        points = _clump(rng, points)
    return _trim(points, roots, style)


def _comb(
    rng: np.random.Generator, roots: Roots, name: str, part: float, length: Floats
) -> tuple[Floats, Floats]:
    """Direction in which each strand is combed, and its length."""
    style = STYLES[name]
    kind = style.comb if style is not None else "none"
    x, y, z = roots.canonical.T
    n, one = len(x), np.ones(len(x))
    drop = np.where(y < 7.9, 0.8, 0)
    away = np.sign(x - part + 0.02 * rng.normal(size=n))
    fields = {
        "forward": (0.35 * x, -0.15 - drop, np.where(y > 7.9, 1, 0.3)),
        "fringe": (0.25 * x + 0.35 * np.sign(part), -0.25 - 0.8 * (z > 1) - drop, 1.0 * (y > 7.6)),
        "back": (0.2 * x, 0.35 * (z > 0.9) - 0.9 * drop, -one),
        "part": (away, -0.25 - drop, np.where(z > 0.8, 0, -0.25)),
        "bangs": (away, -0.4 * one, -0.2 * one),
        "down": (0.3 * x, -one, 0.3 * (z - 0.5)),
        "up": (0.8 * x, 0.6 * one, 0.25 * one),
        "tie": (0 * x, 0 * x, 0 * x),
    }
    comb = np.stack(fields[kind], 1)
    if kind == "bangs":
        bang = _is_bang(roots)
        comb[bang] = np.stack([0.15 * x, -0.5 * one, one], 1)[bang]
        length = np.where(bang, rng.uniform(0.40, 0.55, n), length)
    if kind == "tie":
        comb = TIES[name] - roots.at
        length = np.linalg.norm(comb, axis=1) * 1.25
    wild = np.stack([noise(rng, roots.canonical.T, 0.3, 2) for _ in range(3)], 1)
    return unit(unit(comb) + 0.12 * wild + 0.08 * rng.normal(size=(n, 3))), length


def _is_bang(roots: Roots) -> Floats:
    return (roots.canonical[:, 2] > 0.85) & (np.abs(roots.canonical[:, 0]) < 0.62)


def _march(
    rng: np.random.Generator,
    roots: Roots,
    style: Style,
    comb: Floats,
    length: Floats,
    surface: _Surface,
) -> Floats:
    """Take the steps along each strand."""
    n = len(roots.at)
    point, points = roots.at.copy(), [roots.at]
    direction = unit(style.lift * roots.normals + (1 - style.lift) * comb)
    distance = style.away * rng.uniform(0.1, 1, n)
    curtain = style.comb in ("part", "bangs")
    free = ~_is_bang(roots) if style.comb == "bangs" else np.ones(n, bool)
    for i in range(style.segments):
        t = (i + 1) / style.segments
        hang = np.clip(length * t / 0.9, 0, 1)[:, None]  # it falls once past the crown
        wish = comb * (1 - hang) + style.gravity * DOWN * (0.3 + 2.2 * hang)
        direction = unit(direction * 0.6 + 0.55 * wish + 0.03 * rng.normal(size=(n, 3)))
        point = point + direction * (length / style.segments)[:, None]
        point, direction = _keep_out(point, direction, distance, style, t, surface)
        if curtain:
            point = _free_the_face(point, free)
        points.append(point)
    return np.stack(points, 1)


def _keep_out(
    point: Floats,
    direction: Floats,
    distance: Floats,
    style: Style,
    t: float,
    surface: _Surface,
) -> tuple[Floats, Floats]:
    """Push points out of the head, and hold combed hair near it above the jaw."""
    _, nearest = surface.tree.query(point)
    normal = surface.normals[nearest]
    outside = ((point - surface.points[nearest]) * normal).sum(1)
    low = distance * min(1, t * 2.5) + 0.012
    push = np.clip(low - outside, 0, 0.5)
    if style.comb == "none":
        return point, direction
    if style.lift < 0.7:
        loose = np.clip(outside - low - 0.05 - 0.10 * t, 0, 0.4)
        push = push - 0.75 * loose * (point[:, 1] > 6.3)
    inward = np.minimum(0, (direction * normal).sum(1))[:, None] * normal
    direction = unit(direction - inward * (outside < low + 0.02)[:, None])
    return point + normal * push[:, None], direction


def _free_the_face(point: Floats, free: Floats) -> Floats:
    """Draw the curtain of long hair to the sides."""
    x, y, z = point.T
    zone = (z > 0.62) & (y < 7.85) & free
    wide = np.interp(y, [6.2, 7.2, 7.85], [0.74, 0.70, 0.40])
    need = np.clip(wide - np.abs(x), 0, 0.25) * zone
    return point + np.stack([np.sign(x) * need, 0 * need, -0.35 * need], 1)


def _curled(
    rng: np.random.Generator, points: Floats, curl: float, wave: float, length: Floats
) -> Floats:
    """Wind each strand around its own course."""
    if curl < 0.05 and not wave:
        return points
    n, steps, _ = points.shape
    t = np.linspace(0, 1, steps)
    along = unit(np.gradient(points, axis=1))
    across = unit(np.cross(along, [0.01, 1.0, 0.01]))
    phase, turns = rng.uniform(0, 2 * np.pi, (n, 1)), rng.uniform(4, 8, (n, 1))
    angle = phase + t * turns * (length[:, None] / 0.7 if curl > 0.3 else 1.2)
    size = (0.09 * curl + 0.05 * wave) * np.minimum(1, t * 2)
    wound = np.cos(angle)[..., None] * across
    wound = wound + np.sin(angle)[..., None] * np.cross(along, across)
    return points + size[None, :, None] * wound


def _clump(rng: np.random.Generator, points: Floats) -> Floats:
    """Draw strands towards a guide near them that goes the same way."""
    n, steps, _ = points.shape
    guides = points[rng.choice(n, max(40, n // 22), replace=len(points) < 40)]
    _, nearest = cKDTree(guides[:, 0]).query(points[:, 0])
    guide = guides[nearest]
    shift = (points[:, 0] - guide[:, 0])[:, None]
    # Guides across a parting or beyond the ear would drag strands through the air.
    same = (unit(points[:, -1] - points[:, 0]) * unit(guide[:, -1] - guide[:, 0])).sum(1)
    close = np.linalg.norm(points[:, -1] - guide[:, -1] - shift[:, 0], axis=1)
    alike = (same > 0.75) & (close < 0.5)
    pull = np.linspace(0, 1, steps)[None, :, None] ** 1.2 * rng.uniform(0.15, 0.6, (n, 1, 1))
    pull = pull * alike[:, None, None]
    return points * (1 - pull) + (guide + shift * 0.6) * pull


def _trim(points: Floats, roots: Roots, style: Style) -> Floats:
    """End strands before the eyes, and short hair before the neck and the cheek."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    bad = (x < 0.60) & (z > 0.85) & (y < 7.56)
    if style.length < 1.2:
        bad |= (y < 6.55) | ((y < 7.0) & (z > 0.45))
        bad |= y < roots.canonical[:, 1:2] - 0.9
    steps = points.shape[1]
    first = np.where(bad.any(1), bad.argmax(1), steps)
    last = np.minimum(np.arange(steps)[None], np.maximum(first - 1, 0)[:, None])
    return points[np.arange(len(points))[:, None], last]


def _knot(rng: np.random.Generator, centre: Floats, count: int = 900) -> Floats:
    """A ball of wound hair."""
    axis = unit(rng.normal(size=(count, 3)) * [1, 0.6, 1])
    first = unit(np.cross(axis, rng.normal(size=(count, 3))))
    second = np.cross(axis, first)
    angle = np.linspace(0, np.pi * 1.2, 12)[None, :, None]
    radius = (0.33 * rng.uniform(0.7, 1, (count, 1)))[..., None]
    ring = first[:, None] * np.cos(angle) + second[:, None] * np.sin(angle)
    return centre + [0, 0.05, -0.1] + radius * ring * [1, 0.85, 0.9]


def _brow_strands(rng: np.random.Generator, roots: Roots) -> Floats:
    n = len(roots.at)
    side, distance = np.sign(roots.canonical[:, 0]), np.abs(roots.canonical[:, 0])
    t = np.clip((distance - 0.12) / 0.45, 0, 1)
    lie = np.stack([side * (0.35 + 0.8 * t), 0.7 - 1.1 * t, -0.2 * np.ones(n)], 1)
    lie += 0.18 * rng.normal(size=(n, 3))
    normal = roots.normals
    lie = unit(lie - (lie * normal).sum(1, keepdims=True) * normal + 0.32 * normal)
    length = rng.uniform(0.035, 0.075, n)[:, None]
    tip = roots.at + (lie - 0.35 * normal) * length
    return np.stack([roots.at, roots.at + lie * length * 0.5, tip], 1)


def _beard_strands(rng: np.random.Generator, roots: Roots, length: float) -> Floats:
    n = len(roots.at)
    x, y = roots.canonical[:, 0], roots.canonical[:, 1]
    aside = np.stack([0.3 * np.sign(x) * (np.abs(x) < 0.3), 0 * x, 0 * x], 1)
    lie = unit(0.55 * roots.normals + 0.7 * DOWN + aside + 0.3 * rng.normal(size=(n, 3)))
    reach = length * rng.uniform(0.5, 1.1, n) * np.interp(y, [6.2, 6.9], [1.2, 0.5])
    tip = roots.at + unit(lie + 0.35 * DOWN) * reach[:, None]
    return np.stack([roots.at, roots.at + lie * reach[:, None] * 0.5, tip], 1)
