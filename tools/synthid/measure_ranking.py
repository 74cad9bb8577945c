"""Do treatments come in the same order on synthid as on real faces? Spearman's rho, by recognizer.

Each treatment is attacked as T1: clean enrolled, treated probe, landmarks of the clean face.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from measure_faces import (
    BATCH,
    DLIB_DISTANCE,
    Comparisons,
    Faces,
    batches,
    embed,
    load_faces,
    rounded,
    with_interval,
)
from PIL import Image
from torch import Tensor

from deidbench import plugins
from deidbench.alignment import to_float, to_uint8
from deidbench.errors import DeidbenchError
from deidbench.geometry import CHIP_SIZE
from deidbench.split import limit_subjects
from deidbench.types import Sample, subject_digest

if TYPE_CHECKING:
    from deidbench.types import FloatArray

    Numbers = dict[str, Any]

REAL_PEOPLE, REAL_IMAGES = 100, 6
REGISTERED = {
    "gaussian-blur": (0.2, 0.4, 0.7),
    "pixelate": (0.35, 0.5, 0.75),
    "fadenet": (0.5, 0.75, 1.0),
    "blackout": (None,),
}
EYES = (slice(58, 84), slice(34, 126))  # rows and columns of a 160 px chip


@dataclass(frozen=True)
class Treatment:
    """One setting of one method, on float chips (n, 3, S, S); the number is a seed."""

    name: str
    apply: Callable[[Tensor, int], Tensor]


def treatments() -> list[Treatment]:
    """All that are ranked, of several kinds and strengths."""
    own = [
        Treatment("eye bar", lambda faces, _: eye_bar(faces)),
        Treatment("noise 0.2", lambda faces, seed: noise(faces, 0.2, seed)),
        Treatment("noise 0.5", lambda faces, seed: noise(faces, 0.5, seed)),
        Treatment("JPEG quality 5", lambda faces, _: jpeg(faces, 5)),
        Treatment("downscale to 24 px", lambda faces, _: downscale(faces, 24)),
        Treatment("downscale to 12 px", lambda faces, _: downscale(faces, 12)),
    ]
    return [*_registered(), *own]


def _registered() -> Iterator[Treatment]:
    for name, strengths in REGISTERED.items():
        for strength in strengths:
            given = {} if strength is None else {"strength": strength}
            method = plugins.load("methods", name)(**given)
            label = name if strength is None else f"{name} {strength:g}"
            yield Treatment(label, partial(_deidentified, method))


def _deidentified(method: Any, faces: Tensor, seed: int) -> Tensor:
    treated: Tensor = method.deidentify(faces, seed=seed)
    return treated


def eye_bar(faces: Tensor) -> Tensor:
    """A black bar over both eyes."""
    scale = faces.shape[-1] / CHIP_SIZE
    rows, columns = (slice(round(s.start * scale), round(s.stop * scale)) for s in EYES)
    treated = faces.clone()
    treated[..., rows, columns] = 0
    return treated


def noise(faces: Tensor, deviation: float, seed: int) -> Tensor:
    """Gaussian noise on each pixel and colour."""
    drawn = torch.randn(faces.shape, generator=torch.Generator().manual_seed(seed))
    return (faces + deviation * drawn).clamp(0, 1)


def jpeg(faces: Tensor, quality: int) -> Tensor:
    """Through a JPEG file and back."""
    return torch.stack([_through_jpeg(face, quality) for face in to_uint8(faces)])


def _through_jpeg(face: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(face.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return to_float(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))


def downscale(faces: Tensor, side: int) -> Tensor:
    """As a photograph with a small face, enlarged again."""
    small = F.interpolate(faces, size=(side, side), mode="area")
    return F.interpolate(small, size=faces.shape[-2:], mode="bilinear", antialias=False)


def real_faces(folder: Path) -> Faces:
    """At most 6 photographs of each of 100 people, drawn as ``--limit-subjects`` does.

    Raises:
        DeidbenchError: FaDeNet was trained on one of the people.
    """
    samples = plugins.load("datasets", "folder")(str(folder)).samples()
    drawn = limit_subjects(samples, REAL_PEOPLE, seed=0)
    by_person: dict[str, list[Sample]] = defaultdict(list)
    for sample in drawn:
        if sample.fault is None:  # it shows another person than its folder says
            by_person[sample.subject].append(sample)
    trained = set(plugins.load("methods", "fadenet")().training_subjects)
    if any(subject_digest(name) in trained for name in by_person):
        raise DeidbenchError(f"fadenet was trained on people in {folder}. Use other faces.")
    chosen = [one for images in by_person.values() for one in images[:REAL_IMAGES]]
    return load_faces([one.path for one in chosen], [one.subject for one in chosen])


@dataclass(frozen=True)
class Levels:
    """What one recognizer reaches on one set of faces."""

    aucs: FloatArray
    """The T1 AUC of each treatment, (T,)."""
    draws: FloatArray
    """The same in each draw of people, (T, B)."""
    untreated: Numbers


def levels(
    faces: Faces, recognizers: Sequence[Any], *, seed: int, say: Callable[[str], None]
) -> dict[str, Levels]:
    """All treatments against all recognizers, on one set of faces."""
    comparisons = Comparisons.of(faces, seed=seed)
    clean = {one.name: embed(one, faces.chips, faces) for one in recognizers}
    found: dict[str, list[tuple[float, FloatArray]]] = defaultdict(list)
    for treatment in treatments():
        say(f"  {treatment.name}")
        treated = treat(treatment, faces.chips)
        for one in recognizers:
            probe = embed(one, treated, faces)
            scores = comparisons.score(clean[one.name], probe, one.similarity)
            found[one.name].append(comparisons.auc_draws(scores))
    return {
        one.name: Levels(
            np.array([value for value, _ in found[one.name]]),
            np.array([draws for _, draws in found[one.name]]),
            _untreated(one, clean[one.name], comparisons),
        )
        for one in recognizers
    }


def _untreated(recognizer: Any, clean: FloatArray, comparisons: Comparisons) -> Numbers:
    scores = comparisons.score(clean, clean, recognizer.similarity)
    level: Numbers = {"auc": comparisons.auc(scores)}
    if recognizer.name == "dlib":
        level["impostors_within_0.6"] = comparisons.accepted(scores, DLIB_DISTANCE)
    return level


@torch.inference_mode()
def treat(treatment: Treatment, chips: Tensor) -> Tensor:
    """Treated chips, with 8 bits as they would be published."""
    parts = [
        to_uint8(treatment.apply(to_float(chips[rows]), rows.start // BATCH))
        for rows in batches(len(chips))
    ]
    return torch.cat(parts)


def compare_rankings(
    here: Faces, real: Faces, recognizers: Sequence[Any], say: Callable[[str], None]
) -> Numbers:
    """Both sets side by side. People of both are drawn independently of each other."""
    names = [one.name for one in treatments()]
    say(f"{len(names)} treatments on {len(here.names)} images of synthid")
    ours = levels(here, recognizers, seed=0, say=say)
    say(f"and on {len(real.names)} images of real people")
    theirs = levels(real, recognizers, seed=1, say=say)
    trained_against = plugins.load("methods", "fadenet")().trained_against
    return {
        "here": {"people": len(set(here.names)), "images": len(here.names)},
        "real": {"people": len(set(real.names)), "images": len(real.names)},
        "treatments": names,
        "fadenet_trained_against": list(trained_against),
        "recognizers": {
            one.name: _compared(names, ours[one.name], theirs[one.name]) for one in recognizers
        },
    }


def _compared(names: Sequence[str], here: Levels, real: Levels) -> Numbers:
    rho = float(spearman(here.aucs[None], real.aucs[None])[0])
    gap = here.aucs - real.aucs
    largest = int(np.abs(gap).argmax())
    return {
        "spearman": with_interval(rho, spearman(here.draws.T, real.draws.T)),
        "untreated": {"here": here.untreated, "real": real.untreated},
        "here": {name: rounded(auc) for name, auc in zip(names, here.aucs, strict=True)},
        "real": {name: rounded(auc) for name, auc in zip(names, real.aucs, strict=True)},
        "mean_absolute_difference": rounded(np.abs(gap).mean()),
        "largest_difference": {"treatment": names[largest], "value": rounded(gap[largest])},
    }


def spearman(a: FloatArray, b: FloatArray) -> FloatArray:
    """Spearman's rho of each two rows of (B, T) values, (B,); ties share their mean rank."""
    ranks = [pd.DataFrame(rows).rank(axis=1).to_numpy() for rows in (a, b)]
    x, y = (rank - rank.mean(1, keepdims=True) for rank in ranks)
    rho: FloatArray = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return rho
