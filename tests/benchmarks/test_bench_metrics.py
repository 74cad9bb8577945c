"""Our metrics beside other packages' on the same input. Run with ``--benchmark-only``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deidbench import plugins
from deidbench.errors import AssetUnavailableError
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.metrics.lpips import LPIPS
from deidbench.metrics.ssim import SSIM
from deidbench.statistics import count_scores, draw_weights

pytest.importorskip("pytest_benchmark")
Benchmark = Callable[..., Any]


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    images = torch.rand(8, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    return images, (images * 0.9 + 0.05)


@pytest.mark.kernel("memory")
@pytest.mark.benchmark(group="ssim, 8 chips")
def test_our_ssim(benchmark: Benchmark, pair: tuple[Tensor, Tensor]) -> None:
    assert benchmark(SSIM(), *pair).shape == (8,)


@pytest.mark.ungated
@pytest.mark.benchmark(group="ssim, 8 chips")
def test_torchmetrics_ssim(benchmark: Benchmark, pair: tuple[Tensor, Tensor]) -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    theirs = functional.structural_similarity_index_measure
    assert benchmark(theirs, *pair, data_range=1.0, reduction="none").shape == (8,)


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    try:
        return LPIPS()
    except AssetUnavailableError as error:
        pytest.skip(f"LPIPS weights cannot be had: {error}")


@pytest.mark.kernel("matmul")
@pytest.mark.benchmark(group="lpips alex, 8 chips")
def test_our_lpips_in_one_batch(
    benchmark: Benchmark, alex: LPIPS, pair: tuple[Tensor, Tensor]
) -> None:
    assert benchmark(alex, *pair).shape == (8,)


@pytest.mark.ungated
@pytest.mark.benchmark(group="lpips alex, 8 chips")
def test_torchmetrics_lpips_pair_by_pair(
    benchmark: Benchmark, alex: LPIPS, pair: tuple[Tensor, Tensor]
) -> None:
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(pretrained=False, net="alex", pnet_rand=True).eval()
    network.load_state_dict(alex._model.state_dict(), strict=False)

    @torch.no_grad()
    def each() -> list[float]:
        both = zip(*(torch.split(images, 1) for images in pair), strict=True)
        return [float(network(a, b, normalize=True)) for a, b in both]

    assert len(benchmark(each)) == 8


def metrics(kind: str) -> list[str]:
    """Those of every run, but for what has a benchmark of its own."""
    found = ((name, plugins.load("metrics", name)) for name in plugins.names("metrics"))
    return [
        name
        for name, part in found
        if part.kind == kind and getattr(part, "by_default", True) and name not in OWN
    ]


OWN = ("ssim", "lpips", "auc")


@pytest.mark.parametrize("name", metrics("image"))
def test_an_image_metric(benchmark: Benchmark, pair: tuple[Tensor, Tensor], name: str) -> None:
    try:
        metric = plugins.build("metrics", name)
        metric(*pair)  # what loads on first use
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    with torch.inference_mode():
        assert benchmark(metric, *pair).shape == (8,)


@pytest.mark.kernel("memory")
@pytest.mark.parametrize("name", metrics("verification"))
def test_a_verification_metric(benchmark: Benchmark, name: str) -> None:
    """10,000 genuine and 90,000 impostor scores."""
    random = np.random.default_rng(0)
    scores = {"genuine": random.normal(1, 1, 10_000), "impostor": random.normal(0, 1, 90_000)}
    metric = plugins.build("metrics", name)
    given = {"threshold": 1.5} if metric.needs_threshold else {}
    assert np.isfinite(benchmark(metric, **scores, **given))


@pytest.fixture(scope="module")
def million() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    return random.normal(1, 1, 100_000), random.normal(0, 1, 900_000)


@pytest.mark.kernel("memory")
@pytest.mark.benchmark(group="auc, 1e6 scores")
def test_our_auc(benchmark: Benchmark, million: tuple[Any, Any]) -> None:
    assert 0.7 < benchmark(AreaUnderCurve(), genuine=million[0], impostor=million[1]) < 0.8


@pytest.mark.ungated
@pytest.mark.benchmark(group="auc, 1e6 scores")
def test_scikit_learn_auc(benchmark: Benchmark, million: tuple[Any, Any]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = np.repeat([1, 0], [100_000, 900_000])
    assert 0.7 < benchmark(sklearn.roc_auc_score, labels, np.concatenate(million)) < 0.8


@pytest.mark.slow
@pytest.mark.ungated  # too long to be repeated
@pytest.mark.benchmark(group="bootstrap of 3.9e6 pairs of 366 subjects, 2,000 draws", min_rounds=1)
def test_counting_for_the_bootstrap(benchmark: Benchmark) -> None:
    random = np.random.default_rng(0)
    subjects = random.integers(0, 366, 2800)
    first, second = np.triu_indices(2800, 1)
    a, b = subjects[first], subjects[second]
    scores = (random.normal(0, 1, len(a)) + 3 * (a == b)).astype(np.float32)
    counts = benchmark(count_scores, scores, a, b, draw_weights(366))
    assert counts.impostor.shape[0] == 2000
