"""Finds the images of a folder that holds one folder per subject."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from deidbench.errors import DeidbenchError
from deidbench.types import Sample

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def scan(root: Path, layout: str) -> tuple[Sample, ...]:
    """All ``<root>/<subject>/<image>``, sorted by id.

    Hidden files, other kinds of file and deeper folders are left out. Links are followed. Ids and
    subjects are in Unicode's composed form (NFC), so that they are the same on every system.

    Raises:
        DeidbenchError: the folder is missing or empty, has images but no subject folders, a link
            leads nowhere, a folder cannot be read, or a name cannot be told apart or written as
            UTF-8.
    """
    try:
        return _scan(root, layout)
    except OSError as error:
        raise DeidbenchError(
            f"cannot read {error.filename or root}: {error.strerror}. Make it readable, or remove "
            "it."
        ) from error


def _scan(root: Path, layout: str) -> tuple[Sample, ...]:
    if not root.is_dir():
        raise DeidbenchError(f"no folder {root}. Give one laid out as {layout}.")
    samples = sorted(_samples(root), key=lambda sample: sample.id)
    if not samples:
        loose = sum(1 for _ in _images(root))
        found = f"{loose} images but no subject folders" if loose else "no images"
        raise DeidbenchError(f"{root} holds {found}. Lay it out as {layout}.")
    for one, other in pairwise(samples):
        if one.id == other.id:
            raise DeidbenchError(
                f"{one.path} and {other.path} have the same name in Unicode. Rename one."
            )
    return tuple(samples)


def _samples(root: Path) -> Iterator[Sample]:
    with os.scandir(root) as folders:
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith("."):
                subject = _portable(folder.name, root)
                for path in _images(Path(folder.path)):
                    yield Sample(f"{subject}/{_portable(path.name, root)}", subject, path)


def _images(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in EXTENSIONS:
                continue
            if entry.is_file():
                yield Path(entry.path)
            elif not entry.is_dir():
                raise DeidbenchError(f"{entry.path} is not a file that can be read. Remove it.")


def _portable(name: str, root: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DeidbenchError(
            f"{root} holds the name {name!a}, which is not UTF-8. Rename it."
        ) from error
    return unicodedata.normalize("NFC", name)
