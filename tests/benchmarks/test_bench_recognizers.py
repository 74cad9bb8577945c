"""Time for a batch of faces: ``pytest tests/benchmarks --benchmark-only``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench import assets, plugins
from deidbench.errors import AssetUnavailableError
from deidbench.geometry import chip_template
from deidbench.recognizers._base import FrozenRecognizer

BATCH = 32


def build(name: str) -> FrozenRecognizer:
    try:
        recognizer: FrozenRecognizer = plugins.load("recognizers", name)()
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    return recognizer


@pytest.mark.parametrize("name", plugins.names("recognizers"))
def test_embedding_a_batch_of_chips(benchmark: BenchmarkFixture, name: str) -> None:
    recognizer = build(name)
    chips = torch.rand(BATCH, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    landmarks = chip_template().expand(BATCH, 5, 2)
    with torch.inference_mode():
        embeddings = benchmark(recognizer.embed, chips, landmarks)
    assert embeddings.shape == (BATCH, 128)


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def test_the_dlib_port_is_faster_than_dlib(benchmark: BenchmarkFixture) -> None:
    """Both work on the same crops, by turns, so that a busy machine slows both alike."""
    dlib = pytest.importorskip("dlib")
    ours = build("dlib")
    theirs = dlib.face_recognition_model_v1(str(assets.fetch(ours.asset)))
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 150, 150, 3), dtype=np.uint8)
    images = list(pixels)
    crops = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    with torch.inference_mode():
        ours(crops)  # the first call plans the convolutions
        turns = [
            (seconds(lambda: ours(crops)), seconds(lambda: theirs.compute_face_descriptor(images)))
            for _ in range(5)
        ]
        benchmark.pedantic(ours, (crops,), rounds=5)
    port, original = (statistics.median(times) for times in zip(*turns, strict=True))
    benchmark.extra_info["images per second, port"] = BATCH / port
    benchmark.extra_info["images per second, dlib"] = BATCH / original
    assert original / port >= 1.5
