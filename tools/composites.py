"""Makes photographs with rendered faces at known places, to measure what a detector misses.

Faces are those of synthid, cut out as soft ellipses, turned, resized, and laid on painted
backgrounds; no real person and no real photograph is in them.

Usage: python tools/composites.py FOLDER [--count 100] [--seed 0] [--smallest 20] [--largest 200]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from deidbench.datasets.synthid import SynthID
from deidbench.geometry import CHIP_SIZE, apply, inner_face_box, similarity_transform, warp
from deidbench.geometry import chip_template as template
from deidbench.images import read_image

Picture = NDArray[np.float32]  # (H, W, 3) in [0, 255]

WIDTH, HEIGHT = 1280, 960
MOST_FACES = 6
SMALLEST, LARGEST = 20, 200  # pixels, cheek to cheek
MOST_ROLL = 40.0  # degrees
HEAD = (80.0, 84.0, 66.0, 84.0)  # ellipse in a chip: centre x, y and half axes
FEATHER = 0.12  # of the half axes of the ellipse


@dataclass(frozen=True)
class Face:
    """Where a face lies in a photograph, in pixels."""

    width: float
    """Cheek to cheek, as in deidbench.geometry.inner_face_box."""
    roll: float
    """Degrees."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of the turned oval from brows to chin, cheek to cheek."""
    landmarks: tuple[tuple[float, float], ...]


