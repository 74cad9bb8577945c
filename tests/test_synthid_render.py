"""The generator of the embedded faces: it repeats itself, and goes on where it was stopped."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "synthid"
COMMITTED = ROOT / "deidbench" / "datasets" / "synthid"


def blender_starts() -> bool:
    """Whether bpy imports: it may be missing, or the graphics libraries that it links."""
    if any(importlib.util.find_spec(name) is None for name in ("bpy", "anny")):
        return False
    done = subprocess.run([sys.executable, "-c", "import bpy"], capture_output=True, check=False)
    return done.returncode == 0


needs_blender = pytest.mark.skipif(
    not blender_starts(),
    reason="bpy or anny does not import: see tools/synthid/README.md, or run 'tox -e synthid'",
)


def render(out: Path, *options: object) -> str:
    command = [sys.executable, str(TOOL / "render.py"), "--out", str(out), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@needs_blender
def test_the_committed_images_are_rendered_again(tmp_path: Path) -> None:
    render(tmp_path, "--people", 1, "--photos", 2)
    rows = table(tmp_path / "samples.csv")
    assert rows == table(COMMITTED / "samples.csv")[:2]
    for row in rows:
        ours = pixels(tmp_path / "images" / row["path"])
        theirs = pixels(COMMITTED / "images" / row["path"])
        difference = np.abs(ours - theirs)
        # Tolerance of the README: another processor may round differently.
        assert difference.mean() < 1.0
        assert np.percentile(difference, 99) < 12


@pytest.mark.slow
@needs_blender
def test_a_stopped_render_goes_on_and_keeps_what_is_finished(tmp_path: Path) -> None:
    small = ("--people", 1, "--photos", 3, "--size", 64, "--samples", 1)
    render(tmp_path, *small)
    folder = tmp_path / "images" / "id000"
    whole, cut, gone = (folder / f"{k:02d}.jpg" for k in range(3))
    finished = whole.stat().st_mtime_ns
    before = [path.read_bytes() for path in (whole, cut, gone)]
    cut.write_bytes(before[1][:500])
    gone.unlink()
    (tmp_path / "samples.csv").unlink()
    render(tmp_path, *small)
    assert whole.stat().st_mtime_ns == finished
    assert [path.read_bytes() for path in (whole, cut, gone)] == before
    assert len(table(tmp_path / "samples.csv")) == 3
    assert not list(folder.glob("*.part"))


def test_half_an_image_does_not_count_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOOL))
    output = importlib.import_module("synthfaces.output")
    path = tmp_path / "00.jpg"
    assert not output.is_complete(path, 64)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    output.save(Image.fromarray(noise), path)
    assert output.is_complete(path, 64)
    assert not output.is_complete(path, 65)
    path.write_bytes(path.read_bytes()[:-700])
    assert not output.is_complete(path, 64)


def test_settings_of_two_renders_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOOL))
    output = importlib.import_module("synthfaces.output")
    output.check_settings(tmp_path, {"seed": 1, "size": 64})
    output.check_settings(tmp_path, {"seed": 1, "size": 64})
    with pytest.raises(output.SettingsError, match="another --out"):
        output.check_settings(tmp_path, {"seed": 2, "size": 64})


def test_splits_are_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOL))
    people = importlib.import_module("synthfaces.people")
    members = people.read(people.FILE, seed=11, count=96)
    sizes = {"method-train": 24, "attacker-train": 28, "calibration": 16, "eval": 28}
    assert len({one.candidate for one in members}) == 96
    for split, size in sizes.items():
        strata = [one.stratum for one in members if one.split == split]
        assert len(strata) == size
        for k, groups in enumerate((2, 3, 3)):
            names, counts = np.unique([stratum[k] for stratum in strata], return_counts=True)
            assert len(names) == groups
            assert np.ptp(counts) <= 2
    assert [s[0] for s in (one.stratum for one in members)].count("female") == 48
