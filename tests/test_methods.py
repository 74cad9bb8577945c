"""Methods of other people: a treated folder, a program, a Python function."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from deidbench import plugins
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.methods.command import Command
from deidbench.methods.folder_output import FolderOutput
from deidbench.methods.python import Python
from deidbench.testing import BrokenPromiseError, check_method
from deidbench.types import Sample

COPY = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function is looked for in the current folder, which must not stay on the path here."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def samples() -> Sequence[Sample]:
    return SynthID().samples()[:3]


def command(code: str, **settings: float) -> Command:
    return Command(f"{sys.executable} -c '{code}' {{in}} {{out}}", **settings)


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def half(faces: Tensor) -> Tensor:
    return faces / 2


def noisy(faces: Tensor, seed: int) -> Tensor:
    noise = torch.rand(faces.shape, generator=torch.Generator().manual_seed(seed))
    return (faces + noise) / 2


def in_place(faces: Tensor) -> Tensor:
    return faces.mul_(0.5)


def bright(faces: Tensor) -> Tensor:
    return faces * 3


def names_of(found: object) -> list[str]:
    return sorted(found)  # type: ignore[call-overload, no-any-return]


def test_treated_images_are_matched_by_their_path(tmp_path: Path) -> None:
    files(tmp_path, "id000/00.jpg", "id000/01.png", "id000/.02.jpg", "id009/02.jpg", "notes.txt")
    found = FolderOutput(str(tmp_path)).treat(samples(), tmp_path)
    assert {name: path.name for name, path in found.items()} == {
        "id000/00.jpg": "00.jpg",
        "id000/01.jpg": "01.png",
    }


def test_the_same_suffix_wins_and_two_others_are_a_question(tmp_path: Path) -> None:
    files(tmp_path, "id000/00.jpg", "id000/00.png")
    assert FolderOutput(str(tmp_path)).treat(samples(), tmp_path)["id000/00.jpg"].suffix == ".jpg"
    files(tmp_path, "id000/01.png", "id000/01.webp")
    with pytest.raises(DeidbenchError, match=r"several treated versions: 01\.png, 01\.webp"):
        FolderOutput(str(tmp_path)).treat(samples(), tmp_path)


def test_names_are_compared_in_one_form_of_unicode(tmp_path: Path) -> None:
    files(tmp_path, "Zoe\u0308/1.jpg")
    sample = Sample("Zo\u00eb/1.jpg", "Zo\u00eb", tmp_path)
    assert names_of(FolderOutput(str(tmp_path)).treat([sample], tmp_path)) == ["Zo\u00eb/1.jpg"]


def test_a_link_out_of_the_treated_folder_is_not_followed(tmp_path: Path) -> None:
    outside = files(tmp_path / "outside", "secret.jpg") / "secret.jpg"
    inside = files(tmp_path / "inside", "id000/01.jpg")
    (inside / "id000" / "00.jpg").symlink_to(outside)
    found = FolderOutput(str(inside)).treat(samples(), tmp_path)
    assert names_of(found) == ["id000/01.jpg"]


@pytest.mark.parametrize(
    ("argument", "words"), [(None, "which one"), ("", "which one"), ("/no/such", "no folder")]
)
def test_a_folder_that_is_none_is_one_line(argument: str | None, words: str) -> None:
    with pytest.raises(DeidbenchError, match=words):
        FolderOutput(argument)


def test_a_folder_of_other_images_is_one_line(tmp_path: Path) -> None:
    files(tmp_path, "other/9.jpg")
    with pytest.raises(DeidbenchError, match=r"no treated image of this dataset.*id000/00\.jpg"):
        FolderOutput(str(tmp_path)).treat(samples(), tmp_path)


def test_a_record_names_no_path_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    assert FolderOutput(str(tmp_path / "vendor")).name == "folder-output:vendor"
    assert command(COPY).name == f"command:{Path(sys.executable).name}"


def test_a_program_sees_the_photographs_and_not_the_originals(tmp_path: Path) -> None:
    originals = tmp_path / "originals"
    one = files(originals, "a/1.jpg") / "a" / "1.jpg"
    vandal = (
        "import pathlib, sys\n"
        'for p in pathlib.Path(sys.argv[1]).rglob("*.jpg"): p.write_bytes(b"gone")\n' + COPY
    )
    found = command(vandal).treat([Sample("a/1.jpg", "a", one)], tmp_path)
    assert found["a/1.jpg"].read_bytes() == b"gone"
    assert one.read_bytes() == b"x"


def test_what_a_program_leaves_out_is_left_out(tmp_path: Path) -> None:
    forgetful = COPY + '; import os; os.remove(sys.argv[2] + "/id000/01.jpg")'
    assert names_of(command(forgetful).treat(samples(), tmp_path)) == [
        "id000/00.jpg",
        "id000/02.jpg",
    ]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('import sys; print("no model"); sys.exit(7)', "exit code 7: no model"),
        ("raise SystemExit(1)", "exit code 1: it said nothing"),
        ("1 / 0", "ZeroDivisionError"),
        ("pass", "wrote none of the 3 images"),
    ],
)
def test_a_program_that_fails_is_one_line(code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match=words) as failure:
        command(code).treat(samples(), tmp_path)
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_program_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    child = (
        "import subprocess, sys, time, pathlib; "
        'p = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]); '
        f'pathlib.Path("{pid}").write_text(str(p.pid)); time.sleep(60)'
    )
    start = time.monotonic()
    with pytest.raises(DeidbenchError, match="stopped after 2 s"):
        command(child, timeout=2).treat(samples(), tmp_path)
    assert time.monotonic() - start < 30
    assert _is_gone(int(pid.read_text()))


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; one that ended may wait for its parent to notice."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (None, "expected a program"),
        ("blur", "expected a program with {in} and {out}"),
        ("blur {in}", "expected a program with {in} and {out}"),
        ("no-such-program {in} {out}", "no program 'no-such-program'"),
        ("'blur {in} {out}", "Close the quotes"),
    ],
)
def test_a_command_that_cannot_run_is_one_line(argument: str | None, words: str) -> None:
    with pytest.raises(DeidbenchError, match=words):
        Command(argument)


def test_a_command_needs_time() -> None:
    with pytest.raises(DeidbenchError, match="above 0 seconds"):
        command("pass", timeout=0)


def test_folder_marks_may_stand_inside_a_word(tmp_path: Path) -> None:
    code = 'import shutil, sys; a = [w.split("=")[1] for w in sys.argv[1:]]; ' + COPY.replace(
        "sys.argv[1], sys.argv[2]", "*a"
    )
    found = Command(f"{sys.executable} -c '{code}' --in={{in}} --out={{out}}").treat(
        samples(), tmp_path
    )
    assert len(found) == 3


def test_no_sample_leaves_the_folder_of_a_program(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(DeidbenchError, match="leaves its folder"):
        command(COPY).treat([Sample("../../x.jpg", "x", tmp_path / "x.jpg")], tmp_path / "work")
    assert not (tmp_path / "x.jpg").exists()


@pytest.mark.parametrize("function", [half, noisy, in_place])
def test_a_function_keeps_the_contract_of_a_method(function: object) -> None:
    check_method(Python(function))  # type: ignore[arg-type]


def test_a_function_that_breaks_it_is_found() -> None:
    with pytest.raises(BrokenPromiseError, match=r"\[0, 1\]"):
        check_method(Python(bright))


def test_a_function_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "treatment_here.py").write_text("def dim(faces):\n    return faces * 0.25\n")
    monkeypatch.chdir(tmp_path)
    method = plugins.build("methods", "python:treatment_here:dim")
    assert method.name == "python:dim"
    assert torch.equal(
        method.deidentify(torch.ones(1, 3, 8, 8), seed=0), torch.full((1, 3, 8, 8), 0.25)
    )


def test_another_source_is_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a changed function would meet its old results in the cache."""
    monkeypatch.chdir(tmp_path)
    prints = []
    for number in (1, 2):
        module = tmp_path / f"version_{number}.py"
        module.write_text(f"def dim(faces):\n    return faces / {number}\n")
        prints.append(Python(f"version_{number}:dim").fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (None, "expected module:function"),
        ("math", "expected module:function"),
        ("no_such_module:f", "cannot load"),
        ("math:no_such_function", "cannot load"),
        ("math:pi", "no function, but float"),
    ],
)
def test_a_function_that_is_none_is_one_line(argument: str | None, words: str) -> None:
    with pytest.raises(DeidbenchError, match=words):
        Python(argument)


