from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import integrate, stats

from deidbench.errors import DeidbenchError, MetricUndefinedError
from deidbench.metrics._linkability import BINS, linkability, linkability_curve
from deidbench.metrics.d_sys import SystemLinkability
from deidbench.pairs import cross_pairs
from deidbench.statistics import count_scores, draw_weights, interval

Array = NDArray[Any]
d_sys = SystemLinkability()
scores = arrays(np.float64, st.integers(2, 60), elements=st.integers(-9, 9).map(float))


def true_linkability(mated: Any, other: Any) -> float:
    """The integral of the definition, for two distributions of scipy."""

    def integrand(score: float) -> float:
        p, q = mated.pdf(score), other.pdf(score)
        return float(p * (2 * (p / q) / (1 + p / q) - 1)) if p > q > 0 else float(p * (p > q))

    grid = np.linspace(-15, 20, 141)
    parts = [integrate.quad(integrand, *ends)[0] for ends in pairwise(grid)]
    return float(sum(parts))


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.5, 1), (1, 1), (2, 1), (3, 1.5), (6, 1), (0, 0.5), (-1, 1)]
)
def test_two_gaussians_give_the_integral(mean: float, spread: float) -> None:
    """Also where the likelihood ratio crosses 1 twice, and where the sign is flipped."""
    mated, other = stats.norm(mean, spread), stats.norm(0, 1)
    random = np.random.default_rng(0)
    drawn = {
        "genuine": mated.rvs(20_000, random_state=random),
        "impostor": other.rvs(100_000, random_state=random),
    }
    assert d_sys(**drawn) == pytest.approx(true_linkability(mated, other), abs=0.012)


def test_two_uniform_distributions_give_the_value_worked_out_by_hand() -> None:
    """Mated on [1, 3], others on [0, 2]: half of the mated scores at LR = 1, D = 0; half at 1."""
    genuine, impostor = np.linspace(1, 3, 4001), np.linspace(0, 2, 4001)
    assert d_sys(genuine=genuine, impostor=impostor) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("n_genuine", "least"), [(1, 1.0), (50, 1.0), (784, 1.0)])
def test_separated_classes_are_wholly_linkable(n_genuine: int, least: float) -> None:
    genuine = np.linspace(1, 2, n_genuine)
    assert d_sys(genuine=genuine, impostor=np.linspace(-1, 0.9, 5000)) == least
    flipped = d_sys(genuine=-genuine, impostor=-np.linspace(-1, 0.9, 5000))
    assert flipped == least  # lower scores for one person tell as much


@pytest.mark.parametrize(("n_genuine", "most"), [(200, 0.030), (784, 0.014), (5000, 0.006)])
def test_equal_classes_are_hardly_linkable(n_genuine: int, most: float) -> None:
    random = np.random.default_rng(0)
    found = [
        d_sys(genuine=random.normal(size=n_genuine), impostor=random.normal(size=20_000))
        for _ in range(40)
    ]
    assert np.mean(found) < most
    assert d_sys(genuine=np.zeros(9), impostor=np.zeros(99)) == 0


def naive(genuine: Array, impostor: Array) -> float:
    """The definition in loops, from the same groups of scores."""
    values = sorted({*genuine.tolist(), *impostor.tolist()})
    groups: dict[int, list[float]] = {}
    mass = 0.0
    for value in values:
        own = (np.mean(genuine == value) + np.mean(impostor == value)) / 2
        # A middle on the edge of two groups lies in the upper one, whatever its last digit.
        groups.setdefault(int((mass + own / 2) * BINS + 1e-9), []).append(value)
        mass += own
    total = 0.0
    for members in groups.values():
        g, i = np.isin(genuine, members).mean(), np.isin(impostor, members).mean()
        if g <= i:
            continue
        ratio = g / i if i else np.inf
        local = 2 * ratio / (1 + ratio) - 1 if i else 1.0
        slope_g, slope_i = 2 * i / (g + i) ** 2, 2 * g / (g + i) ** 2
        variance = slope_g**2 * g / len(genuine) + slope_i**2 * i / len(impostor)
        total += g * max(local - variance / local, 0)
    return float(total)


def on_an_edge(genuine: Array, impostor: Array) -> bool:
    """Whether rounding decides to which group a score belongs."""
    values = np.unique(np.concatenate([genuine, impostor]))
    mass = np.array([np.mean(genuine == v) + np.mean(impostor == v) for v in values]) / 2
    middle = (np.cumsum(mass) - mass / 2) * BINS
    return bool((np.abs(middle - middle.round()) < 1e-6).any())


@given(scores, scores)
@settings(deadline=None, max_examples=150)
def test_it_equals_a_naive_loop(genuine: Array, impostor: Array) -> None:
    if not on_an_edge(genuine, impostor):
        found = d_sys(genuine=genuine, impostor=impostor)
        assert found == pytest.approx(naive(genuine, impostor), abs=1e-9)


@given(scores, scores)
@settings(deadline=None)
def test_it_is_a_share_and_ignores_a_rising_transform(genuine: Array, impostor: Array) -> None:
    found = d_sys(genuine=genuine, impostor=impostor)
    assert 0 <= found <= 1
    assert d_sys(genuine=genuine**3 + 5, impostor=impostor**3 + 5) == found


