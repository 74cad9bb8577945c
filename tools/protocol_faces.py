"""The figures of docs/numbers.md that show faces: of the embedded set, which shows no real person.

Drawn by protocol_figures.py. Numbers in them are those of the program's own metrics and detectors.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deidbench import plugins
from deidbench.alignment import Aligner, to_float, to_uint8
from deidbench.datasets.synthid import SynthID
from deidbench.geometry import apply
from deidbench.images import read_image
from deidbench.metrics.head_pose import head_pose
from deidbench.truth import Classifier
from deidbench.types import Sample

COLOURS = 112  # of a palette: keeps a picture below 60 kB
INK, SOFT, BEFORE, AFTER = "#1c2430", "#556070", "#39c0ff", "#ffb000"
GOOD, BAD = "#00805e", "#c44e00"
ANGLES = "yaw", "pitch", "roll"
SIDE = 1.28  # inches of a face
STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK,
                         "text.parse_math": False}  # fmt: skip
PERSON = "id008/02.jpg"
TURNED = "id003/03.jpg"


@functools.cache
def aligner() -> Aligner:
    """MTCNN, loaded once."""
    return Aligner()


@functools.cache
def samples() -> dict[str, Sample]:
    """The embedded set by id."""
    return {sample.id: sample for sample in SynthID(None).samples()}


def photos(*ids: str) -> tuple[Tensor, Tensor, Tensor]:
    """Chips (N, 3, S, S), their landmarks, and the way from photograph to chip."""
    aligned = aligner()([read_image(samples()[name].path) for name in ids])
    return to_float(aligned.chips), aligned.landmarks, aligned.transforms


def treat(faces: Tensor, name: str, **settings: float) -> Tensor:
    """Treated by one of the program's own methods."""
    treated: Tensor = plugins.load("methods", name)(**settings).deidentify(faces, seed=0)
    return treated


def landmarks(faces: Tensor) -> Tensor:
    """Where MTCNN finds eyes, nose and mouth on chips; NaN without a face: (N, 5, 2)."""
    pixels = to_uint8(faces).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(np.asarray(aligner().detect(list(pixels), chips=True), np.float32))


def metric(name: str) -> Any:
    """One of the program's own metrics."""
    return plugins.load("metrics", name)()


# Building blocks


def strip(
    faces: Tensor, above: Sequence[str], below: Sequence[str], rows: int = 1
) -> tuple[Figure, NDArray[Any]]:
    """Faces side by side with a line of text above and one below each."""
    columns = len(faces) // rows
    width, height = columns * SIDE, rows * (SIDE + 0.5)
    figure = Figure(figsize=(width, height), dpi=100)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, face, over, under in zip(grid, faces, above, below, strict=True):
        axes.imshow(face.permute(1, 2, 0).numpy(), interpolation="lanczos")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(over, fontsize=9.5, color=SOFT, pad=3)
        axes.set_xlabel(under, fontsize=10.5, weight="bold", color=INK, labelpad=3)
    figure.subplots_adjust(0.01, 0.27 / height, 0.99, 1 - 0.24 / height, 0.04, 0.5)
    return figure, grid


def save(draw: Callable[[], Figure], path: Path) -> None:
    """As a PNG of few colours."""
    with mpl.rc_context(STYLE):
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def points(axes: Axes, places: Tensor, marker: str, colour: str) -> None:
    """Five landmarks on a face."""
    axes.scatter(*places.T.numpy(), marker=marker, s=34, linewidths=1.7,
                 **({"c": colour} if marker == "x" else
                    {"facecolors": "none", "edgecolors": colour}))  # fmt: skip


def box(axes: Axes, corners: Tensor, colour: str) -> None:
    """A detector's box: left, top, right, bottom."""
    left, top, right, bottom = corners.tolist()
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=2,
                             edgecolor=colour))  # fmt: skip


# Likeness to the original


