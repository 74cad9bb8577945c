"""Lists of pairs of one's own: what is read, and the line that an error names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deidbench.datasets._groups import unnamed_subjects
from deidbench.datasets.pairs import PairsFile
from deidbench.errors import DeidbenchError
from deidbench.types import Pair


def put_images(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return root


def listed(root: Path, text: str) -> PairsFile:
    put_images(root, "a/1.png", "a/2.png", "b/1.png", "ü 李.png")
    (root / "list.csv").write_text(text, encoding="utf-8")
    return PairsFile(str(root / "list.csv"))


def refused(dataset: PairsFile) -> str:
    with pytest.raises(DeidbenchError) as caught:
        dataset.pairs()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rows_become_pairs_in_their_order(tmp_path: Path) -> None:
    dataset = listed(
        tmp_path,
        "\ufeffprobe,reference,same,fold\na/2.png,a/1.png,1,2\n"
        'b/1.png,./a/1.png,no,1\n"ü 李.png",b/1.png,DIFFERENT,\n',
    )
    assert dataset.pairs() == (
        Pair("a/1.png", "a/2.png", same=True, fold=2),
        Pair("a/1.png", "b/1.png", same=False, fold=1),
        Pair("b/1.png", "ü 李.png", same=False, fold=0),
    )
    assert [sample.id for sample in dataset.samples()] == [
        "a/1.png", "a/2.png", "b/1.png", "ü 李.png",
    ]  # fmt: skip
    assert all(sample.path.is_file() for sample in dataset.samples())


def test_without_subjects_nobody_is_named(tmp_path: Path) -> None:
    dataset = listed(tmp_path, "reference,probe,same\na/1.png,a/2.png,1\na/1.png,b/1.png,0\n")
    assert dataset.official_only
    assert [sample.subject for sample in dataset.samples()] == [
        "unnamed-00001", "unnamed-00001", "unnamed-00002",
    ]  # fmt: skip


def test_subjects_and_labels_are_read(tmp_path: Path) -> None:
    dataset = listed(
        tmp_path,
        "reference,probe,same,reference_subject,probe_subject,reference_sex,probe_sex\n"
        "a/1.png,a/2.png,1,ann,ann,female,\nb/1.png,a/2.png,0,bob,ann,male,\n",
    )
    assert not dataset.official_only
    assert [(s.subject, s.labels) for s in dataset.samples()] == [
        ("ann", {"sex": "female"}), ("ann", {}), ("bob", {"sex": "male"}),
    ]  # fmt: skip


HEAD = "reference,probe,same\n"
NAMED = "reference,probe,same,reference_subject,probe_subject\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: no column 'reference'"),
        ("reference,probe\n", "line 1: no column 'same'"),
        ("reference,probe,same,flod\n", "line 1: the column 'flod' is unknown"),
        ("reference,probe,same,same\n", "line 1: the column 'same' is unknown, or there twice"),
        ("reference,probe,same,reference_sex\n", "line 1: no column 'probe_sex'"),
        (HEAD, "lists no pairs"),
        (HEAD + "a/1.png,a/2.png\n", "line 2: expected 3 values"),
        (HEAD + "a/1.png,a/2.png,1,1\n", "line 2: expected 3 values"),
        (HEAD + "a/1.png,a/2.png,1\n\na/1.png,b/1.png,maybe\n", "line 4: expected same"),
        (HEAD + "a/1.png,a/3.png,1\n", r"line 2: no image a/3\.png"),
        (HEAD + "a/1.png,a,1\n", "line 2: a is not a file"),
        (HEAD + "a/1.png,,1\n", "line 2: expected a path"),
        (HEAD + "a/1.png,a/1.png,1\n", r"line 2: a/1\.png is compared with itself"),
        (HEAD + 'a/1.png,"a/2.png,1\n', "line 2: "),
        (HEAD + "a/1.png,a\0.png,1\n", "line 2: "),
        ("reference,probe,same,fold\na/1.png,a/2.png,1,-1\n", "line 2: expected fold"),
        (NAMED + "a/1.png,a/2.png,1,ann,\n", "line 2: probe_subject is empty"),
        (NAMED + "a/1.png,a/2.png,0,ann,ann\n", "line 2: same is 0, but the subjects say"),
        (NAMED + "a/1.png,a/2.png,1,ann,bob\n", "line 2: same is 1, but the subjects say"),
        (
            NAMED + "a/1.png,a/2.png,1,ann,ann\na/1.png,b/1.png,0,eve,bob\n",
            r"line 3: an earlier line says something else of a/1\.png",
        ),
        (
            HEAD + "a/1.png,a/2.png,1\na/2.png,b/1.png,1\nb/1.png,a/1.png,0\n",
            "line 4: same is 0, but other lines say otherwise",
        ),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, text: str, words: str) -> None:

    assert re.search(words, refused(listed(tmp_path, text)))


@pytest.mark.parametrize(
    "escape", ["../secret.png", "a/../../secret.png", "/etc/passwd", "C:/secret.png", "\\\\host\\x"]
)
def test_no_path_leaves_the_folder(tmp_path: Path, escape: str) -> None:
    put_images(tmp_path, "secret.png")
    dataset = listed(tmp_path / "set", f"{HEAD}a/1.png,a/2.png,1\na/1.png,{escape},0\n")
    assert "line 3: expected a path below the folder" in refused(dataset)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(tmp_path: Path) -> None:
    put_images(tmp_path, "secret.png")
    dataset = listed(tmp_path / "set", f"{HEAD}a/1.png,in.png,1\na/1.png,out/secret.png,0\n")
    (tmp_path / "set" / "in.png").symlink_to(tmp_path / "set" / "a" / "2.png")
    (tmp_path / "set" / "out").symlink_to(tmp_path)
    message = refused(dataset)
    assert "line 3: out/secret.png is a link that leaves" in message


def test_a_file_of_another_encoding_is_one_line(tmp_path: Path) -> None:
    dataset = listed(tmp_path, "")
    (tmp_path / "list.csv").write_bytes("reference,probe,same\nü,b,1\n".encode("latin-1"))
    assert "UTF-8" in refused(dataset)
    (tmp_path / "list.csv").unlink()
    assert "cannot read" in refused(dataset)


@pytest.mark.parametrize("argument", [None, ""])
def test_the_file_must_be_named(argument: str | None) -> None:
    with pytest.raises(DeidbenchError, match=r"Write pairs:<file\.csv>"):
        PairsFile(argument)


@settings(deadline=None)
@given(
    edges=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=20),
)
def test_groups_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    """Against the reachability matrix, which needs no union-find."""
    reach = np.eye(16, dtype=bool)
    for one, other in edges:
        reach[one, other] = reach[other, one] = True
    for _ in range(4):
        reach = reach @ reach
    ids = [f"{index:02d}" for index in range(16)]
    groups = unnamed_subjects(ids, [(ids[one], ids[other]) for one, other in edges])
    found = np.array([[groups[one] == groups[other] for other in ids] for one in ids])
    np.testing.assert_array_equal(found, reach)
