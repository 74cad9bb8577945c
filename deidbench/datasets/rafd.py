"""Radboud Faces Database, from a folder that you asked its makers for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._scan import Named, first_matches, require_comparable, scan_named

GRAMMAR = re.compile(
    r"Rafd(?P<camera_angle>000|045|090|135|180)_(?P<model>\d\d)_"
    r"(?P<ethnicity>Caucasian|Moroccan|Kid)_(?P<gender>female|male)_"
    r"(?P<expression>angry|contemptuous|disgusted|fearful|happy|neutral|sad|surprised)_"
    r"(?P<gaze>left|frontal|right)"
)
LAYOUT = "RaFD, Rafd090_01_Caucasian_female_angry_frontal.jpg"
CHILD = "Kid"  # stands where adults have their ethnicity


class RaFD:
    """Samples of ``rafd:<dir>``: 67 models, 8 expressions, 5 cameras, 3 directions of gaze.

    Labels come from the file names: camera_angle in degrees (090 is frontal, 000 and 180 are the
    profiles), gender, expression, gaze, age_band ('adult' or 'child') and, for adults, ethnicity.

    Args:
        adults_only: leave out the children, whom their names call 'Kid'.
    Raises:
        DeidbenchError: no folder is given; ``samples`` raises when an image is named otherwise.

    Source: Langner et al. 2010, doi 10.1080/02699930903485076.
    """

    name = "rafd"
    version = 1
    synthetic = False

    def __init__(self, argument: str | None = None, adults_only: bool = True) -> None:
        if not argument:
            raise DeidbenchError(f"rafd: where is it? Write rafd:<dir>, a folder of {LAYOUT}.")
        self.root = expanded(argument, "the dataset")
        self.adults_only = adults_only

    @classmethod
    def recognises(cls, path: Path) -> str | None:
        """Why the path looks like this dataset, or None."""
        return f"images are named as in {LAYOUT}" if first_matches(path, GRAMMAR) else None

    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by id, the path below the folder; subjects as ``rafd-01``."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """Empty: all images are compared."""
        return ()

    def notes(self) -> Sequence[str]:
        """What is left out, for ``deidbench datasets check``."""
        children = sum(_is_child(one) for one in self._found)
        if not children or not self.adults_only:
            return ()
        return (f"{children} images of children are left out; --with-children reads them",)

    @cached_property
    def _found(self) -> list[Named]:
        return scan_named(self.root, GRAMMAR, LAYOUT)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        kept = [one for one in self._found if not (self.adults_only and _is_child(one))]
        if not kept:
            raise DeidbenchError(
                f"{self.root} holds only children, who are left out. Measure adults, or use "
                "--with-children."
            )
        samples = tuple(_sample(one) for one in kept)
        require_comparable(samples, self.root)
        return samples


def _is_child(image: Named) -> bool:
    return image.fields["ethnicity"] == CHILD


def _sample(image: Named) -> Sample:
    labels = {key: value.lower() for key, value in image.fields.items() if key != "model"}
    labels["age_band"] = "child" if _is_child(image) else "adult"
    if _is_child(image):
        del labels["ethnicity"]  # the name does not tell it
    return Sample(image.id, f"rafd-{image.fields['model']}", image.path, labels)
