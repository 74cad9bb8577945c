"""What is installed: the wheel's names and data, and the versions that must agree."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import pytest

import deidbench

DATA = {
    "deidbench": [
        "py.typed",
        "render/templates/report.html.j2",
        "datasets/synthid/samples.csv",
        "datasets/synthid/card.md",
    ],
    "deidbench_baselines": ["py.typed"],
    "fadenet": [
        "py.typed",
        "weights/fadenet.safetensors",
        "weights/fadenet-fast.safetensors",
        "weights/fadenet-keyed.safetensors",
        "configs/fadenet.toml",
        "configs/fadenet-fast.toml",
        "configs/fadenet-keyed.toml",
        "configs/fadenet-keyed-second.toml",
        "configs/fadenet-second.toml",
        "configs/fadenet-third.toml",
    ],
}


def test_the_wheel_has_three_packages_and_nothing_else() -> None:
    distribution = metadata.distribution("deidbench")
    installed = distribution.files or []
    in_checkout = Path(str(distribution.locate_file(""))).resolve() == Path(__file__).parents[1]
    if in_checkout or any(path.name.startswith("__editable__") for path in installed):
        pytest.skip("an editable install has no files of its own; tox tests the wheel")
    tops = {path.parts[0] for path in installed if not path.parts[0].startswith("..")}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert tops - info == {"deidbench", "deidbench_baselines", "fadenet"}


@pytest.mark.parametrize("package", DATA)
def test_data_files_are_installed(package: str) -> None:
    for name in DATA[package]:
        assert files(package).joinpath(name).is_file(), name


def test_the_version_is_one() -> None:
    assert metadata.version("deidbench") == deidbench.__version__
    citation = Path(__file__).parents[1] / "CITATION.cff"
    assert f"version: {deidbench.__version__}" in citation.read_text()


def test_python_dash_m_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deidbench", "--version"], capture_output=True, text=True, check=True
    )
    assert deidbench.__version__ in done.stdout
