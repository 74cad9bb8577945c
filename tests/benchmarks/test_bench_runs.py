"""Writing, reading, rebuilding and showing a run. Run with ``--benchmark-only``."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.render.report import write_report
from deidbench.results.store import read_images, read_run, read_scores, validate
from tests import sample_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all attackers."""
    path = tmp_path_factory.mktemp("runs") / "run"
    sample_run.write(path, sample_run.record(adaptive=True))
    return path


def test_writing_a_run(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    made, number = sample_run.record(adaptive=True), count()
    benchmark(lambda: sample_run.write(tmp_path / str(next(number)), made))
    assert validate(tmp_path / "0").rows == made.rows


def test_reading_a_record(benchmark: BenchmarkFixture, folder: Path) -> None:
    assert benchmark(read_run, folder).rows


def test_reading_scores_and_images(benchmark: BenchmarkFixture, folder: Path) -> None:
    scores, images = benchmark(lambda: (read_scores(folder), read_images(folder)))
    assert scores.num_rows and len(images)


def test_checking_a_run(benchmark: BenchmarkFixture, folder: Path) -> None:
    assert benchmark(validate, folder).rows


def test_rendering_a_report(benchmark: BenchmarkFixture, folder: Path, tmp_path: Path) -> None:
    page = benchmark(write_report, [folder], tmp_path / "page")
    assert page.stat().st_size > 10_000