def crowd(distance: float, seed: int = 0) -> dict[str, Array]:
    subjects = np.repeat(np.arange(20), 6)
    listed = cross_pairs(range(120), subjects)
    noise = np.random.default_rng(seed).normal(size=len(listed.same))
    return {
        "scores": noise + distance * listed.same,
        "a": subjects[listed.reference],
        "b": subjects[listed.probe],
    }


def parts(people: dict[str, Array]) -> dict[str, Array]:
    same = people["a"] == people["b"]
    return {"genuine": people["scores"][same], "impostor": people["scores"][~same]}


@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_counts_give_the_value(distance: float) -> None:
    """The same estimator, from groups of bins instead of groups of scores."""
    for seed in range(5):
        people = crowd(distance, seed)
        exact = d_sys(**parts(people))
        ones = np.ones((1, 20), np.float32)
        fine = d_sys.from_counts(count_scores(**people, weights=ones, bins=20_000))[0]
        usual = d_sys.from_counts(count_scores(**people, weights=ones, thresholds=[0.7]))[0]
        assert fine == pytest.approx(exact, abs=1e-3)
        assert usual == pytest.approx(exact, abs=0.015)


def test_the_interval_holds_the_value_and_the_truth() -> None:
    people = crowd(1.0)
    draws = d_sys.from_counts(count_scores(**people, weights=draw_weights(20, 500)))
    low, high = interval(draws, subjects=20)
    truth = true_linkability(stats.norm(1, 1), stats.norm(0, 1))
    assert low < d_sys(**parts(people)) < high
    assert low < truth < high
    assert high - low < 0.3


def test_a_draw_without_pairs_is_nan_and_leaves_the_others_alone() -> None:
    people = crowd(2.0)
    weights = np.stack([np.ones(20), np.zeros(20), np.ones(20)]).astype(np.float32)
    values = d_sys.from_counts(count_scores(**people, weights=weights))
    assert np.isnan(values).tolist() == [False, True, False]
    assert values[0] == values[2]
    nothing = d_sys.from_counts(count_scores(**people, weights=weights[1:2]))
    assert np.isnan(nothing).all()


def test_failed_comparisons_are_the_lowest_scores() -> None:
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(2, 1, 1000), random.normal(0, 1, 5000)
    lost = np.where(np.arange(1000) < 500, -np.inf, genuine)
    lowest = np.where(np.arange(1000) < 500, -99, genuine)
    found = d_sys(genuine=lost, impostor=impostor)
    assert found == d_sys(genuine=lowest, impostor=impostor)
    spread_over_both = np.where(np.arange(5000) < 2500, -np.inf, impostor)
    hidden = d_sys(genuine=lost, impostor=spread_over_both)
    assert hidden < d_sys(genuine=genuine, impostor=impostor)


def test_the_curve_is_0_where_scores_speak_against_one_person() -> None:
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(2, 1, 20_000), random.normal(0, 1, 50_000)
    curve = linkability_curve(np.append(genuine, -np.inf), impostor)
    assert len(curve.edges) == len(curve.local) + 1 == BINS + 1
    assert (np.diff(curve.edges) > 0).all()
    assert curve.edges[[0, -1]].tolist() == [impostor.min(), genuine.max()]
    middles = (curve.edges[1:] + curve.edges[:-1]) / 2
    inner = slice(1, -1)  # the outer groups reach far
    ratio = np.exp(2 * middles[inner] - 2)  # of the two densities
    expected = np.maximum((ratio - 1) / (ratio + 1), 0)
    np.testing.assert_allclose(curve.local[inner], expected, atol=0.06)
    assert (curve.local[curve.edges[1:] < 0.9] == 0).all()


def test_local_linkability_follows_its_formula() -> None:
    """0.6 against 0.2: LR 3, D = 6/4 - 1 = 0.5; of endless counts nothing is taken off."""
    local = linkability(np.array([[2e9, 2e9, 6e9]]), np.array([[4e9, 4e9, 2e9]]))
    np.testing.assert_allclose(local, [[0, 0, 0.5]], atol=1e-6)
    few = linkability(np.array([[2.0, 2, 6]]), np.array([[4.0, 4, 2]]))
    assert 0 <= few[0, 2] < 0.5


def test_what_scores_do_not_define_is_said() -> None:
    for missing in ("genuine", "impostor"):
        kinds = {"genuine": np.ones(3), "impostor": np.ones(3), missing: np.array([])}
        with pytest.raises(MetricUndefinedError, match=f"d-sys: there are no {missing}"):
            d_sys(**kinds)
        with pytest.raises(MetricUndefinedError, match=f"d-sys: there are no {missing}"):
            linkability_curve(**kinds)
    with pytest.raises(DeidbenchError, match="nan"):
        d_sys(genuine=np.array([np.nan]), impostor=np.ones(3))


def test_it_belongs_to_linkage_alone() -> None:
    assert d_sys.threats == ("T5",)
    assert (d_sys.kind, d_sys.higher_is_better) == ("verification", False)
