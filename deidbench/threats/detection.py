"""T6: the attacker asks only whether a face was treated, not whose it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deidbench.statistics import auc

from . import _forensics
from ._embedded import EmbeddedThreat

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from deidbench.types import BoolArray, FaceLesson, FloatArray

    Memory = Mapping[str, NDArray[Any]]

PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the classifier's L2 penalty that are tried."""
PIECE = 64
"""Faces that are described at once."""


class Detection(EmbeddedThreat):
    """A small classifier of clean and treated images: logistic regression on ``_forensics``.

    Its penalty is the one that tells the held people's images apart best. A treatment that can be
    seen is no fault in itself; but where it must not show, this is the number.
    """

    id = "T6"
    title = "detection"
    summary = "Was this face treated? A small classifier learned clean and treated faces of others."
    kind = "detection"
    enrolled = "clean"
    probe = "treated"
    views = ("landmarks",)

    def learn(self, lesson: FaceLesson) -> dict[str, NDArray[Any]]:
        """mean, scale and weights (D,), bias (1,) of a linear score; all faces are learned from."""
        sides = (lesson.clean, lesson.treated)
        features = np.concatenate([_described(side, lesson) for side in sides])
        treated = np.arange(len(features)) >= len(lesson.clean)
        held = np.tile(lesson.held, 2)
        mean, scale = features.mean(0), features.std(0) + 1e-6
        scaled = (features - mean) / scale
        penalty = _best_penalty(scaled, treated, held)
        weights, bias = _fit(scaled, treated, penalty)
        return {"mean": mean, "scale": scale, "weights": weights, "bias": bias}

    def detector(self, memory: Memory) -> Callable[[Tensor], Tensor]:
        """Faces (n, 3, S, S) in [0, 1] to scores (n,), larger = more likely treated."""
        mean, scale, weights = (torch.from_numpy(memory[k]) for k in ("mean", "scale", "weights"))
        bias = float(memory["bias"][0])

        def score(faces: Tensor) -> Tensor:
            scaled = (_forensics.describe(faces).cpu() - mean) / scale
            return scaled @ weights + bias

        return score


def _described(faces: Tensor, lesson: FaceLesson) -> FloatArray:
    """Features of uint8 faces, (M, D) float32."""
    parts = faces.split(PIECE)  # type: ignore[no-untyped-call]
    return np.concatenate(
        [_forensics.describe(part.to(lesson.device).float() / 255).cpu().numpy() for part in parts]
    )


def _best_penalty(features: FloatArray, treated: BoolArray, held: BoolArray) -> float:
    """The one whose classifier, learned from the others, tells the held faces apart best."""
    if not held.any() or held.all():
        return PENALTIES[0]
    areas = []
    for penalty in PENALTIES:
        weights, _ = _fit(features[~held], treated[~held], penalty)
        scores = features[held] @ weights
        areas.append(auc(scores[treated[held]], scores[~treated[held]]))
    return PENALTIES[int(np.argmax(np.round(areas, 4)))]  # the strongest of equals


def _fit(
    features: FloatArray, treated: BoolArray, penalty: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=penalty, max_iter=2000)
    model.fit(features.astype(np.float64), treated)
    return model.coef_[0].astype(np.float32), model.intercept_.astype(np.float32)
