"""What stays the same in all photographs of a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import base, targets
from .geometry import eyeball
from .people import BANDS, STRATA

if TYPE_CHECKING:
    from .base import Floats

STRENGTH = 0.41  # standard deviation of the shape targets
STYLES_MALE = [
    "bald",
    "buzz",
    "crew",
    "short",
    "side",
    "quiff",
    "spiky",
    "slick",
    "short_curly",
    "curly",
    "receding",
    "fringe",
    "medium",
]
STYLES_FEMALE = [
    "bob",
    "wavy_bob",
    "long",
    "longside",
    "swept",
    "wavy",
    "tied",
    "bun",
    "fringe_long",
    "curly_long",
    "pixie",
    "short_curly",
    "medium",
]
HAIR_COLOURS = ((0.09, 0.045, 0.02), (0.30, 0.19, 0.09), (0.20, 0.065, 0.02), (0.05, 0.028, 0.015))
BLUE_IRISES = ((0.12, 0.2, 0.3), (0.14, 0.2, 0.1), (0.2, 0.22, 0.22))
BROWN_IRISES = ((0.07, 0.03, 0.012), (0.03, 0.014, 0.007), (0.13, 0.06, 0.02))


@dataclass(frozen=True)
class Brow:
    """The eyebrows, in decimetres of the base mesh."""

    thick: float
    arch: float
    inner: float
    height: float
    tilt: float
    length: float
    density: float


@dataclass(frozen=True)
class Skin:
    """Pigments and marks; 0 to about 1 each."""

    melanin: float
    haemoglobin: float
    yellow: float
    blotch: float
    freckles: float
    moles: int
    lip_red: float
    makeup: float
    under_eye: float
    rough: float
    seed: int


@dataclass(frozen=True)
class Hair:
    """Hair of the head and the face."""

    colour: tuple[float, ...]
    brow_colour: tuple[float, ...]
    styles: tuple[str, ...]
    hairline: float
    recede: float
    part: float
    curl: float
    beard: str
    beard_length: float
    stubble: float


@dataclass(frozen=True)
class Person:
    """One candidate."""

    male: bool
    band: str
    ancestry: str
    age: float
    macro: dict[str, float]
    details: dict[str, float]
    skin: Skin
    hair: Hair
    brow: Brow
    iris: tuple[float, ...]

    def vertices(self, mesh: base.BaseMesh) -> Floats:
        """The whole mesh in this person's shape, with the eyes at their fixed place."""
        shaped = base.morph(base.morph(mesh.vertices, self.macro), self.details)
        middle = 0.5 * (eyeball(shaped, "eye_l")[0] + eyeball(shaped, "eye_r")[0])
        return shaped - (middle - base.EYE_MIDDLE)


def sample_person(seed: int, candidate: int) -> Person:
    """The candidate with this number; its stratum follows from the number."""
    rng = np.random.default_rng([seed, candidate])
    gender, ancestry, band = STRATA[candidate % len(STRATA)]
    male = gender == "male"
    age = float(rng.uniform(*BANDS[band]))
    shares = _shares(rng, ancestry)
    weight = float(np.clip(rng.normal(0.52, 0.22), 0.08, 0.97))
    muscle = float(np.clip(rng.normal(0.5, 0.17), 0.15, 0.85))
    manly = float(np.clip(rng.normal(0.92 if male else 0.08, 0.08), 0, 1))
    skin = _skin(rng, male, shares)
    hair = _hair(rng, male, age, shares)
    return Person(
        male=male, band=band, ancestry=ancestry, age=age,
        macro=base.macro_weights(manly, age, shares, weight, muscle),
        details=_details(rng, age), skin=skin, hair=hair, brow=_brow(rng, male),
        iris=_iris(rng, shares["caucasian"]),
    )  # fmt: skip


def _shares(rng: np.random.Generator, ancestry: str) -> dict[str, float]:
    """A mixture of three in which ``ancestry`` has the largest share."""
    names = ("african", "asian", "caucasian")
    alpha = np.where(np.array(names) == ancestry, 2.6, 0.25)
    while True:
        shares = dict(zip(names, map(float, rng.dirichlet(alpha)), strict=True))
        if shares[ancestry] > 0.5:
            return shares


def _signed(weights: dict[str, float], spec: str, value: float) -> None:
    stem, low, high = spec.split("|")
    name = stem + (high if value > 0 else low)
    weights[name] = weights.get(name, 0) + abs(value)


