"""A recognizer that learns, as a whole, to see through a treatment."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deidbench.types import FaceLesson, Similarity

from ._maps import crowd, measurable, pair_auc, unit, whitenings
from ._restorers import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.types import FloatArray, IntArray

    Memory = Mapping[str, NDArray[Any]]

SCALE, MARGIN = 16.0, 0.2
"""Of the cosines in the loss. CosFace has 64 and 0.35 for thousands of people; fewer people are
told apart by smaller ones."""
HEAD_RATE = 1e-3
"""Of what starts anew: the linear layer, and the centre of each person."""
WARM_UP = 0.1
"""Share of the steps during which the rate rises."""
SHIFT, STRAY = 1.5, 0.7
"""Pixels by which landmarks move together and each alone. Recognizers crop by them."""
SHRINKAGE = 0.4
"""Of the scatter within a person, for the first linear layer (``_maps.whitenings``)."""
PIECE = 32
"""Faces that are embedded at once where nothing is learned."""
BASE, WEIGHT, BIAS, CURVE = "base.", "head.weight", "head.bias", "held AUC"
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
MIRRORED = [1, 0, 2, 4, 3]
"""Where each landmark is found in the image flipped left to right."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a recognizer learns."""

    epochs: int
    """Times that each face is seen, clean and treated, if ``steps`` allow it."""
    steps: int
    """At most."""
    batch: int
    """Images a step."""
    rate: float
    looks: int
    """How often the held faces are looked at; the best state counts."""
    judges: int
    """Held faces at most."""

    def steps_for(self, images: int) -> int:
        """How many steps there are."""
        return min(self.steps, self.epochs * math.ceil(images / self.batch))


SMALL = Schedule(epochs=8, steps=120, batch=24, rate=1e-4, looks=8, judges=128)
"""For a CPU: about 80 seconds for sface on two cores, however many faces there are."""
FULL = Schedule(epochs=30, steps=20_000, batch=128, rate=2e-4, looks=15, judges=1024)
"""For a GPU."""


class Tuned(nn.Module):
    """A copy of a recognizer, and a linear layer behind it; its similarity is the cosine.

    Args:
        recognizer: stays as it is.
        memory: the weights of the linear layer, and those of the recognizer that changed.
    """

    similarity: Similarity = "cosine"
    differentiable = True

    def __init__(self, recognizer: Any, memory: Memory) -> None:
        super().__init__()
        self.name, self.version = recognizer.name, recognizer.version
        self.weights_sha256 = fingerprint(recognizer.weights_sha256, recognizer.version, memory)
        self.base: Any = copy.deepcopy(recognizer)
        self.head = nn.Linear(*memory[WEIGHT].shape[::-1])
        parameters = dict(self.base.named_parameters())
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(memory[WEIGHT]))
            self.head.bias.copy_(torch.from_numpy(memory[BIAS]))
            for name in memory:
                if name.startswith(BASE):
                    parameters[name.removeprefix(BASE)].copy_(torch.from_numpy(memory[name]))
        self.requires_grad_(False).eval()

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        """As the recognizer, then the linear layer: (N, D) float32."""
        embeddings: Tensor = self.head(self.base.embed(chips, landmarks))
        return embeddings


