from __future__ import annotations

import csv
import os
import struct
import unicodedata
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deidbench.datasets.folder import Folder
from deidbench.datasets.lfw import LFW
from deidbench.datasets.synthid import LABELS, SynthID
from deidbench.errors import DeidbenchError
from deidbench.images import read_image
from deidbench.split import ATTACKER_TRAIN, CALIBRATION, EVAL, METHOD_TRAIN
from deidbench.types import Dataset


def put_image(path: Path, size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 60)).save(path)
    return path


def put_people(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for number in range(1, count + 1):
            put_image(root / name / f"{name}_{number:04d}.jpg")
    return root


def ids(dataset: Dataset) -> list[str]:
    return [sample.id for sample in dataset.samples()]


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("this system lets us make no symbolic links")


# synthid


def test_synthid_has_96_people_with_8_readable_images_each() -> None:
    samples = SynthID().samples()
    assert len(samples) == 768
    assert set(Counter(sample.subject for sample in samples).values()) == {8}
    assert len({sample.subject for sample in samples}) == 96
    images = [read_image(sample.path) for sample in samples]
    assert {image.shape for image in images} == {(224, 224, 3)}
    assert len({image.tobytes() for image in images}) == 768
    assert sum(sample.path.stat().st_size for sample in samples) < 12e6


def test_the_parts_of_synthid_share_nobody() -> None:
    people: dict[str | None, set[str]] = {}
    for sample in SynthID().samples():
        people.setdefault(sample.split, set()).add(sample.subject)
    assert {part: len(names) for part, names in people.items()} == {
        METHOD_TRAIN: 24, ATTACKER_TRAIN: 28, CALIBRATION: 16, EVAL: 28,
    }  # fmt: skip
    assert len(set.union(*people.values())) == 96


def test_synthid_lists_exactly_the_images_that_it_ships() -> None:
    samples = SynthID().samples()
    root = SynthID().root / "images"
    assert [s.path for s in samples] == sorted(p for p in root.rglob("*") if p.is_file())
    assert [s.id for s in samples] == [s.path.relative_to(root).as_posix() for s in samples]
    assert all(sample.id.startswith(f"{sample.subject}/") for sample in samples)


def test_synthid_labels_are_complete_and_constant_where_the_person_is() -> None:
    by_subject: dict[str, set[tuple[str, ...]]] = {}
    for sample in SynthID().samples():
        assert set(sample.labels) == {*LABELS, "pose"}
        assert all(sample.labels.values())
        fixed = tuple(sample.labels[key] for key in ("gender", "age_band", "ancestry"))
        by_subject.setdefault(sample.subject, set()).add(fixed)
    assert all(len(labels) == 1 for labels in by_subject.values())
    assert Counter(next(iter(labels))[0] for labels in by_subject.values()) == {
        "female": 48,
        "male": 48,
    }


def test_synthid_calls_a_head_turned_beyond_15_degrees() -> None:
    with (SynthID().root / "samples.csv").open(encoding="utf-8", newline="") as table:
        yaws = {row["path"]: abs(float(row["yaw"])) for row in csv.DictReader(table)}
    poses = {sample.id: sample.labels["pose"] for sample in SynthID().samples()}
    assert max(yaws[key] for key, pose in poses.items() if pose == "frontal") <= 15
    assert min(yaws[key] for key, pose in poses.items() if pose == "turned") > 15


def test_synthid_alone_may_appear_in_reports() -> None:
    assert SynthID.synthetic
    assert not Folder.synthetic
    assert not LFW.synthetic


@pytest.mark.parametrize("argument", ["", "somewhere"])
def test_synthid_takes_no_argument(argument: str) -> None:
    with pytest.raises(DeidbenchError, match="takes no argument"):
        SynthID(argument)


# folder


def test_a_folder_gives_its_images_sorted_by_id(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.jpg", "a b/1.jpeg", "a/z.BMP", "a/y.WebP", "a/x.TIFF", "a/w.tif"):
        put_image(tmp_path / name)
    samples = Folder(str(tmp_path)).samples()
    expected = ["a b/1.jpeg", "a/w.tif", "a/x.TIFF", "a/y.WebP", "a/z.BMP", "b/10.jpg", "b/2.png"]
    assert [sample.id for sample in samples] == expected
    assert [sample.subject for sample in samples] == [name.split("/")[0] for name in expected]
    assert [sample.path for sample in samples] == [tmp_path / name for name in expected]
    assert all(read_image(sample.path).shape == (4, 4, 3) for sample in samples)
    assert Folder(str(tmp_path)).pairs() == ()


def test_a_folder_leaves_out_what_is_hidden_deeper_or_no_image(tmp_path: Path) -> None:
    put_people(tmp_path, ann=2, bob=1)
    put_image(tmp_path / "ann" / "deeper" / "1.jpg")
    put_image(tmp_path / ".trash" / "1.jpg")
    put_image(tmp_path / "ann" / "._1.jpg")
    put_image(tmp_path / "loose.jpg")
    (tmp_path / "ann" / "notes.txt").write_text("no image")
    (tmp_path / "ann" / "jpg").write_text("no extension")
    (tmp_path / "bob" / "folder.jpg").mkdir()
    (tmp_path / "nobody").mkdir()
    found = ids(Folder(str(tmp_path)))
    assert found == ["ann/ann_0001.jpg", "ann/ann_0002.jpg", "bob/bob_0001.jpg"]


def test_a_folder_follows_links_to_images_and_to_subjects(tmp_path: Path) -> None:
    store = put_people(tmp_path / "store", carl=2)
    root = put_people(tmp_path / "root", ann=1)
    link(root / "ann" / "link.jpg", store / "carl" / "carl_0001.jpg")
    link(root / "carl", store / "carl")
    assert ids(Folder(str(root))) == [
        "ann/ann_0001.jpg", "ann/link.jpg", "carl/carl_0001.jpg", "carl/carl_0002.jpg",
    ]  # fmt: skip


def test_a_folder_that_links_to_itself_is_read_once(tmp_path: Path) -> None:
    put_people(tmp_path, ann=2, bob=1)
    link(tmp_path / "loop", tmp_path)
    assert len(Folder(str(tmp_path)).samples()) == 3


def test_a_link_that_leads_nowhere_is_an_error_not_a_lost_row(tmp_path: Path) -> None:
    put_people(tmp_path, ann=2, bob=1)
    link(tmp_path / "ann" / "gone.jpg", tmp_path / "nothing.jpg")
    with pytest.raises(DeidbenchError, match=r"gone\.jpg is not a file"):
        Folder(str(tmp_path)).samples()


def test_names_are_the_same_whichever_way_a_system_composes_them(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Zoë Ångström") for form in ("NFC", "NFD"))
    assert composed != apart
    for root, name in (("one", composed), ("other", apart)):
        put_people(tmp_path / root, **{name: 2, "李明": 1})
    assert ids(Folder(str(tmp_path / "one"))) == ids(Folder(str(tmp_path / "other")))
    samples = Folder(str(tmp_path / "other")).samples()
    assert {sample.subject for sample in samples} == {composed, "李明"}
    assert all(read_image(sample.path).shape == (4, 4, 3) for sample in samples)


def test_two_names_that_are_one_in_unicode_are_an_error(tmp_path: Path) -> None:
    put_people(tmp_path, ann=1, bob=1)
    for form in ("NFC", "NFD"):
        put_image(tmp_path / "ann" / f"{unicodedata.normalize(form, 'é')}.jpg")
    if len(list((tmp_path / "ann").iterdir())) < 3:
        pytest.skip("this file system already takes them for one")
    with pytest.raises(DeidbenchError, match="the same name in Unicode"):
        Folder(str(tmp_path)).samples()


def test_a_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    put_people(tmp_path, ann=2, bob=1)
    try:
        (tmp_path / "bob").rename(tmp_path / os.fsdecode(b"b\xffb"))
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(DeidbenchError, match="not UTF-8"):
        Folder(str(tmp_path)).samples()


@settings(deadline=None, max_examples=25)
@given(counts=st.dictionaries(st.text("abÄ😀 -_7", min_size=1, max_size=6), st.integers(1, 3)))
def test_any_set_of_subjects_is_listed_completely(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("people")
    put_people(root, **counts)
    if len(counts) < 2 or max(counts.values()) < 2:
        with pytest.raises(DeidbenchError):
            Folder(str(root)).samples()
        return
    found = ids(Folder(str(root)))
    assert Counter(key.split("/")[0] for key in found) == counts
    assert found == sorted(set(found))


@pytest.mark.parametrize(("cls", "argument"), [(Folder, None), (Folder, ""), (LFW, "")])
def test_a_dataset_on_disk_must_be_told_where(
    cls: type[Folder] | type[LFW], argument: str | None
) -> None:
    with pytest.raises(DeidbenchError, match=f"Write {cls.name}:<dir>"):
        cls(argument)


@pytest.mark.parametrize("cls", [Folder, LFW])
def test_a_folder_that_holds_no_dataset_is_explained(
    cls: type[Folder] | type[LFW], tmp_path: Path
) -> None:
    with pytest.raises(DeidbenchError, match=r"no folder .*missing.*laid out as <dir>/<"):
        cls(str(tmp_path / "missing")).samples()
    with pytest.raises(DeidbenchError, match=r"holds no images\. Lay it out as <dir>/<"):
        cls(str(tmp_path)).samples()
    file = put_image(tmp_path / "1.jpg")
    with pytest.raises(DeidbenchError, match="no folder"):
        cls(str(file)).samples()
    with pytest.raises(DeidbenchError, match="1 images but no subject folders"):
        cls(str(tmp_path)).samples()


def test_a_folder_needs_someone_else_and_a_second_image(tmp_path: Path) -> None:
    put_people(tmp_path / "alone", ann=5)
    with pytest.raises(DeidbenchError, match="one subject, 'ann'"):
        Folder(str(tmp_path / "alone")).samples()
    put_people(tmp_path / "singles", ann=1, bob=1, carl=1)
    with pytest.raises(DeidbenchError, match="3 subjects with one image each"):
        Folder(str(tmp_path / "singles")).samples()


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError) as caught:
        Folder(str(tmp_path)).samples()
    assert "\n" not in str(caught.value)


def test_a_home_folder_may_be_written_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_people(tmp_path / "faces", ann=2, bob=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert len(Folder("~/faces").samples()) == 3


@pytest.mark.parametrize("cls", [Folder, LFW])
def test_a_tilde_of_no_user_is_an_error_of_one_line(cls: type[Folder] | type[LFW]) -> None:
    with pytest.raises(DeidbenchError, match="'~nosuch-user/x', but its '~'") as caught:
        cls("~nosuch-user/x")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_subject_that_may_not_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    put_people(tmp_path, ann=2, bob=1)
    (tmp_path / "bob").chmod(0)
    try:
        with pytest.raises(DeidbenchError, match=r"cannot read \S+bob: Permission denied"):
            Folder(str(tmp_path)).samples()
    finally:
        (tmp_path / "bob").chmod(0o700)


def test_a_subject_that_links_to_itself_is_an_error_of_one_line(tmp_path: Path) -> None:
    put_people(tmp_path, ann=2, bob=1)
    link(tmp_path / "carl", tmp_path / "carl")
    with pytest.raises(DeidbenchError, match=r"cannot read \S+carl: ") as caught:
        Folder(str(tmp_path)).samples()
    assert "\n" not in str(caught.value)


# lfw

PEOPLE = {"Ann_Lee": 3, "Bob": 2, "Carl_Jr": 1}
VIEW2 = "2\t1\nAnn_Lee\t1\t3\nBob\t1\tCarl_Jr\t1\nBob\t1\t2\nAnn_Lee\t2\tBob\t2\n"


def put_lfw(root: Path, pairs: str | None = VIEW2) -> LFW:
    put_people(root, **PEOPLE)
    if pairs is not None:
        (root / "pairs.txt").write_text(pairs)
    return LFW(str(root))


def test_lfw_reads_view_2_in_its_order(tmp_path: Path) -> None:
    dataset = put_lfw(tmp_path)
    assert [(pair.reference, pair.probe, pair.same, pair.fold) for pair in dataset.pairs()] == [
        ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0003.jpg", True, 1),
        ("Bob/Bob_0001.jpg", "Carl_Jr/Carl_Jr_0001.jpg", False, 1),
        ("Bob/Bob_0001.jpg", "Bob/Bob_0002.jpg", True, 2),
        ("Ann_Lee/Ann_Lee_0002.jpg", "Bob/Bob_0002.jpg", False, 2),
    ]
    known = set(ids(dataset))
    assert len(known) == 6
    assert all({pair.reference, pair.probe} <= known for pair in dataset.pairs())


def test_lfw_finds_its_pairs_beside_the_folder_too(tmp_path: Path) -> None:
    inside = put_lfw(tmp_path / "inside").pairs()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "pairs.txt").write_text(VIEW2)
    assert put_lfw(tmp_path / "outside" / "lfw", None).pairs() == inside


def test_lfw_without_a_pair_list_has_no_pairs(tmp_path: Path) -> None:
    dataset = put_lfw(tmp_path / "deep" / "lfw", None)
    assert dataset.pairs() == ()
    assert len(dataset.samples()) == 6


@pytest.mark.parametrize("newline", ["\r\n", "\n\n\n"])
def test_lfw_reads_a_pair_list_that_an_editor_has_saved(tmp_path: Path, newline: str) -> None:
    text = VIEW2.replace("\n", "\r\n") if newline == "\r\n" else VIEW2 + "\n\n"
    (tmp_path / "pairs.txt").write_bytes(text.encode())
    assert len(put_lfw(tmp_path, None).pairs()) == 4


@pytest.mark.parametrize(
    ("line", "text", "complaint"),
    [
        (1, "1100", "line 1: expected '<folds> <pairs>'"),
        (1, "Ann_Lee\t1", "line 1: expected '<folds> <pairs>'"),
        (1, "3\t1", "line 1 promises 3 folds of 2 pairs, but 4 lines follow"),
        (2, "Ann_Lee\t1", "line 2: expected 'Name 1 2'"),
        (3, "Bob\t1\tCarl_Jr\tone", "line 3: expected 'Name 1 2'"),
        (4, "", "line 4: expected 'Name 1 2'"),
        (5, "Ann_Lee\t2\tBob\t2\t7", "line 5: expected 'Name 1 2'"),
        (4, "Bob\t-1\t2", "line 4: expected 'Name 1 2'"),
        (4, "Bob\t²\t2", "line 4: expected 'Name 1 2'"),
    ],
)
def test_a_malformed_pair_list_is_refused_with_its_line(
    tmp_path: Path, line: int, text: str, complaint: str
) -> None:
    lines = VIEW2.splitlines()
    lines[line - 1] = text
    (tmp_path / "pairs.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DeidbenchError) as caught:
        put_lfw(tmp_path, None).pairs()
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"0\t0"])
def test_a_pair_list_without_pairs_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pairs.txt").write_bytes(content)
    with pytest.raises(DeidbenchError, match=r"pairs\.txt"):
        put_lfw(tmp_path, None).pairs()


def test_pairs_with_missing_images_are_counted(tmp_path: Path) -> None:
    dataset = put_lfw(tmp_path)
    (tmp_path / "Carl_Jr" / "Carl_Jr_0001.jpg").unlink()
    (tmp_path / "Bob" / "Bob_0002.jpg").unlink()
    with pytest.raises(DeidbenchError, match=r"line 3: no image Carl_Jr/Carl_Jr_0001 .*; 2 images"):
        dataset.pairs()
    assert len(dataset.samples()) == 4


@pytest.mark.parametrize("name", ["Ann_Lee/1.jpg", "Ann_Lee/Bob_0001.jpg", "Bob/Bob_x.jpg"])
def test_a_folder_with_other_names_is_not_lfw(tmp_path: Path, name: str) -> None:
    put_image(tmp_path / name)
    with pytest.raises(DeidbenchError, match="not named as in LFW"):
        put_lfw(tmp_path).samples()


@pytest.mark.parametrize("kind", [LFW, Folder])
def test_known_label_faults_are_marked(tmp_path: Path, kind: type[LFW | Folder]) -> None:
    put_people(tmp_path, Recep_Tayyip_Erdogan=5, Michael_Schumacher=8)
    faulty = {sample.id: sample.fault for sample in kind(str(tmp_path)).samples() if sample.fault}
    assert list(faulty) == [
        "Michael_Schumacher/Michael_Schumacher_0008.jpg",
        "Recep_Tayyip_Erdogan/Recep_Tayyip_Erdogan_0004.jpg",
    ]
    assert "Abdullah Gul" in str(faulty["Recep_Tayyip_Erdogan/Recep_Tayyip_Erdogan_0004.jpg"])


def test_a_label_fault_is_known_in_every_format(tmp_path: Path) -> None:
    put_people(tmp_path, Ann=2)
    put_image(tmp_path / "Michael_Schumacher" / "Michael_Schumacher_0008.png")
    assert [bool(one.fault) for one in Folder(str(tmp_path)).samples()] == [False, False, True]


@pytest.mark.real
def test_lfw_eval_is_read_completely() -> None:
    assets = Path(os.environ.get("DEIDBENCH_TEST_ASSETS", ""))
    if not (assets / "lfw_eval").is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder with lfw_eval")
    dataset = LFW(str(assets / "lfw_eval"))
    samples = dataset.samples()
    assert len(samples) == 4631
    assert len({sample.subject for sample in samples}) == 610
    assert read_image(samples[0].path).shape == (250, 250, 3)
    assert len(Folder(str(assets / "lfw_eval")).samples()) == 4631
    with pytest.raises(DeidbenchError, match="images that the list names are missing"):
        dataset.pairs()  # the rest of View 2 lies in lfw_train


@pytest.mark.real
def test_view_2_of_the_whole_lfw_has_10_folds_of_600(tmp_path: Path) -> None:
    assets = Path(os.environ.get("DEIDBENCH_TEST_ASSETS", ""))
    if not (assets / "lfw_train").is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder with lfw_train")
    for part in ("lfw_eval", "lfw_train"):
        for person in (assets / part).iterdir():
            if person.is_dir():
                link(tmp_path / person.name, person)
    # The assets leave these out: they show people who are there under another name too.
    put_people(tmp_path, Joseph_Blatter=2, Mireya_Elisa_Moscoso_Rodriguez=1, Wang_Nan=1)
    (tmp_path / "pairs.txt").write_bytes((assets / "lfw_eval" / "pairs.txt").read_bytes())
    pairs = LFW(str(tmp_path)).pairs()
    assert Counter((pair.fold, pair.same) for pair in pairs) == {
        (fold, same): 300 for fold in range(1, 11) for same in (True, False)
    }
    subjects = [(p.reference.split("/")[0], p.probe.split("/")[0]) for p in pairs]
    assert all((one == other) == p.same for (one, other), p in zip(subjects, pairs, strict=True))


# images

RED, GREEN = (200, 30, 60), (20, 160, 40)


def two_colours(mode: str) -> Image.Image:
    """4 x 2 pixels: red on the left, green on the right."""
    image = Image.new("RGB", (4, 2), RED)
    image.paste(GREEN, (2, 0, 4, 2))
    return image.convert(mode, palette=Image.Palette.ADAPTIVE)


OLD_PILLOW = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="Pillow 12 calls the YCbCr TIFF that it writes truncated; 13 reads it",
)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "1.png"), ("RGBA", "1.png"), ("P", "1.png"), ("P", "1.gif"), ("RGB", "1.bmp"),
        ("RGB", "1.tif"), ("CMYK", "1.tif"), ("RGBA", "1.tif"),
        pytest.param("YCbCr", "1.tif", marks=OLD_PILLOW),
    ],
)  # fmt: skip
def test_every_kind_of_colour_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    two_colours(mode).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (2, 4, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous
    np.testing.assert_allclose(image[0, 0].astype(int), RED, atol=3)
    np.testing.assert_allclose(image[1, 3].astype(int), GREEN, atol=3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_all_colour_spaces_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (16, 16), (90, 90, 90)).convert(mode).save(tmp_path / "1.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "1.jpg").astype(int), 90, atol=3)


def test_what_lies_under_transparency_is_read(tmp_path: Path) -> None:
    image = two_colours("RGBA")
    image.putalpha(0)
    image.save(tmp_path / "1.png")
    assert tuple(read_image(tmp_path / "1.png")[0, 0]) == RED


@pytest.mark.parametrize("name", ["1.png", "1.tif"])
def test_16_bits_are_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / name)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image, np.arange(256).reshape(16, 16, 1).repeat(3, 2))


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "1.png")
    np.testing.assert_array_equal(read_image(tmp_path / "1.png")[..., 1], np.eye(4) * 255)


