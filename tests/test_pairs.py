from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from deidbench import pairs
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample, Similarity

SUBJECTS = np.array([0, 0, 1, 2, 2, 2], np.int32)


def test_cross_pairs_are_each_two_different_images_once() -> None:
    listed = pairs.cross_pairs([0, 1, 3, 5], SUBJECTS)
    got = [{*pair} for pair in zip(listed.reference, listed.probe, strict=True)]
    assert got == [{0, 1}, {0, 3}, {0, 5}, {1, 3}, {1, 5}, {3, 5}]
    assert listed.same.tolist() == [True, False, False, False, False, True]


def test_each_image_is_reference_and_probe_about_equally_often() -> None:
    """Else the place of a name in the alphabet would say which faces are treated."""
    listed = pairs.cross_pairs(range(40), np.repeat(np.arange(10), 4).astype(np.int32))
    for chosen in (listed.same, ~listed.same):
        roles = [
            np.bincount(side[chosen], minlength=40) for side in (listed.reference, listed.probe)
        ]
        assert np.abs(roles[0] - roles[1]).max() <= 2


def test_a_constant_probe_leaves_an_auc_near_a_half() -> None:
    subjects = np.repeat(np.arange(12), 6).astype(np.int32)
    listed = pairs.cross_pairs(range(72), subjects)
    for seed in range(20):
        enrolled = np.random.default_rng(seed).normal(size=(72, 8)).astype(np.float32)
        scores = pairs.score(enrolled, np.ones((72, 8), np.float32), listed, "cosine")
        assert roc_auc_score(listed.same, scores) == pytest.approx(0.5, abs=0.02)


def test_same_image_pairs_take_their_impostors_from_the_cross_pairs() -> None:
    cross = pairs.cross_pairs(range(6), SUBJECTS)
    own = pairs.same_image_pairs(range(6), SUBJECTS)
    both = pairs.with_impostors(own, cross)
    assert own.same.all()
    assert both.same.sum() == 6
    assert (~both.same).sum() == (~cross.same).sum()


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean"])
def test_scores_equal_a_naive_loop(similarity: str) -> None:
    rng = np.random.default_rng(0)
    enrolled, probe = rng.normal(size=(2, 6, 16)).astype(np.float32)
    listed = pairs.cross_pairs(range(6), SUBJECTS)
    got = pairs.score(enrolled, probe, listed, similarity)
    for i, j, value in zip(listed.reference, listed.probe, got, strict=True):
        a, b = enrolled[i].astype(np.float64), probe[j].astype(np.float64)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        expected = cosine if similarity == "cosine" else -np.linalg.norm(a - b)
        assert value == pytest.approx(expected, abs=10**-pairs.DECIMALS)


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean"])
def test_scores_are_symmetric_and_best_for_equal_embeddings(similarity: str) -> None:
    embeddings = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    forward = pairs.cross_pairs(range(6), SUBJECTS)
    back = pairs.PairList("cross", forward.probe, forward.reference, forward.same, forward.fold)
    np.testing.assert_allclose(
        pairs.score(embeddings, embeddings, forward, similarity),
        pairs.score(embeddings, embeddings, back, similarity),
        atol=1e-5,
    )
    own = pairs.score(
        embeddings, embeddings, pairs.same_image_pairs(range(6), SUBJECTS), similarity
    )
    np.testing.assert_allclose(own, 1 if similarity == "cosine" else 0, atol=1e-6)


def histograms(count: int, bins: int = 300) -> NDArray[np.float32]:
    """Shares of few draws: most bins are empty, on one side or on both."""
    drawn = np.random.default_rng(4).multinomial(60, np.ones(bins) / bins, count)
    return (drawn / 60).astype(np.float32)


def test_chi_square_scores_equal_a_naive_loop() -> None:
    enrolled, probe = histograms(12)[:6], histograms(12)[6:]
    listed = pairs.cross_pairs(range(6), SUBJECTS)
    got = pairs.score(enrolled, probe, listed, "negative-chi-square")
    for i, j, value in zip(listed.reference, listed.probe, got, strict=True):
        distance = 0.0
        for a, b in zip(enrolled[i].tolist(), probe[j].tolist(), strict=True):
            distance += (a - b) ** 2 / (a + b) if a + b else 0
        assert value == pytest.approx(-distance, abs=10**-pairs.DECIMALS)


