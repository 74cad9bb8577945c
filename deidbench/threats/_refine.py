"""A small network behind each side of an attack, trained to tell people apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from deidbench.types import FloatArray, IntArray

WIDTH = 256
"""Of the hidden layer."""
RATE, DECAY = 5e-4, 1.0
TEMPERATURE = 0.1
BETWEEN = 5
"""Steps between two looks at how far it is."""
LOOKS = 12
CROWD = 512
"""Faces that one step looks at, at most."""


@dataclass(frozen=True)
class Network:
    """z + relu(z inner + bias) outer: a step away from what is there."""

    inner: FloatArray
    """(K, H)."""
    bias: FloatArray
    """(H,)."""
    outer: FloatArray
    """(H, K)."""

    def __call__(self, z: FloatArray) -> FloatArray:
        """(N, K) to (N, K); NaN stays NaN."""
        moved: FloatArray = z + np.maximum(z @ self.inner + self.bias, 0) @ self.outer
        return moved


def trained(
    enrolled: FloatArray, probe: FloatArray, subjects: IntArray, *, looks: int, seed: int
) -> list[tuple[Network, Network]]:
    """The networks of both sides as they are after each look: ``looks`` pairs.

    Supervised contrastive loss (Khosla et al. 2020, eq. 2) between the sides: other images of the
    same person are positives, an image and its own treated version are left out.

    Args:
        enrolled, probe: (M, K), rows of length 1. subjects: (M,).
    """
    import torch

    scale = math.sqrt(enrolled.shape[1])  # entries of size 1 suit the first weights
    sides = [torch.from_numpy(side * scale).float() for side in (enrolled, probe)]
    owner = torch.from_numpy(np.unique(subjects, return_inverse=True)[1])
    generator = torch.Generator().manual_seed(seed)
    networks = [_first_weights(enrolled.shape[1], generator) for _ in sides]
    optimizer = torch.optim.AdamW(
        [weight for one in networks for weight in one], lr=RATE, weight_decay=DECAY
    )
    seen = []
    for step in range(looks * BETWEEN):
        rows = _whole_people(owner, generator)
        moved = [_moved(side[rows], weights) for side, weights in zip(sides, networks, strict=True)]
        optimizer.zero_grad()
        contrast(moved[0], moved[1], owner[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % BETWEEN == BETWEEN - 1:
            first, second = (_exported(weights, scale) for weights in networks)
            seen.append((first, second))
    return seen


def contrast(enrolled: Tensor, probe: Tensor, owner: Tensor) -> Tensor:
    """The loss of n faces, (n, K) each: 0 where there is no positive at all."""
    import torch
    import torch.nn.functional as F

    itself = torch.eye(len(owner), dtype=torch.bool)
    positive = (owner[:, None] == owner) & ~itself
    scores = F.normalize(enrolled, dim=1) @ F.normalize(probe, dim=1).T / TEMPERATURE
    scores = scores.masked_fill(itself, -1e4)
    share = positive / positive.sum(1, keepdim=True).clamp(min=1)
    both = scores.log_softmax(1), scores.T.log_softmax(1)
    return -sum(((share * one).sum() for one in both), torch.zeros(())) / len(owner)


def _first_weights(width: int, generator: Tensor | object) -> list[Tensor]:
    """Hidden weights at random, the outer ones zero: at first nothing is moved."""
    import torch

    inner = torch.randn(width, WIDTH, generator=generator) / math.sqrt(width)  # type: ignore[call-overload]
    weights = [inner, torch.zeros(WIDTH), torch.zeros(WIDTH, width)]
    return [weight.requires_grad_() for weight in weights]


def _moved(x: Tensor, weights: list[Tensor]) -> Tensor:
    inner, bias, outer = weights
    return x + (x @ inner + bias).relu() @ outer


def _whole_people(owner: Tensor, generator: object) -> Tensor:
    """Rows of as many people, drawn at random, as make at most CROWD faces; two at least."""
    import torch

    counts = torch.bincount(owner)
    drawn = torch.randperm(len(counts), generator=generator)  # type: ignore[call-overload]
    enough = max(int((counts[drawn].cumsum(0) <= CROWD).sum()), 2)
    return torch.isin(owner, drawn[:enough]).nonzero()[:, 0]


def _exported(weights: list[Tensor], scale: float) -> Network:
    inner, bias, outer = (weight.detach().double().numpy().copy() for weight in weights)
    return Network(inner * scale, bias, outer / scale)