@pytest.mark.slow
def test_a_program_evaluates_like_the_method_it_carries_out(home: Path, tmp_path: Path) -> None:
    """A program that copies is the identity; one that darkens in 8 bits darkens the chips."""
    from deidbench.config import RunConfig
    from deidbench.harness import evaluate
    from deidbench.progress import Progress

    shutil.copytree(SynthID().root / "images", tmp_path / "faces", dirs_exist_ok=False)
    program = f"command:{sys.executable} -c '{COPY}' {{in}} {{out}}"
    records = [
        evaluate(
            RunConfig(
                method=method, dataset=f"folder:{tmp_path / 'faces'}", recognizers=("sface",),
                limit_subjects=6, draws=100, out=tmp_path / name, protocol="quick-v1",
            ),
            Progress(quiet=True),
        )[1]
        for name, method in (("own", "identity"), ("program", program))
    ]  # fmt: skip
    machine = {"images-per-second", "peak-memory"}
    kept = [[row for row in record.rows if row.metric not in machine] for record in records]
    assert kept[0] == kept[1]
    assert any(one.what == "speed" for one in records[1].not_measured)


@pytest.mark.slow
def test_a_scaled_picture_is_enlarged_and_a_cropped_one_is_a_failure(
    home: Path, tmp_path: Path
) -> None:
    from deidbench.config import RunConfig
    from deidbench.harness import evaluate
    from deidbench.progress import Progress
    from deidbench.results.store import read_images

    treated = tmp_path / "treated"
    for number, sample in enumerate(SynthID().samples()):
        (treated / sample.id).parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(sample.path)
        image = image.resize((112, 112)) if number % 2 else image.crop((0, 0, 200, 224))
        image.save(treated / sample.id)
    config = RunConfig(
        method=f"folder-output:{treated}", recognizers=("sface",), limit_subjects=6, draws=100,
        protocol="quick-v1",
        out=tmp_path / "run",
    )  # fmt: skip
    folder, record = evaluate(config, Progress(quiet=True))
    images = read_images(folder)
    odd = np.array([int(Path(name).stem) % 2 == 1 for name in images["id"]])
    assert (images["treated"] == odd).all()
    assert images["problem"][~odd].str.contains("200 x 224 pixels, the original 224 x 224").all()
    lost = (images["part"] == "eval") & ~odd & images["found"]
    assert record.failures["not_treated"] == lost.sum() > 0
