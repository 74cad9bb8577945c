"""What the measurements of synthid share: faces, embeddings, and numbers with intervals by person.

Used by measure.py and measure_ranking.py, which lie beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from deidbench import plugins, statistics
from deidbench.alignment import Aligner, to_float
from deidbench.errors import AssetUnavailableError
from deidbench.images import read_image
from deidbench.pairs import PairList, cross_pairs, score

if TYPE_CHECKING:
    from deidbench.types import BoolArray, FloatArray, IntArray

    Numbers = dict[str, Any]

RECOGNIZERS = ("dlib", "sface", "mobilefacenet-ms1m", "mobilefacenet-casia")
BATCH = 32
DRAWS = 1000
DECIMALS = 5  # of what is written down: more would differ from machine to machine
FAR = 0.01
DLIB_DISTANCE = 0.6  # up to it dlib's author takes two faces for one person
GREY = 0.5

# Half of the outline of brows, cheeks and jaw: (share of the way down from eye to mouth, shares of
# the distance between a chip's eyes to go outwards and down from there).
OUTLINE = (
    (0, -0.2, -0.42), (0, 0.22, -0.34), (0, 0.36, 0), (0.5, 0.34, 0), (1, 0.26, 0),
    (1, 0.06, 0.28), (1, -0.2, 0.43),
)  # fmt: skip
NARROWING = 3.6  # how fast the far side of a turned head gets narrow, by the shift of the nose


@dataclass(frozen=True)
class Faces:
    """N photographs as chips, in the order of their paths."""

    chips: Tensor
    """(N, 3, 160, 160) uint8; zeros where no face was found."""
    landmarks: Tensor
    """(N, 5, 2) in chip pixels."""
    in_photo: FloatArray
    """(N, 5, 2) the same in pixels of the photograph; NaN where no face was found."""
    found: BoolArray
    mean_colour: FloatArray
    """(N, 3) of the whole photograph, in [0, 1]."""
    names: Sequence[str]
    """The person in each photograph."""

    @property
    def subjects(self) -> IntArray:
        """Each photograph's person as a number from 0, (N,)."""
        numbers: IntArray = np.unique(np.array(self.names), return_inverse=True)[1]
        return numbers

    def take(self, rows: Sequence[int]) -> Faces:
        """Some of the photographs."""
        kept = list(rows)
        return Faces(
            self.chips[kept], self.landmarks[kept], self.in_photo[kept], self.found[kept],
            self.mean_colour[kept], [self.names[row] for row in kept],
        )  # fmt: skip


class _PhotoAligner(Aligner):
    """An aligner that also keeps the landmarks in pixels of the photographs."""

    def __init__(self) -> None:
        super().__init__()
        self.in_photo: list[FloatArray] = []

    def detect(self, images: Sequence[Any], *, chips: bool = False) -> FloatArray:
        """As ``Aligner.detect``."""
        points = super().detect(images, chips=chips)
        self.in_photo.append(points)
        return points


def load_faces(paths: Sequence[Path], names: Sequence[str]) -> Faces:
    """Find and align the face in each photograph, as an evaluation does."""
    aligner = _PhotoAligner()
    parts, colours = [], []
    for rows in batches(len(paths)):
        images = [read_image(path) for path in paths[rows]]
        parts.append(aligner(images))
        colours += [image.mean((0, 1)) / 255 for image in images]
    return Faces(
        torch.cat([part.chips for part in parts]),
        torch.cat([part.landmarks for part in parts]),
        np.concatenate(aligner.in_photo),
        torch.cat([part.found for part in parts]).numpy(),
        np.array(colours),
        list(names),
    )


def batches(count: int) -> Iterator[slice]:
    """Consecutive rows, ``BATCH`` at a time."""
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))


def load_recognizers(names: Sequence[str] = RECOGNIZERS) -> tuple[list[Any], list[str]]:
    """Those whose weights can be had, and the names of the others."""
    ready, missing = [], []
    for name in names:
        try:
            ready.append(plugins.load("recognizers", name)())
        except AssetUnavailableError:
            missing.append(name)
    return ready, missing


@torch.inference_mode()
def embed(recognizer: Any, chips: Tensor, faces: Faces) -> FloatArray:
    """Embeddings (N, D) of chips that lie as those of ``faces``; NaN where no face was found."""
    parts = [
        recognizer.embed(to_float(chips[rows]), faces.landmarks[rows].nan_to_num(1.0))
        for rows in batches(len(chips))
    ]
    embeddings: FloatArray = torch.cat(parts).numpy()
    embeddings[~faces.found] = np.nan
    return embeddings


def masked(faces: Faces) -> Tensor:
    """The chips with all grey outside an outline of brows, cheeks and jaw."""
    size = faces.chips.shape[-1]
    inside = [
        _filled(outline(points), size) if found else np.zeros((size, size), bool)
        for points, found in zip(faces.landmarks.numpy(), faces.found, strict=True)
    ]
    grey = torch.tensor(round(GREY * 255), dtype=torch.uint8)
    return torch.where(torch.from_numpy(np.stack(inside))[:, None], faces.chips, grey)


