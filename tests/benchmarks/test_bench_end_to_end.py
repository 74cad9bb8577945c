"""The whole job against the script that a user would write, both as processes, caches empty.

Minutes: ``tox -e bench -- -m slow``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.datasets.synthid import SynthID
from deidbench.results.schema import MetricRow
from deidbench.results.store import read_images, read_run

pytestmark = [pytest.mark.slow, pytest.mark.ungated]  # a ratio of its own run

IMAGES = 500
FACTOR = 4.0
SCRIPT = Path(__file__).with_name("script.py")


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """500 photographs, subject/image: real ones where there are any, else the embedded ones."""
    real = os.environ.get("DEIDBENCH_TEST_ASSETS")
    photos = sorted(Path(real, "lfw_eval").glob("*/*.jpg")) if real else []
    photos = photos or [sample.path for sample in SynthID(None).samples()]
    for photo in photos[:IMAGES]:
        folder = tmp_path / "faces" / photo.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / photo.name).symlink_to(photo)
    return tmp_path / "faces"


def timed(command: list[str], env: dict[str, str]) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def test_evaluate_is_faster_than_a_plain_script_and_says_the_same(
    faces: Path, weights: Path, tmp_path: Path, benchmark: BenchmarkFixture
) -> None:
    env = {**os.environ, "DEIDBENCH_MIRROR": str(weights), "DEIDBENCH_HOME": str(tmp_path / "h")}
    command = [
        sys.executable, "-m", "deidbench", "evaluate", "--method", "gaussian-blur",
        "--recognizers", "dlib,sface", "--dataset", f"folder:{faces}", "--quiet",
        "--protocol", "quick-v1", "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    ours = benchmark.pedantic(timed, (command, env), rounds=1)[0]
    images = read_images(tmp_path / "run")
    people = ",".join(sorted(images[images.part == "eval"].subject.unique()))
    theirs, printed = timed([sys.executable, str(SCRIPT), str(faces), people], env)
    print(f"script {theirs:.1f} s, deidbench {ours:.1f} s: {theirs / ours:.2f} times")
    agree(read_run(tmp_path / "run").rows, json.loads(printed))
    assert theirs / ours >= FACTOR


def agree(rows: list[MetricRow], script: dict[str, float]) -> None:
    """The script rounds and warps by other libraries: equal but for that."""
    found = {
        f"{row.threat} {row.view} {row.recognizer}": row.value
        for row in rows
        if (row.metric, row.pairs) == ("auc", "cross")
    }
    found |= {row.metric: row.value for row in rows if row.params == {"region": "chip"}}
    for name, value in script.items():
        assert found[name] == pytest.approx(value, abs=0.01), name
