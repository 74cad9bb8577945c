"""LFW fetched by the real download code, from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from deidbench.assets import Asset, Source, registry
from deidbench.datasets._unpack import unpack
from deidbench.datasets.lfw import IMAGES, LFW, PAIRS
from deidbench.errors import AssetUnavailableError, DeidbenchError

VIEW2 = b"1\t1\nAnn_Lee\t1\t2\nAnn_Lee\t1\tBob\t1\n"
Entry = tuple[tarfile.TarInfo, bytes]


def photograph() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 60)).save(stream, "JPEG")
    return stream.getvalue()


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, to
    return info, content


def archive_of(*entries: Entry) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


WHOLE = archive_of(
    entry("lfw_funneled", kind=tarfile.DIRTYPE),
    entry("lfw_funneled/Ann_Lee", kind=tarfile.DIRTYPE),
    entry("lfw_funneled/Ann_Lee/Ann_Lee_0001.jpg", photograph()),
    entry("lfw_funneled/Ann_Lee/Ann_Lee_0002.jpg", photograph()),
    entry("./lfw_funneled/Bob/Bob_0001.jpg", photograph()),
    entry("lfw_funneled/pairs_01.txt", b"stays where it is"),
)


class Server:
    """Offers files; counts who asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def asset(self, name: str, filename: str, content: bytes) -> Asset:
        """An asset that this server offers."""
        self.files[f"/{filename}"] = content
        url = f"http://127.0.0.1:{self.http.server_address[1]}/{filename}"
        source = Source(url, filename, hashlib.sha256(content).hexdigest(), len(content))
        return Asset(name, (source,), "none", "nobody 2024", "made up")


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    thread = threading.Thread(target=state.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    state.http.shutdown()
    thread.join()
    state.http.server_close()


Offer = Callable[[bytes], None]


@pytest.fixture
def offer(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Puts an archive where LFW's would be."""
    for name in ("DEIDBENCH_MIRROR", "DEIDBENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "home"))

    def put(archive: bytes) -> None:
        table = {
            IMAGES: server.asset(IMAGES, "lfw-funneled.tgz", archive),
            PAIRS: server.asset(PAIRS, "pairs.txt", VIEW2),
        }
        monkeypatch.setitem(registry.__globals__, "_REGISTRY", table)

    return put


def test_lfw_alone_is_downloaded_and_unpacked_once(
    server: Server, offer: Offer, tmp_path: Path
) -> None:
    offer(WHOLE)
    dataset = LFW()
    assert server.asked == []  # only when it is read
    assert [sample.id for sample in dataset.samples()] == [
        "Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", "Bob/Bob_0001.jpg",
    ]  # fmt: skip
    assert [(pair.probe, pair.same) for pair in dataset.pairs()] == [
        ("Ann_Lee/Ann_Lee_0002.jpg", True), ("Bob/Bob_0001.jpg", False),
    ]  # fmt: skip
    assert sorted(server.asked) == ["/lfw-funneled.tgz", "/pairs.txt"]
    folder = tmp_path / "home" / "datasets"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert files - {"lfw-funneled.lock"} == {
        "lfw-funneled/pairs.txt",
        *(f"lfw-funneled/{sample.id}" for sample in dataset.samples()),
    }
    assert LFW(None).samples() == dataset.samples()
    assert len(server.asked) == 2


def test_a_folder_of_ones_own_asks_nobody(server: Server, offer: Offer, tmp_path: Path) -> None:
    offer(WHOLE)
    with pytest.raises(DeidbenchError, match="no folder"):
        LFW(str(tmp_path / "missing")).samples()
    assert server.asked == []


def test_what_a_killed_process_left_is_replaced(offer: Offer, tmp_path: Path) -> None:
    offer(WHOLE)
    left = tmp_path / "home" / "datasets" / "lfw-funneled.part" / "Eve"
    left.mkdir(parents=True)
    (left / "Eve_0001.jpg").write_bytes(b"half an ima")
    assert len(LFW().samples()) == 3


def test_without_a_network_the_error_names_the_command(
    offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(WHOLE)
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    with pytest.raises(AssetUnavailableError, match="deidbench assets fetch lfw-funneled"):
        LFW().samples()


def test_another_archive_is_not_unpacked(server: Server, offer: Offer, tmp_path: Path) -> None:
    offer(WHOLE)
    server.files["/lfw-funneled.tgz"] = WHOLE[:-1] + b"?"
    with pytest.raises(AssetUnavailableError, match="expected sha256"):
        LFW().samples()
    assert not (tmp_path / "home" / "datasets").exists()


@pytest.mark.parametrize(
    "hostile",
    [
        entry("lfw/../../evil.jpg", b"x"),
        entry("../Ann/evil.jpg", b"x"),
        entry("/lfw/Ann/evil.jpg", b"x"),
        entry("lfw/..\\..\\evil/evil.jpg", b"x"),
        entry("lfw/Ann/evil.jpg", kind=tarfile.SYMTYPE, to="/etc/passwd"),
        entry("lfw/Ann", kind=tarfile.SYMTYPE, to="/tmp"),
        entry("lfw/Ann/evil.jpg", kind=tarfile.LNKTYPE, to="../../evil"),
        entry("lfw/Ann/evil.jpg", kind=tarfile.FIFOTYPE),
        entry("lfw/Ann/evil.jpg", kind=tarfile.CHRTYPE),
        entry("lfw/..", kind=tarfile.DIRTYPE),
    ],
)
def test_a_hostile_archive_writes_nothing_outside(
    offer: Offer, tmp_path: Path, hostile: Entry
) -> None:
    offer(archive_of(entry("lfw/Bob/Bob_0001.jpg", photograph()), hostile))
    with pytest.raises(DeidbenchError, match="no plain file in its folder") as caught:
        LFW().samples()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "home" / "datasets" / "lfw-funneled").exists()
    assert not list(tmp_path.rglob("*evil*"))


def test_a_file_that_is_there_twice_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(archive_of(*[entry("lfw/Bob/Bob_0001.jpg", b"x")] * 2))
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "a.tgz", tmp_path / "out", {".jpg"})


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_archive_is_one_line(tmp_path: Path, share: float) -> None:
    (tmp_path / "a.tgz").write_bytes(WHOLE[: int(len(WHOLE) * share)])
    with pytest.raises(DeidbenchError, match="is damaged") as caught:
        unpack(tmp_path / "a.tgz", tmp_path / "out", {".jpg"})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_published_hashes_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import _lfw

    published = {one.filename: one for one in (_lfw.FUNNELED_ARCHIVE, *_lfw.TARGETS)}
    for name in (IMAGES, PAIRS):
        source = registry()[name].sources[0]
        assert source.sha256 == published[source.filename].checksum
        assert source.location == published[source.filename].url
