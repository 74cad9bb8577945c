"""T4: the attacker learns to undo the method, and shows a recognizer what he has restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deidbench.errors import DeidbenchError

from ._embedded import EmbeddedThreat

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from deidbench.types import FaceLesson, Restorer

    from ._unet import Schedule

    Memory = Mapping[str, NDArray[Any]]

RESTORERS = ("wiener", "richardson-lucy", "super-resolution", "unet")
TRIED = ("wiener", "richardson-lucy", "unet")
GUESSES = ("wiener", "super-resolution")
"""Restorers that the U-Net may start from: the quick ones."""
NO_GUESS = -1
MOST = 512
"""Faces that a filter is fitted on: it has a handful of parameters."""


class Reconstruction(EmbeddedThreat):
    """Treated probes behind a restorer that learned from pairs of a face and its treated version.

    Four restorers try: Wiener's filter and Richardson and Lucy's, for a Gaussian blur whose width
    is found by search; an enlargement of the blocks of a mosaic, whose grid is found in the treated
    faces; and a small U-Net, which goes on from whichever of these comes nearest. One that fits
    nothing is left out.

    Args:
        only: the name of the one restorer to use, alone.
        schedule: how the U-Net learns, in place of what suits the device.

    Raises:
        DeidbenchError: there is no such restorer.
    """

    id = "T4"
    title = "reconstruction"
    summary = "Treated probes behind a restorer that was trained to undo the method."
    kind = "images"
    enrolled = "clean"
    probe = "treated"
    views = ("landmarks",)
    learns = True

    def __init__(self, only: str | None = None, schedule: Schedule | None = None) -> None:
        if only is not None and only not in RESTORERS:
            raise DeidbenchError(
                f"T4: no restorer called '{only}'. There are {', '.join(RESTORERS)}."
            )
        self.only = only
        self._wanted = RESTORERS if only is None else (only,)
        self._schedule = schedule

    def alone(self) -> list[Reconstruction]:
        """Those who undo a blur, each by itself: a good one must not hide a broken one."""
        return [Reconstruction(name, self._schedule) for name in TRIED]

    def learn(self, lesson: FaceLesson) -> dict[str, NDArray[Any]]:
        """What each restorer remembers, under its name and a slash.

        Parameters are fitted on the faces that are not held; a U-Net stops where the held ones are
        restored best.
        """
        from ._unet import learn_unet

        clean, treated = _pairs(lesson)
        memory: dict[str, NDArray[Any]] = {}
        for name, learn in _classical().items():
            if name in self._wanted and len(clean):
                memory |= _under(name, learn(clean, treated))
        if "unet" in self._wanted:
            name = _nearest(memory, clean, treated)
            learned = learn_unet(lesson, _guess(memory, name, lesson.device), self._schedule)
            memory |= _under("unet", learned)
            memory["guess"] = np.array([GUESSES.index(name) if name else NO_GUESS])
        return memory

    def restorers(self, memory: Memory) -> Sequence[Restorer]:
        """Those that were learned, in the order of ``RESTORERS``."""
        return [_built(name, memory) for name in RESTORERS if _of(name, memory)]


def _pairs(lesson: FaceLesson) -> tuple[Tensor, Tensor]:
    """At most ``MOST`` clean faces that are not held, and their treated versions, in [0, 1]."""
    rows = np.flatnonzero(~lesson.held)
    rows = rows[:: max(-(-len(rows) // MOST), 1)]
    clean, treated = (side[rows].float() / 255 for side in (lesson.clean, lesson.treated))
    return clean, treated


def _classical() -> Mapping[str, Callable[[Tensor, Tensor], dict[str, NDArray[Any]]]]:
    """How to learn each restorer that is no network, from clean and treated faces."""
    from ._blocks import learn_blocks
    from ._deconvolution import learn_richardson_lucy, learn_wiener

    return {
        "wiener": learn_wiener,
        "richardson-lucy": learn_richardson_lucy,
        "super-resolution": lambda clean, treated: learn_blocks(treated),
    }


def _built(name: str, memory: Memory) -> Restorer:
    from ._blocks import SuperResolution
    from ._deconvolution import RichardsonLucy, Wiener
    from ._unet import UNetRestorer

    own = _of(name, memory)
    if name == "unet":
        guess = int(memory["guess"][0])
        return UNetRestorer(own, _guess(memory, "" if guess == NO_GUESS else GUESSES[guess]))
    kinds: dict[str, Callable[[Memory], Restorer]] = {
        "wiener": Wiener, "richardson-lucy": RichardsonLucy, "super-resolution": SuperResolution
    }  # fmt: skip
    return kinds[name](own)


def _nearest(memory: Memory, clean: Tensor, treated: Tensor) -> str:
    """The quick restorer that comes nearest to clean faces; '' where treated ones are nearer."""
    if not len(clean):
        return ""
    names = ["", *(name for name in GUESSES if _of(name, memory))]
    errors = [(_guess(memory, name)(treated) - clean).square().mean() for name in names]
    return names[int(np.argmin(errors))]


def _guess(memory: Memory, name: str, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """A restorer by name; '' leaves faces as they are."""
    return _built(name, memory).to(device) if name else _as_it_is


def _as_it_is(faces: Tensor) -> Tensor:
    return faces


def _under(name: str, memory: Memory) -> dict[str, NDArray[Any]]:
    return {f"{name}/{key}": values for key, values in memory.items()}


def _of(name: str, memory: Memory) -> dict[str, NDArray[Any]]:
    """What one restorer remembers."""
    start = f"{name}/"
    return {key[len(start) :]: one for key, one in memory.items() if key.startswith(start)}