def test_chi_square_is_symmetric_and_lies_between_its_ends() -> None:
    """0 for equal histograms, -2 for histograms without a common bin."""
    rows = np.zeros((6, 4), np.float32)
    rows[:3, :2], rows[3:, 2:] = [0.25, 0.75], [0.5, 0.5]
    listed = pairs.cross_pairs(range(6), SUBJECTS)
    got = pairs.score(rows, rows, listed, "negative-chi-square")
    apart = (listed.reference < 3) != (listed.probe < 3)
    np.testing.assert_array_equal(got, np.where(apart, -2, 0))
    mixed = histograms(6)
    back = pairs.PairList("cross", listed.probe, listed.reference, listed.same, listed.fold)
    np.testing.assert_array_equal(
        pairs.score(mixed, mixed, listed, "negative-chi-square"),
        pairs.score(mixed, mixed, back, "negative-chi-square"),
    )


@pytest.mark.parametrize("similarity", get_args(Similarity))
def test_long_embeddings_are_scored_in_a_bounded_memory(similarity: str) -> None:
    """Pairs of 2891-d histograms would fill 1.2 GB a side if taken at once."""
    rows = histograms(500, 2891)[:450]
    listed = pairs.cross_pairs(range(450), np.arange(450, dtype=np.int32))
    tracemalloc.start()
    got = pairs.score(rows, rows, listed, similarity)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(got) * rows.shape[1] * 4 > 1e9
    assert peak < 0.3e9
    few = pairs.PairList("cross", *(column[-50:] for column in columns(listed)))
    np.testing.assert_array_equal(pairs.score(rows, rows, few, similarity), got[-50:])


def columns(listed: pairs.PairList) -> tuple[NDArray[Any], ...]:
    return listed.reference, listed.probe, listed.same, listed.fold


def test_an_unknown_similarity_is_refused() -> None:
    with pytest.raises(DeidbenchError, match=r"no similarity called 'dot'\. Known: cosine, "):
        pairs.score(np.ones((6, 2)), np.ones((6, 2)), pairs.cross_pairs([0, 1], SUBJECTS), "dot")


def test_many_pairs_are_scored_as_few_are() -> None:
    """More pairs than one chunk holds."""
    embeddings = np.random.default_rng(2).normal(size=(500, 4)).astype(np.float32)
    listed = pairs.cross_pairs(range(500), np.arange(500, dtype=np.int32))
    assert len(listed.reference) > pairs.CHUNK
    got = pairs.score(embeddings, embeddings, listed, "cosine")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(got, (unit @ unit.T)[np.triu_indices(500, 1)], atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean"])
def test_the_last_digits_of_an_embedding_tell_nothing(similarity: str) -> None:
    """One embedding for all, but for the rounding of two batches: every score is a tie."""
    rng = np.random.default_rng(3)
    embeddings = np.tile(rng.normal(size=64).astype(np.float32) / 8, (6, 1))
    embeddings[3:] *= 1 + rng.uniform(-1e-6, 1e-6, (1, 64)).astype(np.float32)
    got = pairs.score(embeddings, embeddings, pairs.cross_pairs(range(6), SUBJECTS), similarity)
    assert len(set(got.tolist())) == 1


@pytest.mark.parametrize("similarity", get_args(Similarity))
def test_a_lost_face_makes_its_scores_nan_and_no_others(similarity: str) -> None:
    embeddings = np.ones((6, 4), np.float32)
    embeddings[2] = np.nan
    listed = pairs.cross_pairs(range(6), SUBJECTS)
    touched = (listed.reference == 2) | (listed.probe == 2)
    got = pairs.score(embeddings, embeddings, listed, similarity)
    np.testing.assert_array_equal(np.isnan(got), touched)


def test_official_pairs_are_found_by_sample_id() -> None:
    samples = [Sample(id=f"s{i}", subject="x", path=Path("x")) for i in range(3)]
    listed = pairs.official_pairs([Pair("s2", "s0", True, 4)], samples)
    assert (listed.reference[0], listed.probe[0], listed.fold[0]) == (2, 0, 4)


def test_a_dataset_without_a_list_says_so() -> None:
    with pytest.raises(DeidbenchError, match="--pairs cross"):
        pairs.official_pairs([], [])
