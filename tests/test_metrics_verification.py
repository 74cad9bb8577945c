from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from deidbench.errors import DeidbenchError, MetricUndefinedError
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.metrics.d_sys import SystemLinkability
from deidbench.metrics.dodging_psr import DodgingSuccess
from deidbench.metrics.dprime import DPrime
from deidbench.metrics.eer import EqualErrorRate
from deidbench.metrics.fmr import FalseMatchRate
from deidbench.metrics.fnmr import FalseNonMatchRate
from deidbench.metrics.tar import TrueAcceptRate
from deidbench.statistics import count_scores

Scores = NDArray[np.floating[Any]]

METRICS: list[Any] = [
    AreaUnderCurve(), EqualErrorRate(), TrueAcceptRate(), FalseMatchRate(), FalseNonMatchRate(),
    DPrime(),
]  # fmt: skip
RATES: list[Any] = [TrueAcceptRate(), FalseMatchRate(), FalseNonMatchRate()]
auc, eer, tar, fmr, fnmr, dprime = METRICS
dodging = DodgingSuccess()

# Few distinct values, so that ties are common; any range, as negative distances have.
scores = arrays(
    np.float64,
    st.integers(1, 30),
    elements=st.one_of(st.integers(-5, 5).map(float), st.floats(-1e6, 1e6, width=32)),
)


def gaussian(
    n_genuine: int, n_impostor: int, distance: float = 2.0, seed: int = 0
) -> dict[str, Scores]:
    random = np.random.default_rng(seed)
    return {
        "genuine": random.normal(distance, 1.2, n_genuine),
        "impostor": random.normal(0, 1, n_impostor),
    }


def naive_auc(genuine: Scores, impostor: Scores) -> float:
    wins = sum((g > i) + 0.5 * (g == i) for g in genuine for i in impostor)
    return float(wins / (len(genuine) * len(impostor)))


def naive_eer(genuine: Scores, impostor: Scores) -> float:
    thresholds = [*sorted({*genuine.tolist(), *impostor.tolist()}), float("inf")]
    points = []
    for threshold in thresholds:
        false_matches = sum(i >= threshold for i in impostor) / len(impostor)
        false_refusals = sum(g < threshold for g in genuine) / len(genuine)
        points.append((false_matches, false_refusals))
    for (fmr0, fnmr0), (fmr1, fnmr1) in pairwise(points):
        if fnmr1 >= fmr1:
            share = (fmr0 - fnmr0) / ((fmr0 - fnmr0) + (fnmr1 - fmr1))
            return float(fnmr0 + share * (fnmr1 - fnmr0))
    raise AssertionError("the curves cross at the latest where everything is refused")


def test_every_verification_metric_that_is_installed_is_tested_here() -> None:
    loaded = [point.load() for point in entry_points(group="deidbench.metrics")]
    scored = [cls for cls in loaded if cls.kind in ("verification", "paired")]
    ours = {cls for cls in scored if cls.__module__.startswith("deidbench")}
    tested_by_itself = {SystemLinkability}  # test_metrics_linkability.py
    assert ours == {type(metric) for metric in [*METRICS, dodging]} | tested_by_itself


@pytest.mark.parametrize("point", sorted(entry_points(group="deidbench.metrics")))
def test_every_metric_is_called_as_its_entry_point(point: Any) -> None:
    metric = point.load()
    name = getattr(metric, "name", "lpips")  # an LPIPS is named when its network is chosen
    assert name == point.name
    assert metric.kind in ("verification", "paired", "image", "landmarks", "set")
    assert isinstance(metric.version, int) and metric.unit


def test_directions_are_those_of_the_defender() -> None:
    """Better recognition is worse for the defender."""
    weak, strong = gaussian(200, 200, 0.5), gaussian(200, 200, 3)
    for metric in (auc, eer, tar, fnmr, dprime):
        rises = metric(**strong, threshold=1.0) > metric(**weak, threshold=1.0)
        assert rises != metric.higher_is_better
    assert fmr.higher_is_better == fnmr.higher_is_better  # both are errors of the attacker


