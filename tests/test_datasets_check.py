"""What 'deidbench datasets check' says of folders, good and bad."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deidbench import protocols
from deidbench.config import PROTOCOL
from deidbench.datasets.folder import Folder
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError, MetricUndefinedError
from deidbench.split import CALIBRATION, EVAL, split_subjects
from deidbench.statistics import threshold_at_far
from deidbench.survey import Survey, recognise, rows, survey

DEFAULT = protocols.load(PROTOCOL)


def put_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def put_people(root: Path, *counts: int) -> Path:
    seed = 0
    for person, count in enumerate(counts):
        for number in range(count):
            put_image(root / f"person {person}" / f"{number}.png", seed)
            seed += 1
    return root


def check(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deidbench", "datasets", "check", *arguments],
        capture_output=True, text=True, cwd=cwd, check=False,
    )  # fmt: skip


def told(found: Survey) -> dict[str, str]:
    return dict(rows(found))


# counts


def test_images_and_comparisons_are_counted(tmp_path: Path) -> None:
    found = survey(str(put_people(tmp_path, 5, 1, 1, 2, 4, 3)))
    assert (found.subjects, found.images, found.subjects_with_one_image) == (6, 16, 2)
    assert found.images_per_subject == (1, 2.5, 5)
    samples = Folder(str(tmp_path)).samples()
    split = split_subjects(samples, seed=0, shares=DEFAULT.shares)
    for part in found.parts:
        own = [samples[index].subject for index in split.indices(samples, part.name)]
        pairs = Counter(one == other for one, other in combinations(own, 2))
        assert (part.images, part.genuine, part.impostor) == (len(own), pairs[True], pairs[False])
    assert [part.name for part in found.parts] == [CALIBRATION, EVAL]
    assert not found.fixed_parts


def test_another_seed_draws_other_parts(tmp_path: Path) -> None:
    put_people(tmp_path, 1, 2, 3, 4, 5, 6, 7)
    assert len({tuple(survey(str(tmp_path), seed=seed).parts) for seed in range(5)}) > 1


@pytest.mark.parametrize("size", [2, 5, 6, 13])
def test_a_far_is_called_honest_exactly_where_a_run_can_set_its_threshold(
    tmp_path: Path, size: int
) -> None:
    found = survey(str(put_people(tmp_path, *[size] * 5)))
    impostors = next(part.impostor for part in found.parts if part.name == CALIBRATION)
    for far in DEFAULT.fars:
        try:
            threshold_at_far(np.arange(impostors, dtype=np.float32), far)
        except MetricUndefinedError:
            assert far not in found.honest_fars
        else:
            assert far in found.honest_fars
    expected = 30 / impostors if impostors > 30 else None
    assert found.smallest_far == expected


def test_synthid_is_whole_and_in_fixed_parts() -> None:
    found = survey("synthid")
    assert (found.subjects, found.images, found.synthetic) == (96, 768, True)
    assert found.fixed_parts
    assert sum(part.images for part in found.parts) == 768
    assert found.labels["gender"] == {"female": 384, "male": 384}
    assert not found.duplicates and not found.unreadable and not found.ignored
    counted = Counter(sample.labels["pose"] for sample in SynthID().samples())
    assert found.labels["pose"] == counted


# what is wrong


def test_equal_files_of_two_people_are_named(tmp_path: Path) -> None:
    put_people(tmp_path, 2, 2, 2, 2)
    copy = tmp_path / "person 1" / "copy.png"
    copy.write_bytes((tmp_path / "person 0" / "1.png").read_bytes())
    (tmp_path / "person 0" / "own copy.png").write_bytes(
        (tmp_path / "person 0" / "0.png").read_bytes()
    )
    (duplicate,) = survey(str(tmp_path)).duplicates
    assert duplicate.ids == ["person 0/1.png", "person 1/copy.png"]
    assert "person 0/1.png = person 1/copy.png" in told(survey(str(tmp_path)))["duplicates"]


@pytest.mark.parametrize("content", [b"", b"no image", "truncated"])
def test_files_that_are_no_images_are_counted_and_named(
    tmp_path: Path, content: bytes | str
) -> None:
    put_people(tmp_path, 2, 2, 2, 2)
    bad = tmp_path / "person 3" / "bad.jpg"
    if isinstance(content, str):
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(bad)
        content = bad.read_bytes()[:-500]
    bad.write_bytes(content)
    found = survey(str(tmp_path))
    (line,) = found.unreadable
    assert "bad.jpg" in line
    assert told(found)["unreadable"].startswith("1 images: cannot read the image")


def test_what_is_not_read_is_counted_by_its_ending(tmp_path: Path) -> None:
    put_people(tmp_path, 2, 2, 2, 2)
    for name in (
        "readme.txt",
        "person 0/notes.TXT",
        "person 0/raw",
        "loose.png",
        "person 0/x/y.png",
    ):
        put_image(tmp_path / "made.png", 0)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "made.png").rename(tmp_path / name)
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = survey(str(tmp_path))
    assert found.ignored == {"": 1, ".png": 2, ".txt": 2}
    assert told(found)["not read"] == ".png 2, .txt 2, no ending 1"


def test_images_of_a_list_count_as_read_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_people(tmp_path / "real", 2, 2)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    text = (
        "reference,probe,same\nperson 0/0.png,person 0/1.png,1\nperson 0/0.png,person 1/0.png,0\n"
    )
    (tmp_path / "real" / "list.csv").write_text(text)
    monkeypatch.chdir(tmp_path / "real")
    for written in ("list.csv", "./list.csv", str(tmp_path / "link" / "list.csv")):
        found = survey(written)
        assert found.ignored == {".csv": 1, ".png": 1}
        assert found.links_out == []


def test_links_out_of_the_folder_are_counted_and_those_inside_are_not(tmp_path: Path) -> None:
    root = put_people(tmp_path / "set", 2, 2, 2, 2)
    store = put_people(tmp_path / "store", 3)
    (root / "person 0" / "out.png").symlink_to(store / "person 0" / "0.png")
    (root / "linked").symlink_to(store / "person 0")
    (root / "person 1" / "in.png").symlink_to(root / "person 1" / "0.png")
    found = survey(str(root))
    assert found.links_out == ["linked/0.png", "linked/1.png", "linked/2.png", "person 0/out.png"]
    assert told(found)["links out"].startswith("4 images lie elsewhere: linked/0.png; ")
    assert told(found)["links out"].endswith("; and 1 more")


def test_images_of_known_faults_are_named_and_not_compared(tmp_path: Path) -> None:
    put_people(tmp_path, 2, 2, 2, 2)
    fault = "Michael_Schumacher/Michael_Schumacher_0008.png"
    put_image(tmp_path / fault, 99)
    put_image(tmp_path / fault.replace("8.", "7."), 98)
    found = survey(str(tmp_path))
    assert list(found.faults) == [fault]
    assert sum(part.images for part in found.parts) == found.images - 1


def test_names_may_be_long_foreign_or_hostile(tmp_path: Path) -> None:
    put_people(tmp_path, 2, 2, 2)
    names = ("李明 Ångström", "x" * 200, "a\x1b[31m\nb")
    for seed, name in enumerate(names):
        put_image(tmp_path / name / "1.png", 100 + seed)
        (tmp_path / name / "bad.png").write_bytes(b"")
    found = survey(str(tmp_path))
    assert found.images == 12
    assert len(found.unreadable) == 3
    for _, text in rows(found):
        assert text.isprintable()


@pytest.mark.parametrize(
    ("counts", "words"),
    [((), "holds no images"), ((3,), "holds one subject"), ((1, 1), "one image each"),
     ((2, 2, 1), "needs 2")],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_one_line_and_exit_code_2(
    tmp_path: Path, counts: tuple[int, ...], words: str
) -> None:
    put_people(tmp_path, *counts)
    done = check(str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert words in line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    put_people(tmp_path, 2, 2, 2, 2)
    (tmp_path / "person 0").chmod(0)
    try:
        with pytest.raises(DeidbenchError, match="Permission denied"):
            survey(str(tmp_path))
    finally:
        (tmp_path / "person 0").chmod(0o700)


# which dataset


def test_the_layout_of_a_path_is_recognised(tmp_path: Path) -> None:
    files = {
        "folder": "ann/1.png",
        "lfw": "Ann_Lee/Ann_Lee_0001.png",
        "rafd": "Rafd090_01_Caucasian_female_angry_frontal.png",
        "xm2vts": "CDS001/003_1_1.ppm",
        "celeba": "Anno/identity_CelebA.txt",
    }
    for name, file in files.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        spec, why = recognise(str(tmp_path / name))
        assert spec == f"{name}:{tmp_path / name}"
        assert why
    for name, file in (("insightface", "lfw.bin"), ("pairs", "list.csv")):
        (tmp_path / file).write_bytes(b"")
        assert recognise(str(tmp_path / file))[0] == f"{name}:{tmp_path / file}"


def test_a_name_comes_before_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthid").mkdir()
    assert recognise("synthid")[0] == "synthid"
    assert recognise("./synthid")[0] == "folder:./synthid"
    assert recognise("lfw:somewhere")[0] == "lfw:somewhere"


def test_what_is_neither_a_name_nor_a_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="Did you mean 'synthid'"):
        survey("synthd")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DeidbenchError, match="is no dataset"):
        survey(str(tmp_path / "notes.txt"))


def test_where_nobody_is_named_only_the_official_pairs_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "home"))
    images = [put_image(tmp_path / f"{seed}.png", seed).read_bytes() for seed in range(8)]
    content = (images, [True, False, True, False])
    (tmp_path / "a.bin").write_bytes(pickle.dumps(content))
    found = survey(str(tmp_path / "a.bin"))
    assert found.parts == []
    assert (found.official.genuine, found.official.impostor, found.official.folds) == (2, 2, 4)
    assert found.honest_fars == [] and found.smallest_far is None
    assert found.ignored == {}  # it has no folder that is the user's
    assert "only --pairs official is honest" in told(found)["parts"]


def test_children_are_told_of(tmp_path: Path) -> None:
    for seed, (model, kind) in enumerate([("01", "Caucasian"), ("02", "Caucasian"), ("03", "Kid"),
                                          ("04", "Caucasian"), ("05", "Moroccan")]):  # fmt: skip
        for mood in ("happy", "sad"):
            put_image(tmp_path / f"Rafd090_{model}_{kind}_male_{mood}_frontal.png", seed)
    assert "2 images of children are left out" in told(survey(str(tmp_path)))["note"]
    everyone = survey(str(tmp_path), adults_only=False)
    assert everyone.labels["age_band"] == {"adult": 8, "child": 2}


# the command


def test_json_is_the_survey(tmp_path: Path) -> None:
    put_people(tmp_path, 2, 2, 2, 2)
    done = check(str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["images"] == 8
    assert [part["name"] for part in printed["parts"]] == [CALIBRATION, EVAL]


def test_in_a_pipe_each_row_is_one_plain_line(tmp_path: Path) -> None:
    put_people(tmp_path / ("deep " * 30), 2, 2, 2, 2)
    done = check(str(tmp_path / ("deep " * 30)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "\x1b" not in done.stdout
    headings = [line.split(": ")[0] for line in done.stdout.splitlines()]
    assert headings[:4] == ["dataset", "chosen", "subjects", "images"]
    assert len(headings) == len(set(headings))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_of_40_columns_shows_everything(tmp_path: Path) -> None:
    import pty

    put_people(tmp_path, 2, 2, 2, 2)
    leader, follower = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "deidbench", "datasets", "check", "synthid"],
        stdout=follower, stderr=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "40",
                                                         "TERM": "xterm", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            block = os.read(leader, 1 << 16)
        except OSError:  # the other end was closed
            break
        if not block:
            break
        shown += block
    os.close(leader)
    assert done.wait(30) == 0
    lines = re.sub("\x1b\\[[0-9;]*m", "", shown.decode()).splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join("".join(lines).split()).count("24,192impostor") == 2


def test_the_check_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from deidbench.cli import cli\n"
        "try: cli.main(['datasets', 'check', sys.argv[1]])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert 'torch' not in sys.modules"
    )
    put_people(tmp_path, 2, 2, 2, 2)
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True
    )
