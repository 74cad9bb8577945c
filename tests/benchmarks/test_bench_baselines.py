"""Time for a batch of chips: ``pytest tests/benchmarks --benchmark-only``."""

from __future__ import annotations

import pytest
import torch
from deidbench_baselines.blackout import Blackout
from deidbench_baselines.gaussian_blur import GaussianBlur
from deidbench_baselines.identity import Identity
from deidbench_baselines.pixelate import Pixelate
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.types import Method

METHODS: list[Method] = [
    Identity(), Blackout(), GaussianBlur(), GaussianBlur(1.0), Pixelate(), Pixelate(1.0),
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.name}-{m.strength}")
def test_treating_a_batch_of_chips(benchmark: BenchmarkFixture, method: Method, batch: int) -> None:
    faces = torch.rand(batch, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    treated = benchmark(method.deidentify, faces, seed=0)
    assert treated.shape == faces.shape