@given(scores, scores)
@settings(deadline=None)
def test_auc_equals_counting_all_pairs(genuine: Scores, impostor: Scores) -> None:
    expected = naive_auc(genuine, impostor)
    assert auc(genuine=genuine, impostor=impostor) == pytest.approx(expected, abs=1e-12)


@given(scores, scores)
@settings(deadline=None)
def test_eer_equals_walking_along_all_thresholds(genuine: Scores, impostor: Scores) -> None:
    expected = naive_eer(genuine, impostor)
    assert eer(genuine=genuine, impostor=impostor) == pytest.approx(expected, abs=1e-12)


@given(scores, scores)
@settings(deadline=None)
def test_swapping_genuine_and_impostor_mirrors_the_auc(genuine: Scores, impostor: Scores) -> None:
    mirrored = auc(genuine=impostor, impostor=genuine)
    assert auc(genuine=genuine, impostor=impostor) == pytest.approx(1 - mirrored, abs=1e-12)


@given(scores, scores)
@settings(deadline=None)
def test_negating_all_scores_mirrors_auc_and_eer(genuine: Scores, impostor: Scores) -> None:
    straight = {"genuine": genuine, "impostor": impostor}
    negated = {"genuine": -genuine, "impostor": -impostor}
    for metric in (auc, eer):
        assert metric(**straight) == pytest.approx(1 - metric(**negated), abs=1e-12)


@given(scores, scores)
@settings(deadline=None)
def test_auc_and_eer_ignore_a_strictly_rising_transform(genuine: Scores, impostor: Scores) -> None:
    ranks = {value: float(rank**3) for rank, value in enumerate(np.union1d(genuine, impostor))}
    transformed = [np.array([ranks[v] for v in values]) for values in (genuine, impostor)]
    for metric in (auc, eer):
        expected = metric(genuine=genuine, impostor=impostor)
        assert metric(genuine=transformed[0], impostor=transformed[1]) == expected


@given(scores, scores, st.integers(-6, 6).map(float))
@settings(deadline=None)
def test_rates_stay_in_bounds_and_their_complements_add_up(
    genuine: Scores, impostor: Scores, threshold: float
) -> None:
    given_scores = {"genuine": genuine, "impostor": impostor}
    for metric in (auc, eer, *RATES):
        assert 0 <= metric(**given_scores, threshold=threshold) <= 1
    total = sum(metric(**given_scores, threshold=threshold) for metric in (tar, fnmr))
    assert total == pytest.approx(1, abs=1e-12)
    assert tar(**given_scores, threshold=threshold) == np.mean(genuine >= threshold)
    assert fmr(**given_scores, threshold=threshold) == np.mean(impostor >= threshold)


def test_auc_equals_scikit_learn_on_many_tied_scores() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    drawn = {kind: values.round(2) for kind, values in gaussian(20_000, 80_000, 1).items()}
    labels = np.repeat([1, 0], [20_000, 80_000])
    expected = sklearn.roc_auc_score(labels, np.concatenate([*drawn.values()]))
    assert auc(**drawn) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 8])
