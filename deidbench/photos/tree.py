"""Which files a run treats and where their output goes; what an earlier run has finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deidbench.assets import sha256_of
from deidbench.errors import DeidbenchError

from .metadata import FORMATS

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
MANIFEST = ".deidbench.jsonl"


@dataclass(frozen=True)
class Task:
    """One file to treat."""

    name: str
    """Its POSIX path below the input folder, or its file name."""
    source: Path
    target: Path


@dataclass(frozen=True)
class Skipped:
    """A file that is not treated and not copied, and why."""

    name: str
    why: str


def plan(source: Path, target: Path) -> tuple[list[Task], list[Skipped]]:
    """What to treat, sorted by name, and what is left out.

    Raises:
        DeidbenchError: the input does not exist, or the output lies in it or is it.
    """
    if not source.exists():
        raise DeidbenchError(f"{source} does not exist. Name a photograph, a video or a folder.")
    inside, outside = target.resolve(), source.resolve()
    if inside == outside or (source.is_dir() and outside in inside.parents):
        raise DeidbenchError(f"the output {target} lies in the input. Choose another place.")
    if not source.is_dir():
        return [_single(source, target)], []
    if target.exists() and not target.is_dir():
        raise DeidbenchError(f"{target} is a file, but the input is a folder. Name a folder.")
    return _folder(source, target)


def is_video(path: Path) -> bool:
    """Whether the suffix is that of a video."""
    return path.suffix.lower() in VIDEOS


class Manifest:
    """What this output folder holds, one JSON line a file; a damaged last line is no line.

    A line is written before its file gets its name, so that a killed run leaves no file that the
    next one takes for somebody else's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / MANIFEST
        self._lines: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text("utf-8", "replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    self._lines[str(entry["name"])] = entry

    def finished(self, task: Task, key: str) -> dict[str, Any] | None:
        """What was said of this file, when it was treated alike and its output is still there.

        Raises:
            DeidbenchError: another file is in the way.
        """
        if not task.target.exists():
            return None
        entry = self._lines.get(task.name)
        if entry is None or entry.get("output") != sha256_of(task.target):
            raise DeidbenchError(
                f"{task.target} exists and was not made by deidbench; it is never overwritten."
            )
        return entry if entry.get("key") == key else None

    def add(self, task: Task, key: str, output: str, said: Mapping[str, Any]) -> None:
        """Note that ``task.target`` will hold a file with the sha256 ``output``."""
        entry = {"name": task.name, "key": key, "output": output, **said}
        self._lines[task.name] = entry
        whole = not self._path.exists() or self._path.read_bytes().endswith(b"\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps(entry) + "\n")


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path to write to; the file gets its name only when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.stem}.part{target.suffix}")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def work_key(source: Path, settings: str) -> str:
    """Names the input's bytes and the settings: equal keys give equal outputs."""
    return hashlib.sha256(f"{sha256_of(source)}\n{settings}".encode()).hexdigest()


def locked(folder: Path) -> Any:
    """A lock that only one run holds on an output folder.

    Raises:
        DeidbenchError: another run holds it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".deidbench.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        raise DeidbenchError(f"another run writes to {folder}. Wait for it.") from None


def _single(source: Path, target: Path) -> Task:
    if target.is_dir():
        target = target / source.name
    if target.resolve() == source.resolve():
        raise DeidbenchError(f"the output {target} is the input. Choose another place.")
    wanted = VIDEOS if is_video(source) else tuple(FORMATS)
    if target.suffix.lower() not in wanted:
        raise DeidbenchError(f"cannot write {target.name}. Use one of {', '.join(wanted)}.")
    return Task(source.name, source, target)


def _folder(source: Path, target: Path) -> tuple[list[Task], list[Skipped]]:
    tasks, skipped = [], []
    for path in _walk(source):
        name = path.relative_to(source).as_posix()
        why = _why_not(path, source)
        if why is not None:
            skipped.append(Skipped(name, why))
        else:
            tasks.append(Task(name, path, target / name))
    return tasks, skipped


def _walk(folder: Path) -> Iterator[Path]:
    """Files and links of a tree in order; hidden ones and their folders are passed over."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        names = [*links, *(name for name in files if not name.startswith("."))]
        yield from (Path(here) / name for name in sorted(names))


def _why_not(path: Path, root: Path) -> str | None:
    if path.is_symlink():
        if root.resolve() not in path.resolve().parents:
            return "a link that leaves the folder"
        if path.is_dir():
            return "a link to a folder"
    if not path.is_file():
        return "not a file"
    if path.suffix.lower() not in (*FORMATS, *VIDEOS):
        return "neither a photograph nor a video of a known kind"
    return None


def sha256(content: IO[bytes] | bytes) -> str:
    """Of bytes in memory."""
    return hashlib.sha256(content if isinstance(content, bytes) else content.read()).hexdigest()