class Training:
    """A copy of a recognizer while it learns.

    CosFace (Wang et al. 2018, eq. 4): cosines with one centre a person, less a margin for the own
    one, in a softmax. Clean and treated faces of a person share the centre. Normalisation layers
    stay as they are. Faces are flipped, and cropped by landmarks that stray a little.
    """

    def __init__(self, recognizer: Any, lesson: FaceLesson, schedule: Schedule) -> None:
        self._lesson, self._schedule = lesson, schedule
        self._fit = np.flatnonzero(~lesson.held)
        owner = np.unique(lesson.subjects[self._fit], return_inverse=True)[1]
        self._owner = torch.from_numpy(np.tile(owner, 2))
        self._original = recognizer
        x = np.concatenate(_embedded(recognizer, lesson, self._fit))
        self.tuned = Tuned(recognizer, _whitened(x, self._owner.numpy())).to(lesson.device)
        self._centres = self._first_centres(torch.from_numpy(x).float().to(lesson.device))
        changing = _unfreeze(self.tuned.base)
        fresh = [*self.tuned.head.requires_grad_().parameters(), self._centres]
        self._optimizer = torch.optim.AdamW(
            [{"params": changing, "lr": schedule.rate}, {"params": fresh, "lr": HEAD_RATE}],
            weight_decay=1e-4,
        )
        self._random = torch.Generator().manual_seed(lesson.seed)

    def looks(self) -> Iterator[None]:
        """Stops before the first step, and then as often as the schedule says."""
        yield
        count = self._schedule.steps_for(len(self._owner))
        rates = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _share_of_rate(step, count)
        )
        stops = set(np.linspace(0, count, self._schedule.looks + 1).round().astype(int).tolist())
        for step, rows in zip(range(1, count + 1), self._batches(), strict=False):
            self._step(rows)
            rates.step()
            if step in stops:
                yield

    def memory(self) -> dict[str, Any]:
        """What ``Tuned`` needs to be as it is now: the linear layer and what changed."""
        original = dict(self._original.named_parameters())
        changed = {
            f"{BASE}{name}": value.detach().cpu().numpy().copy()
            for name, value in self.tuned.base.named_parameters()
            if not torch.equal(value, original[name])
        }
        head = self.tuned.head
        weight, bias = (part.detach().cpu().numpy().copy() for part in (head.weight, head.bias))
        return {WEIGHT: weight, BIAS: bias, **changed}

    def _first_centres(self, embeddings: Tensor) -> nn.Parameter:
        """The mean direction of each person's faces."""
        with torch.no_grad():
            directions = F.normalize(self.tuned.head(embeddings), dim=1)
            member = F.one_hot(self._owner).to(directions)
            return nn.Parameter(F.normalize(member.T @ directions, dim=1))

    def _batches(self) -> Iterator[Tensor]:
        """Rows of faces, all clean and then all treated ones, in a new order each time, for ever.

        The last rows of an order that fill no batch wait for another time.
        """
        size = min(self._schedule.batch, len(self._owner))
        while True:
            order = torch.randperm(len(self._owner), generator=self._random)
            yield from order[: len(order) // size * size].reshape(-1, size)

    def _step(self, rows: Tensor) -> None:
        embeddings = self.tuned.embed(*self._seen_anew(rows))
        owner = self._owner[rows].to(self._lesson.device)
        loss = margin_loss(embeddings, self._centres, owner)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _seen_anew(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Faces (n, 3, S, S) in [0, 1], half of them flipped, and their landmarks, astray."""
        lesson, count = self._lesson, len(self._fit)
        source = torch.from_numpy(self._fit)[rows % count]
        treated = (rows >= count)[:, None, None, None]
        faces = torch.where(treated, lesson.treated[source], lesson.clean[source])
        flip = torch.rand(len(rows), generator=self._random) < 0.5
        landmarks = torch.where(
            flip[:, None, None], mirrored(lesson.landmarks, faces.shape[-1])[source],
            lesson.landmarks[source],
        )  # fmt: skip
        together, alone = (
            torch.randn(len(rows), points, 2, generator=self._random) for points in (1, 5)
        )
        landmarks = landmarks + SHIFT * together + STRAY * alone
        faces = torch.where(flip[:, None, None, None], faces.flip(-1), faces)
        return faces.to(lesson.device).float() / 255, landmarks.to(lesson.device)


def fine_tuned(lesson: FaceLesson, recognizer: Any, schedule: Schedule) -> dict[str, Any]:
    """The memory of ``Tuned`` in the state that recognises the held people best.

    Two states compete that were not trained: the recognizer as it is, and with a linear layer in
    which what varies within a person counts less, where training starts. Where the held people make
    no pairs, nothing is learned: nobody could say when to stop.
    """
    recognizer.to(lesson.device)
    judges = np.flatnonzero(crowd(lesson.held, lesson.subjects, schedule.judges))
    if not measurable(lesson.subjects[judges]) or lesson.held.all():
        return {**_untouched(recognizer, lesson), CURVE: np.zeros(0)}
    best = _untouched(recognizer, lesson)
    areas = [_judged(Tuned(recognizer, best).to(lesson.device), lesson, judges)]
    training = Training(recognizer, lesson, schedule)
    for look, _ in enumerate(training.looks()):
        area = _judged(training.tuned, lesson, judges)
        lesson.progress(
            f"fine-tuning {recognizer.name}, {look} of {schedule.looks}: "
            f"AUC among held people {area:.3f}"
        )
        if area > max(areas):
            best = training.memory()
        areas.append(area)
    return {**best, CURVE: np.array(areas)}


def both_sides(
    clean: FloatArray, treated: FloatArray, probe: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Enrolled and probe, (N, 2 D): their cosine is the mean of those of clean and of treated.

    (N, D) each; NaN stays NaN.
    """
    mine, theirs, asked = (unit(np.asarray(x, np.float64)) for x in (clean, treated, probe))
    return np.concatenate([mine, theirs], axis=1), np.concatenate([asked, asked], axis=1)


def margin_loss(embeddings: Tensor, centres: Tensor, owner: Tensor) -> Tensor:
    """CosFace's loss: (n, D), (P, D) and (n,) numbers of centres -> a mean."""
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(centres, dim=1).T
    own = F.one_hot(owner, len(centres))
    return F.cross_entropy(SCALE * (cosines - MARGIN * own), owner)


def mirrored(landmarks: Tensor, size: int) -> Tensor:
    """Landmarks (N, 5, 2) of images flipped left to right: the left eye is now the right."""
    swapped = landmarks[:, MIRRORED]
    return torch.stack([size - 1 - swapped[..., 0], swapped[..., 1]], dim=-1)


def _unfreeze(network: nn.Module) -> list[nn.Parameter]:
    """All weights that are to change: those of normalisation layers are not."""
    owned = [
        parameter
        for module in network.modules()
        if not isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    ]
    for parameter in owned:
        parameter.requires_grad_()
    return owned


def _share_of_rate(step: int, count: int) -> float:
    """Rises in a line, then falls as a cosine does."""
    return min(1, (step + 1) / (WARM_UP * count)) * (1 + math.cos(math.pi * step / count)) / 2


@torch.inference_mode()
def _embedded(embedder: Any, lesson: FaceLesson, rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """Clean and treated embeddings of some faces, (n, D) each."""
    sides = []
    for faces in (lesson.clean, lesson.treated):
        pieces = [
            embedder.embed(
                faces[part].to(lesson.device).float() / 255,
                lesson.landmarks[part].to(lesson.device),
            ).cpu()
            for part in torch.split(torch.from_numpy(rows), PIECE)
        ]
        sides.append(torch.cat(pieces).double().numpy())
    clean, treated = sides
    return clean, treated


def _judged(embedder: Any, lesson: FaceLesson, judges: IntArray) -> float:
    """AUC of the attack among the held people."""
    clean, treated = _embedded(embedder, lesson, judges)
    enrolled, probe = both_sides(clean, treated, treated)
    return pair_auc(enrolled, probe, lesson.subjects[judges], "cosine") or 0.0


def _untouched(recognizer: Any, lesson: FaceLesson) -> dict[str, Any]:
    """The recognizer as it is."""
    width = _embedded(recognizer, lesson, np.arange(1))[0].shape[1]
    return {WEIGHT: np.eye(width, dtype=np.float32), BIAS: np.zeros(width, np.float32)}


def _whitened(x: FloatArray, owner: IntArray) -> dict[str, Any]:
    """A linear layer that centres x (K, D) and lets what varies within a person count less."""
    mean = x.mean(0)
    ((left, right),) = whitenings(x - mean, owner, (SHRINKAGE,))
    matrix = np.eye(len(mean)) + left @ right  # symmetric
    weight, bias = matrix.astype(np.float32), (-mean @ matrix).astype(np.float32)
    return {WEIGHT: weight, BIAS: bias}
