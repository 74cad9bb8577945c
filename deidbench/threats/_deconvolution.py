"""Undoes a Gaussian blur: a search for its width, Wiener's filter, and Richardson and Lucy's.

An image that is mirrored at its edges, the edge pixel repeated, is a sum of cosines, and a
symmetric blur only scales each of them. All of it is done on these, so that borders are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._restorers import fingerprint, gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
SIGMAS = np.geomspace(0.3, 32, 96)  # pixels
NOISES = np.geomspace(0.05, 16, 18) / 255  # 0.29 levels come from rounding to 8 bits alone
FINER = np.geomspace(1 / 1.1, 1.1, 39)  # half a per cent a step
STEPS = (5, 10, 20)  # accelerated, each worth several plain ones
WORTH = 0.95  # of the error of the treated faces: a filter that leaves more is no use
TRIED = 24  # faces that the number of steps is chosen on


class Spectra(NamedTuple):
    """Mean products of the cosine coefficients of faces, (H, W) each."""

    clean: Tensor
    both: Tensor
    treated: Tensor

    def error(self, gain: Tensor) -> float:
        """Mean squared error of treated faces whose coefficients are scaled by ``gain`` (H, W)."""
        left = self.clean - 2 * gain * self.both + gain.square() * self.treated
        return float(left.mean())


def spectra(clean: Tensor, treated: Tensor) -> Spectra:
    """Of faces (N, C, H, W) and their treated versions."""
    x, y = to_cosines(clean).double(), to_cosines(treated).double()
    return Spectra(*((a * b).mean((0, 1)) for a, b in ((x, x), (x, y), (y, y))))


def search_blur(faces: Spectra) -> tuple[float, float] | None:
    """The width in pixels and the noise in [0, 1] whose Wiener filter comes nearest to clean faces.

    None when no filter takes away even 1 - ``WORTH`` of the error.
    """
    sigma, noise, _ = _best(faces, SIGMAS)
    sigma, noise, error = _best(faces, sigma * FINER)
    return (sigma, noise) if error < WORTH * faces.error(torch.ones(())) else None


def _best(faces: Spectra, sigmas: NDArray[np.floating]) -> tuple[float, float, float]:
    """The sigma, the noise and the error of the best filter."""
    size = tuple(faces.clean.shape)
    blurs = ((sigma, transfer(sigma, size)) for sigma in sigmas.tolist())
    tries = [
        (faces.error(wiener_gain(blur, faces.clean, noise)), sigma, noise)
        for sigma, blur in blurs
        for noise in NOISES.tolist()
    ]
    error, sigma, noise = min(tries)
    return sigma, noise, error


def transfer(sigma: float, size: tuple[int, ...]) -> Tensor:
    """(H, W): what a Gaussian blur of ``sigma`` pixels leaves of each cosine."""
    kernel = gaussian(sigma).double()
    offsets = torch.arange(len(kernel)).double() - len(kernel) // 2
    rows, columns = (
        torch.cos(math.pi / side * torch.arange(side)[:, None] * offsets) @ kernel for side in size
    )
    return rows[:, None] * columns


def wiener_gain(blur: Tensor, power: Tensor, noise: float) -> Tensor:
    """(H, W): the linear filter of least mean squared error.

    Args:
        blur: from ``transfer``. power: mean square of each coefficient of clean faces.
        noise: standard deviation.

    Source: Wiener 1949; Gonzalez, Woods, Digital Image Processing, section 5.8.
    """
    return blur * power / (blur.square() * power + noise**2)


def to_cosines(faces: Tensor) -> Tensor:
    """(..., H, W) -> its orthonormal cosine coefficients, (..., H, W)."""
    rows, columns = (cosines(side).to(faces) for side in faces.shape[-2:])
    return rows @ faces @ columns.T


def from_cosines(coefficients: Tensor) -> Tensor:
    """The inverse of ``to_cosines``."""
    rows, columns = (cosines(side).to(coefficients) for side in coefficients.shape[-2:])
    return rows.T @ coefficients @ columns


def cosines(side: int) -> Tensor:
    """Orthonormal type-II cosine transform of ``side`` values: (side, side), a wave a row."""
    places, waves = torch.arange(side).double() + 0.5, torch.arange(side)[:, None]
    basis = torch.cos(math.pi / side * places * waves) * math.sqrt(2 / side)
    basis[0] /= math.sqrt(2)
    return basis


class Wiener:
    """A restorer that scales each cosine by a gain. Memory: ``gain`` (H, W)."""

    name = "wiener"

    def __init__(self, memory: Mapping[str, NDArray[Any]]) -> None:
        self.fingerprint = fingerprint(self.name, VERSION, memory)
        self._gain = torch.from_numpy(memory["gain"]).float()

    def to(self, device: Any) -> Wiener:
        """Move the gain."""
        self._gain = self._gain.to(device)
        return self

    def __call__(self, faces: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, sharpened."""
        return from_cosines(to_cosines(faces) * self._gain.to(faces)).clamp(0, 1)


