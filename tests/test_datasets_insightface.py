"""InsightFace's .bin files, as Python 2 and 3 wrote them, and as an attacker would."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deidbench.assets import sha256_of
from deidbench.datasets.insightface import InsightFace
from deidbench.errors import DeidbenchError
from deidbench.images import read_image


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def picture(seed: int, kind: str = "JPEG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, kind)
    return stream.getvalue()


def written(path: Path, images: Any, flags: Any, protocol: int = 4) -> InsightFace:
    path.write_bytes(pickle.dumps((images, flags), protocol))
    return InsightFace(str(path))


def as_python_2_wrote(images: list[bytes], flags: list[bool]) -> bytes:
    """Protocol 2 with the images as BINSTRING, Python 2's str, which Python 3 no longer writes."""
    parts = [b"\x80\x02", b"]("]
    for image in images:
        parts.append(b"T" + len(image).to_bytes(4, "little") + image)
    parts += [b"e](", *(b"\x88" if flag else b"\x89" for flag in flags), b"e\x86."]
    return b"".join(parts)


PICTURES = [picture(seed) for seed in range(40)]
FLAGS = [bool(index % 2) for index in range(20)]


def test_images_2i_and_2i_plus_1_are_pair_i_in_10_folds(tmp_path: Path) -> None:
    dataset = written(tmp_path / "a.bin", PICTURES, FLAGS)
    pairs = dataset.pairs()
    assert [(p.reference, p.probe) for p in pairs] == [
        (f"{2 * i:05d}.jpg", f"{2 * i + 1:05d}.jpg") for i in range(20)
    ]
    assert [p.same for p in pairs] == FLAGS
    assert [p.fold for p in pairs] == [1 + i // 2 for i in range(20)]
    assert [sample.id for sample in dataset.samples()] == [f"{i:05d}.jpg" for i in range(40)]
    for sample, content in zip(dataset.samples(), PICTURES, strict=True):
        assert sample.path.read_bytes() == content
        assert read_image(sample.path).shape == (8, 8, 3)


def test_nobody_is_named_and_only_same_pairs_join(tmp_path: Path) -> None:
    dataset = written(tmp_path / "a.bin", PICTURES, FLAGS)
    subject = {sample.id: sample.subject for sample in dataset.samples()}
    assert all((subject[p.reference] == subject[p.probe]) == p.same for p in dataset.pairs())
    assert len(set(subject.values())) == 10 + 20  # one for a pair of one person, two for the others
    assert dataset.official_only


def test_the_folds_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.model_selection import KFold

    dataset = written(tmp_path / "a.bin", [picture(seed) for seed in range(46)], [True] * 23)
    expected = np.zeros(23, int)
    for fold, (_, chosen) in enumerate(KFold(10).split(range(23)), start=1):
        expected[chosen] = fold
    assert [pair.fold for pair in dataset.pairs()] == expected.tolist()


def test_equal_images_are_one_sample_and_join_people(tmp_path: Path) -> None:
    images = [PICTURES[0], PICTURES[1], PICTURES[1], PICTURES[2], PICTURES[3], PICTURES[2]]
    dataset = written(tmp_path / "a.bin", images, [True, True, False])
    assert [sample.id for sample in dataset.samples()] == [
        "00000.jpg", "00001.jpg", "00003.jpg", "00004.jpg",
    ]  # fmt: skip
    assert Counter(sample.subject for sample in dataset.samples()) == {
        "unnamed-00001": 3, "unnamed-00002": 1,
    }  # fmt: skip
    assert dataset.pairs()[1].reference == "00001.jpg"


def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    images = [PICTURES[0], PICTURES[1], PICTURES[1], PICTURES[0]]
    dataset = written(tmp_path / "a.bin", images, [True, False])
    with pytest.raises(DeidbenchError, match="contradicts itself: pair 1 "):
        dataset.samples()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("form", "answers"),
    [
        (list, list),
        (tuple, tuple),
        (lambda images: [np.frombuffer(one, np.uint8) for one in images], np.array),
        (list, lambda flags: list(map(np.bool_, flags))),
        (list, lambda flags: list(map(int, flags))),
    ],
)
def test_every_way_of_writing_says_the_same(
    tmp_path: Path, protocol: int, form: Callable[[Any], Any], answers: Callable[[Any], Any]
) -> None:
    dataset = written(tmp_path / "a.bin", form(PICTURES), answers(FLAGS), protocol)
    assert [sample.path.read_bytes() for sample in dataset.samples()] == PICTURES
    assert [pair.same for pair in dataset.pairs()] == FLAGS