def test_eer_equals_root_finding_on_scikit_learns_curve(decimals: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    optimize, interpolate = (pytest.importorskip(f"scipy.{part}") for part in
                             ("optimize", "interpolate"))  # fmt: skip
    drawn = {kind: values.round(decimals) for kind, values in gaussian(300, 2000).items()}
    labels = np.repeat([1, 0], [300, 2000])
    false, true, _ = sklearn.roc_curve(labels, np.concatenate([*drawn.values()]))
    curve = interpolate.interp1d(false, true)
    expected = optimize.brentq(lambda rate: 1 - rate - curve(rate), 0, 1, xtol=1e-14)
    # Where the curve rises straight up, interp1d takes one of its ends: between the two is right.
    assert eer(**drawn) == pytest.approx(expected, abs=1 / 2000)
    assert eer(**drawn) == pytest.approx(naive_eer(**drawn), abs=1e-12)


def test_auc_of_two_gaussians_is_the_one_in_closed_form() -> None:
    statistics = pytest.importorskip("scipy.stats")
    drawn = gaussian(300_000, 300_000)
    normal = statistics.norm.cdf(2 / np.hypot(1, 1.2))
    assert auc(**drawn) == pytest.approx(normal, abs=2e-3)
    assert dprime(**drawn) == pytest.approx(2 / np.sqrt((1 + 1.44) / 2), abs=1e-2)


@pytest.mark.parametrize(
    ("genuine", "impostor", "area", "error"),
    [
        ([1.0], [0.0], 1.0, 0.0),
        ([0.0], [1.0], 0.0, 1.0),
        ([0.5], [0.5], 0.5, 0.5),
        ([0.7] * 5, [0.7] * 9, 0.5, 0.5),
        ([2.0, 1.0, -np.inf], [0.0, -np.inf], (4 + 0 + 0.5) / 6, 1 / 3),
        ([-np.inf] * 3, [-np.inf] * 2, 0.5, 0.5),
        ([-3.0, -1.0], [-9.0, -2.0], 0.75, 0.5),
    ],
)
def test_edges_have_the_value_worked_out_by_hand(
    genuine: Sequence[float], impostor: Sequence[float], area: float, error: float
) -> None:
    given_scores = {"genuine": np.array(genuine), "impostor": np.array(impostor)}
    assert auc(**given_scores) == pytest.approx(area, abs=1e-15)
    assert eer(**given_scores) == pytest.approx(error, abs=1e-15)


def test_a_failed_comparison_never_matches() -> None:
    half_failed = np.array([0.9, -np.inf])
    lowest = float(np.finfo(np.float64).min)
    assert tar(genuine=half_failed, impostor=half_failed, threshold=lowest) == 0.5
    assert fmr(genuine=half_failed, impostor=half_failed, threshold=lowest) == 0.5
    assert fnmr(genuine=half_failed, impostor=half_failed, threshold=lowest) == 0.5


def test_float32_scores_are_compared_with_the_threshold_as_it_is() -> None:
    """0.1 in float32 is above 0.1 in float64; rounding the threshold would hide it."""
    one = np.array([0.1], np.float32)
    assert tar(genuine=one, impostor=one, threshold=0.1) == 1.0
    assert tar(genuine=one, impostor=one, threshold=float(np.float32(0.1)) + 1e-12) == 0.0


def test_integer_scores_are_welcome() -> None:
    assert auc(genuine=np.array([3, 2]), impostor=np.array([2, 1])) == 0.875


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("kind", ["genuine", "impostor"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_positive_infinity_are_refused(metric: Any, kind: str, bad: float) -> None:
    drawn = gaussian(5, 5)
    drawn[kind][2] = bad
    with pytest.raises(DeidbenchError, match=f"{metric.name}: .*{kind} scores .*{bad}"):
        metric(**drawn, threshold=0.0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize("kind", ["genuine", "impostor"])
def test_a_missing_kind_that_is_needed_leaves_a_metric_undefined(metric: Any, kind: str) -> None:
    drawn = gaussian(5, 5) | {kind: np.array([])}
    unused = {"tar": "impostor", "fnmr": "impostor", "fmr": "genuine"}.get(metric.name)
    if kind == unused:
        assert 0 <= metric(**drawn, threshold=0.0) <= 1
    else:
        with pytest.raises(MetricUndefinedError, match=f"{metric.name}: .*no {kind} scores"):
            metric(**drawn, threshold=0.0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_matrix_of_scores_is_refused(metric: Any) -> None:
    with pytest.raises(DeidbenchError, match=r"\(P,\)"):
        metric(genuine=np.zeros((2, 2)), impostor=np.zeros((2, 2)), threshold=0.0)


@pytest.mark.parametrize("threshold", [None, float("nan"), float("-inf")])
def test_a_rate_without_a_usable_threshold_is_refused(threshold: float | None) -> None:
    for metric in RATES:
        with pytest.raises(DeidbenchError, match=f"{metric.name}: expected a threshold"):
            metric(**gaussian(3, 3), threshold=threshold)


@pytest.mark.parametrize(
    ("genuine", "impostor"), [([1.0, 1.0], [0.1, 0.1, 0.1]), ([1.0, -np.inf], [0.0, 0.5])]
)
def test_dprime_is_undefined_without_spread_or_with_failures(
    genuine: Sequence[float], impostor: Sequence[float]
) -> None:
    with pytest.raises(MetricUndefinedError, match="dprime"):
        dprime(genuine=np.array(genuine), impostor=np.array(impostor))


def test_dprime_survives_a_large_offset_in_float32() -> None:
    drawn = {kind: (values + 300).astype(np.float32) for kind, values in gaussian(999, 999).items()}
    exact = {kind: values.astype(np.float64) - 300 for kind, values in drawn.items()}
    assert dprime(**drawn) == pytest.approx(dprime(**exact), rel=1e-9)


@pytest.fixture(scope="module")
def people() -> dict[str, Any]:
    """All pairs of 12 people with 6 images each, scores with ties."""
    random = np.random.default_rng(3)
    subjects = np.repeat(np.arange(12), 6)
    first, second = np.triu_indices(len(subjects), 1)
    a, b = subjects[first], subjects[second]
    drawn = (random.normal(0, 1, len(a)) + 2 * (a == b)).round(2)
    return {"scores": drawn, "a": a, "b": b}


def split(people: dict[str, Any]) -> dict[str, Scores]:
    same = people["a"] == people["b"]
    return {"genuine": people["scores"][same], "impostor": people["scores"][~same]}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_counts_with_weights_of_one_give_the_exact_value(
    metric: Any, people: dict[str, Any]
) -> None:
    threshold = 1.17
    counts = count_scores(**people, weights=np.ones((2, 12), np.float32), thresholds=[threshold])
    exact = metric(**split(people), threshold=threshold)
    tolerance = 0 if metric.needs_threshold else 5e-3
    np.testing.assert_allclose(metric.from_counts(counts, threshold), exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_weighted_draw_equals_repeating_the_drawn_people(
    metric: Any, people: dict[str, Any]
) -> None:
    """Pair by pair, in a plain loop: w_i copies of a genuine pair, w_i w_j of an impostor pair."""
    weights = np.random.default_rng(1).multinomial(12, [1 / 12] * 12, 3).astype(np.float32)
    failed = people | {"scores": people["scores"].copy()}
    if metric.name != "dprime":
        failed["scores"][::50] = -np.inf
    counts = count_scores(**failed, weights=weights, thresholds=[1.17], bins=2000)
    for drawn, value in zip(weights.astype(int), metric.from_counts(counts, 1.17), strict=True):
        repeated: dict[str, list[float]] = {"genuine": [], "impostor": []}
        for score, i, j in zip(failed["scores"], failed["a"], failed["b"], strict=True):
            if i == j:
                repeated["genuine"] += [score] * drawn[i]
            else:
                repeated["impostor"] += [score] * (drawn[i] * drawn[j])
        expected = metric(
            genuine=np.array(repeated["genuine"]), impostor=np.array(repeated["impostor"]),
            threshold=1.17,
        )  # fmt: skip
        assert value == pytest.approx(expected, abs=1e-12 if metric.needs_threshold else 1e-3)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_draw_without_pairs_is_nan_and_leaves_the_others_alone(
    metric: Any, people: dict[str, Any]
) -> None:
    weights = np.stack([np.ones(12), np.zeros(12), np.ones(12)]).astype(np.float32)
    values = metric.from_counts(count_scores(**people, weights=weights, thresholds=[0.5]), 0.5)
    assert np.isnan(values).tolist() == [False, True, False]
    assert values[0] == pytest.approx(values[2], rel=1e-12)


def test_dprime_of_a_draw_with_failures_or_without_spread_is_nan() -> None:
    numbers = np.array([0, 0, 1, 1, 0])
    others = np.array([0, 0, 1, 1, 1])
    drawn = np.array([0.9, 0.8, 0.7, -np.inf, 0.1])
    weights = np.array([[1, 0], [1, 1]], np.float32)
    values = dprime.from_counts(count_scores(drawn, numbers, others, weights))
    assert np.isnan(values).all()  # no impostor pair, then a failed one
    flat = np.array([0.3, 0.3, 0.3, 0.3, 0.1])
    assert np.isnan(dprime.from_counts(count_scores(flat, numbers, others, weights))).all()


@pytest.mark.parametrize("metric", RATES, ids=lambda metric: metric.name)
def test_a_threshold_that_was_not_counted_is_refused(metric: Any, people: dict[str, Any]) -> None:
    counts = count_scores(**people, weights=np.ones((1, 12), np.float32), thresholds=[1.0])
    for threshold in (0.123456, 1e9):
        with pytest.raises(DeidbenchError, match=f"{metric.name}: .*no edge"):
            metric.from_counts(counts, threshold)
    with pytest.raises(DeidbenchError, match="expected a threshold"):
        metric.from_counts(counts)


def test_dodging_counts_only_pairs_that_matched_before() -> None:
    before = np.array([0.9, 0.8, 0.5, 0.2, -np.inf])
    after = np.array([0.9, 0.1, -np.inf, 0.1, 0.9])
    assert dodging(before=before, after=after, threshold=0.5) == pytest.approx(2 / 3)
    lost, matched = dodging.terms(before=before, after=after, threshold=0.5)
    assert matched.tolist() == [True, True, True, False, False]
    assert lost.tolist() == [False, True, True, False, False]


@given(scores, st.integers(-5, 5).map(float))
@settings(max_examples=50, deadline=None)
def test_dodging_is_0_when_nothing_changed_and_1_when_all_failed(
    before: Scores, threshold: float
) -> None:
    if not (before >= threshold).any():
        with pytest.raises(MetricUndefinedError, match="none of"):
            dodging(before=before, after=before, threshold=threshold)
        return
    assert dodging(before=before, after=before, threshold=threshold) == 0
    failed = np.full_like(before, -np.inf)
    assert dodging(before=before, after=failed, threshold=threshold) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda: dodging(before=np.ones(2), after=np.ones(3), threshold=0.5), "2 and 3"),
        (lambda: dodging(before=np.ones(2), after=np.ones(2)), "expected a threshold"),
        (lambda: dodging(before=np.full(1, np.nan), after=np.ones(1), threshold=0.5), "nan"),
        (lambda: dodging(before=np.array([]), after=np.array([]), threshold=0.5), "no before"),
    ],
)
def test_dodging_refuses_what_does_not_fit(fault: Callable[[], float], message: str) -> None:
    with pytest.raises(DeidbenchError, match=message):
        fault()


@pytest.mark.slow
def test_ten_million_scores_give_the_exact_auc() -> None:
    """Ranks known in advance: every genuine score beats exactly the impostors below it."""
    impostor = np.random.default_rng(0).permutation(10_000_000).astype(np.float32)
    genuine = np.arange(0, 10_000_000, 1000, dtype=np.float32)  # each ties with one impostor
    expected = (genuine.astype(np.int64).sum() + len(genuine) / 2) / (len(genuine) * len(impostor))
    assert auc(genuine=genuine, impostor=impostor) == expected
    assert eer(genuine=genuine, impostor=impostor) == pytest.approx(0.5, abs=1e-4)
