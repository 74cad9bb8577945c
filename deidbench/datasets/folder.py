"""Photographs of your own: a folder with one folder per subject."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._faults import mark_faults
from ._scan import require_comparable, scan

LAYOUT = "<dir>/<subject>/<image>"


class Folder:
    """Samples of ``folder:<dir>``, laid out as ``<dir>/<subject>/<image>``.

    Images are jpg, jpeg, png, bmp, webp, ppm, tif and tiff files, in capitals or not. No pair list:
    the harness compares all of them.

    Raises:
        DeidbenchError: no folder is given, or that of no user; ``samples`` raises when it is not
            laid out so, has fewer than 2 subjects, or no subject with 2 images.
    """

    name = "folder"
    version = 2  # 2: images with known label faults are marked
    synthetic = False

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise DeidbenchError(f"folder: which one? Write folder:<dir>, laid out as {LAYOUT}.")
        self.root = expanded(argument, "the dataset")

    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by id: ``<subject>/<image>``."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """Empty: a folder has no official pair list."""
        return ()

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        samples = mark_faults(scan(self.root, LAYOUT))
        require_comparable(samples, self.root)
        return samples
