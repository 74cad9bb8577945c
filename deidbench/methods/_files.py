"""Finds the treated version of each photograph in a folder that somebody else filled."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from deidbench.errors import DeidbenchError
from deidbench.types import Sample


def match(samples: Sequence[Sample], folder: Path) -> Mapping[str, Path]:
    """Treated files by sample id: the same path below ``folder``, with any image suffix.

    ``ann/1.jpg`` is found as ``ann/1.jpg``, else as ``ann/1.png`` or another ``ann/1.*``.

    Raises:
        DeidbenchError: the folder cannot be read, or two files claim one sample.
    """
    found = {_portable(path.relative_to(folder)): path for path in _files(folder)}
    by_stem: dict[str, list[Path]] = {}
    for name, path in found.items():
        by_stem.setdefault(_stem(name), []).append(path)
    matches = {sample.id: found.get(sample.id) or _only(sample, by_stem) for sample in samples}
    return {name: path for name, path in matches.items() if path is not None}


def _only(sample: Sample, by_stem: Mapping[str, Sequence[Path]]) -> Path | None:
    claims = by_stem.get(_stem(sample.id), [])
    if len(claims) > 1:
        names = ", ".join(sorted(path.name for path in claims))
        raise DeidbenchError(f"{sample.id} has several treated versions: {names}. Keep one.")
    return claims[0] if claims else None


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones. No link out of it is followed."""

    def refuse(error: OSError) -> None:
        raise DeidbenchError(f"cannot read {error.filename}: {error.strerror}. Make it readable.")

    root = folder.resolve()
    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.resolve().is_relative_to(root):
                yield path


def _portable(path: Path) -> str:
    return unicodedata.normalize("NFC", path.as_posix())


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
