from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deidbench import allpairs, pairs, statistics
from deidbench.allpairs import ScoreGrid
from deidbench.errors import DeidbenchError, MetricUndefinedError
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.metrics.d_sys import SystemLinkability
from deidbench.metrics.dprime import DPrime
from deidbench.metrics.eer import EqualErrorRate
from deidbench.metrics.fmr import FalseMatchRate
from deidbench.metrics.fnmr import FalseNonMatchRate
from deidbench.metrics.tar import TrueAcceptRate
from deidbench.types import Similarity

Array = NDArray[Any]
SIMILARITIES = get_args(Similarity)
METRICS: list[Any] = [
    AreaUnderCurve(), EqualErrorRate(), TrueAcceptRate(), FalseMatchRate(), FalseNonMatchRate(),
    DPrime(), SystemLinkability(),
]  # fmt: skip


def faces(n: int, size: int, people: int, seed: int, lost: bool = False) -> tuple[Array, Array]:
    """Non-negative embeddings, as histograms are, and their subject numbers."""
    random = np.random.default_rng(seed)
    subjects = random.integers(0, people, n)
    means = random.normal(size=(people, size))
    embeddings = np.abs(means[subjects] + random.normal(size=(n, size))).astype(np.float32)
    embeddings /= np.abs(embeddings).max()
    if lost:
        embeddings[random.random(n) < 0.2] = np.nan
    return embeddings, subjects


def gallery_list(enrolled: Array, probe: Array) -> pairs.PairList:
    """Each of one side with each of the other, in the order of a matrix."""
    first, second = np.indices((len(enrolled), len(probe)), np.int32).reshape(2, -1)
    return pairs.PairList("official", first, second, enrolled[first] == probe[second], first)


