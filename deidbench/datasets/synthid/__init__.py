"""Synthetic people that ship with the package, so that a bare machine can evaluate."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

if TYPE_CHECKING:
    from deidbench.types import FloatArray

TURNED = 15.0  # degrees of yaw
PARTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
LABELS = ("gender", "age_band", "ancestry", "expression", "light", "hair", "glasses")


class SynthID:
    """96 rendered people with 8 photographs each, 224 x 224; none of them exists.

    Its parts are fixed: method-train, attacker-train, calibration, eval. Labels are what was
    rendered, not what was guessed: gender, age_band, ancestry, expression, light, hair, glasses,
    and pose ('frontal' up to 15 degrees of yaw, then 'turned'). Numbers from this set rank
    methods; they are never rates that hold for real people (card.md in its folder).

    Raises:
        DeidbenchError: an argument is given.
    """

    name = "synthid"
    version = 2  # 2: 96 people instead of 20
    synthetic = True
    truth_labels = ("expression",)

    def __init__(self, argument: str | None = None) -> None:
        if argument is not None:
            raise DeidbenchError(f"synthid takes no argument, but got '{argument}'. Leave it out.")
        self.root = Path(str(files(__name__)))

    def samples(self) -> Sequence[Sample]:
        """All 768 samples, sorted by id: ``id000/00.jpg``."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """Empty: all images are compared."""
        return ()

    def truth(self) -> Mapping[str, FloatArray]:
        """The rendered landmarks of each sample, (5, 2) float32 in pixels of the photograph."""
        import numpy as np

        return {
            row["path"]: np.array(
                [[float(row[f"{part}_{axis}"]) for axis in "xy"] for part in PARTS], np.float32
            )
            for row in self._rows
        }

    @classmethod
    def card(cls) -> str:
        """The datasheet, in Markdown: how the set was made, its numbers and known faults."""
        return files(__name__).joinpath("card.md").read_text(encoding="utf-8")

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        return tuple(self._sample(row) for row in self._rows)

    @cached_property
    def _rows(self) -> tuple[Mapping[str, str], ...]:
        with (self.root / "samples.csv").open(encoding="utf-8", newline="") as table:
            return tuple(csv.DictReader(table))

    def _sample(self, row: Mapping[str, str]) -> Sample:
        pose = "turned" if abs(float(row["yaw"])) > TURNED else "frontal"
        labels = {label: row[label] for label in LABELS} | {"pose": pose}
        path = self.root / "images" / row["path"]
        return Sample(row["path"], row["subject"], path, labels, split=row["split"])
