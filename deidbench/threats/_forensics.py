"""What tells a treated picture from one as a camera left it: statistics of its finest structure.

Histograms of differences between neighbouring pixels, one and two steps deep, and of pairs of
them (as in Fridrich and Kodovsky 2012, "Rich Models for Steganalysis of Digital Images", IEEE TIFS
7(3)); how differences depend on the place in blocks of 8 (JPEG, mosaics); the spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 7
"""Grey levels on either side of 0 that differences are told apart by; the last holds all beyond."""
PAIR_LEVELS = 2
PAIR_STEP = 2
"""Grey levels that count as one in pairs of differences."""
BLOCK = 8
RINGS = 24
"""Bands of frequency."""
FLOOR = 1e-4
"""Share, or power, that counts as none: logarithms stay finite."""


def describe(faces: Tensor) -> Tensor:
    """Features of faces (N, 3, S, S) in [0, 1], (N, D) float32, S at least 16."""
    pixels = (faces * 255).round()
    parts = [part for axis in (-1, -2) for part in _along(pixels, axis)]
    return torch.cat([*parts, _spectrum(faces), _colours(faces)], 1)


def _along(pixels: Tensor, axis: int) -> Iterator[Tensor]:
    """Statistics of the differences along one axis, (N, D) each."""
    first = pixels.diff(dim=axis)
    second = first.diff(dim=axis)
    for difference in (first, second):
        yield _histogram(difference, LEVELS)
    yield _pairs(first, axis)
    yield _by_place(first.abs(), axis)


def _histogram(values: Tensor, levels: int) -> Tensor:
    """Log shares of the values -levels to levels in each image, (N, 2 levels + 1)."""
    cells = (values.clamp(-levels, levels) + levels).long().flatten(1)
    return _shares(cells, 2 * levels + 1)


def _pairs(difference: Tensor, axis: int) -> Tensor:
    """Log shares of pairs of neighbouring differences, (N, (2 PAIR_LEVELS + 1)^2)."""
    coarse = (difference / PAIR_STEP).round().clamp(-PAIR_LEVELS, PAIR_LEVELS) + PAIR_LEVELS
    length, base = coarse.shape[axis] - 1, 2 * PAIR_LEVELS + 1
    cells = coarse.narrow(axis, 0, length) * base + coarse.narrow(axis, 1, length)
    return _shares(cells.long().flatten(1), base**2)


def _shares(cells: Tensor, count: int) -> Tensor:
    rows = torch.arange(len(cells), device=cells.device)[:, None] * count
    counted = torch.bincount((cells + rows).flatten(), minlength=len(cells) * count)
    return (counted.view(len(cells), count) / cells.shape[1] + FLOOR).log()


def _by_place(size: Tensor, axis: int) -> Tensor:
    """How large differences are at each place of a block, over their mean, (N, BLOCK)."""
    means = size.movedim(axis, -1).flatten(1, -2).mean(1)  # (N, S - 1)
    whole = F.pad(means, (0, -means.shape[1] % BLOCK), value=float("nan"))
    places = whole.view(len(means), -1, BLOCK).nanmean(1)
    return (places + FLOOR) / (means.mean(1, keepdim=True) + FLOOR)


def _spectrum(faces: Tensor) -> Tensor:
    """Log power of the grey picture by frequency, less its mean over all, (N, RINGS)."""
    grey = faces.mean(1)
    power = torch.fft.fft2(grey - grey.mean((-2, -1), keepdim=True)).abs().square()
    steps = torch.fft.fftfreq(grey.shape[-1], device=grey.device)
    radius = (steps[:, None] ** 2 + steps[None] ** 2).sqrt().clamp(max=0.5)
    ring = (radius * 2 * (RINGS - 1)).round().long().flatten()
    total = torch.zeros(len(faces), RINGS, device=grey.device).index_add_(1, ring, power.flatten(1))
    mean = total / torch.bincount(ring, minlength=RINGS).clamp(min=1)
    return (mean + FLOOR).log()


def _colours(faces: Tensor) -> Tensor:
    """Mean and spread of each channel, and shares of black and white pixels, (N, 8)."""
    flat = faces.flatten(2)
    ends = torch.stack([(flat == end).float().mean((1, 2)) for end in (0, 1)], 1)
    return torch.cat([flat.mean(2), flat.std(2), ends], 1)
