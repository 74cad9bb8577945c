"""A small residual U-Net that learns what a method did to faces, and takes it back.

Ronneberger, Fischer, Brox 2015, arXiv 1505.04597; folded pixels: Shi et al. 2016, arXiv 1609.05158.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pixel_shuffle, pixel_unshuffle, silu

from ._restorers import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deidbench.types import FaceLesson

    Guess = Callable[[Tensor], Tensor]  # treated faces to what they may have been

VERSION = 1
CLIP = 1.0  # norm of a gradient


@dataclass(frozen=True)
class Schedule:
    """How the network learns. Its length is in steps, so that its time does not grow with M."""

    steps: int = 760
    batch: int = 8
    rate: float = 2e-3
    width: int = 32
    looks: int = 8
    """How often the held faces are looked at; the best state of these counts."""
    shown: int = 64
    """Held faces that are looked at, at most."""


def schedule_for(device: str) -> Schedule:
    """Less than a minute on two cores for chips of 160 pixels; a wider network on a GPU."""
    return Schedule() if device == "cpu" else Schedule(steps=1500, batch=16, width=64)


class UNet(nn.Module):
    """What to add to a first guess, by treated faces and the guess: two (N, 3, S, S) in [0, 1]."""

    fold = 4
    """The side of a picture must be a multiple of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        folded, widths = 3 * self.fold**2, [width, 2 * width, 4 * width]
        self.enter = nn.Conv2d(2 * folded, width, 1)
        self.down = nn.ModuleList(_Block(one) for one in widths)
        self.widen = nn.ModuleList(nn.Conv2d(one, 2 * one, 1) for one in widths[:-1])
        self.narrow = nn.ModuleList(nn.Conv2d(2 * one, one, 1) for one in widths[:-1])
        self.up = nn.ModuleList(_Block(one) for one in widths[:-1])
        self.leave = nn.Conv2d(width, folded, 1)
        nn.init.zeros_(self.leave.weight)  # the first answer is the guess itself
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, treated: Tensor, guess: Tensor) -> Tensor:
        """(N, 3, S, S), not clipped."""
        x = self.enter(pixel_unshuffle(torch.cat([treated, guess], 1) - 0.5, self.fold))
        x = self._inner(x, 0)  # (N, W, S/4, S/4)
        return guess + pixel_shuffle(self.leave(x), self.fold) / 4

    def _inner(self, x: Tensor, level: int) -> Tensor:
        """(N, 2^level W, h, w) -> the same, by way of all deeper levels."""
        x = self.down[level](x)
        if level == len(self.widen):
            return x
        deeper = self._inner(avg_pool2d(self.widen[level](x), 2), level + 1)
        x = x + interpolate(self.narrow[level](deeper), size=x.shape[-2:], mode="nearest")
        out: Tensor = self.up[level](x)
        return out


class _Block(nn.Module):
    """Two convolutions beside a shortcut; at first it changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.two(silu(self.one(silu(x))))
        return out


class UNetRestorer:
    """A restorer that guesses, and corrects the guess. Memory: the state of a ``UNet``."""

    name = "unet"

    def __init__(self, memory: Mapping[str, NDArray[Any]], guess: Guess) -> None:
        told = {"guess": np.array(getattr(guess, "fingerprint", "")), **memory}
        self.fingerprint = fingerprint(self.name, VERSION, told)
        self._guess = guess
        self._net = UNet(len(memory["enter.bias"])).eval()
        self._net.load_state_dict({key: torch.from_numpy(one) for key, one in memory.items()})

    def to(self, device: Any) -> UNetRestorer:
        """Move the weights."""
        self._net.to(device)
        return self

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1], S a multiple of 4 -> the same, restored.

        The mean of what it makes of a face and of its mirror image.
        """
        if not len(faces):
            return faces.clone()
        guess = self._guess(faces)
        mirrored = self._net(faces.flip(-1), guess.flip(-1)).flip(-1)
        return ((self._net(faces, guess) + mirrored) / 2).clamp(0, 1)  # type: ignore[no-any-return]


def loss_of(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error of pixels and, as much again, of the steps between neighbours.

    Edges are what tells people apart, and an error of pixels alone is content without them.
    """
    error = restored - clean
    steps = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + steps


def learn_unet(
    lesson: FaceLesson, guess: Guess, schedule: Schedule | None = None
) -> dict[str, NDArray[Any]]:
    """The state of a ``UNet`` that restores the held faces best; empty without faces to fit."""
    fit = torch.from_numpy(np.flatnonzero(~lesson.held))
    if not len(fit):
        return {}
    schedule = schedule or schedule_for(lesson.device)
    held = torch.from_numpy(np.flatnonzero(lesson.held))[: schedule.shown]
    with torch.random.fork_rng(devices=[]), _repeatable():
        torch.manual_seed(lesson.seed)
        net = UNet(schedule.width).to(lesson.device)
        best = _train(net, lesson, guess, schedule, fit, held if len(held) else fit)
    return {key: one.cpu().numpy() for key, one in best.items()}


def _train(
    net: UNet, lesson: FaceLesson, guess: Guess, schedule: Schedule, fit: Tensor, shown: Tensor
) -> dict[str, Tensor]:
    """The best state of those that are looked at."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=schedule.rate)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.rate, total_steps=schedule.steps, pct_start=0.2
    )
    pause = max(schedule.steps // schedule.looks, 1)
    best, least = net.state_dict(), math.inf
    for step, rows in enumerate(islice(_batches(fit, schedule.batch), schedule.steps), 1):
        treated, first, clean = _mirrored(*_faces(lesson, guess, rows))
        optimizer.zero_grad()
        loss_of(net(treated, first), clean).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        pace.step()
        if step % pause == 0 or step == schedule.steps:
            error = _error(net, lesson, guess, shown)
            lesson.progress(f"U-Net: step {step} of {schedule.steps}, error {error:.4f}")
            if error < least:
                best, least = copy.deepcopy(net.state_dict()), error
    return best


def _batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """The rows in a new order each time, over and over."""
    while True:
        yield from rows[torch.randperm(len(rows))].split(size)  # type: ignore[no-untyped-call]


def _faces(lesson: FaceLesson, guess: Guess, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Treated faces, first guesses and clean faces of some rows, (n, 3, S, S) each."""
    treated, clean = (
        side[rows].to(lesson.device).float() / 255 for side in (lesson.treated, lesson.clean)
    )
    return treated, guess(treated), clean


def _mirrored(*sides: Tensor) -> tuple[Tensor, ...]:
    """Each face, or its mirror image, the same on all sides."""
    mirror = (torch.rand(len(sides[0]), 1, 1, 1) < 0.5).to(sides[0].device)
    return tuple(torch.where(mirror, side.flip(-1), side) for side in sides)


@torch.no_grad()
def _error(net: UNet, lesson: FaceLesson, guess: Guess, rows: Tensor) -> float:
    parts = [_faces(lesson, guess, part) for part in rows.split(16)]  # type: ignore[no-untyped-call]
    losses = [float(loss_of(net(y, first), x)) * len(x) for y, first, x in parts]
    return sum(losses) / len(rows)


@contextmanager
def _repeatable() -> Iterator[None]:
    """The same lesson gives the same weights, on a GPU too."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield
