"""What people really bring: damaged files, twins, broken parts. Counted, and the run goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from deidbench.cache import Cache
from deidbench.config import RunConfig
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.harness import evaluate
from deidbench.progress import Progress
from deidbench.results.schema import RunRecord
from deidbench.results.store import read_images
from deidbench.stages import Stages
from deidbench.types import Sample

PEOPLE = 5
BAD = {
    "empty.jpg": "cannot identify",
    "truncated.jpg": "truncated",
    "text.png": "cannot identify",
    "bomb.png": "decompression bomb",
    "faceless.png": None,
}
GOOD = (
    "cmyk.jpg",
    "grey.png",
    "palette.png",
    "alpha.png",
    "sixteen.png",
    "turned.jpg",
    "moves.png",
)


def faces_of(person: int) -> list[Path]:
    return sorted((SynthID().root / "images" / f"id{person:03d}").glob("*.jpg"))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Five people with four photographs each; the first has a second album, of odd files."""
    root = tmp_path / "faces"
    for person in range(PEOPLE):
        (root / f"person {person}").mkdir(parents=True)
        for path in faces_of(person)[:4]:
            shutil.copy(path, root / f"person {person}")
    return root


def spoil(folder: Path) -> None:
    """The files of ``BAD``."""
    source = faces_of(0)[4].read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "truncated.jpg").write_bytes(source[: len(source) // 2])
    (folder / "text.png").write_text("not an image")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.new("RGB", (300, 300), "teal").save(folder / "faceless.png")


def vary(folder: Path) -> None:
    """The same face as different kinds of pixels: the files of ``GOOD``."""
    face = Image.open(faces_of(0)[4])
    face.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    face.convert("L").save(folder / "grey.png")
    face.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    face.convert("RGBA").save(folder / "alpha.png")
    wide = face.convert("L").convert("I").point(lambda value: value * 257)
    wide.convert("I;16").save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    face.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    other = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    face.save(folder / "moves.png", save_all=True, append_images=[other])


def run(faces: Path, out: Path, **settings: object) -> tuple[Path, RunRecord]:
    defaults = {
        "method": "pixelate", "recognizers": ("sface",), "draws": 100, "batch_size": 7,
        "protocol": "quick-v1",
    }  # fmt: skip
    config = RunConfig(dataset=f"folder:{faces}", out=out, **{**defaults, **settings})  # type: ignore[arg-type]
    return evaluate(config, Progress(quiet=True))


@pytest.mark.slow
def test_damaged_files_are_counted_and_the_run_goes_on(
    faces: Path, home: Path, tmp_path: Path
) -> None:
    for person in range(PEOPLE):  # whoever is in which part
        spoil(faces / f"person {person}")
    folder, record = run(faces, tmp_path / "run")
    images = read_images(folder).set_index("id")
    for name, reason in BAD.items():
        row = images.loc[f"person 0/{name}"]
        assert not row["found"], name
        if reason is None:
            assert pd.isna(row["problem"])
        else:
            assert reason in row["problem"], name
            assert str(tmp_path) not in row["problem"]
    measured = int((images["part"] == "eval").sum() / (4 + len(BAD)))
    assert record.failures["clean_unreadable"] == measured * (len(BAD) - 1)
    assert record.failures["clean_not_found"] == measured, "the picture without a face"
    assert record.failures["not_treated"] == 0


@pytest.mark.slow
def test_every_kind_of_pixels_is_a_face(faces: Path, home: Path, tmp_path: Path) -> None:
    vary(faces / "person 0")
    folder, record = run(faces, tmp_path / "run")
    images = read_images(folder).set_index("id")
    assert images.loc[[f"person 0/{name}" for name in GOOD], "found"].all()
    assert record.failures["clean_unreadable"] == 0


def test_strict_stops_at_the_first_damaged_file(faces: Path, home: Path, tmp_path: Path) -> None:
    spoil(faces / "person 0")
    for _ in range(2):  # a cached failure stops as well
        with pytest.raises(DeidbenchError, match=r"align: person 0/bomb\.png: .*--strict"):
            run(faces, tmp_path / "run", strict=True)
    assert not (tmp_path / "run").exists()


def test_a_file_under_two_people_is_named(
    faces: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(faces / "person 0" / "00.jpg", faces / "person 1" / "copy.jpg")
    config = RunConfig(
        method="pixelate", recognizers=("sface",), draws=100, dataset=f"folder:{faces}",
        out=tmp_path / "run",
    )  # fmt: skip
    _, record = evaluate(config, Progress())
    names = "person 0/00.jpg = person 1/copy.jpg"
    assert f"the same file under two people: {names}" in capsys.readouterr().err
    assert "1 files under two people" in [one.what for one in record.not_measured]
    assert "person 1" not in record.model_dump_json(), "records name nobody"


def test_names_may_be_long_and_in_any_script(faces: Path, home: Path, tmp_path: Path) -> None:
    (faces / "person 0").rename(faces / "Žofie Ñandú 顔")
    person = faces / "Žofie Ñandú 顔"
    (person / "00.jpg").rename(person / f"{'ж' * 120}.jpg")
    folder, _ = run(faces, tmp_path / "run")
    assert f"Žofie Ñandú 顔/{'ж' * 120}.jpg" in set(read_images(folder)["id"])


class Fragile:
    """A method that raises on its 10th face, and returns NaN for its 20th."""

    name = "fragile"
    version = 1
    strength = None
    trained_against = ()

    def __init__(self, bad: dict[str, Tensor]) -> None:
        self.bad = bad

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        output = faces * 0.5
        for row, face in enumerate(faces):
            if torch.equal(face, self.bad["raises"]):
                raise ArithmeticError("this one")
            if torch.equal(face, self.bad["nan"]):
                output[row, 0, 3, 3] = torch.nan
        return output


def test_a_method_that_fails_late_loses_those_faces_alone(tmp_path: Path) -> None:
    stages = Stages(
        samples=SynthID().samples()[:24], method=None, cache=Cache(tmp_path),  # type: ignore[arg-type]
        progress=Progress(quiet=True), device="cpu", batch_size=8, chip_size=160,
        aligned_input=False, seed=0,
    )  # fmt: skip
    chips = [torch.from_numpy(stages.chips(batch)["chips"]) / 255 for batch in stages.batches]
    stages.method = Fragile({"raises": chips[1][1], "nan": chips[2][3]})
    treated = stages.treat()["treated"]
    assert (~treated).nonzero()[0].tolist() == [9, 19]
    names = [sample.id for sample in stages.samples]
    assert stages.problems["treat"] == {
        names[9]: "raised ArithmeticError: this one",
        names[19]: "broke its contract: expected finite values in [0, 1] of shape (3, 160, 160), "
        "but got [nan, nan]",
    }
    detected = stages.detect()
    assert not detected["found"][[9, 19]].any()


class Blind(torch.nn.Module):
    """A recognizer whose embedding of the brightest face of a batch is NaN."""

    name = "blind"
    version = 1
    similarity = "cosine"
    weights_sha256 = "0" * 64

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        embeddings = chips.mean((2, 3))
        embeddings[chips.mean((1, 2, 3)).argmax(), 0] = torch.nan
        return embeddings


def test_an_embedding_that_is_not_finite_is_a_counted_failure(tmp_path: Path) -> None:
    from deidbench_baselines.identity import Identity

    stages = Stages(
        samples=SynthID().samples()[:6], method=Identity(), cache=Cache(tmp_path),
        progress=Progress(quiet=True), device="cpu", batch_size=3, chip_size=160,
        aligned_input=False, seed=0,
    )  # fmt: skip
    embeddings = stages.embed(Blind(), "clean")  # type: ignore[arg-type]
    lost = torch.from_numpy(embeddings).isnan().all(1)
    assert lost.sum() == 2
    assert torch.from_numpy(embeddings).isnan().any(1).equal(lost)
    assert set(stages.problems["embed blind clean"].values()) == {"its embedding is not finite"}


def test_a_sample_that_vanishes_is_counted(tmp_path: Path) -> None:
    from deidbench_baselines.identity import Identity

    there = SynthID().samples()[0]
    samples = [there, Sample("gone/1.jpg", "gone", tmp_path / "gone.jpg")]
    stages = Stages(
        samples=samples, method=Identity(), cache=Cache(tmp_path), progress=Progress(quiet=True),
        device="cpu", batch_size=3, chip_size=160, aligned_input=False, seed=0,
    )  # fmt: skip
    assert stages.align()["found"].tolist() == [True, False]
    assert "No such file" in stages.problems["align"]["gone/1.jpg"]


FULL = """
import resource, sys
sys.dont_write_bytecode = True  # or half a module would be left for the next program
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))  # as a disk that fills up
from deidbench.cli import main
sys.argv = ["deidbench", "evaluate", "--method", "pixelate", "--recognizers", "sface", "--quiet",
            "--limit-subjects", "8", "--protocol", "quick-v1", "--out", sys.argv[1]]
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_half_file(home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write the cache" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not [path for path in home.rglob("*") if path.suffix in (".part", ".safetensors")]
    assert not (tmp_path / "run").exists()
