"""One file over HTTP: streamed to a part file, resumed after a cut, with progress on stderr."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from .registry import is_private

if TYPE_CHECKING:
    import requests

CONNECT_TIMEOUT = 5.0  # seconds; behind a firewall the next source must get its turn soon
READ_TIMEOUT = 30.0  # seconds without a byte
RETRIES = 2  # after a connection that was cut
BLOCK = 1 << 18  # bytes


class SourceError(Exception):
    """Why one source did not give the file; collected into the message that the user sees."""


class _CutError(Exception):
    """The connection broke; what has arrived so far is kept."""


@dataclass(frozen=True)
class Connection:
    """How to reach a server. ``None`` leaves it to the environment, as requests reads it.

    ``private`` refuses a redirection to where others could change the answer.
    """

    proxy: str | None = None
    ca_bundle: str | None = None
    client_cert: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    read_timeout: float = READ_TIMEOUT
    private: bool = False

    def get(self, url: str, headers: dict[str, str], *, stream: bool) -> requests.Response:
        """One GET request.

        Raises:
            SourceError: the network is forbidden, or a private answer was sent from elsewhere.
            requests.RequestException: no answer.
        """
        import requests

        if offline():
            raise SourceError("DEIDBENCH_OFFLINE=1 forbids the network")
        response = requests.get(
            url,
            headers=headers,
            stream=stream,
            timeout=(CONNECT_TIMEOUT, self.read_timeout),
            proxies={"http": self.proxy, "https": self.proxy} if self.proxy else None,
            verify=self._verify(url),
            cert=self.client_cert,
        )
        if self.private and not all(is_private(hop.url) for hop in (*response.history, response)):
            response.close()
            raise SourceError(f"it was redirected to {redacted(response.url)}, which is not https")
        return response

    def _verify(self, url: str) -> bool | str | None:
        parts = urlsplit(url)
        if {parts.netloc.rpartition("@")[2], parts.hostname} & set(self.trusted_hosts):
            return False
        return self.ca_bundle  # None: requests decides


def offline() -> bool:
    """Whether DEIDBENCH_OFFLINE forbids the network."""
    return os.environ.get("DEIDBENCH_OFFLINE", "") not in ("", "0")


def redacted(location: str) -> str:
    """The location without user name, password or query, fit for a message."""
    parts = urlsplit(location)
    if not parts.netloc:
        return location
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def sha256_of(path: Path) -> str:
    """The sha256 of a file, 64 lower-case hex digits."""
    return digest_of(path, "sha256")


def digest_of(path: Path, algorithm: str) -> str:
    """The digest of a file under any algorithm of hashlib, lower-case hex."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    part: Path,
    *,
    digest: tuple[str, str] | None,
    size: int | None = None,
    connection: Connection = Connection(),
) -> None:
    """Fill the part file from a URL, starting where an earlier attempt stopped.

    Args:
        digest: (algorithm of hashlib, hex digits) that the whole file must have.
        size: in bytes; a longer answer is not read to its end.
    Raises:
        SourceError: no answer, a refusal, a cut that retries did not mend (the part file stays),
            or the wrong content (the part file is deleted).
    """
    resumed = _size_of(part) > 0
    if resumed and digest and not _fault(part, digest, size):
        return  # stopped between the last byte and the renaming
    _fill(url, part, size, connection)
    if resumed and _fault(part, digest, size):
        part.unlink()  # the old part may have been another file: once more from the start
        _fill(url, part, size, connection)
    fault = _fault(part, digest, size)
    if fault:
        part.unlink()
        raise SourceError(fault)


def _fault(part: Path, digest: tuple[str, str] | None, size: int | None) -> str | None:
    if size is not None and _size_of(part) != size:
        return f"expected {size} bytes, but got {_size_of(part)}"
    if digest is None:
        return None
    algorithm, expected = digest
    found = digest_of(part, algorithm)
    return None if found == expected else f"expected {algorithm} {expected}, but got {found}"


def _fill(url: str, part: Path, size: int | None, connection: Connection) -> None:
    """Attempts until the file is whole; only an attempt that was cut midway is repeated."""
    import requests

    part.parent.mkdir(parents=True, exist_ok=True)
    answered = False
    for attempt in range(RETRIES + 1):
        try:
            with _open(url, part, connection) as response:
                answered = True
                return _write(response, part, size)
        except (_CutError, requests.RequestException) as error:
            if attempt == RETRIES or not (answered or isinstance(error, _CutError)):
                raise SourceError(reason_of(error)) from error
        time.sleep(0.25 * 2**attempt)


def _open(url: str, part: Path, connection: Connection) -> requests.Response:
    """Ask for the rest of the file; for all of it where the server cannot continue."""
    have = _size_of(part)
    headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file itself
    if have:
        response = connection.get(url, headers | {"Range": f"bytes={have}-"}, stream=True)
        if response.status_code != 416 and _start_of(response) in (have, 0):
            return _accepted(response)
        response.close()
        part.unlink()
    return _accepted(connection.get(url, headers, stream=True))


def _accepted(response: requests.Response) -> requests.Response:
    if response.status_code in (200, 206):
        return response
    response.close()
    raise SourceError(f"HTTP {response.status_code} {response.reason}")


def _start_of(response: requests.Response) -> int | None:
    """Where in the file the body starts; 0 where the server ignored the range."""
    if response.status_code != 206:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _write(response: requests.Response, part: Path, size: int | None) -> None:
    import urllib3

    start = _start_of(response) or 0
    length = response.headers.get("Content-Length")
    end = start + int(length) if length and length.isdigit() else None
    with part.open("ab" if start else "wb") as stream, _progress(part, start, end) as advance:
        at = start
        try:
            # As stored: some servers call a .tar.gz file a compressed answer.
            for block in response.raw.stream(BLOCK, decode_content=False):
                stream.write(block)
                advance(len(block))
                at += len(block)
                if size is not None and at > size:
                    return
        except urllib3.exceptions.HTTPError as error:
            raise _CutError(_cut_after(at, end)) from error
    if end is not None and at < end:
        raise _CutError(_cut_after(at, end))


def _cut_after(at: int, end: int | None) -> str:
    return f"the connection was cut after {at}{f' of {end}' if end else ''} bytes"


def reason_of(error: Exception) -> str:
    """A failure to talk to a server in a few words, without addresses or passwords."""
    import requests

    kinds = {
        requests.exceptions.ConnectTimeout: "the connection timed out",
        requests.exceptions.ReadTimeout: "the server stopped sending",
        requests.exceptions.ProxyError: "the proxy refused",
        requests.exceptions.SSLError: "the TLS certificate was not accepted",
        requests.exceptions.ConnectionError: "no connection to the server",
    }
    for kind, words in kinds.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, requests.RequestException):
        return f"the request failed ({type(error).__name__})"
    return str(error)


@contextmanager
def _progress(part: Path, start: int, end: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, one plain line elsewhere; yields what to call with each block's size."""
    name = part.name.removesuffix(".part")
    if not sys.stderr.isatty():
        amount = "" if end is None else f" ({(end - start) / 2**20:.1f} MiB)"
        print(f"deidbench: fetching {name}{amount}", file=sys.stderr)
        yield lambda count: None
        return
    with _bar() as bar:
        task = bar.add_task(name, total=end, completed=start)
        yield lambda count: bar.advance(task, count)


def _bar() -> Any:
    from rich import progress as rich_progress
    from rich.console import Console

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(binary_units=True),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
