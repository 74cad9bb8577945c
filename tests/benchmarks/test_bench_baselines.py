"""Time for a batch of chips, by every method that is installed here and treats faces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench import plugins
from deidbench.errors import AssetUnavailableError

BATCHES = (1, 8)
PEOPLE = 30
NETWORKS = ("fadenet", "fadenet-fast", "fadenet-keyed", "gaussian-blur")  # or products, like theirs
ATTACKS = ("mi-fgsm", "pgd")
NAMES = [
    pytest.param(name, marks=pytest.mark.kernel("matmul" if name in NETWORKS else "mix"))
    for name in plugins.names("methods")
    if not getattr(plugins.load("methods", name), "needs_argument", False) and name not in ATTACKS
]


def faces_of(batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", NAMES)
def test_treating_a_batch_of_chips(benchmark: BenchmarkFixture, name: str, batch: int) -> None:
    faces = faces_of(batch)
    method = plugins.build("methods", name)
    if hasattr(method, "fit"):
        method.fit(faces_of(PEOPLE), [f"person {row}" for row in range(PEOPLE)])
    treated = benchmark(method.deidentify, faces, seed=0)
    assert treated.shape == faces.shape


@pytest.mark.parametrize("name", ["k-same-eigen", "k-same-pixel"])
def test_fitting_a_set(benchmark: BenchmarkFixture, name: str) -> None:
    faces, people = faces_of(4 * PEOPLE), [f"person {row // 4}" for row in range(4 * PEOPLE)]
    method: Any = plugins.build("methods", name)
    benchmark(method.fit, faces, people)
    assert method.deidentify(faces[:1], seed=0).shape == faces[:1].shape


@pytest.mark.kernel("matmul")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacking_a_recognizer(benchmark: BenchmarkFixture, name: str) -> None:
    """Two faces, two steps."""
    method, faces = plugins.build("methods", name, steps=2), faces_of(2)
    try:
        method.deidentify(faces, seed=0)  # the first call loads the weights
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    assert benchmark(method.deidentify, faces, seed=0).shape == faces.shape
