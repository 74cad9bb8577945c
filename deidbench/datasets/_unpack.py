"""The images of a downloaded archive, written to a folder that appears only when it is whole."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from deidbench.errors import DeidbenchError


def unpack(
    archive: Path, target: Path, suffixes: Collection[str], also: Sequence[Path] = ()
) -> Path:
    """Unpack ``<top>/<subject>/<image>`` of a tar file as ``<target>/<subject>/<image>``.

    Args:
        suffixes: endings of the files that are wanted; others stay in the archive.
        also: files to put beside them.
    Raises:
        DeidbenchError: the archive is damaged, or holds a link or a path out of its folder.
    """
    import filelock

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with filelock.FileLock(target.with_name(f"{target.name}.lock")):
        if target.is_dir():
            return target
        if part.exists():
            shutil.rmtree(part)  # of a process that was killed: whoever lives holds the lock
        try:
            _unpack(archive, part, suffixes)
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DeidbenchError(
                f"{archive} is damaged ({type(error).__name__}). Remove it; it is fetched again."
            ) from error
        for path in also:
            shutil.copyfile(path, part / path.name)
        part.replace(target)
    return target


def _unpack(archive: Path, folder: Path, suffixes: Collection[str]) -> None:
    folder.mkdir()
    with tarfile.open(archive, "r:*") as opened:
        for entry in opened:
            path = _inside(entry, archive)
            if path is None or path.suffix.lower() not in suffixes:
                continue
            stream = opened.extractfile(entry)
            (folder / path).parent.mkdir(exist_ok=True)
            with (folder / path).open("xb") as out:
                shutil.copyfileobj(stream, out)  # type: ignore[arg-type]  # a plain file has one


def _inside(entry: tarfile.TarInfo, archive: Path) -> Path | None:
    """Where below the top folder a plain file lies; None for a folder. Stored names are not used.

    Python's own filter for this is missing from early releases of 3.10 and 3.11.
    """
    path = PurePosixPath(entry.name.removeprefix("./"))
    is_within = not path.is_absolute() and ".." not in path.parts and "\\" not in entry.name
    if entry.isdir() and is_within:
        return None
    if not (entry.isreg() and is_within):
        raise DeidbenchError(
            f"{archive.name} holds '{entry.name}', which is no plain file in its folder. Do not "
            "use it."
        )
    return Path(*path.parts[1:]) if len(path.parts) == 3 else None