def test_pixels_without_a_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(DeidbenchError, match=r"1\.tif: its pixels are floating-point"):
        read_image(tmp_path / "1.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_exif_turns_is_read_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :16] = 255  # one bright corner tells all 8 orientations apart
    undo = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "1.jpg", exif=exif, quality=95, subsampling=0)
    np.testing.assert_allclose(read_image(tmp_path / "1.jpg").astype(int), upright, atol=12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("tail", [b"", b"garbage", b"II*\0\xff\xff\xff\xff"])
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, tail: bytes) -> None:
    two_colours("RGB").save(tmp_path / "1.jpg", exif=b"Exif\0\0" + tail)
    assert read_image(tmp_path / "1.jpg").shape == (2, 4, 3)


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.bmp", "1.webp", "1.tif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DeidbenchError, match=f"cannot read the image .*{name}") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=100)
@given(position=st.integers(0, 10_000), garbage=st.binary(min_size=1, max_size=40))
@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.bmp", "1.tif", "1.webp"])
def test_damaged_bytes_give_a_picture_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, garbage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged_{name}"
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(path)
    content = bytearray(path.read_bytes())
    start = position % len(content)
    content[start : start + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        image = read_image(path)
    except DeidbenchError as error:
        assert name in str(error)
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(DeidbenchError, match="cannot read the image"):
            read_image(path)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    put_image(tmp_path / "1.png")
    content = bytearray((tmp_path / "1.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # width and height of the header
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(DeidbenchError, match="decompression bomb"):
        read_image(tmp_path / "1.png")


def test_samples_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    put_lfw(tmp_path)
    datasets: list[Dataset] = [SynthID(), Folder(str(tmp_path)), LFW(str(tmp_path))]
    for dataset in datasets:
        assert all(one < other for one, other in pairwise(ids(dataset)))
        assert dataset.samples() is dataset.samples()