@functools.cache
def changed() -> tuple[Tensor, Tensor, list[str]]:
    """One face five times, changed four times, and what was done."""
    face, _, _ = photos(PERSON)
    moved = torch.roll(face, (3, 3), (2, 3))
    faces = [face, (1.25 * face).clamp(0, 1), moved, treat(face, "gaussian-blur", strength=0.45),
             treat(face, "pixelate", strength=0.6)]  # fmt: skip
    return face.expand(5, -1, -1, -1), torch.cat(faces), [
        "original", "brighter", "moved 3 pixels", "blurred", "pixelated",
    ]  # fmt: skip


def likeness(name: str, digits: int = 2, unit: str = "") -> Figure:
    """The same five faces with the values of a metric."""
    original, faces, said = changed()
    values = metric(name)(original, faces).tolist()
    below = ["unchanged" if np.isinf(value) else f"{value:.{digits}f}{unit}" for value in values]
    return strip(faces, said, below)[0]


# Detectors


def _found(finds: Callable[[Tensor], Tensor], corners: Callable[[Tensor], Tensor]) -> Figure:
    face, _, _ = photos(PERSON)
    strengths = (0.0, 0.5, 0.65, 0.8, 0.95)
    faces = torch.cat([treat(face, "pixelate", strength=strength) for strength in strengths])
    there = finds(faces).tolist()
    figure, grid = strip(faces, ["original", *["pixelated"] * 4],
                         ["found" if one else "not found" for one in there])  # fmt: skip
    for axes, one, where in zip(grid, there, corners(faces), strict=True):
        axes.xaxis.label.set_color(GOOD if one else BAD)
        if one:
            box(axes, where, BEFORE)
    return figure


def detection_rate() -> Figure:
    """What MTCNN still finds."""

    def around(faces: Tensor) -> Tensor:
        found = landmarks(faces)
        return torch.cat([found.amin(1) - 18, found.amax(1) + 18], 1)

    return _found(lambda faces: landmarks(faces).isfinite().flatten(1).all(1), around)


def face_found_yunet() -> Figure:
    """What YuNet still finds."""
    yunet = metric("face-found-yunet")

    def boxes(faces: Tensor) -> Tensor:
        found: Tensor = yunet.boxes(faces, faces)[0]
        return found

    return _found(lambda faces: boxes(faces).isfinite().all(1), boxes)


def box_iou_yunet() -> Figure:
    """Boxes before and after treatment."""
    face, _, _ = photos(PERSON)
    faces = torch.cat([treat(face, "gaussian-blur", strength=0.4),
                       treat(face, "pixelate", strength=0.5),
                       torch.roll(face, (14, 22), (2, 3))])  # fmt: skip
    originals = face.expand(3, -1, -1, -1)
    overlap = metric("box-iou-yunet")
    before, after = overlap.boxes(originals, faces)
    below = [f"IoU {value:.2f}" for value in overlap(originals, faces).tolist()]
    figure, grid = strip(faces, ["blurred", "pixelated", "moved"], below)
    for axes, one, two in zip(grid, before, after, strict=True):
        box(axes, one, BEFORE)
        box(axes, two, AFTER)
    return figure


# Landmarks


def landmark_error() -> Figure:
    """Landmarks before and after, and how far they moved."""
    face, places, _ = photos(PERSON)
    faces = torch.cat([treat(face, "gaussian-blur", strength=0.3),
                       treat(face, "gaussian-blur", strength=0.6),
                       treat(face, "pixelate", strength=0.65)])  # fmt: skip
    found = landmarks(faces)
    values = metric("landmark-error")(places.expand(3, -1, -1), found).tolist()
    figure, grid = strip(faces, ["blurred", "blurred more", "pixelated"],
                         [f"{value:.3f}" for value in values])  # fmt: skip
    for axes, after in zip(grid, found, strict=True):
        points(axes, places[0], "o", BEFORE)
        points(axes, after, "x", AFTER)
    return figure


