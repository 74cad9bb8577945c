"""Searches in galleries: naive loops, scikit-learn, laws, and what k-Same promises."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch
from deidbench_baselines.k_same_pixel import KSamePixel
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from deidbench import identification, statistics
from deidbench.errors import DeidbenchError
from deidbench.identification import (
    Searches,
    above_bound,
    cmc,
    cmc_curve,
    open_searches,
    open_set_rows,
    rank_rows,
    search,
    search_same_image,
)
from deidbench.measure import Ruler
from deidbench.pairs import PairList, score
from deidbench.results.schema import CmcCurve, MetricRow

FIELDS = {"threat": "T1", "recognizer": "r", "pairs": "cross"}


def ruler(people: int, subjects: np.ndarray, draws: int = 200) -> Ruler:
    return Ruler([], subjects, statistics.draw_weights(people, draws=draws, seed=0))


def crowd(
    people: int, shots: int, noise: float, seed: int = 0, dims: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around one centre a person, (N, D), and subject numbers."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(people), shots)
    spread = noise * random.normal(size=(people * shots, dims))
    return (random.normal(size=(people, dims))[subjects] + spread).astype(np.float32), subjects


def similar(a: Sequence[float], b: Sequence[float], similarity: str) -> float:
    if similarity == "negative-euclidean":
        return round(-math.dist(a, b), 5)
    if similarity == "negative-chi-square":
        terms = ((x - y) ** 2 / (x + y) for x, y in zip(a, b, strict=True) if x + y)
        return round(-sum(terms), 5)
    lengths = max(math.hypot(*a), 1e-12) * max(math.hypot(*b), 1e-12)
    return round(sum(x * y for x, y in zip(a, b, strict=True)) / lengths, 5)


def naive_ranks(
    enrolled: np.ndarray,
    probe: np.ndarray,
    subjects: np.ndarray,
    chosen: Sequence[int],
    similarity: str,
) -> tuple[int, dict[int, dict[int, float] | None]]:
    """People in the gallery, and P(rank = r) by r for each probe; None where a face was lost."""
    gallery: dict[int, int] = {}
    for i in sorted(chosen):
        if not np.isnan(enrolled[i]).any():
            gallery.setdefault(int(subjects[i]), i)
    found: dict[int, dict[int, float] | None] = {}
    for i in sorted(set(chosen) - set(gallery.values())):
        own = gallery.get(int(subjects[i]))
        if own is None or np.isnan(probe[i]).any():
            found[i] = None
            continue
        to = {s: similar(enrolled[g].tolist(), probe[i].tolist(), similarity)
              for s, g in gallery.items()}  # fmt: skip
        mine = to.pop(int(subjects[i]))
        before = sum(other > mine for other in to.values())
        ties = sum(other == mine for other in to.values())
        found[i] = {before + place + 1: 1 / (ties + 1) for place in range(ties + 1)}
    return len(gallery), found


@st.composite
def cases(
    draw: st.DrawFn, lowest: int = -2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Small integers, so that scores are often equal; some rows of NaN; some samples not chosen."""
    count = draw(st.integers(2, 12))
    vectors = st.lists(st.integers(lowest, 2), min_size=2, max_size=2)
    sides = []
    for _ in range(2):
        side = np.array(draw(st.lists(vectors, min_size=count, max_size=count)), np.float32)
        side[draw(st.lists(st.integers(0, count - 1), max_size=2))] = np.nan
        sides.append(side)
    owners = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    chosen = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
    return sides[0], sides[1], np.array(owners), chosen


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean", "negative-chi-square"])
@given(data=st.data())
def test_ranks_are_those_of_a_naive_loop(data: st.DataObject, similarity: str) -> None:
    lowest = 0 if similarity == "negative-chi-square" else -2  # histograms
    enrolled, probe, subjects, chosen = data.draw(cases(lowest))
    size, expected = naive_ranks(enrolled, probe, subjects, chosen, similarity)
    found = search(enrolled, probe, subjects, np.array(chosen), similarity)
    assert found.n_enrolled == size
    assert found.owner.tolist() == [subjects[i] for i in expected]
    assert found.lost.tolist() == [
        ranks is None or bool(np.isnan(probe[i]).any()) for i, ranks in expected.items()
    ]
    for k in range(1, size + 1):
        wanted = [sum(p for r, p in (ranks or {}).items() if r <= k) for ranks in expected.values()]
        assert found.named(k) == pytest.approx(wanted)
    if expected:
        made = [ranks for ranks in expected.values() if ranks is not None]
        mean = [
            sum(p for ranks in made for r, p in ranks.items() if r <= k) for k in range(1, size + 1)
        ]
        assert cmc(found, "system") == pytest.approx(np.array(mean) / len(expected))


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean", "negative-chi-square"])
def test_scores_are_those_of_the_pairs_but_for_their_last_decimal(similarity: str) -> None:
    embeddings, subjects = crowd(12, 4, 0.5)
    embeddings = abs(embeddings)
    found = search(embeddings, embeddings, subjects, np.arange(48), similarity)
    probes = np.flatnonzero(np.arange(48) % 4)
    kind = np.zeros(len(probes), bool)
    pairs = PairList("cross", probes // 4 * 4, probes, kind, kind)
    assert found.score == pytest.approx(score(embeddings, embeddings, pairs, similarity), abs=2e-5)
    assert found.score.dtype == np.float32
    everyone = PairList(
        "cross", np.tile(np.arange(0, 48, 4), 36), np.repeat(probes, 12), kind, kind
    )
    table = score(embeddings, embeddings, everyone, similarity).reshape(36, 12)
    table[np.arange(36), probes // 4] = -np.inf
    assert found.best_other == pytest.approx(table.max(1), abs=2e-5)


def test_another_similarity_is_refused() -> None:
    embeddings, subjects = crowd(3, 2, 0.5)
    with pytest.raises(DeidbenchError, match="no similarity called 'taxicab'"):
        search(embeddings, embeddings, subjects, np.arange(6), "taxicab")


@pytest.mark.parametrize("k", [1, 3, 7])
def test_rank_k_is_scikit_learns_top_k_accuracy_where_nothing_is_equal(k: int) -> None:
    embeddings, subjects = crowd(20, 5, 1.0)
    found = search(embeddings, embeddings, subjects, np.arange(100), "cosine")
    unit = embeddings.astype(float) / np.linalg.norm(embeddings, axis=1, keepdims=True)
    gallery = np.arange(0, 100, 5)
    probes = np.setdiff1d(np.arange(100), gallery)
    table = unit[probes] @ unit[gallery].T
    assert cmc(found, "landmarks")[k - 1] == pytest.approx(
        top_k_accuracy_score(subjects[probes], table, k=k, labels=np.arange(20))
    )


@given(cases())
def test_the_cmc_rises_to_one_at_the_last_rank(
    case: tuple[np.ndarray, np.ndarray, np.ndarray, list[int]],
) -> None:
    enrolled, probe, subjects, chosen = case
    found = search(enrolled, probe, subjects, np.array(chosen), "cosine")
    if found.counted("landmarks").any():
        curve = cmc(found, "landmarks")
        assert (np.diff(curve) >= 0).all()
        assert curve[-1] == pytest.approx(1) and curve[-1] <= 1


@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean", "negative-chi-square"])
@pytest.mark.parametrize("people", [2, 7, 28])
def test_faces_painted_all_alike_leave_chance(people: int, similarity: str) -> None:
    """Also with the rounding errors of batches, and with a clean gallery."""
    _, subjects = crowd(people, 3, 0)
    noise = np.random.default_rng(0).normal(size=(len(subjects), 16))
    alike = (0.3 + 1e-8 * noise).astype(np.float32)
    ranks = np.arange(1, people + 1)
    for enrolled in (alike, np.full_like(alike, 0.7)):
        found = search(enrolled, alike, subjects, np.arange(len(subjects)), similarity)
        assert cmc(found, "landmarks") == pytest.approx(ranks / people)
    (row,) = rank_rows(found, ruler(people, subjects), [1], view="landmarks", **FIELDS)
    assert (row.value, row.low, row.high) == pytest.approx((1 / people,) * 3)
    assert f"chance {1 / people:.3g}" in (row.note or "")


def test_faces_that_nobody_shares_are_named_rightly() -> None:
    subjects = np.tile(np.arange(9), 2)
    one_hot = np.eye(9, dtype=np.float32)[subjects]
    found = search(one_hot, one_hot, subjects, np.arange(18), "cosine")
    assert cmc(found, "system").tolist() == [1] * 9
    assert (found.score == 1).all() and (found.best_other == 0).all()


def test_the_gallery_holds_the_first_image_that_was_not_lost() -> None:
    embeddings, subjects = crowd(3, 3, 0.1)
    embeddings[0] = np.nan
    found = search(embeddings, embeddings, subjects, np.arange(9)[::-1], "cosine")
    assert found.owner.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.lost.tolist() == [True] + [False] * 5
    pair = PairList("cross", np.array([1]), np.array([2]), np.ones(1, bool), np.zeros(1))
    assert found.score[1] == pytest.approx(
        score(embeddings, embeddings, pair, "cosine")[0], abs=2e-5
    )


def test_who_could_not_be_enrolled_is_never_named_in_the_system_view() -> None:
    embeddings, subjects = crowd(4, 3, 0.01)
    enrolled = embeddings.copy()
    enrolled[subjects == 2] = np.nan
    found = search(enrolled, embeddings, subjects, np.arange(12), "cosine")
    assert found.n_enrolled == 3
    measure = ruler(4, subjects)
    rows = {view: next(rank_rows(found, measure, [1], view=view, **FIELDS))
            for view in ("system", "conditional")}  # fmt: skip
    assert rows["conditional"].value == 1 and rows["conditional"].n == 6
    assert rows["system"].value == pytest.approx(6 / 9) and rows["system"].n == 9
    assert rows["system"].n_failed == rows["conditional"].n_failed == 3


def test_all_faces_lost_is_a_failure_of_the_attacker_or_no_number() -> None:
    embeddings, subjects = crowd(4, 3, 0.01)
    lost = np.full_like(embeddings, np.nan)
    found = search(lost, lost, subjects, np.arange(12), "cosine")
    system, conditional = (
        next(rank_rows(found, ruler(4, subjects), [1], view=view, **FIELDS))
        for view in ("system", "conditional")
    )
    assert system.value == 0 and system.note == "nobody could be enrolled"
    assert conditional.value is None and conditional.note == "every search lost a face"
    assert cmc_curve(found, view="system", **FIELDS) is None


def test_a_rank_that_the_gallery_does_not_have_is_no_number() -> None:
    embeddings, subjects = crowd(5, 3, 0.5)
    found = search(embeddings, embeddings, subjects, np.arange(15), "cosine")
    rows = list(rank_rows(found, ruler(5, subjects), [1, 4, 5, 10], view="landmarks", **FIELDS))
    assert [row.params["k"] for row in rows] == [1, 4, 5, 10]
    assert [row.value is None for row in rows] == [False, False, True, True]
    assert "holds 5 people" in (rows[2].note or "")


def test_a_probe_weighs_as_often_as_its_person_is_drawn() -> None:
    """Oracle: the searches of each drawn person, repeated."""
    embeddings, subjects = crowd(10, 4, 1.2)
    found = search(embeddings, embeddings, subjects, np.arange(40), "cosine")
    measure = ruler(10, subjects, draws=50)
    values = [
        np.repeat(found.named(1), drawn[found.owner].astype(int)).mean()
        for drawn in measure.weights
    ]
    row = next(rank_rows(found, measure, [1], view="landmarks", **FIELDS))
    ends = statistics.interval(np.array(values), subjects=10)
    assert (row.low, row.high) == pytest.approx(ends)
    assert row.value == pytest.approx(found.named(1).mean())
    assert row.higher_is_better is False and row.unit == "fraction" and row.n == 30


def test_memory_does_not_grow_with_the_number_of_comparisons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embeddings, subjects = crowd(400, 25, 0.5, dims=4)
    expected = search(embeddings, embeddings, subjects, np.arange(10_000), "cosine")
    monkeypatch.setattr(identification, "CELLS", 1 << 14)
    tracemalloc.start()
    try:
        found = search(embeddings, embeddings, subjects, np.arange(10_000), "cosine")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6  # all 3.8 million scores would be 15 MB, in double precision 31 MB
    for name in ("score", "above", "equal", "best_other"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


# Open set


def open_set(noise: float = 0.8) -> tuple[list[Searches], Ruler]:
    embeddings, subjects = crowd(60, 12, noise)
    chosen = np.arange(720)
    return open_searches(embeddings, embeddings, subjects, chosen, "cosine", seed=3), ruler(
        60, subjects
    )


def naive_dir(searches: Searches, rate: float) -> float:
    others = searches.best_other[~searches.mated]
    threshold = statistics.threshold_at_far(others, rate).value
    hits = [
        (mine >= threshold and above == 0) / (1 + equal)
        for mine, above, equal in zip(
            searches.score[searches.mated],
            searches.above[searches.mated],
            searches.equal[searches.mated],
            strict=True,
        )
    ]
    return sum(hits) / len(hits)


def test_half_of_the_people_are_enrolled_and_all_images_of_the_others_are_searched_for() -> None:
    halves, _ = open_set()
    assert len(halves) == identification.HALVES
    assert len({tuple(np.unique(one.owner[one.mated])) for one in halves}) == len(halves)
    for one in halves:
        assert one.n_enrolled == 30
        assert one.mated.sum() == 30 * 11 and (~one.mated).sum() == 30 * 12
        assert np.isnan(one.score[~one.mated]).all()
    again, _ = open_set()
    assert all(np.array_equal(a.owner, b.owner) for a, b in zip(halves, again, strict=True))


@pytest.mark.parametrize("decimals", [1, 5])
def test_dir_is_that_of_a_naive_loop_at_a_step_threshold(decimals: int) -> None:
    """With one decimal, most scores are equal to others."""
    halves, measure = open_set()
    halves = [
        replace(one, score=one.score.round(decimals), best_other=one.best_other.round(decimals))
        for one in halves
    ]
    (row,) = open_set_rows(halves, measure, [0.1], view="landmarks", **FIELDS)
    assert row.value == pytest.approx(np.mean([naive_dir(one, 0.1) for one in halves]))
    assert row.low is not None and row.high is not None
    assert row.low < (row.value or 0) < row.high
    assert row.metric == "dir" and row.params == {"fpir": 0.1} and row.higher_is_better is False
    assert f"chance {0.1 / 30:.2g}" in (row.note or "")
    assert (row.n_genuine, row.n_impostor, row.n_failed) == (330, 360, 0)


def test_draws_of_the_open_set_repeat_people_on_both_sides() -> None:
    halves, measure = open_set()
    draws = identification._dir(halves, "landmarks", 0.2, measure.weights)
    for drawn, found in zip(measure.weights[:20], draws[:20], strict=True):
        repeated = [_repeat(one, drawn[one.owner].astype(int)) for one in halves]
        assert found == pytest.approx(np.mean([naive_dir(one, 0.2) for one in repeated]))


def _repeat(one: Searches, times: np.ndarray) -> Searches:
    names = ("owner", "mated", "score", "above", "equal", "best_other")
    return replace(one, **{name: np.repeat(getattr(one, name), times) for name in names})


def test_too_few_searches_for_others_are_no_number() -> None:
    halves, measure = open_set()
    (row,) = open_set_rows(halves, measure, [0.01], view="landmarks", **FIELDS)
    assert row.value is None
    assert "360 of the 3000 needed (rule of 30)" in (row.note or "")
    assert "0.0083" in (row.note or "")  # 3/n


def test_a_lost_probe_passes_no_threshold() -> None:
    embeddings, subjects = crowd(60, 24, 0.3)
    probe = embeddings.copy()
    probe[np.arange(len(probe)) % 2 == 1] = np.nan
    halves = open_searches(embeddings, probe, subjects, np.arange(len(probe)), "cosine", seed=0)
    measure = ruler(60, subjects)
    rows = {view: next(open_set_rows(halves, measure, [0.1], view=view, **FIELDS))
            for view in ("system", "conditional")}  # fmt: skip
    one = halves[0]
    counted = one.counted("system"), one.counted("conditional")
    assert counted[0].sum() == 30 * 23 and counted[1].sum() == 30 * 11
    made = counted[1].sum() / counted[0].sum()
    assert (rows["conditional"].value or 0) > 0.9
    # Lost searches of others count too: twice the share of those that are left may pass.
    assert 0.9 * made < (rows["system"].value or 0) <= made + 1e-9
    assert rows["system"].n_impostor == 2 * (rows["conditional"].n_impostor or 0)


def test_random_scores_reach_the_chance_line_of_dir() -> None:
    """FPIR / N: the best of N is no likelier to pass in a mated search, and is any of them."""
    random = np.random.default_rng(5)
    people, shots = 20, 1000
    subjects = np.repeat(np.arange(people), shots)
    embeddings = random.normal(size=(people * shots, 32)).astype(np.float32)
    halves = open_searches(
        embeddings, embeddings, subjects, np.arange(len(subjects)), "cosine", seed=0
    )
    value = identification._dir(halves, "landmarks", 0.1, np.ones((1, people)))[0]
    assert value == pytest.approx(0.1 / 10, abs=0.003)


def test_faces_painted_all_alike_name_nobody_at_a_threshold() -> None:
    _, subjects = crowd(40, 20, 0)
    alike = np.ones((800, 4), np.float32)
    halves = open_searches(alike, alike, subjects, np.arange(800), "cosine", seed=0)
    (row,) = open_set_rows(halves, ruler(40, subjects), [0.1], view="landmarks", **FIELDS)
    assert (row.value, row.low, row.high) == (0, 0, 0)


def test_an_open_set_without_faces_is_no_number() -> None:
    embeddings, subjects = crowd(40, 20, 0.1)
    halves = open_searches(
        embeddings * np.nan, embeddings, subjects, np.arange(800), "cosine", seed=0
    )
    (row,) = open_set_rows(halves, ruler(40, subjects), [0.1], view="conditional", **FIELDS)
    assert row.value is None and row.note == "no mated search was made"


# What k-Same promises


def faces(people: int, shots: int) -> tuple[torch.Tensor, np.ndarray]:
    flat, subjects = crowd(people, shots, 0.2, dims=3 * 16 * 16)
    return torch.from_numpy(flat).sigmoid().reshape(-1, 3, 16, 16), subjects


@pytest.mark.parametrize("k", [2, 5, 9])
@pytest.mark.parametrize("enrolled", ["clean", "treated"])
@pytest.mark.parametrize("similarity", ["cosine", "negative-euclidean"])
def test_nobody_names_more_than_one_in_k_people_after_k_same(
    k: int, enrolled: str, similarity: str
) -> None:
    chips, subjects = faces(23, 3)
    method = KSamePixel(k=k)
    method.fit(chips, [f"{subject:02d}" for subject in subjects])
    treated = method.deidentify(chips, seed=0).flatten(1).numpy()
    sides = {"clean": chips.flatten(1).numpy(), "treated": treated}
    found = search_same_image(sides[enrolled], treated, subjects, np.arange(69), similarity)
    assert len(found.owner) == len(np.unique(found.owner)) == 23
    row = bound_row(found, method, subjects)
    assert method.rank_1_bound == 1 / k
    assert row.value is not None and 0 < row.value <= 1 / k + 1e-12
    assert not above_bound(row, method.rank_1_bound)
    assert f"promises at most {1 / k:.3g}" in (row.note or "")


def test_a_method_that_breaks_its_promise_is_found_out() -> None:
    chips, subjects = faces(23, 3)
    clean = chips.flatten(1).numpy()
    found = search_same_image(clean, clean, subjects, np.arange(69), "cosine")
    row = bound_row(found, KSamePixel(k=5), subjects)
    assert row.value == 1 and above_bound(row, 0.2)
    assert not above_bound(MetricRow(metric="rank-k", value=None, note="nothing"), 0.2)


def test_the_same_image_search_keeps_people_whose_faces_were_lost() -> None:
    embeddings, subjects = crowd(4, 3, 0.1)
    enrolled = embeddings.copy()
    enrolled[subjects == 1] = np.nan
    enrolled[0] = np.nan
    found = search_same_image(enrolled, embeddings, subjects, np.arange(12), "cosine")
    assert sorted(found.owner) == [0, 1, 2, 3] and found.n_enrolled == 3
    assert found.lost.tolist() == (found.owner == 1).tolist()
    assert found.score[~found.lost].tolist() == [1, 1, 1]


def bound_row(found: Searches, method: KSamePixel, subjects: np.ndarray) -> MetricRow:
    fields = {**FIELDS, "pairs": "same", "bound": method.rank_1_bound}
    (row,) = rank_rows(found, ruler(23, subjects), [1], view="landmarks", **fields)
    return row


# The record of a curve


def test_a_curve_is_thinned_but_keeps_its_ends_and_its_first_ranks() -> None:
    embeddings, subjects = crowd(900, 2, 0.8, dims=8)
    found = search(embeddings, embeddings, subjects, np.arange(1800), "cosine")
    drawn = cmc_curve(found, view="landmarks", **FIELDS)
    assert drawn is not None and len(drawn.rank) <= identification.CURVE_POINTS
    assert drawn.rank[:10] == list(range(1, 11)) and drawn.rank[-1] == 900
    assert drawn.rate == cmc(found, "landmarks")[np.array(drawn.rank) - 1].tolist()
    assert (drawn.n, drawn.n_enrolled) == (900, 900)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rank": [1, 2]}, "2 ranks but 3 rates"),
        ({"rank": [1, 3, 3], "n_enrolled": 3}, "larger than the one before"),
        ({"rank": [2, 3, 4]}, "ranks from 1 to 4"),
        ({"n_enrolled": 5}, "ranks from 1 to 5"),
        ({"rank": [], "rate": []}, "ranks from 1 to 4"),
    ],
)
def test_a_curve_that_makes_no_sense_is_refused(changes: dict[str, object], why: str) -> None:
    good = {**FIELDS, "view": "system", "n": 9, "n_enrolled": 4, "rank": [1, 2, 4],
            "rate": [0.5, 0.7, 1.0]}  # fmt: skip
    assert CmcCurve.model_validate(good).n == 9
    with pytest.raises(pydantic.ValidationError, match=why):
        CmcCurve.model_validate({**good, **changes})
