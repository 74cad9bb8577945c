"""Sets whose file names or lists say what is shown: RaFD, XM2VTS, CelebA."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deidbench.datasets._scan import walk
from deidbench.datasets.celeba import CelebA
from deidbench.datasets.rafd import RaFD
from deidbench.datasets.xm2vts import EVALUATION_IMPOSTORS, TEST_IMPOSTORS, XM2VTS
from deidbench.errors import DeidbenchError
from deidbench.images import read_image
from deidbench.split import CALIBRATION, EVAL, METHOD_TRAIN, split_subjects
from deidbench.types import Dataset

DATASETS = (RaFD, XM2VTS, CelebA)


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (200, 30, 60)).save(root / name)
    return root


def refused(dataset: Dataset) -> str:
    with pytest.raises(DeidbenchError) as caught:
        dataset.samples()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("cls", DATASETS)
@pytest.mark.parametrize("argument", [None, ""])
def test_the_folder_must_be_named(cls: type[RaFD], argument: str | None) -> None:
    with pytest.raises(DeidbenchError, match=f"Write {cls.name}:<dir>"):
        cls(argument)


@pytest.mark.parametrize("cls", DATASETS)
def test_a_folder_that_is_missing_or_empty_is_one_line(cls: type[RaFD], tmp_path: Path) -> None:
    assert "missing" in refused(cls(str(tmp_path / "missing")))
    assert str(tmp_path) in refused(cls(str(tmp_path)))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
@pytest.mark.parametrize("cls", [RaFD, XM2VTS])
def test_a_folder_that_may_not_be_read_is_one_line(cls: type[RaFD], tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    try:
        assert "Permission denied" in refused(cls(str(tmp_path)))
    finally:
        (tmp_path / "closed").chmod(0o700)


# RaFD

ANN, BEA, KID = "01_Caucasian_female", "29_Moroccan_male", "41_Kid_female"


def rafd(who: str, angle: str = "090", mood: str = "angry", gaze: str = "frontal") -> str:
    return f"Rafd{angle}_{who}_{mood}_{gaze}.jpg"


def test_rafd_reads_its_labels_from_the_names(tmp_path: Path) -> None:
    put(tmp_path, rafd(ANN), rafd(BEA, "045", "happy", "left"), "more/" + rafd(BEA, "180"))
    samples = RaFD(str(tmp_path)).samples()
    assert [(s.id, s.subject) for s in samples] == [
        ("Rafd045_29_Moroccan_male_happy_left.jpg", "rafd-29"),
        ("Rafd090_01_Caucasian_female_angry_frontal.jpg", "rafd-01"),
        ("more/Rafd180_29_Moroccan_male_angry_frontal.jpg", "rafd-29"),
    ]
    assert samples[0].labels == {
        "camera_angle": "045", "ethnicity": "moroccan", "gender": "male", "expression": "happy",
        "gaze": "left", "age_band": "adult",
    }  # fmt: skip


def test_rafd_leaves_out_children_unless_asked(tmp_path: Path) -> None:
    put(tmp_path, rafd(ANN), rafd(ANN, mood="sad"), rafd(BEA), rafd(KID), rafd(KID, mood="sad"))
    adults, everyone = RaFD(str(tmp_path)), RaFD(str(tmp_path), adults_only=False)
    assert {sample.subject for sample in adults.samples()} == {"rafd-01", "rafd-29"}
    assert adults.notes() == ("2 images of children are left out; --with-children reads them",)
    children = [sample for sample in everyone.samples() if sample.subject == "rafd-41"]
    assert len(children) == 2
    assert children[0].labels["age_band"] == "child"
    assert "ethnicity" not in children[0].labels
    assert everyone.notes() == ()


def test_rafd_of_children_alone_says_what_to_do(tmp_path: Path) -> None:
    put(tmp_path, rafd(KID), rafd("40_Kid_male"))
    assert "--with-children" in refused(RaFD(str(tmp_path)))


@pytest.mark.parametrize(
    "name",
    [
        "Rafd091_01_Caucasian_female_angry_frontal.jpg",
        "Rafd090_1_Caucasian_female_angry_frontal.jpg",
        "Rafd090_01_Asian_female_angry_frontal.jpg",
        "Rafd090_01_Caucasian_other_angry_frontal.jpg",
        "Rafd090_01_Caucasian_female_angry_up.jpg",
        "Rafd090_01_Caucasian_female_bored_frontal.jpg",
        "xRafd090_01_Caucasian_female_angry_frontal.jpg",
        "Rafd090_01_Caucasian_female_angry_frontal_2.jpg",
    ],
)
def test_a_name_beside_the_grammar_is_an_error_not_a_lost_row(tmp_path: Path, name: str) -> None:
    put(tmp_path, rafd(ANN), rafd(ANN, mood="sad"), rafd(BEA), name)
    assert f"{name} is not named as in RaFD" in refused(RaFD(str(tmp_path)))


def test_two_files_of_one_name_are_an_error(tmp_path: Path) -> None:
    put(tmp_path, rafd(ANN), rafd(BEA), "copy/" + rafd(ANN))
    assert "have the same name" in refused(RaFD(str(tmp_path)))


def test_one_person_and_single_images_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "one", rafd(ANN), rafd(ANN, mood="sad"))
    assert "holds one subject, 'rafd-01'" in refused(RaFD(str(tmp_path / "one")))
    put(tmp_path / "singles", rafd(ANN), rafd(BEA))
    assert "2 subjects with one image each" in refused(RaFD(str(tmp_path / "singles")))


# walking


def test_a_walk_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    put(tmp_path / "set", "a.png", "deep/er/b.png", ".hidden/c.png", ".d.png")
    put(tmp_path / "elsewhere", "e.png")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    found = sorted(path.relative_to(tmp_path / "set") for path in walk(tmp_path / "set"))
    assert [path.as_posix() for path in found] == ["a.png", "deep/er/b.png", "link/e.png"]


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, rafd(BEA))
    (tmp_path / rafd(ANN)).symlink_to(tmp_path / "nothing.jpg")
    assert "is not a file that can be read" in refused(RaFD(str(tmp_path)))


# XM2VTS


def test_xm2vts_reads_sessions_shots_and_light(tmp_path: Path) -> None:
    put(tmp_path, "CDS001/003_1_1.ppm", "CDS006/003_1_2.ppm", "004/004_2_1.ppm",
        "darkened/003/003_4_l1.png", "darkened/003/003_4_r2.png")  # fmt: skip
    samples = XM2VTS(str(tmp_path)).samples()
    assert [(s.id, s.subject, *s.labels.values()) for s in samples] == [
        ("004/004_2_1.ppm", "xm2vts-004", "2", "1", "even"),
        ("CDS001/003_1_1.ppm", "xm2vts-003", "1", "1", "even"),
        ("CDS006/003_1_2.ppm", "xm2vts-003", "1", "2", "even"),
        ("darkened/003/003_4_l1.png", "xm2vts-003", "4", "1", "left"),
        ("darkened/003/003_4_r2.png", "xm2vts-003", "4", "2", "right"),
    ]
    np.testing.assert_array_equal(read_image(samples[0].path)[0, 0], (200, 30, 60))


@pytest.mark.parametrize("name", ["3_1_1.ppm", "003_5_1.ppm", "003_1_3.ppm", "003_1.ppm"])
def test_xm2vts_refuses_other_names(tmp_path: Path, name: str) -> None:
    put(tmp_path, "003_1_1.ppm", "003_1_2.ppm", "004_1_1.ppm", name)
    assert "is not named as in XM2VTS" in refused(XM2VTS(str(tmp_path)))


def whole_xm2vts(root: Path) -> Path:
    """All 295 people; the numbers of the clients do not matter, only how many they are."""
    free = (f"{number:03d}" for number in range(372))
    impostors = EVALUATION_IMPOSTORS | TEST_IMPOSTORS
    clients = itertools.islice((one for one in free if one not in impostors), 200)
    content = put(root, "image.ppm") / "image.ppm"
    for person in (*clients, *impostors):
        for session, shot in itertools.product("1234", "12"):
            (root / f"{person}_{session}_{shot}.ppm").write_bytes(content.read_bytes())
    content.unlink()
    return root


def test_the_lausanne_protocol_has_its_published_counts(tmp_path: Path) -> None:
    """400 client and 112,000 impostor accesses, each to 3 or 4 training images of a client."""
    root = whole_xm2vts(tmp_path)
    assert len(XM2VTS(str(root)).samples()) == 2360
    for configuration, images in ((1, 3), (2, 4)):
        pairs = XM2VTS(str(root), configuration=configuration).pairs()
        assert Counter(pair.same for pair in pairs) == {True: 400 * images, False: 112_000 * images}
        assert len(set(pairs)) == len(pairs)
        references = {pair.reference[4:7] for pair in pairs}
        assert references == ({"1_1", "2_1", "3_1"}, {"1_1", "1_2", "2_1", "2_2"})[images - 3]
        own = {pair.probe[4:7] for pair in pairs if pair.same}
        assert own == {"4_1", "4_2"}
        assert all((p.reference[:3] == p.probe[:3]) == p.same for p in pairs)
        strangers = {pair.probe[:3] for pair in pairs if not pair.same}
        assert strangers == TEST_IMPOSTORS


def test_the_people_of_the_lausanne_protocol_are_counted() -> None:
    assert (len(EVALUATION_IMPOSTORS), len(TEST_IMPOSTORS)) == (25, 70)
    assert not EVALUATION_IMPOSTORS & TEST_IMPOSTORS


def test_a_part_of_xm2vts_has_no_protocol_and_says_so(tmp_path: Path) -> None:
    put(tmp_path, "003_1_1.ppm", "003_1_2.ppm", "004_1_1.ppm")
    with pytest.raises(DeidbenchError, match=r"needs 200 clients and .* --pairs cross"):
        XM2VTS(str(tmp_path)).pairs()
    with pytest.raises(DeidbenchError, match="configuration is 1 or 2, but got 3"):
        XM2VTS(str(tmp_path), configuration=3)


# CelebA

PEOPLE = {1: 7, 2: 7, 3: 8, 4: 8, 5: 9, 6: 9, 7: 10}
SPLIT = {7: 0, 8: 1, 9: 2, 10: 2}


def lines(rows: Iterable[tuple[object, ...]]) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


def put_celeba(root: Path, images: str = "img_align_celeba", suffix: str = ".jpg") -> Path:
    names = {key: f"{key:06d}.jpg" for key in PEOPLE}
    put(root, *(f"{images}/{key:06d}{suffix}" for key in PEOPLE))
    (root / "identity_CelebA.txt").write_text(lines((names[k], PEOPLE[k]) for k in PEOPLE))
    return root


def put_lists(root: Path) -> None:
    names = {key: f"{key:06d}.jpg" for key in PEOPLE}
    rows = [(names[key], SPLIT[person]) for key, person in PEOPLE.items()]
    (root / "list_eval_partition.txt").write_text(lines(rows))
    head = "7\nSmiling Attractive Male Young Eyeglasses Pale_Skin Wearing_Hat \n"
    rows = [(names[key], *([1, -1, 1, -1, 1, -1, 1] if key % 2 else [-1] * 7)) for key in PEOPLE]
    (root / "list_attr_celeba.txt").write_text(head + lines(rows))


def test_celeba_reads_people_parts_and_labels(tmp_path: Path) -> None:
    put_lists(put_celeba(tmp_path))
    samples = CelebA(str(tmp_path)).samples()
    assert [(s.id, s.subject, s.split) for s in samples] == [
        ("000001.jpg", "celeba-7", METHOD_TRAIN), ("000002.jpg", "celeba-7", METHOD_TRAIN),
        ("000003.jpg", "celeba-8", CALIBRATION), ("000004.jpg", "celeba-8", CALIBRATION),
        ("000005.jpg", "celeba-9", EVAL), ("000006.jpg", "celeba-9", EVAL),
        ("000007.jpg", "celeba-10", EVAL),
    ]  # fmt: skip
    assert samples[0].labels == {
        "expression": "smiling", "gender": "male", "age_band": "not young", "glasses": "yes",
        "skin": "not pale", "hat": "yes",
    }  # fmt: skip
    assert samples[1].labels == {
        "expression": "not smiling", "gender": "female", "age_band": "not young", "glasses": "no",
        "skin": "not pale", "hat": "no",
    }  # fmt: skip
    assert samples[0].labels is samples[2].labels  # 200,000 images share a few mappings


def test_celeba_lies_as_its_archives_do_too(tmp_path: Path) -> None:
    flat = CelebA(str(put_celeba(tmp_path / "flat"))).samples()
    put_celeba(tmp_path / "tree", "Img/img_align_celeba_png", ".png")
    (tmp_path / "tree" / "Anno").mkdir()
    (tmp_path / "tree" / "identity_CelebA.txt").rename(
        tmp_path / "tree" / "Anno" / "identity_CelebA.txt"
    )
    tree = CelebA(str(tmp_path / "tree")).samples()
    assert [(s.path.stem, s.subject) for s in tree] == [(s.path.stem, s.subject) for s in flat]
    assert {sample.split for sample in flat} == {None}
    split_subjects(
        flat, seed=0, shares={CALIBRATION: 0.5, EVAL: 0.5}
    )  # 4 people are enough for a draw


def test_celeba_prefers_the_aligned_images(tmp_path: Path) -> None:
    put_celeba(tmp_path, "img_celeba")
    assert CelebA(str(tmp_path)).samples()[0].path.parent.name == "img_celeba"
    put_celeba(tmp_path)
    assert CelebA(str(tmp_path)).samples()[0].path.parent.name == "img_align_celeba"


def test_missing_images_of_celeba_are_counted_in_one_line(tmp_path: Path) -> None:
    root = put_celeba(tmp_path)
    for name in ("000003.jpg", "000005.jpg"):
        (root / "img_align_celeba" / name).unlink()
    assert "2 of the 7 images in identity_CelebA.txt are missing, the first is 000003" in refused(
        CelebA(str(root))
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("identity_CelebA.txt", "000001.jpg\n", "identity_CelebA.txt, line 1: expected"),
        ("identity_CelebA.txt", "\n000001.jpg x\n", "identity_CelebA.txt, line 2: expected"),
        ("identity_CelebA.txt", "", "no identity_CelebA.txt with people"),
        ("list_eval_partition.txt", "000001.jpg 3\n", "list_eval_partition.txt, line 1"),
        ("list_eval_partition.txt", "000001.jpg 1\n", "does not name the image 000002"),
        ("list_attr_celeba.txt", "1\nMale Young\n000001.jpg 1\n", "list_attr_celeba.txt, line 3"),
        ("list_attr_celeba.txt", "1\nMale\n000001.jpg 0\n", "list_attr_celeba.txt, line 3"),
    ],
)
def test_a_malformed_list_names_its_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (put_celeba(tmp_path) / name).write_text(text)
    assert words in refused(CelebA(str(tmp_path)))


def test_a_person_in_two_parts_of_celeba_is_refused_by_the_split(tmp_path: Path) -> None:
    put_lists(put_celeba(tmp_path))
    text = (tmp_path / "list_eval_partition.txt").read_text()
    (tmp_path / "list_eval_partition.txt").write_text(text.replace("000001.jpg 0", "000001.jpg 1"))
    with pytest.raises(DeidbenchError, match="person 'celeba-7' is in two parts"):
        split_subjects(CelebA(str(tmp_path)).samples(), seed=0, shares={EVAL: 1.0})