def outline(landmarks: FloatArray) -> list[tuple[float, float]]:
    """A polygon around the inner face, from the landmarks (5, 2) in a chip.

    Its far side is narrower in a turned head, so that neither hair nor background is inside.
    """
    eyes, mouth = landmarks[:2], landmarks[3:]
    unit = float(np.linalg.norm(eyes[1] - eyes[0]))
    turn = (landmarks[2, 0] - (eyes.mean(0) + mouth.mean(0))[0] / 2) / unit
    sides = []
    for side, outwards in ((0, -1), (1, 1)):
        width = float(np.clip(1 - NARROWING * outwards * turn, 0.05, 1))
        sides.append(
            [
                (
                    eyes[side, 0] * (1 - down) + mouth[side, 0] * down
                    + outwards * unit * (x * width if x > 0 else x),
                    eyes[side, 1] * (1 - down) + mouth[side, 1] * down + unit * y,
                )
                for down, x, y in OUTLINE
            ]
        )  # fmt: skip
    return sides[0] + sides[1][::-1]


def _filled(polygon: list[tuple[float, float]], size: int) -> BoolArray:
    picture = Image.new("L", (size, size))
    ImageDraw.Draw(picture).polygon(polygon, fill=255)
    return np.array(picture) > 0


@dataclass(frozen=True)
class Comparisons:
    """All cross-image comparisons of some photographs, and the draws of people for intervals."""

    pairs: PairList
    subjects: IntArray
    weights: FloatArray

    @classmethod
    def of(cls, faces: Faces, *, draws: int = DRAWS, seed: int = 0) -> Comparisons:
        """Each two photographs once, the sides changing places."""
        subjects = faces.subjects
        pairs = cross_pairs(range(len(subjects)), subjects)
        count = int(subjects.max()) + 1
        return cls(pairs, subjects, statistics.draw_weights(count, draws=draws, seed=seed))

    @property
    def people(self) -> tuple[IntArray, IntArray]:
        """The person on each side of each comparison."""
        return self.subjects[self.pairs.reference], self.subjects[self.pairs.probe]

    def score(self, enrolled: FloatArray, probe: FloatArray, similarity: str) -> FloatArray:
        """Similarity of each comparison, -inf where a face was lost: it never matches."""
        scores = score(enrolled, probe, self.pairs, similarity)
        return np.where(np.isnan(scores), -np.inf, scores)

    def auc(self, scores: FloatArray, kept: BoolArray | None = None) -> Numbers:
        """AUC with its interval; of the comparisons in ``kept`` (default: all)."""
        value, draws = self.auc_draws(scores, kept)
        return with_interval(value, draws)

    def auc_draws(
        self, scores: FloatArray, kept: BoolArray | None = None
    ) -> tuple[float, FloatArray]:
        """AUC, and its value in each draw of people."""
        kept = np.ones(len(scores), bool) if kept is None else kept
        metric = plugins.load("metrics", "auc")()
        a, b = self.people
        counts = statistics.count_scores(scores[kept], a[kept], b[kept], self.weights)
        same = self.pairs.same[kept]
        value = metric(genuine=scores[kept][same], impostor=scores[kept][~same])
        return value, metric.from_counts(counts)

    def accepted(self, scores: FloatArray, distance: float) -> float:
        """Share of the impostors at a distance of at most this."""
        return rounded((scores[~self.pairs.same] >= -distance).mean())

    def verification(self, scores: FloatArray) -> Numbers:
        """AUC, EER, and TAR at FAR 0.01 with the threshold of the same comparisons."""
        same = self.pairs.same
        sides = {"genuine": scores[same], "impostor": scores[~same]}
        threshold = statistics.threshold_at_far(sides["impostor"], FAR).value
        counts = statistics.count_scores(scores, *self.people, self.weights, [threshold])
        found = {
            name: with_interval(metric(**sides), metric.from_counts(counts))
            for name, metric in ((n, plugins.load("metrics", n)()) for n in ("auc", "eer"))
        }
        tar = float(np.mean(sides["genuine"] >= threshold))
        return found | {"tar_at_far_0.01": with_interval(tar, _tar_draws(counts))}


def _tar_draws(counts: Any) -> FloatArray:
    """TAR at FAR 0.01 in each draw, which has its own threshold: between the edges, a line."""
    shares = []
    for weights in (counts.impostor, counts.genuine):
        above = np.cumsum(weights[:, ::-1], axis=1)
        shares.append(np.pad(above / above[:, -1:], ((0, 0), (1, 0))))
    rows = zip(*shares, strict=True)
    return np.array([np.interp(FAR, fmr, tar) for fmr, tar in rows])


def with_interval(value: float, draws: FloatArray) -> Numbers:
    """A number and its 95 % interval by person."""
    low, high = statistics.interval(draws)
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def rounded(value: float) -> float:
    """A plain number with as many digits as are written down."""
    return round(float(value), DECIMALS)
