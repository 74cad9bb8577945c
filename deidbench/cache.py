"""A content-addressed store of stage outputs: what makes a rerun cheap and a kill harmless.

The key of an entry is a hash of everything that its value depends on, so an entry is never stale
and never changed. Files appear under their name only when complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DeidbenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

TEXT_BYTES = 200


def digest(*parts: Any) -> str:
    """sha256 of JSON-like parts, hex."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file, hex."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise DeidbenchError(f"cannot read {path}: {error.strerror}. Check the dataset.") from error


def pack_texts(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Short texts as rows of bytes, (N, ``TEXT_BYTES``): the cache holds nothing but arrays."""
    import numpy as np

    rows = np.zeros((len(texts), TEXT_BYTES), np.uint8)
    for row, text in zip(rows, texts, strict=True):
        line = text.encode("utf-8", "replace")[:TEXT_BYTES]
        row[: len(line)] = np.frombuffer(line, np.uint8)
    return rows


def unpack_texts(rows: NDArray[np.uint8]) -> list[str]:
    """The texts of ``pack_texts``, cut where they were too long."""
    return [row.tobytes().rstrip(b"\0").decode("utf-8", "ignore") for row in rows]


class Cache:
    """Arrays by stage and key, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.misses = 0
        """How many entries had to be computed."""

    def get(self, stage: str, key: str, compute: Callable[[], Mapping[str, Any]]) -> Arrays:
        """The stored arrays, computed and stored first when there are none (or damaged ones)."""
        stored = self._load(stage, key)
        if stored is not None:
            return stored
        self.misses += 1
        arrays = dict(compute())
        self._save(stage, key, arrays)
        return arrays

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """An empty folder beside the entries, removed at the end."""
        parent = self.root / "work"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True)
        except OSError as error:
            raise self._unwritable(error) from error
        with folder as name:
            yield Path(name)

    def _path(self, stage: str, key: str) -> Path:
        return self.root / stage / key[:2] / f"{key}.safetensors"

    def _load(self, stage: str, key: str) -> Arrays | None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return dict(load_file(self._path(stage, key)))
        except (FileNotFoundError, SafetensorError):
            return None

    def _save(self, stage: str, key: str, arrays: Arrays) -> None:
        from safetensors.numpy import save

        path, partial = self._path(stage, key), None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(save(arrays))
            Path(partial).replace(path)
        except OSError as error:
            if partial is not None:
                Path(partial).unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> DeidbenchError:
        return DeidbenchError(
            f"cannot write the cache at {self.root}: {error.strerror}. Free some space or set "
            "DEIDBENCH_HOME to another folder."
        )