def counted(scores: Array) -> dict[float, int]:
    values, counts = np.unique(scores[~np.isnan(scores)], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def of_grid(grid: ScoreGrid, counts: Array) -> dict[float, int]:
    used = np.flatnonzero(counts)
    return dict(zip(grid.scores[used].tolist(), counts[used].tolist(), strict=True))


def assert_same(grid: ScoreGrid, scores: Array, same: Array) -> None:
    """Every score of the list is on the grid, with all its bits, as often as in the list."""
    assert of_grid(grid, grid.genuine) == counted(scores[same])
    assert of_grid(grid, grid.impostor) == counted(scores[~same])
    assert grid.failed_genuine == np.isnan(scores[same]).sum()
    assert grid.failed_impostor == np.isnan(scores[~same]).sum()


sizes = st.tuples(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 70), st.integers(1, 6),
    st.integers(0, 2**32 - 1), st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(sizes)
@settings(deadline=None, max_examples=60)
def test_galleries_hold_the_very_scores_of_a_list(similarity: str, drawn: Any) -> None:
    n, m, size, people, seed, lost = drawn
    enrolled, first = faces(n, size, people, seed, lost)
    probe, second = faces(m, size, people, seed + 1, lost)
    listed = gallery_list(first, second)
    scores = pairs.score(enrolled, probe, listed, similarity)
    np.testing.assert_array_equal(pairs.score_matrix(enrolled, probe, similarity).ravel(), scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allpairs, "TILE", 16)
        tally = allpairs.gallery_pairs(enrolled, probe, (first, second), similarity)
    assert_same(tally.grid, scores, listed.same)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@given(sizes)
@settings(deadline=None, max_examples=60)
def test_a_set_holds_each_pair_once_with_the_sides_of_the_list(similarity: str, drawn: Any) -> None:
    n, tile, size, people, seed, lost = drawn
    clean, subjects = faces(n, size, people, seed, lost)
    treated, _ = faces(n, size, people, seed + 1, lost)
    listed = pairs.cross_pairs(range(n), subjects)
    scores = pairs.score(clean, treated, listed, similarity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allpairs, "TILE", tile)
        grid = allpairs.cross_pairs(clean, treated, subjects, similarity).grid
    assert_same(grid, scores, listed.same)


@pytest.mark.parametrize("size", [64, 128, 512, 513])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_usual_embeddings_are_scored_alike_in_tiles_and_lists(similarity: str, size: int) -> None:
    enrolled, first = faces(300, size, 20, 0)
    probe, second = faces(200, size, 20, 1)
    listed = gallery_list(first, second)
    scores = pairs.score(enrolled, probe, listed, similarity)
    matrix = pairs.score_matrix(enrolled, probe, similarity)
    np.testing.assert_array_equal(matrix.ravel(), scores)


def rounded(
    n_genuine: int, n_impostor: int, seed: int = 0, lost: float = 0.0
) -> tuple[Array, Array]:
    """Scores as ``pairs.score`` makes them, many of them equal, some lost."""
    random = np.random.default_rng(seed)
    kinds = [random.normal(0.0007, 0.002, n_genuine), random.normal(0, 0.002, n_impostor)]
    scores = [kind.astype(np.float32).round(pairs.DECIMALS) for kind in kinds]
    for kind in scores:
        kind[random.random(len(kind)) < lost] = -np.inf
    return scores[0], scores[1]


@pytest.mark.parametrize("failed", [True, False])
@given(st.integers(1, 300), st.integers(1, 900), st.integers(0, 999), st.floats(-0.005, 0.005))
@settings(deadline=None, max_examples=80)
def test_metrics_of_a_grid_are_those_of_the_scores(
    failed: bool, n_genuine: int, n_impostor: int, seed: int, threshold: float
) -> None:
    genuine, impostor = rounded(n_genuine, n_impostor, seed, lost=0.1 if failed else 0.0)
    grid = allpairs.grid_of_scores(genuine, impostor)
    counts = grid.counts([threshold], failed=failed)
    for metric in METRICS:
        try:
            exact = metric(genuine=genuine, impostor=impostor, threshold=threshold)
        except MetricUndefinedError:
            assert np.isnan(metric.from_counts(counts, threshold)).all()
            continue
        found = metric.from_counts(counts, threshold)[0]
        if metric.needs_threshold:
            assert found == exact
        assert found == pytest.approx(exact, rel=1e-9, abs=1e-12)


@given(
    st.integers(60, 900), st.integers(0, 999), st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.1, 0.29, 0.5, 0.9]),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_thresholds_and_curves_of_a_grid_are_those_of_the_scores(
    n_impostor: int, seed: int, lost: float, far: float
) -> None:
    """To the last bit, the step just above an impostor score included."""
    genuine, impostor = rounded(200, n_impostor, seed, lost)
    grid = allpairs.grid_of_scores(genuine, impostor)
    for kept in (True, False):
        g, i = (kind if kept else kind[kind > -np.inf] for kind in (genuine, impostor))
        if far >= statistics.RULE_OF_30 / len(i):
            expected = statistics.threshold_at_far(i, far)
            assert grid.threshold_at_far(far, failed=kept) == expected
        else:
            with pytest.raises(MetricUndefinedError, match=f"{len(i)} of the"):
                grid.threshold_at_far(far, failed=kept)
        for ours, theirs in zip(
            grid.roc_curve(30, failed=kept), statistics.roc_curve(g, i, 30), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_a_grid_without_scores_defines_nothing() -> None:
    grid = allpairs.grid_of_scores(np.array([]), np.array([]))
    assert np.isnan(AreaUnderCurve().from_counts(grid.counts())).all()
    for curve in (lambda: grid.threshold_at_far(0.1), grid.roc_curve):
        with pytest.raises(MetricUndefinedError):
            curve()
    with pytest.raises(DeidbenchError, match="between 0 and 1"):
        grid.threshold_at_far(1.5)


def test_failed_comparisons_are_counted_apart() -> None:
    grid = allpairs.grid_of_scores(np.array([np.nan, 0.5]), np.array([-np.inf, -np.inf, 0.1]))
    assert (grid.failed_genuine, grid.failed_impostor) == (1, 2)
    assert (grid.genuine.sum(), grid.impostor.sum()) == (1, 1)
    tar = TrueAcceptRate().from_counts
    assert tar(grid.counts([0.5]), 0.5)[0] == 0.5
    assert tar(grid.counts([0.5], failed=False), 0.5)[0] == 1


def test_scores_beyond_the_grid_are_refused() -> None:
    edge = np.array([83.0, -83.0])
    grid = allpairs.grid_of_scores(edge, edge)
    assert grid.scores[[0, -1]].tolist() == [-83, 83]
    for bad in (84.0, -1e9, np.inf):
        with pytest.raises(DeidbenchError, match=r"within \+-83, but got .* scale the embeddings"):
            allpairs.grid_of_scores(np.array([bad]), edge)


@pytest.mark.parametrize("low", [-83.5, -1.0, 0.0, 41.0, 83.5])
def test_every_step_of_the_grid_is_its_own_score(low: float) -> None:
    """A score finds the cell that gives it back, wherever float32 holds 5 decimals."""
    scores = (np.arange(1000) / allpairs.STEPS + low).astype(np.float32).round(pairs.DECIMALS)
    grid = allpairs.grid_of_scores(scores, scores[:1])
    assert of_grid(grid, grid.genuine) == counted(scores)


def test_images_that_do_not_fit_are_refused() -> None:
    rows = np.ones((3, 4), np.float32)
    for embeddings, subjects in ((rows, [0, 1]), (rows[0], [0] * 4), (rows, [0, 1, -1])):
        with pytest.raises(DeidbenchError, match="subject numbers from 0"):
            allpairs.cross_pairs(embeddings, embeddings, np.array(subjects), "cosine")
    with pytest.raises(DeidbenchError, match="no similarity called 'dot'"):
        allpairs.cross_pairs(rows, rows, np.arange(3), "dot")


def naive_people(scores: Array, a: Array, b: Array, edges: Array, people: int) -> Array:
    """Counts (2, S, K) of impostor and genuine scores by person, pair by pair."""
    counts = np.zeros((2, people, len(edges) - 1), int)
    for score, i, j in zip(scores, a, b, strict=True):
        k = max(k for k in range(len(edges) - 1) if edges[k] <= score)
        if i == j:
            counts[1, i, k] += 1
        else:
            counts[0, i, k] += 1
            counts[0, j, k] += 1
    return counts


@pytest.mark.parametrize("failed", [True, False])
def test_people_are_counted_as_in_a_plain_loop(
    failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allpairs, "TILE", 7)
    clean, subjects = faces(40, 8, 6, 0, lost=True)
    edges = np.array([-np.inf, 0.6, 0.7, 0.85, np.inf])
    listed = pairs.cross_pairs(range(40), subjects)
    scores = pairs.score(clean, clean, listed, "cosine")
    found = allpairs.cross_pairs(clean, clean, subjects, "cosine", edges=edges, failed=failed)
    assert found.people is not None
    made = ~np.isnan(scores) | failed
    a, b = subjects[listed.reference[made]], subjects[listed.probe[made]]
    values = np.where(np.isnan(scores), -np.inf, scores)[made]
    expected = naive_people(values, a, b, edges, 1 + subjects.max())
    np.testing.assert_array_equal(found.people.impostor, expected[0])
    np.testing.assert_array_equal(found.people.genuine, expected[1])
    inside = (values >= 0.7) & (values < 0.85)
    assert found.people.centres[2] == pytest.approx(values[inside].mean())


def crowd(people: int, images: int, seed: int) -> tuple[Array, Array]:
    """Embeddings of people with a quality of their own."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(people), images)
    quality = random.uniform(0.4, 1.0, people)[subjects, None]
    identity = random.normal(size=(people, 16))[subjects]
    drawn = identity * quality + random.normal(size=(len(subjects), 16))
    return drawn.astype(np.float32), subjects


def test_draws_of_one_weight_are_the_plain_counts_and_others_agree_with_a_list() -> None:
    """The bootstrap of the list and that of the counts, on the same draws of 150 people."""
    embeddings, subjects = crowd(150, 4, 0)
    listed = pairs.cross_pairs(range(600), subjects)
    scores = pairs.score(embeddings, embeddings, listed, "cosine")
    sides = subjects[listed.reference], subjects[listed.probe]
    grid = allpairs.cross_pairs(embeddings[::3], embeddings[::3], subjects[::3], "cosine").grid
    edges = allpairs.bin_edges(grid, [0.3])
    tally = allpairs.cross_pairs(embeddings, embeddings, subjects, "cosine", edges=edges)
    assert tally.people is not None
    plain = tally.people.draws(np.ones((1, 150)))
    exact = tally.grid.counts([0.3])
    weights = statistics.draw_weights(150, 500)
    draws = tally.people.draws(weights)
    of_list = statistics.count_scores(scores, *sides, weights, [0.3])
    for metric in METRICS:
        value = metric.from_counts(exact, 0.3)[0]
        assert metric.from_counts(plain, 0.3)[0] == pytest.approx(value, rel=0.01)
        ours, theirs = (metric.from_counts(counts, 0.3) for counts in (draws, of_list))
        # Single pairs move the FMR as much as people do; their chance counts 2 times, not 3.
        least = 0.8 if metric.name == "fmr" else 0.9
        assert least < ours.std() / theirs.std() < 1.05, metric.name
        assert np.corrcoef(ours, theirs)[0, 1] > least - 0.05, metric.name
        assert ours.mean() == pytest.approx(theirs.mean(), abs=0.3 * theirs.std())


@pytest.mark.slow
def test_intervals_of_the_counts_hold_the_truth_as_often_as_they_say() -> None:
    """150 samples of 100 people; the truth is that of 2,500."""
    metrics: list[Any] = [AreaUnderCurve(), EqualErrorRate(), TrueAcceptRate(), FalseMatchRate()]
    many = allpairs.cross_pairs(*[crowd(2500, 4, 999)[0]] * 2, crowd(2500, 4, 999)[1], "cosine")
    truth = [metric.from_counts(many.grid.counts([0.3]), 0.3)[0] for metric in metrics]
    edges = allpairs.bin_edges(many.grid, [0.3])
    weights = statistics.draw_weights(100, 400)
    covered = np.zeros(len(metrics))
    for seed in range(150):
        embeddings, subjects = crowd(100, 4, seed)
        people = allpairs.cross_pairs(
            embeddings, embeddings, subjects, "cosine", edges=edges
        ).people
        assert people is not None
        counts = people.draws(weights)
        for index, metric in enumerate(metrics):
            low, high = statistics.interval(metric.from_counts(counts, 0.3), subjects=100)
            covered[index] += low <= truth[index] <= high
    # That none are too wide says the comparison with the bootstrap of a list.
    assert (covered >= 0.92 * 150).all(), covered


MEMORY = """
import resource, sys
import numpy as np
from deidbench import allpairs
n, size = int(sys.argv[1]), int(sys.argv[2])
enrolled, probe = np.random.default_rng(0).random((2, n, size), np.float32)
subjects = np.arange(n) // 5
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
grid = allpairs.gallery_pairs(enrolled, probe, (subjects, subjects), sys.argv[3]).grid
assert grid.genuine.sum() + grid.impostor.sum() == n * n
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is told in other units elsewhere")
def test_the_memory_of_a_pass_does_not_grow_with_its_pairs() -> None:
    """10^8 scores alone would be 400 MB, a list of their pairs 900 MB more."""
    small, large = (
        int(
            subprocess.run(
                [sys.executable, "-c", MEMORY, str(n), "128", "cosine"],
                check=True, capture_output=True, text=True,
            ).stdout
        )
        for n in (2_000, 10_000)
    )  # fmt: skip
    assert large < 300e6
    assert large < small + 50e6
