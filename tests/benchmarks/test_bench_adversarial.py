"""What a batch gains for attacks: ``tox -e bench -- -m slow``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import pytest
import torch
from deidbench_baselines._adversarial import Attack
from deidbench_baselines.mi_fgsm import MIFGSM
from deidbench_baselines.pgd import PGD
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.errors import AssetUnavailableError

pytestmark = [pytest.mark.slow, pytest.mark.ungated]  # a ratio of its own run

BATCH = 16
STEPS = 3
# An attack is as fast as its recognizer. One face fills SFace's wide layers, so that a batch has
# little to add on a CPU; dlib's small ones leave a processor idle.
LEAST_GAIN = {"sface": 1.0, "dlib": 1.5}


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


@pytest.mark.parametrize("against", LEAST_GAIN)
@pytest.mark.parametrize("cls", [PGD, MIFGSM])
def test_a_batch_is_faster_than_one_face_at_a_time(
    benchmark: BenchmarkFixture, cls: type[Attack], against: str
) -> None:
    """Both by turns, so that a busy machine slows both alike."""
    faces = torch.rand(BATCH, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    method = cls(against=against, steps=STEPS)

    def one_by_one() -> None:
        for face in faces[:, None]:
            method.deidentify(face, seed=0)

    try:
        method.deidentify(faces, seed=0)  # the first call loads the weights
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    turns = [
        (seconds(lambda: method.deidentify(faces, seed=0)), seconds(one_by_one)) for _ in range(5)
    ]
    benchmark.pedantic(method.deidentify, (faces,), {"seed": 0}, rounds=3)
    batch, single = (statistics.median(times) for times in zip(*turns, strict=True))
    benchmark.extra_info["images per second, batch"] = BATCH / batch
    benchmark.extra_info["images per second, one by one"] = BATCH / single
    assert single / batch >= LEAST_GAIN[against]