class RichardsonLucy:
    """The likeliest face under Poisson noise, by steps. Memory: ``sigma``, ``steps``.

    Sources: Richardson 1972, doi 10.1364/JOSA.62.000055; Lucy 1974, doi 10.1086/111605; faster by
    Biggs, Andrews 1997, doi 10.1364/AO.36.001766.
    """

    name = "richardson-lucy"

    def __init__(self, memory: Mapping[str, NDArray[Any]]) -> None:
        self.fingerprint = fingerprint(self.name, VERSION, memory)
        self._sigma, self._steps = float(memory["sigma"]), int(memory["steps"])

    def to(self, device: Any) -> RichardsonLucy:
        """There are no weights to move."""
        return self

    def __call__(self, faces: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same, sharpened."""
        if not len(faces):
            return faces.clone()
        return torch.cat([self._sharpened(face[None]) for face in faces]).clamp(0, 1)

    def _sharpened(self, face: Tensor) -> Tensor:
        """One face at a time stays in a processor's cache."""
        rows, columns = (blur_matrix(self._sigma, side).to(face) for side in face.shape[-2:])
        now, before, step, step_before = face, face, torch.zeros_like(face), torch.zeros_like(face)
        for _ in range(self._steps):
            pace = (step * step_before).sum() / step_before.square().sum().clamp(min=1e-12)
            guess = (now + pace.clamp(0, 1) * (now - before)).clamp(min=0)
            ratio = face / (rows @ guess @ columns.T).clamp(min=1e-4)
            before, now = now, guess * (rows.T @ ratio @ columns)
            step, step_before = now - guess, step
        return now


def blur_matrix(sigma: float, side: int) -> Tensor:
    """(side, side) whose product with a line of pixels is the blurred line."""
    basis = cosines(side)
    return basis.T @ (transfer(sigma, (side, 1)) * basis)


def learn_wiener(clean: Tensor, treated: Tensor) -> dict[str, NDArray[Any]]:
    """Memory of the best Wiener filter; empty when none is worth it. Faces (N, 3, S, S)."""
    faces = spectra(clean, treated)
    found = search_blur(faces)
    if found is None:
        return {}
    sigma, noise = found
    gain = wiener_gain(transfer(sigma, tuple(clean.shape[-2:])), faces.clean, noise)
    return {"gain": gain.float().cpu().numpy(), "sigma": np.array(sigma), "noise": np.array(noise)}


def learn_richardson_lucy(clean: Tensor, treated: Tensor) -> dict[str, NDArray[Any]]:
    """Memory of the best number of steps; empty when none is worth it."""
    found = search_blur(spectra(clean, treated))
    if found is None:
        return {}
    tries = [{"sigma": np.array(found[0]), "steps": np.array(steps)} for steps in STEPS]
    few, truth = treated[:TRIED], clean[:TRIED]
    errors = [float((RichardsonLucy(one)(few) - truth).square().mean()) for one in tries]
    best = int(np.argmin(errors))
    return tries[best] if errors[best] < WORTH * float((few - truth).square().mean()) else {}