def _details(rng: np.random.Generator, age: float) -> dict[str, float]:
    weights: dict[str, float] = {}
    most = 2.0 * STRENGTH
    for spec in targets.SINGLE:
        value = np.clip(rng.normal(0, STRENGTH), -most, most) * targets.gentleness(spec)
        _signed(weights, spec, float(value))
    for spec in targets.PAIRED:
        common = rng.normal(0, STRENGTH)
        for side in "lr":
            value = np.clip(common + rng.normal(0, STRENGTH * 0.16), -most, most)
            _signed(weights, spec.format(s=side), float(value * targets.gentleness(spec)))
    for name in rng.choice(targets.HEAD_SHAPES, 2, replace=False):
        weights[str(name)] = float(rng.uniform(0, 0.5))
    for name in rng.choice(targets.UNEVEN, 7, replace=False):
        weights[f"{name}-{rng.choice(['l', 'r'])}"] = float(rng.uniform(0, 0.4))
    weights["head/head-age-incr"] = age * float(rng.uniform(0, 0.5))
    weights["head/head-age-decr"] = max(0.0, 0.25 - age) * 1.2
    return weights


def _skin(rng: np.random.Generator, male: bool, shares: dict[str, float]) -> Skin:
    african, asian, caucasian = (shares[k] for k in ("african", "asian", "caucasian"))
    base_melanin = 0.15 * caucasian + 0.25 * asian + 0.82 * african
    melanin = float(np.clip(base_melanin + rng.normal(0, 0.05 + 0.09 * african), 0.07, 1))
    freckled = max(0.0, rng.normal(0.55 * caucasian, 0.45)) * (melanin < 0.32)
    return Skin(
        melanin=melanin,
        haemoglobin=float(np.clip(rng.normal(0.58, 0.17), 0.2, 1)),
        yellow=float(np.clip(rng.normal(0.4 + 0.3 * asian, 0.15), 0, 1)),
        blotch=float(rng.uniform(0.3, 1.3)),
        freckles=float(freckled),
        moles=int(rng.poisson(2.2)),
        lip_red=float(rng.uniform(0.15, 1)),
        makeup=float((not male) * max(0.0, rng.normal(0.1, 0.35))),
        under_eye=float(rng.uniform(0, 1)),
        rough=float(rng.uniform(0.5, 0.72)),
        seed=int(rng.integers(1 << 30)),
    )


def _hair_colour(rng: np.random.Generator, age: float, caucasian: float) -> Floats:
    if rng.random() < 1 - 0.6 * caucasian:
        colour = np.array([0.016, 0.011, 0.008]) * rng.uniform(0.5, 2.4)
    else:
        colour = np.array(HAIR_COLOURS[rng.integers(4)]) * rng.uniform(0.7, 1.4)
    grey = np.clip((age - 0.5) * 2.4 + rng.normal(0.1, 0.25), 0, 1) if age > 0.38 else 0
    return (1 - grey) * colour + grey * 0.42


def _hair(rng: np.random.Generator, male: bool, age: float, shares: dict[str, float]) -> Hair:
    colour = _hair_colour(rng, age, shares["caucasian"])
    styles = list(STYLES_MALE if male else STYLES_FEMALE)
    if shares["african"] > 0.5:
        straight = {"fringe", "medium", "fringe_long", "side", "slick", "swept", "longside"}
        styles = [s for s in styles if s not in straight] + ["afro"] * (1 + (not male))
    beards = ["none", "none", "stubble", "stubble", "full", "goatee", "moustache"]
    return Hair(
        colour=tuple(map(float, colour)),
        brow_colour=tuple(map(float, colour * rng.uniform(0.5, 0.95))),
        styles=tuple(map(str, rng.choice(sorted(set(styles)), 3, replace=False))),
        hairline=float(rng.normal(0, 0.06)),
        recede=float(max(0.0, rng.normal(0.1 + 0.5 * age, 0.28)) if male else 0),
        part=float(rng.choice([-1, 1]) * rng.uniform(0.12, 0.5)),
        curl=float(np.clip(rng.normal(0.2 + 0.85 * shares["african"], 0.22), 0, 1)),
        beard=str(rng.choice(beards)) if male else "none",
        beard_length=float(rng.uniform(0.05, 0.22)),
        stubble=float(rng.uniform(0.05, 0.9)) if male else 0.0,
    )


def _brow(rng: np.random.Generator, male: bool) -> Brow:
    return Brow(
        thick=float(rng.uniform(0.45, 1.3) * (1.15 if male else 0.8)),
        arch=float(rng.uniform(0, 1.2)),
        inner=float(rng.normal(0.01, 0.025)),
        height=float(rng.normal(0.02, 0.025)),
        tilt=float(np.clip(rng.normal(-0.035, 0.025), -0.09, 0.01)),
        length=float(rng.uniform(0.82, 1.12)),
        density=float(rng.uniform(0.3, 0.9)),
    )


def _iris(rng: np.random.Generator, caucasian: float) -> tuple[float, ...]:
    blue = rng.random() < 0.55 * caucasian
    colour = np.array((BLUE_IRISES if blue else BROWN_IRISES)[rng.integers(3)])
    return tuple(map(float, colour * rng.uniform(0.7, 1.3)))
