"""Time for finding and warping faces: ``pytest tests/benchmarks --benchmark-only``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.alignment import Aligner
from deidbench.datasets.synthid import SynthID
from deidbench.geometry import chip_template, similarity_transform, warp
from deidbench.images import read_image

PHOTOGRAPHS = 4


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner(160)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [read_image(sample.path) for sample in SynthID().samples()[:PHOTOGRAPHS]]


def test_aligning_photographs(
    benchmark: BenchmarkFixture, aligner: Aligner, photographs: list[np.ndarray]
) -> None:
    assert benchmark(aligner, photographs).found.all()


def test_detecting_faces_on_chips(
    benchmark: BenchmarkFixture, aligner: Aligner, photographs: list[np.ndarray]
) -> None:
    chips = list(aligner(photographs).chips.permute(0, 2, 3, 1).numpy())
    found = benchmark(aligner.detect, chips, chips=True)
    assert np.isfinite(found).all()


def test_reading_a_photograph(benchmark: BenchmarkFixture) -> None:
    assert benchmark(read_image, SynthID().samples()[0].path).shape == (224, 224, 3)


def test_warping_chips(benchmark: BenchmarkFixture) -> None:
    images = torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    transform = similarity_transform(chip_template(224).expand(8, 5, 2), chip_template(160))
    assert benchmark(warp, images, transform, 160).shape == (8, 3, 160, 160)
