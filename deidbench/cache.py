"""A content-addressed store of stage outputs: what makes a rerun cheap and a kill harmless.

The key of an entry is a hash of everything that its value depends on, so an entry is never stale
and never changed. Files appear under their name only when complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DeidbenchError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


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

        path = self._path(stage, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(save(arrays))
            Path(partial).replace(path)
        except OSError as error:
            raise DeidbenchError(
                f"cannot write the cache at {self.root}: {error.strerror}. Free some space or set "
                "DEIDBENCH_HOME to another folder."
            ) from error