def test_a_file_that_python_2_wrote_is_read(tmp_path: Path) -> None:
    content = as_python_2_wrote(PICTURES, FLAGS)
    pickletools.dis(content, io.StringIO())  # a well-formed pickle
    (tmp_path / "a.bin").write_bytes(content)
    dataset = InsightFace(str(tmp_path / "a.bin"))
    assert [sample.path.read_bytes() for sample in dataset.samples()] == PICTURES


def test_arrays_that_python_2_wrote_are_read(tmp_path: Path) -> None:
    """NumPy under Python 2 spells the dtype, its byte order and the data as str."""
    image = picture(0, "PNG")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        b"M" + len(image).to_bytes(2, "little") + b"\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(image).to_bytes(4, "little") + image + b"tb"
    )
    content = b"\x80\x02](" + array + array + b"e]\x88a\x86."
    (tmp_path / "a.bin").write_bytes(content)
    (sample,) = InsightFace(str(tmp_path / "a.bin")).samples()
    assert sample.id == "00000.png"
    assert sample.path.read_bytes() == image


class Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_a_hostile_pickle_is_refused_before_it_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for payload in (
        Hostile(os.system, f"touch {mark}"),
        Hostile(eval, f"open({str(mark)!r}, 'w')"),
        (PICTURES, Hostile(os.mkdir, str(mark))),
    ):
        (tmp_path / "a.bin").write_bytes(pickle.dumps(payload))
        with pytest.raises(DeidbenchError, match="refused the global") as caught:
            InsightFace(str(tmp_path / "a.bin")).samples()
        assert "\n" not in str(caught.value)
        assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2, 3], "no pair of images and answers"),
        ((PICTURES, FLAGS[:-1]), "expected two images for each answer, but got 40 images and 19"),
        (([], []), "got 0 images and 0 answers"),
        ((PICTURES, dict.fromkeys(range(20))), "expected a list, but got dict"),
        ((["text", b""], [True]), "image 0 is str"),
        (([b"GIF89a", b""], [True]), "image 0 is no JPEG, PNG or BMP"),
        (([np.zeros(3), b""], [True]), "image 0 is ndarray"),
        ((PICTURES[:2], [2]), "expected True or False, but got 2"),
        ((PICTURES[:2], ["yes"]), "expected True or False, but got 'yes'"),
    ],
)
def test_another_content_is_one_line(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(DeidbenchError, match=words) as caught:
        InsightFace(str(tmp_path / "a.bin")).samples()
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=150)
@given(position=st.integers(0, 3000), garbage=st.binary(min_size=1, max_size=8))
def test_damaged_bytes_give_images_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, garbage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    content = bytearray(pickle.dumps((PICTURES[:4], [True, False])))
    start = position % len(content)
    content[start : start + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        samples = InsightFace(str(path)).samples()
    except DeidbenchError as error:
        assert "\n" not in str(error)
    else:
        assert samples


def test_images_are_unpacked_once_below_the_home_and_repaired(tmp_path: Path, home: Path) -> None:
    dataset = written(tmp_path / "a.bin", PICTURES, FLAGS)
    first = dataset.samples()[0].path
    folder = home / "datasets" / sha256_of(tmp_path / "a.bin")
    assert first.parent == folder
    assert len(list(folder.iterdir())) == 40
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    first.write_bytes(b"damaged")
    again = InsightFace(str(tmp_path / "a.bin")).samples()
    assert [sample.path.read_bytes() for sample in again] == PICTURES
    kept = [path for path in folder.iterdir() if path.stat().st_mtime_ns == before[path]]
    assert len(kept) == 39


@pytest.mark.parametrize("argument", [None, ""])
def test_the_file_must_be_named(argument: str | None) -> None:
    with pytest.raises(DeidbenchError, match=r"Write insightface:<file\.bin>"):
        InsightFace(argument)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.bin", tmp_path):
        with pytest.raises(DeidbenchError, match="no file"):
            InsightFace(str(path)).pairs()
