"""The hash of a run: one number that changes when any of its records or scores do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from deidbench.errors import DeidbenchError
from deidbench.results import store

SEALED = (store.RUN, store.SCORES, store.IMAGES)
CHECK = f"sha256sum {' '.join(SEALED)} | sha256sum"
"""Prints the hash of the run, inside its folder."""


@dataclass(frozen=True)
class Seal:
    """Name and SHA-256 of each file that counts."""

    files: tuple[tuple[str, str], ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the lines '<hash>  <name>', as ``sha256sum`` prints them."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


def seal(folder: Path) -> Seal:
    """The hashes of a run folder: record, scores and images; the examples do not count.

    Raises:
        DeidbenchError: a file is missing, cannot be read, or lies outside the folder.
    """
    return Seal(tuple((name, _digest(folder, name)) for name in SEALED))


def _digest(folder: Path, name: str) -> str:
    path = store.inside(folder, name)
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise DeidbenchError(f"cannot read {path}: {error.strerror}.") from error
    return found.hexdigest()