class Faces:
    """The faces to draw from: pictures of synthid with their exact landmarks."""

    def __init__(self) -> None:
        import csv

        root = SynthID(None).root
        with (root / "samples.csv").open(encoding="utf-8", newline="") as table:
            self._rows = list(csv.DictReader(table))
        self._root = root

    def draw(self, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A picture (1, 3, H, W) in [0, 255] and its landmarks (1, 5, 2)."""
        row = self._rows[random.integers(len(self._rows))]
        names = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        points = [[float(row[f"{name}_{axis}"]) for axis in "xy"] for name in names]
        pixels = torch.from_numpy(read_image(self._root / "images" / row["path"]))
        return pixels.permute(2, 0, 1)[None].float(), torch.tensor([points])


def photograph(
    faces: Faces,
    random: np.random.Generator,
    *,
    count: int | None = None,
    widths: tuple[float, float] = (SMALLEST, LARGEST),
) -> tuple[NDArray[np.uint8], list[Face]]:
    """One photograph of ``count`` faces (1 to 6 unless told), and where they are."""
    canvas = _background(random)
    placed: list[Face] = []
    for _ in range(count or int(random.integers(1, MOST_FACES + 1))):
        width = widths[0] * (widths[1] / widths[0]) ** random.random()
        centre = _free_place(width, placed, random)
        if centre is not None:
            roll = random.uniform(-MOST_ROLL, MOST_ROLL)
            placed.append(lay(canvas, *faces.draw(random), width=width, roll=roll, centre=centre))
    canvas += random.normal(0, random.uniform(0, 4), canvas.shape).astype(np.float32)
    return canvas.clip(0, 255).round().astype(np.uint8), placed


def lay(
    canvas: Picture,
    picture: torch.Tensor,
    landmarks: torch.Tensor,
    *,
    width: float,
    roll: float,
    centre: tuple[float, float],
) -> Face:
    """Lay one head on the canvas, in place; ``centre`` is the middle of its face."""
    left, top, right, bottom = inner_face_box()
    scale = width / (right - left)
    side = 2 * math.ceil(CHIP_SIZE * scale * 0.75)  # the head turns within the square
    corner = (round(centre[0]) - side // 2, round(centre[1]) - side // 2)
    angle = math.radians(roll)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = torch.tensor([(left + right) / 2, (top + bottom) / 2])
    wanted = (template() - middle) @ turn.T * scale + side / 2
    transform = similarity_transform(landmarks, wanted)
    head = warp(picture, transform, side)[0].permute(1, 2, 0).numpy()
    mask = _head_mask(side, turn, scale, middle) * warp(_frame(picture), transform, side)[0, 0]
    _paste(canvas, head, mask.numpy()[..., None], corner)
    half = (width / 2, (bottom - top) * scale / 2)
    reach = [math.hypot(half[0] * math.cos(angle), half[1] * math.sin(angle)),
             math.hypot(half[0] * math.sin(angle), half[1] * math.cos(angle))]  # fmt: skip
    x, y = corner[0] + side / 2, corner[1] + side / 2
    points = apply(transform, landmarks)[0] + torch.tensor(corner)
    return Face(
        width, roll, (x - reach[0], y - reach[1], x + reach[0], y + reach[1]),
        tuple((px, py) for px, py in points.tolist()),
    )  # fmt: skip


def _head_mask(side: int, turn: torch.Tensor, scale: float, middle: torch.Tensor) -> torch.Tensor:
    """1 in the ellipse of the head, 0 outside, soft between: (side, side)."""
    axis = torch.arange(side, dtype=torch.float32) - side / 2
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    chip = grid @ turn / scale + middle
    distance = ((chip - torch.tensor(HEAD[:2])) / torch.tensor(HEAD[2:])).norm(dim=-1)
    return ((1 - distance) / FEATHER).clamp(0, 1)


def _frame(picture: torch.Tensor, soft: int = 16) -> torch.Tensor:
    """0 at the edges of the picture, 1 from ``soft`` pixels on: its frame must not show."""
    ramps = [
        (torch.minimum(axis, axis.flip(0)) / soft).clamp(0, 1)
        for axis in (torch.arange(float(side)) for side in picture.shape[-2:])
    ]
    return (ramps[0][:, None] * ramps[1]).expand(1, 3, -1, -1)


def _paste(canvas: Picture, head: Picture, mask: Picture, corner: tuple[int, int]) -> None:
    x, y = corner
    height, width = canvas.shape[:2]
    rows, columns = slice(max(y, 0), y + len(head)), slice(max(x, 0), x + len(head))
    inner = (slice(max(-y, 0), height - y), slice(max(-x, 0), width - x))
    part = canvas[rows, columns]
    part += (head[inner] - part) * mask[inner]


def _free_place(
    width: float, placed: list[Face], random: np.random.Generator, tries: int = 200
) -> tuple[float, float] | None:
    """A centre at which the face is whole and no other head covers it, or None."""
    margin = width * 0.9
    for _ in range(tries):
        centre = (random.uniform(margin, WIDTH - margin), random.uniform(margin, HEIGHT - margin))
        if all(math.dist(centre, _middle(face)) > 0.95 * (width + face.width) for face in placed):
            return centre
    return None


def _middle(face: Face) -> tuple[float, float]:
    return (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2


def _background(random: np.random.Generator) -> Picture:
    """A gradient, a texture of noise, or shapes; often two of them mixed."""
    painters: list[Callable[[np.random.Generator], Picture]] = [_gradient, _noise, _shapes]
    first, second = random.integers(len(painters), size=2)
    share = random.choice([0.0, 0.3, 0.6])
    return painters[first](random) * (1 - share) + painters[second](random) * share


def _colours(random: np.random.Generator, count: int) -> Picture:
    grey = random.uniform(20, 235, (count, 1))
    return (grey + random.normal(0, 35, (count, 3))).clip(0, 255).astype(np.float32)


def _gradient(random: np.random.Generator) -> Picture:
    corners = _colours(random, 4).reshape(2, 2, 3)
    return _enlarge(corners)


def _noise(random: np.random.Generator) -> Picture:
    """Noise of several grains, each twice as fine and weaker."""
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for octave in range(2, 9):
        grain = random.normal(0, 1, (3 * 2**octave // 4, 2**octave, 3)).astype(np.float32)
        canvas += _enlarge(grain) * 0.7**octave
    canvas *= random.uniform(20, 60) / canvas.std()
    return (canvas + _colours(random, 1)).clip(0, 255)


def _shapes(random: np.random.Generator) -> Picture:
    """Rectangles and ellipses of all sizes, as of furniture, windows, plates and lamps."""
    from PIL import ImageDraw

    picture = Image.fromarray(_gradient(random).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for colour in _colours(random, int(random.integers(20, 120))).astype(int):
        x, y = random.uniform(0, WIDTH), random.uniform(0, HEIGHT)
        w, h = np.exp(random.uniform(np.log(8), np.log(300), 2))
        draw = random.choice([pen.rectangle, pen.ellipse])
        draw((x, y, x + w, y + h), fill=tuple(colour))
    return np.asarray(picture, np.float32)


def _enlarge(grid: Picture) -> Picture:
    tensor = torch.from_numpy(grid).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(
        tensor, (HEIGHT, WIDTH), mode="bilinear", align_corners=True
    )
    return large[0].permute(1, 2, 0).numpy()


def main() -> None:
    """Write the photographs and composites.json, which says where their faces are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smallest", type=float, default=SMALLEST, help="Width, in pixels.")
    parser.add_argument("--largest", type=float, default=LARGEST)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    faces = Faces()
    places = {}
    for index in range(options.count):
        name = f"{index:03}.jpg"
        random = np.random.default_rng([options.seed, index])
        widths = (options.smallest, options.largest)
        pixels, placed = photograph(faces, random, widths=widths)
        Image.fromarray(pixels).save(options.folder / name, quality=92)
        places[name] = [asdict(face) for face in placed]
    (options.folder / "composites.json").write_text(json.dumps(places, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
