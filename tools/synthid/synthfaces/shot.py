"""What changes from photograph to photograph: pose, expression, light, camera, hair, clothes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .people import NEXT_DRAW

if TYPE_CHECKING:
    from .person import Person

HDRIS = ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")
GLASSES_SHARE = 0.12


def _both(**units: float) -> dict[str, float]:
    return {f"{unit}{side}": x for unit, x in units.items() for side in ("Left", "Right")}


# Face units and how often the expression is drawn.
EXPRESSIONS: dict[str, tuple[float, dict[str, float]]] = {
    "neutral": (3, _both(mouthSmile=0.10)),
    "slight_smile": (2, _both(mouthSmile=0.45, cheekSquint=0.3)),
    "smile": (2, _both(mouthSmile=0.85, cheekSquint=0.6, eyeSquint=0.3)),
    "open_smile": (
        2,
        _both(mouthSmile=0.8, mouthUpperUp=0.35, eyeSquint=0.25) | {"jawOpen": 0.14},
    ),
    "talk": (1.5, {"jawOpen": 0.2, "mouthFunnel": 0.15}),
    "surprise": (
        0.8,
        _both(browOuterUp=0.6, eyeWide=0.5) | {"browInnerUp": 0.7, "jawOpen": 0.25},
    ),
    "frown": (0.7, _both(browDown=0.45, mouthFrown=0.5, mouthPress=0.3)),
    "press": (1, _both(mouthPress=0.6) | {"mouthShrugLower": 0.3}),
    "smirk": (
        1,
        {"mouthSmileLeft": 0.6, "mouthDimpleRight": 0.2, "browOuterUpLeft": 0.3},
    ),
    "squint": (0.7, _both(eyeSquint=0.65, browDown=0.25)),
}


@dataclass(frozen=True)
class Lamp:
    """A square area light; degrees, decimetres, and an energy around 1."""

    azimuth: float
    elevation: float
    size: float
    energy: float
    warmth: float


@dataclass(frozen=True)
class Light:
    """An environment and lamps under one name."""

    name: str
    hdri: str
    turn: float
    gain: float
    lamps: tuple[Lamp, ...]


@dataclass(frozen=True)
class Clothes:
    """A pullover: neckline height and depth of its V, in decimetres of the base mesh."""

    colour: tuple[float, ...]
    neckline: float
    vee: float


@dataclass(frozen=True)
class Glasses:
    """A frame: half sizes in decimetres; a roundness of 2 is an ellipse, 4 nearly a rectangle."""

    width: float
    height: float
    roundness: float
    tube: float
    colour: tuple[float, ...]


@dataclass(frozen=True)
class Shot:
    """One photograph."""

    expression: str
    units: dict[str, float]
    yaw: float
    pitch: float
    roll: float
    gaze: tuple[float, float]
    looks_at_camera: bool
    focal: float
    frame: float
    """Width of what is seen at the distance of the face, in decimetres."""
    shift: tuple[float, float]
    camera_pitch: float
    light: Light
    style: str
    part: float
    clothes: Clothes
    glasses: Glasses | None
    brightness: float
    develop_seed: int
    hair_seed: int


def sample_shot(seed: int, candidate: int, draw: int, person: Person) -> Shot:
    """Photograph ``draw`` of a person; 0 (and 100, 200, ...) is a calm, nearly frontal one."""
    rng = np.random.default_rng([seed, candidate, draw])
    calm = draw % NEXT_DRAW == 0
    expression, units = _expression(rng, calm=calm)
    return Shot(
        expression=expression, units=units,
        yaw=float(np.clip(rng.normal(0, 6 if calm else 12), -26, 26)),
        pitch=float(np.clip(rng.normal(0, 3 if calm else 5.5), -12, 12)),
        roll=float(np.clip(rng.normal(0, 4), -12, 12)),
        gaze=(float(rng.normal(0, 4)), float(rng.normal(0, 2.5))),
        looks_at_camera=bool(rng.random() < 0.75),
        focal=float(np.exp(rng.uniform(np.log(40), np.log(120)))),
        frame=float(rng.uniform(2.9, 3.25)),
        shift=tuple(map(float, np.clip(rng.normal(0, 0.035, 2), -0.08, 0.08))),
        camera_pitch=float(np.clip(rng.normal(0, 4), -9, 9)),
        light=_light(rng),
        style=str(rng.choice(person.hair.styles, p=(0.55, 0.25, 0.2))),
        part=float(person.hair.part * rng.uniform(0.6, 1.3) * rng.choice([1, 1, 1, -1])),
        clothes=_clothes(rng),
        glasses=_glasses(rng) if rng.random() < GLASSES_SHARE else None,
        brightness=1.05,
        develop_seed=int(rng.integers(1 << 30)), hair_seed=int(rng.integers(1 << 30)),
    )  # fmt: skip


def plain_shot(person: Person) -> Shot:
    """A frontal, calm photograph in soft light: only the person differs."""
    lamps = (Lamp(35, 35, 4, 1, 0.02), Lamp(-50, 15, 6, 0.6, 0))
    return Shot(
        expression="neutral", units=EXPRESSIONS["neutral"][1], yaw=0, pitch=0, roll=0,
        gaze=(0, 0), looks_at_camera=True, focal=85, frame=2.8, shift=(0, 0), camera_pitch=0,
        light=Light("plain", "studio", 0, 0.8, lamps), style=person.hair.styles[0],
        part=person.hair.part, clothes=Clothes((0.2, 0.2, 0.22), 5.8, 0), glasses=None,
        brightness=0.75, develop_seed=3, hair_seed=3,
    )  # fmt: skip


def _expression(rng: np.random.Generator, *, calm: bool) -> tuple[str, dict[str, float]]:
    share = np.array([weight for weight, _ in EXPRESSIONS.values()])
    drawn = str(rng.choice(list(EXPRESSIONS), p=share / share.sum()))
    name = "neutral" if calm else drawn
    gain = rng.uniform(0.6, 1.05)
    units = {u: float(x * gain * rng.uniform(0.85, 1.15)) for u, x in EXPRESSIONS[name][1].items()}
    blink = float(np.clip(rng.normal(-0.02, 0.07), 0, 0.2))
    # The mesh's neutral eyes look sleepy, so they are opened a little.
    opened = {"eyeWideLeft": 0.18, "eyeWideRight": 0.18}
    return name, opened | units | {"eyeBlinkLeft": blink, "eyeBlinkRight": blink}


def _light(rng: np.random.Generator) -> Light:
    side = float(rng.choice([-1, 1]))
    warmth = float(rng.normal(0, 0.06))
    near = float(rng.uniform(0.8, 1.2))
    fill = Lamp(-side * float(rng.uniform(25, 55)), 8, 8, float(rng.uniform(0.3, 0.55)), 0)
    setups: dict[str, tuple[float, tuple[Lamp, ...]]] = {
        "soft": (0.9, (Lamp(side * 20 * near, 50, 9, 0.6, warmth),)),
        "window": (0.45, (Lamp(side * 55 * near, 15, 7, 1, -0.03), fill)),
        "key-fill": (0.45, (Lamp(side * 38 * near, 38, 3, 1, warmth), fill)),
        "flash": (0.4, (Lamp(side * 6, 10 * near, 1.2, 0.9, 0.0),)),
        "sun": (0.8, (Lamp(side * 40 * near, 48, 0.8, 1, 0.06), fill)),
        "lamp": (0.35, (Lamp(side * 30 * near, 25, 2, 1, 0.12), fill)),
        "rim": (
            0.6,
            (Lamp(side * 140, 35, 3, 1.2, warmth), Lamp(-side * 25, 25, 6, 0.8, warmth)),
        ),
    }
    name = str(rng.choice(list(setups)))
    gain, lamps = setups[name]
    return Light(
        name, str(rng.choice(HDRIS)), float(rng.uniform(0, 360)),
        float(gain * rng.uniform(0.8, 1.25)), lamps,
    )  # fmt: skip


def _clothes(rng: np.random.Generator) -> Clothes:
    grey = np.exp(rng.uniform(np.log(0.015), np.log(0.65)))
    tint = np.exp(rng.normal(0, 0.28, 3))
    return Clothes(
        colour=tuple(map(float, np.clip(grey * tint, 0.008, 0.8))),
        neckline=float(rng.choice([5.72, 5.8, 5.86, 6.0]) + rng.normal(0, 0.02)),
        vee=float(rng.choice([0, 0, 0.9]) * rng.uniform(0.6, 1.2)),
    )


def _glasses(rng: np.random.Generator) -> Glasses:
    colours = ((0.01, 0.01, 0.012), (0.06, 0.03, 0.015), (0.3, 0.28, 0.25), (0.03, 0.03, 0.08))
    return Glasses(
        width=float(rng.uniform(0.235, 0.275)),
        height=float(rng.uniform(0.17, 0.22)),
        roundness=float(rng.choice([2.2, 3, 4.5])),
        tube=float(rng.uniform(0.007, 0.014)),
        colour=colours[rng.integers(4)],
    )
