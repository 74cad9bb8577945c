"""Finds the images of a folder: one folder per subject, or names that say what they show."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

from deidbench.errors import DeidbenchError
from deidbench.types import Sample

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Named(NamedTuple):
    """An image whose name, without its ending, follows a grammar."""

    id: str
    path: Path
    fields: dict[str, str]


def scan(root: Path, layout: str) -> tuple[Sample, ...]:
    """All ``<root>/<subject>/<image>``, sorted by id.

    Hidden files, other kinds of file and deeper folders are left out. Ids and subjects are in
    Unicode's composed form (NFC), so that they are the same on every system. Links are followed,
    out of the folder too: people link their photographs from where those lie, and the folder is
    their own. ``deidbench datasets check`` counts such links.

    Raises:
        DeidbenchError: the folder is missing or empty, has images but no subject folders, a link
            leads nowhere, a folder cannot be read, or a name cannot be told apart or written as
            UTF-8.
    """
    try:
        return _scan(root, layout)
    except OSError as error:
        error.filename = error.filename or root
        return _refuse(error)


def scan_named(root: Path, grammar: re.Pattern[str], layout: str) -> list[Named]:
    """All images below a folder, at any depth, sorted by id. Hidden ones are left out.

    Raises:
        DeidbenchError: the folder is missing, empty or cannot be read, an image is not named by the
            grammar, two have one name, or a link leads nowhere.
    """
    if not root.is_dir():
        raise DeidbenchError(f"no folder {root}. Give one with {layout}.")
    found = sorted(_parsed(path, root, grammar, layout) for path in walk(root) if is_image(path))
    if not found:
        raise DeidbenchError(f"{root} holds no images. Give a folder with {layout}.")
    names: dict[str, Path] = {}
    for one in found:
        other = names.setdefault(one.path.stem, one.path)
        if other != one.path:
            raise DeidbenchError(f"{other} and {one.path} have the same name. Remove one.")
    return found


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder at any depth, but hidden ones. Links are followed, each once.

    Raises:
        DeidbenchError: a folder cannot be read.
    """
    seen = set()
    for parent, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [one for one in folders if not one.startswith(".")]
        if real not in seen:
            yield from (Path(parent, name) for name in names if not name.startswith("."))
        seen.add(real)


def first_matches(root: Path, grammar: re.Pattern[str]) -> bool:
    """Whether the first image that is found below a folder is named by a grammar."""
    images = (path for path in walk(root) if is_image(path)) if root.is_dir() else iter(())
    return any(grammar.fullmatch(path.stem) for path in islice(images, 1))


def is_image(path: Path | str) -> bool:
    """Whether the ending is that of an image."""
    return str(path).lower().endswith(EXTENSIONS)


def require_comparable(samples: Sequence[Sample], root: Path) -> None:
    """Different people, and one person with two images, or nothing can be compared.

    Raises:
        DeidbenchError: there is one subject, or each has one image.
    """
    sizes = Counter(sample.subject for sample in samples)
    if len(sizes) < 2:
        raise DeidbenchError(
            f"{root} holds one subject, '{samples[0].subject}'. At least 2 are needed to "
            "compare different people."
        )
    if max(sizes.values()) < 2:
        raise DeidbenchError(
            f"{root} holds {len(sizes)} subjects with one image each. At least one "
            "subject needs 2 to compare a person with itself."
        )


def _parsed(path: Path, root: Path, grammar: re.Pattern[str], layout: str) -> Named:
    match = grammar.fullmatch(path.stem)
    if match is None:
        raise DeidbenchError(f"{path} is not named as in {layout}. Keep other images elsewhere.")
    if not path.is_file():
        raise DeidbenchError(f"{path} is not a file that can be read. Remove it.")
    return Named(_portable(path.relative_to(root).as_posix(), root), path, match.groupdict())


def _refuse(error: OSError) -> NoReturn:
    raise DeidbenchError(
        f"cannot read {error.filename}: {error.strerror}. Make it readable, or remove it."
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
            if entry.name.startswith(".") or not is_image(entry.name):
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
