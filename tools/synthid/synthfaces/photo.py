"""From linear light to a photograph: metering, white balance, tone, background, lens, sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from .base import Floats
    from .shot import Shot

WEIGHTS = np.array([0.2126, 0.7152, 0.0722])
# Linear colours of walls, curtains and foliage.
WALLS = np.array(
    [
        (0.62, 0.60, 0.56), (0.45, 0.44, 0.42), (0.30, 0.31, 0.33), (0.52, 0.45, 0.36),
        (0.16, 0.17, 0.19), (0.34, 0.38, 0.43), (0.20, 0.25, 0.20), (0.28, 0.19, 0.13),
        (0.72, 0.72, 0.72), (0.10, 0.13, 0.19), (0.05, 0.05, 0.055), (0.40, 0.36, 0.31),
    ]
)  # fmt: skip


def develop(
    light: Floats, landmarks: Floats, shot: Shot, scenery: Floats, skin_colour: Floats
) -> Image.Image:
    """The finished photograph.

    Args:
        light: linear RGBA of the figure, premultiplied.
        landmarks: (5, 2) pixels; the exposure is metered around them.
        shot: says which random numbers to use.
        scenery: linear panorama of the surroundings, rows from the top.
        skin_colour: mean linear albedo of the face, which says what the light's tint is.
    """
    rng = np.random.default_rng(shot.develop_seed)
    size = len(light)
    alpha = np.clip(light[..., 3:], 0, 1)
    face = _face(light, landmarks)
    gain = _exposure(rng, face, shot.brightness)
    balance = _white_balance(rng, face, skin_colour)
    behind = _scene(rng, scenery, size) if rng.random() < 0.55 else _wall(rng, size)
    linear = light[..., :3] * gain * balance + behind * balance**0.5 * (1 - alpha)
    image = _tone(linear, contrast=rng.uniform(0.92, 1.15), colour=rng.uniform(0.75, 1.05))
    photograph = _to_image(image * 255)
    blur = max(0.0, rng.normal(0.25, 0.25)) * size / 224
    if blur > 0.1:
        photograph = photograph.filter(ImageFilter.GaussianBlur(blur))
    noise = rng.normal(0, rng.uniform(0.5, 3.5), (size, size, 3))
    return _to_image(np.asarray(photograph, np.float32) + noise)


def _to_image(values: Floats) -> Image.Image:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def _face(light: Floats, landmarks: Floats) -> Floats:
    """Linear colours (N, 3) of the pixels around the landmarks."""
    centre = landmarks.mean(0)
    reach = 1.6 * np.linalg.norm(landmarks - centre, axis=1).max()
    y, x = np.mgrid[0 : len(light), 0 : len(light)]
    near = (np.hypot(x - centre[0], y - centre[1]) < reach) & (light[..., 3] > 0.9)
    return np.maximum(light[near][:, :3], 1e-4)


def _exposure(rng: np.random.Generator, face: Floats, brightness: float) -> float:
    """A camera that meters the face, but only partly makes up for dark or pale skin."""
    luminance = face @ WEIGHTS
    wanted = np.exp(rng.normal(np.log(0.21), 0.28))
    gain = (wanted / np.exp(np.log(luminance).mean())) ** 0.55 * brightness
    return float(min(gain, 0.85 / np.percentile(luminance, 97)))


def _white_balance(rng: np.random.Generator, face: Floats, skin_colour: Floats) -> Floats:
    """Takes half of the light's tint back, and errs."""
    tint = face.mean(0) / skin_colour
    tint = tint / (tint @ WEIGHTS)
    error = rng.normal(0, 0.04, 3) * [1, 0.4, 1] + rng.normal(0, 0.08) * np.array([1, 0, -1])
    return np.exp(error) * tint**-0.55


def _tone(linear: Floats, *, contrast: float, colour: float) -> Floats:
    """Linear to display values in [0, 1]: a shoulder for highlights, then the sRGB curve."""
    grey = (linear @ WEIGHTS)[..., None]
    linear = np.maximum(grey + (linear - grey) * colour, 0)
    linear = 0.18 * (linear / 0.18) ** contrast
    bright = linear > 0.5
    linear[bright] = 0.5 + 0.5 * (1 - np.exp(-(linear[bright] - 0.5) / 0.5))
    low = linear <= 0.0031308
    return np.where(low, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def _blurred(linear: Floats, radius: float) -> Floats:
    """Blur of a background; 8 bits of a square root are enough for it."""
    image = _to_image(np.sqrt(np.clip(linear, 0, 1)) * 255)
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
    return soft**2


def _scene(rng: np.random.Generator, scenery: Floats, size: int) -> Floats:
    """A blurred view of the panorama, exposed for itself."""
    width = np.radians(rng.uniform(35, 75))
    line = np.linspace(-0.5, 0.5, size)
    azimuth = rng.uniform(0, 2 * np.pi) + line * width
    elevation = np.radians(rng.uniform(-2, 18)) - line * width
    rows = (0.5 - elevation / np.pi) * scenery.shape[0]
    columns = azimuth / (2 * np.pi) * scenery.shape[1]
    grid = np.meshgrid(rows, columns, indexing="ij")
    view = np.stack(
        [map_coordinates(scenery[..., c], grid, order=1, mode="grid-wrap") for c in range(3)], -1
    )
    mean = float((view @ WEIGHTS).mean()) + 1e-4
    view = view / mean * np.exp(rng.normal(np.log(0.2), 0.55))
    return _blurred(view, rng.uniform(2, 6) * size / 224)


def _wall(rng: np.random.Generator, size: int) -> Floats:
    """A wall in a natural colour with a gradient of light, and sometimes things before it."""
    colour = WALLS[rng.integers(len(WALLS))] * np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.03, 3))
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    fall = np.exp(rng.normal(0, 0.5) * (x * np.cos(angle) + y * np.sin(angle)))
    wall = colour * fall[..., None]
    for _ in range(rng.choice([0, 0, 2, 4, 7])):
        other = WALLS[rng.integers(len(WALLS))] * np.exp(rng.normal(0, 0.2))
        cx, cy = rng.uniform(-0.5, 0.5, 2)
        across, high = rng.uniform(0.03, 0.2), rng.uniform(0.15, 0.8)
        thing = ((np.abs(x - cx) < across) & (np.abs(y - cy) < high))[..., None] * 0.75
        wall = wall * (1 - thing) + other * thing
    return _blurred(wall, rng.uniform(2, 9) * size / 224)
