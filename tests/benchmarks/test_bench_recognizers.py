"""Time for a batch of faces: ``tox -e bench``; beside other packages with ``-- -m slow``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from copy import deepcopy
from time import perf_counter

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from deidbench import assets, plugins
from deidbench.errors import AssetUnavailableError
from deidbench.geometry import chip_template
from deidbench.recognizers._base import FrozenRecognizer
from deidbench.recognizers._conv import Conv, PReLU

BATCH, FEW = 32, 4


def build(name: str) -> FrozenRecognizer:
    try:
        recognizer: FrozenRecognizer = plugins.load("recognizers", name)()
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    return recognizer


NAMES = [
    name
    for name in plugins.names("recognizers")
    if not getattr(plugins.load("recognizers", name), "needs_argument", False)
]


@pytest.mark.kernel("matmul")
@pytest.mark.parametrize("name", NAMES)
def test_embedding_a_batch_of_chips(benchmark: BenchmarkFixture, name: str) -> None:
    recognizer = build(name)
    chips = torch.rand(FEW, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    landmarks = chip_template().expand(FEW, 5, 2)
    embed = torch.inference_mode()(recognizer.embed)  # measured again after this test too
    embeddings = benchmark(embed, chips, landmarks)
    assert embeddings.ndim == 2 and len(embeddings) == FEW


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


@pytest.mark.slow
@pytest.mark.ungated  # a ratio of its own run
def test_the_gradient_of_the_activation_is_faster_than_torch_s(
    benchmark: BenchmarkFixture,
) -> None:
    """A gradient of sface for the images, by turns with and without our PReLU."""
    ours = build("sface")
    theirs = deepcopy(ours)
    for layer in theirs.modules():
        if isinstance(layer, Conv):
            layer[1] = plain(layer[1])
    crops = torch.rand(8, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gradient(ours, crops), gradient(theirs, crops))
    turns = [
        (seconds(lambda: gradient(ours, crops)), seconds(lambda: gradient(theirs, crops)))
        for _ in range(5)
    ]
    benchmark.pedantic(gradient, (ours, crops), rounds=3)
    fast, slow = (statistics.median(times) for times in zip(*turns, strict=True))
    benchmark.extra_info["times as fast as with torch's own"] = slow / fast
    assert slow / fast >= 1.2


def plain(activation: torch.nn.Module) -> torch.nn.Module:
    """Torch's own activation with the same slopes."""
    if not isinstance(activation, PReLU):
        return activation
    theirs = torch.nn.PReLU(len(activation.weight)).requires_grad_(False)
    theirs.load_state_dict(activation.state_dict())
    return theirs


def gradient(recognizer: FrozenRecognizer, crops: Tensor) -> Tensor:
    leaf = crops.clone().requires_grad_()
    recognizer(leaf).square().sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.slow
@pytest.mark.ungated
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
