"""The worked example of an outside plugin: built, installed and used as its reader would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "deidbench-swirl"


def run(site: Path, *command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the built and installed example, and nothing else."""
    root = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, root / "source")
    pip = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", "site")
    run(root, *pip, str(root / "source"), cwd=root)
    return root / "site"


@pytest.mark.slow
def test_it_is_listed_and_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    assert "swirl" in run(site, "-m", "deidbench", "list", "methods", cwd=tmp_path)
    said = run(
        site, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(EXAMPLE),
        "-p", "no:cacheprovider", str(EXAMPLE / "tests"), cwd=tmp_path,
    )  # fmt: skip
    assert " passed" in said
    assert "failed" not in said


@pytest.mark.slow
def test_it_is_evaluated_like_a_method_of_ours(site: Path, home: Path, tmp_path: Path) -> None:
    said = run(
        site, "-m", "deidbench", "evaluate", "--method", "swirl", "--recognizers", "sface",
        "--limit-subjects", "6", "--draws", "100", "--quiet", "--out", "run",
        "--protocol", "quick-v1", cwd=tmp_path,
    )  # fmt: skip
    assert "swirl (strength 0.5) on synthid" in said
    assert (tmp_path / "run" / "run.json").is_file()