def head_pose_change() -> Figure:
    """Where a face seems to look, before and after."""
    face, places, _ = photos(TURNED)
    faces = torch.cat([face, treat(face, "gaussian-blur", strength=0.5),
                       treat(face, "pixelate", strength=0.5)])  # fmt: skip
    found = torch.cat([places, landmarks(faces[1:])])
    before = found[:1].expand(3, -1, -1)
    turns = [metric(f"head-pose-{axis}")(before, found).tolist() for axis in ANGLES]
    each = [" ".join(f"{turn:.0f}°" for turn in face) for face in zip(*turns, strict=True)]
    figure, grid = strip(
        faces, ["original", "blurred", "pixelated"], [", ".join(ANGLES), *each[1:]]
    )
    for axes, nose, angles in zip(grid, found[:, 2], head_pose(found), strict=True):
        tip = nose + 90 * torch.sin(torch.deg2rad(angles[:2]))
        look = {"arrowstyle": "-|>", "color": AFTER, "linewidth": 2.5}
        axes.annotate("", tip.tolist(), nose.tolist(), arrowprops=look)
    return figure


def landmark_error_to_truth() -> Figure:
    """True landmarks and those that MTCNN finds on the clean and on the treated face."""
    face, places, transforms = photos(PERSON)
    truth = apply(transforms, torch.from_numpy(SynthID(None).truth()[PERSON])[None].float())
    treated = treat(face, "pixelate", strength=0.65)
    found = torch.cat([places, landmarks(treated)])
    values = metric("landmark-error")(truth.expand(2, -1, -1), found).tolist()
    figure, grid = strip(torch.cat([face, treated]), ["clean", "treated"],
                         [f"{value:.3f}" for value in values])  # fmt: skip
    for axes, places_found in zip(grid, found, strict=True):
        points(axes, truth[0], "o", BEFORE)
        points(axes, places_found, "x", AFTER)
    return figure


# Expressions


def expression_accuracy() -> Figure:
    """What the classifier of a run reads on clean and on treated faces of people it never saw."""
    ids = ("id004/02.jpg", "id008/03.jpg", "id012/05.jpg", "id016/04.jpg", "id019/06.jpg")
    clean, _, _ = photos(*ids)
    faces = torch.cat([clean, treat(clean, "pixelate", strength=0.5)])
    read = _classifier()
    truth = [samples()[name].labels["expression"].replace("_", " ") for name in ids]
    said = [word.replace("_", " ") for word in read(faces)]
    figure, grid = strip(faces, [*truth, *["pixelated"] * 5], said, rows=2)
    for axes, word, right in zip(grid, said, truth * 2, strict=True):
        axes.xaxis.label.set_color(GOOD if word == right else BAD)
    return figure


def _classifier() -> Callable[[Tensor], list[str]]:
    """As ``deidbench.truth`` makes it: from clean faces of people who are not measured."""
    seer = metric("lpips")
    known = [s for s in samples().values() if s.split in ("method-train", "attacker-train")]
    features, labels = [], []
    for start in range(0, len(known), 32):
        some = known[start : start + 32]
        aligned = aligner()([read_image(sample.path) for sample in some])
        with torch.inference_mode():
            features.append(seer.features(to_float(aligned.chips))[aligned.found])
        labels += [s.labels["expression"] for s, there in zip(some, aligned.found, strict=True)
                   if there]  # fmt: skip
    model = Classifier(torch.cat(features).numpy(), labels)
    names = np.array(sorted(set(labels)))

    def read(faces: Tensor) -> list[str]:
        with torch.inference_mode():
            seen = seer.features(faces).numpy()
        hits = np.stack([model.hits(seen, np.full(len(faces), name)) for name in names])
        return [str(name) for name in names[hits.argmax(0)]]

    return read


PANELS: dict[str, Callable[[], Figure]] = {
    "lpips": lambda: likeness("lpips"),
    "lpips-vgg": lambda: likeness("lpips-vgg"),
    "ssim": lambda: likeness("ssim"),
    "ms-ssim": lambda: likeness("ms-ssim"),
    "psnr": lambda: likeness("psnr", 1, " dB"),
    "detection-rate": detection_rate,
    "face-found-yunet": face_found_yunet,
    "box-iou-yunet": box_iou_yunet,
    "landmark-error": landmark_error,
    "head-pose": head_pose_change,
    "landmark-error-to-truth": landmark_error_to_truth,
    "expression-accuracy": expression_accuracy,
}
