from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deidbench import ranking, statistics
from deidbench.errors import DeidbenchError, MetricUndefinedError

Array = NDArray[Any]
PEOPLE = 28
p_values = st.lists(st.sampled_from([0.0, 1e-4, 0.004, 0.01, 0.02, 0.04, 0.3, 1.0]), max_size=12)


def naive_holm(p: list[float], alpha: float) -> list[bool]:
    """Step down, as the paper says it: stop at the first that is not small enough."""
    rejected = [False] * len(p)
    for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[index] > alpha / (len(p) - step):
            break
        rejected[index] = True
    return rejected


@given(p_values, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_stepping_down_rejects(p: list[float], alpha: float) -> None:
    adjusted = ranking.holm(p)
    assert [each <= alpha * (1 + 1e-12) for each in adjusted] == naive_holm(p, alpha)
    assert all(own <= each <= 1 for own, each in zip(p, adjusted, strict=True))


def test_holm_of_a_known_family() -> None:
    """Worked by hand: 4 * 0.01, 3 * 0.02 = 0.06, then 2 * 0.03 = 0.06 and 0.04 raised to 0.06."""
    assert ranking.holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def successes(means: list[float], seed: int = 0, spread: float = 0.1) -> Array:
    """One attacker success for each method and person, (M, PEOPLE); people differ far more."""
    random = np.random.default_rng(seed)
    person = random.normal(0, 0.3, PEOPLE)
    return np.array(means)[:, None] + person + random.normal(0, spread, (len(means), PEOPLE))


def measured(rows: Array, names: str, draws: int = 1000) -> dict[str, Any]:
    weights = statistics.draw_weights(PEOPLE, draws)
    ones = np.ones(PEOPLE)
    drawn = [statistics.ratio_bootstrap(row, ones, weights) for row in rows]
    return {
        "values": dict(zip(names, rows.mean(1).tolist(), strict=True)),
        "draws": dict(zip(names, drawn, strict=True)),
    }


def test_methods_far_apart_have_ranks_and_alike_ones_share_them() -> None:
    found = ranking.rank(**measured(successes([0.9, 0.2, 0.2, 0.55]), "abcd"), people=PEOPLE)
    ranks = {place.method: (place.rank, place.tied_with) for place in found.places}
    assert ranks == {"a": (4, ()), "b": (1, ("c",)), "c": (1, ("b",)), "d": (3, ())}
    assert [place.rank for place in found.places] == [1, 1, 3, 4]
    assert len(found.comparisons) == 6


def test_pairing_tells_apart_what_the_intervals_of_each_would_not() -> None:
    found = ranking.rank(**measured(successes([0.5, 0.6], spread=0.02), "ab"), people=PEOPLE)
    first, second = found.places
    assert first.high > second.low  # the intervals overlap
    assert (first.rank, second.rank) == (1, 2)


def test_ties_are_not_passed_on() -> None:
    rows = successes([0.0, 0.0, 0.0], spread=0)
    rows += np.array([[0], [0.03], [0.06]]) + 0.1 * np.array([[0], [1], [0]]) * np.cos(
        np.arange(PEOPLE) * np.pi
    )
    found = {
        place.method: place for place in ranking.rank(**measured(rows, "abc"), people=PEOPLE).places
    }
    assert found["b"].tied_with == ("a", "c")
    assert "c" not in found["a"].tied_with
    assert [found[name].rank for name in "abc"] == [1, 1, 2]


@given(st.permutations("abcde"), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_neither_order_nor_names_matter(order: list[str], seed: int) -> None:
    given_in_order = measured(successes([0.5, 0.52, 0.56, 0.6, 0.6], seed), "abcde", draws=200)
    shuffled = {key: {name: part[name] for name in order} for key, part in given_in_order.items()}
    straight = ranking.rank(**given_in_order, people=PEOPLE)
    assert ranking.rank(**shuffled, people=PEOPLE) == straight
    new = dict(zip("abcde", order, strict=True))
    renamed = ranking.rank(
        **{key: {new[name]: part[name] for name in part} for key, part in given_in_order.items()},
        people=PEOPLE,
    )
    places = {place.method: place for place in renamed.places}
    for place in straight.places:
        other = places[new[place.method]]
        assert (other.rank, other.value) == (place.rank, place.value)
        assert set(other.tied_with) == {new[name] for name in place.tied_with}


@given(st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_a_rank_counts_the_better_and_ties_go_both_ways(seed: int) -> None:
    means = np.random.default_rng(seed).uniform(0.4, 0.6, 5).tolist()
    found = ranking.rank(**measured(successes(means, seed), "abcde", draws=200), people=PEOPLE)
    places = {place.method: place for place in found.places}
    for one, other in combinations(found.places, 2):
        assert (one.method in other.tied_with) == (other.method in one.tied_with)
    for place in found.places:
        others = [each for name, each in places.items() if name != place.method]
        better = [o for o in others if o.value < place.value and o.method not in place.tied_with]
        assert place.rank == 1 + len(better)
    for compared in found.comparisons:
        assert 0 < compared.p <= compared.adjusted <= 1


@given(st.integers(0, 500), st.floats(-0.1, 0.1))
@settings(max_examples=60, deadline=None)
def test_the_interval_of_a_difference_holds_0_where_p_is_large(seed: int, shift: float) -> None:
    (compared,) = ranking.rank(
        **measured(successes([0.5, 0.5 + shift], seed), "ab"), people=PEOPLE
    ).comparisons
    if not 0.045 < compared.p < 0.055:  # quantiles interpolate, counts do not
        assert (compared.low <= 0 <= compared.high) == (compared.p > 0.05)


def test_swapping_two_methods_turns_the_difference_round() -> None:
    rows = successes([0.5, 0.53])
    (straight,) = ranking.rank(**measured(rows, "ab"), people=PEOPLE).comparisons
    (turned,) = ranking.rank(**measured(rows, "ba"), people=PEOPLE).comparisons
    assert turned.difference == -straight.difference
    assert (turned.low, turned.high) == pytest.approx((-straight.high, -straight.low))
    assert turned.p == straight.p


def test_equal_methods_tie_and_no_p_is_smaller_than_the_people_allow() -> None:
    rows = successes([0.5], spread=0)
    same = ranking.rank(**measured(np.vstack([rows, rows]), "ab"), people=PEOPLE)
    assert [place.rank for place in same.places] == [1, 1]
    assert same.comparisons[0].p == 1
    certain = ranking.rank(**measured(np.array([[0.0] * PEOPLE, [1.0] * PEOPLE]), "ab"), people=5)
    assert certain.comparisons[0].p == 2**-4


def test_many_methods_can_be_told_apart_with_the_usual_draws() -> None:
    """190 comparisons: shares of 2,000 draws alone could never be small enough."""
    rows = successes([0.02 * i for i in range(20)], spread=0.01)
    names = "abcdefghijklmnopqrst"
    found = ranking.rank(**measured(rows, names, draws=2000), people=PEOPLE)
    assert [place.method for place in found.places] == list(names)
    assert [place.rank for place in found.places] == list(range(1, 21))


def test_draws_that_define_nothing_are_left_out() -> None:
    parts = measured(successes([0.2, 0.8]), "ab")
    parts["draws"]["a"][:100] = np.nan
    assert ranking.rank(**parts, people=PEOPLE).places[1].rank == 2
    parts["draws"]["b"][100:900] = np.nan
    with pytest.raises(MetricUndefinedError, match="only 100 of 1000"):
        ranking.rank(**parts, people=PEOPLE)


def test_what_cannot_be_ranked_is_refused() -> None:
    draws = {"a": np.ones(9), "b": np.ones(9)}
    with pytest.raises(DeidbenchError, match="of the same methods"):
        ranking.rank({"a": 0.1}, draws, people=9)
    with pytest.raises(DeidbenchError, match="of the same methods"):
        ranking.rank({}, {}, people=9)
    with pytest.raises(DeidbenchError, match="of one size"):
        ranking.rank({"a": 0.1, "b": 0.2}, draws | {"b": np.ones(8)}, people=9)
    with pytest.raises(MetricUndefinedError, match="b has no attacker success"):
        ranking.rank({"a": 0.1, "b": float("nan")}, draws, people=9)


def test_one_method_alone_ranks_first() -> None:
    (place,) = ranking.rank(**measured(successes([0.4]), "a"), people=PEOPLE).places
    assert (place.rank, place.tied_with) == (1, ())


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
def test_equal_methods_seldom_get_different_ranks(skewed: bool) -> None:
    """6 methods that are alike, 15 comparisons: wrong in 5 % of 500 rankings, or less."""
    wrong, sets = 0, 500
    for seed in range(sets):
        random = np.random.default_rng(seed)
        noise = random.exponential(1, (6, PEOPLE)) if skewed else random.normal(size=(6, PEOPLE))
        rows = random.normal(0, 2, PEOPLE) + noise
        found = ranking.rank(**measured(rows, "abcdef", draws=2000), people=PEOPLE)
        wrong += any(place.rank > 1 for place in found.places)
    assert wrong / sets <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / sets), wrong
    assert wrong > 0  # it does look
