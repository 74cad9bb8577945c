"""Numbers of many scores: ``tox -e bench``; beside scikit-learn's with ``-- -m slow``.

Each benchmark says in ``extra_info`` how much memory a process of its own needed besides its input.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from deidbench import allpairs
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.metrics.eer import EqualErrorRate
from deidbench.statistics import count_scores, draw_weights, interval

pytest.importorskip("pytest_benchmark")
Benchmark = Callable[..., Any]
Array = NDArray[Any]

IMAGES = 10_000
MEASURED = """
import numpy as np
from deidbench.resident import forget_peak, held_bytes, peak_bytes
{prepare}
forget_peak()
before = held_bytes() or peak_bytes()
{work}
print(round(peak_bytes() - before))
"""
EMBEDDED = """
from deidbench import allpairs
enrolled, probe = np.random.default_rng(0).random((2, 10_000, {size}), np.float32)
subjects = np.arange(10_000) // 5
"""
SCORES = """
from deidbench import allpairs
from sklearn.metrics import roc_curve
scores = np.random.default_rng(0).random(10_000_000, np.float32)
np.round(scores, 5, out=scores)
labels = np.zeros(10_000_000, np.int8)
labels[:1_000_000] = 1
genuine, impostor = scores[:1_000_000], scores[1_000_000:]
"""


def extra_memory(prepare: str, work: str) -> int:
    """Bytes that a process needs for the work beyond its input.

    Not by ``ru_maxrss``: a new process starts with the largest size of the one that started it.
    """
    code = MEASURED.format(prepare=prepare, work=work)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)


def crowd(size: int) -> tuple[Array, Array, Array]:
    random = np.random.default_rng(0)
    subjects = np.arange(IMAGES) // 5
    identity = random.normal(size=(IMAGES // 5, size)).astype(np.float32)[subjects]
    enrolled, probe = identity + random.normal(size=(2, IMAGES, size)).astype(np.float32)
    return enrolled, probe, subjects


@pytest.mark.slow
@pytest.mark.ungated  # too long to be repeated
@pytest.mark.benchmark(group="all of 10^8 pairs", min_rounds=1, max_time=0)
@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean"])
@pytest.mark.parametrize("size", [128, 512])
def test_every_probe_with_every_enrolled_image(
    benchmark: Benchmark, size: int, similarity: str
) -> None:
    enrolled, probe, subjects = crowd(size)
    tally = benchmark(
        allpairs.gallery_pairs, enrolled / size, probe / size, (subjects, subjects), similarity
    )
    assert tally.grid.genuine.sum() + tally.grid.impostor.sum() == IMAGES**2
    assert benchmark.stats["min"] < 60  # type: ignore[attr-defined]
    work = f"allpairs.gallery_pairs(enrolled, probe, (subjects, subjects), '{similarity}')"
    used = extra_memory(EMBEDDED.format(size=size), work)
    benchmark.extra_info["extra MB"] = used / 1e6  # type: ignore[attr-defined]
    assert used < 1e9


@pytest.mark.slow
@pytest.mark.ungated  # too long to be repeated
@pytest.mark.benchmark(group="all of 10^8 pairs", min_rounds=1, max_time=0)
def test_the_same_with_intervals_of_2000_people(benchmark: Benchmark) -> None:
    enrolled, probe, subjects = crowd(128)
    part = allpairs.gallery_pairs(enrolled[:500], probe[:500], (subjects[:500],) * 2, "cosine")
    edges = allpairs.bin_edges(part.grid, [0.3])

    def intervals() -> tuple[float, float]:
        tally = allpairs.gallery_pairs(enrolled, probe, (subjects,) * 2, "cosine", edges=edges)
        assert tally.people is not None
        draws = tally.people.draws(draw_weights(2000))
        return interval(AreaUnderCurve().from_counts(draws), subjects=2000)

    low, high = benchmark(intervals)
    assert 0.5 < low < high < 1


@pytest.mark.kernel("memory")
@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean"])
def test_every_probe_of_a_small_crowd(benchmark: Benchmark, similarity: str) -> None:
    """10^6 pairs."""
    enrolled, probe, subjects = (rows[:1000] for rows in crowd(128))
    tally = benchmark(
        allpairs.gallery_pairs, enrolled / 128, probe / 128, (subjects, subjects), similarity
    )
    assert tally.grid.genuine.sum() + tally.grid.impostor.sum() == 1000**2


@pytest.fixture(scope="module")
def ten_million() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    drawn = random.normal(0.5, 0.2, 1_000_000), random.normal(0, 0.2, 9_000_000)
    genuine, impostor = (scores.astype(np.float32).round(5) for scores in drawn)
    return genuine, impostor


@pytest.mark.kernel("memory")
@pytest.mark.benchmark(group="ROC, AUC, EER and a threshold of 10^7 scores")
def test_our_numbers_of_the_grid(benchmark: Benchmark, ten_million: tuple[Array, Array]) -> None:
    def numbers() -> float:
        grid = allpairs.grid_of_scores(*ten_million)
        counts = grid.counts()
        grid.roc_curve()
        grid.threshold_at_far(1e-3)
        EqualErrorRate().from_counts(counts)
        return float(AreaUnderCurve().from_counts(counts)[0])

    assert 0.9 < benchmark(numbers) < 1
    used = extra_memory(
        SCORES,
        "grid = allpairs.grid_of_scores(genuine, impostor); grid.counts(); grid.roc_curve()",
    )
    benchmark.extra_info["extra MB"] = used / 1e6  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.ungated
@pytest.mark.benchmark(group="ROC, AUC, EER and a threshold of 10^7 scores", min_rounds=1)
def test_the_curve_of_scikit_learn_alone(
    benchmark: Benchmark, ten_million: tuple[Array, Array]
) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = np.repeat([1, 0], [len(kind) for kind in ten_million])
    fpr, tpr, _ = benchmark(sklearn.roc_curve, labels, np.concatenate(ten_million))
    assert 0.9 < np.trapezoid(tpr, fpr) < 1
    used = extra_memory(SCORES, "roc_curve(labels, scores)")
    benchmark.extra_info["extra MB"] = used / 1e6  # type: ignore[attr-defined]


@pytest.mark.kernel("memory")
@pytest.mark.benchmark(group="2,000 draws of 10^6 scores", min_rounds=1, max_time=0)
@pytest.mark.parametrize("people", [50, 610, 1414])
def test_counting_a_million_scores_for_the_bootstrap(benchmark: Benchmark, people: int) -> None:
    """All pairs of 1,414 images: of many people with few images, or of few with many."""
    subjects = np.arange(1414) % people
    first, second = np.triu_indices(1414, 1)
    a, b = subjects[first], subjects[second]
    noise = np.random.default_rng(0).normal(0, 1, len(a))
    scores = (noise + 3 * (a == b)).astype(np.float32)
    counts = benchmark(count_scores, scores, a, b, draw_weights(people), [0.5, 1.0, 1.5])
    assert counts.impostor.shape[0] == 2000
    assert benchmark.stats["min"] < 20  # type: ignore[attr-defined]
