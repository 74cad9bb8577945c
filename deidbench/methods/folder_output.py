"""Images that somebody else treated, with a tool that need not be at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Sample

from ._files import match


class FolderOutput:
    """``folder-output:<dir>``: the treated photographs of a dataset, at the same relative paths.

    ``ann/1.jpg`` of the dataset is looked for as ``<dir>/ann/1.jpg``, or with another suffix. A
    treated photograph is warped as its original was, so it must show the same picture, in the same
    size or scaled. One that is missing counts as a failure.

    Args:
        argument: the folder.
    Raises:
        DeidbenchError: no folder is given, there is none, or it has no image of the dataset.
    """

    version = 1
    strength: float | None = None
    trained_against: Sequence[str] = ()
    needs_argument = True

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise DeidbenchError("folder-output: which one? Write folder-output:<dir>.")
        self.folder = expanded(argument, "the treated images")
        if not self.folder.is_dir():
            raise DeidbenchError(f"folder-output: there is no folder {self.folder}. Name another.")
        self.name = f"folder-output:{self.folder.resolve().name}"

    def treat(self, samples: Sequence[Sample], workspace: Path) -> Mapping[str, Path]:
        """Sample ids to the treated files that there are."""
        found = match(samples, self.folder)
        if not found:
            raise DeidbenchError(
                f"{self.folder} holds no treated image of this dataset: expected, for one, "
                f"{samples[0].id}. Lay it out like the dataset."
            )
        return found
