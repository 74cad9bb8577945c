from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_curve as sklearn_curve

from deidbench import statistics
from deidbench.errors import DeidbenchError, MetricUndefinedError
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.metrics.eer import EqualErrorRate
from deidbench.metrics.tar import TrueAcceptRate

Array = NDArray[Any]


def tied(low: int, high: int) -> st.SearchStrategy[Array]:
    """Scores of which many are equal."""
    return arrays(np.float64, st.integers(low, high), elements=st.integers(-9, 9).map(float))


@given(tied(60, 200), st.sampled_from([0.5, 0.6, 0.75, 0.9]))
@settings(deadline=None)
def test_the_threshold_is_the_smallest_that_keeps_the_far(impostor: Array, far: float) -> None:
    found = statistics.threshold_at_far(impostor, far)
    assert found.achieved_fmr == np.mean(impostor >= found.value) <= far
    one_step_lower = np.nextafter(found.value, -np.inf)
    assert np.mean(impostor >= one_step_lower) > far
    assert (found.far, found.n_impostor) == (far, len(impostor))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distinct_impostors_reach_the_far_exactly(dtype: type[Any]) -> None:
    impostor = np.random.default_rng(0).permutation(30_000).astype(dtype) / 30_000
    found = statistics.threshold_at_far(impostor, 0.001)
    assert found.achieved_fmr == 0.001
    assert found.value == dtype(found.value)  # exact in the precision of the scores
    assert sorted(impostor)[-31] < found.value <= sorted(impostor)[-30]


@given(tied(1, 60), tied(60, 200), st.sampled_from([0.5, 0.6, 0.75, 0.9]))
@settings(deadline=None)
def test_the_threshold_is_the_operating_point_of_scikit_learns_curve(
    genuine: Array, impostor: Array, far: float
) -> None:
    """Its last point with at most that false positive rate; it interpolates nothing either."""
    labels = np.repeat([1, 0], [len(genuine), len(impostor)])
    fpr, tpr, _ = sklearn_curve(
        labels, np.concatenate([genuine, impostor]), drop_intermediate=False
    )
    point = np.flatnonzero(fpr <= far)[-1]
    found = statistics.threshold_at_far(impostor, far)
    assert found.achieved_fmr == fpr[point]
    assert np.mean(genuine >= found.value) == tpr[point]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_30_errors_are_known_within_30_percent_nine_times_of_ten(share: float) -> None:
    """The rule of 30 (Doddington et al. 2000), by the exact binomial distribution."""
    trials = round(statistics.RULE_OF_30 / share)
    errors = stats.binom(trials, share)
    within = errors.cdf(1.3 * trials * share) - errors.cdf(0.7 * trials * share - 1e-9)
    assert within > 0.88


def test_rounding_of_the_target_loses_no_impostor() -> None:
    """0.29 * 100 is 28.999... in binary."""
    found = statistics.threshold_at_far(np.arange(200.0), 0.29)
    assert found.achieved_fmr == 0.29


def test_failed_impostors_count_as_refused() -> None:
    impostor = np.concatenate([np.full(90, -np.inf), np.arange(10.0)])
    found = statistics.threshold_at_far(impostor, 0.3)
    assert found.achieved_fmr == 0.1
    assert np.isfinite(found.value)


def test_equal_impostors_leave_a_threshold_just_above_them() -> None:
    found = statistics.threshold_at_far(np.full(100, 0.25), 0.5)
    assert found.value == np.nextafter(0.25, 1)
    assert found.achieved_fmr == 0


def test_too_few_impostors_say_how_many_and_the_bound() -> None:
    message = r"FAR 0\.001: 29999 of the 30000 needed \(rule of 30\).* 95 % bound would be 0\.0001"
    with pytest.raises(MetricUndefinedError, match=message):
        statistics.threshold_at_far(np.arange(29_999.0), 0.001)
    statistics.threshold_at_far(np.arange(30_000.0), 0.001)
    with pytest.raises(MetricUndefinedError, match="0 of the 30000 needed"):
        statistics.threshold_at_far(np.array([]), 0.001)


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, float("nan")])
def test_a_far_that_is_no_share_is_refused(far: float) -> None:
    with pytest.raises(DeidbenchError, match="between 0 and 1"):
        statistics.threshold_at_far(np.arange(100.0), far)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_positive_infinity_are_refused(bad: float) -> None:
    spoiled = np.append(np.arange(100.0), bad)
    for fault in (
        lambda: statistics.threshold_at_far(spoiled, 0.5),
        lambda: statistics.roc_curve(np.arange(3.0), spoiled),
        lambda: statistics.histogram(spoiled, np.arange(3.0)),
    ):
        with pytest.raises(DeidbenchError, match=f"{bad}"):
            fault()


@given(tied(1, 60), tied(1, 60))
@settings(deadline=None)
def test_every_point_of_the_curve_is_what_its_threshold_gives(
    genuine: Array, impostor: Array
) -> None:
    curve = statistics.roc_curve(genuine, impostor, points=30)
    for threshold, fmr, tar in zip(*curve, strict=True):
        assert fmr == np.mean(impostor >= threshold)
        assert tar == np.mean(genuine >= threshold)
    assert curve.fmr[0] == 0
    assert (curve.fmr[-1], curve.tar[-1]) == (1, 1)
    assert (np.diff(curve.threshold) < 0).all() and (np.diff(curve.fmr) > 0).all()


def test_the_curve_is_thin_spaced_in_log_fmr_and_agrees_with_the_thresholds() -> None:
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(2, 1, 5_000), random.normal(0, 1, 200_000)
    curve = statistics.roc_curve(genuine, impostor)
    assert len(curve.fmr) <= 201
    steps = np.diff(np.log(curve.fmr[curve.fmr > 1e-3]))
    assert steps.max() < 2 * steps.min() < 0.2
    chosen = int(np.searchsorted(curve.fmr, 0.01))
    same = statistics.threshold_at_far(impostor, float(curve.fmr[chosen]))
    assert same.value == curve.threshold[chosen]


def test_the_curve_encloses_the_area() -> None:
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(1, 1, 3_000), random.normal(0, 1, 3_000)
    curve = statistics.roc_curve(genuine, impostor, points=3_000)
    exact = AreaUnderCurve()(genuine=genuine, impostor=impostor)
    heights = (curve.tar[1:] + curve.tar[:-1]) / 2
    assert heights @ np.diff(curve.fmr) == pytest.approx(exact, abs=2e-3)


def test_the_histogram_counts_each_finite_score_once() -> None:
    genuine, impostor = np.array([0.0, 0.5, 1.0, -np.inf]), np.array([0.0, 0.01, -0.5])
    bars = statistics.histogram(genuine, impostor, bins=6)
    assert (bars.edges[0], bars.edges[-1], len(bars.edges)) == (-0.5, 1, 7)
    assert (bars.genuine.sum(), bars.impostor.sum()) == (3, 3)
    assert bars.genuine.tolist() == [0, 0, 1, 0, 1, 1]
    with pytest.raises(MetricUndefinedError, match="finite"):
        statistics.histogram(np.array([-np.inf]), np.array([]))


def test_curves_need_both_kinds_of_score() -> None:
    with pytest.raises(MetricUndefinedError, match="no genuine"):
        statistics.roc_curve(np.array([]), np.ones(3))
    with pytest.raises(MetricUndefinedError, match="no impostor"):
        statistics.roc_curve(np.ones(3), np.array([]))


def test_draws_are_multinomial_repeatable_and_of_each_seed() -> None:
    weights = statistics.draw_weights(40, draws=3000, seed=5)
    assert weights.shape == (3000, 40) and weights.dtype == np.float32
    assert (weights.sum(1) == 40).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.1)
    np.testing.assert_allclose(weights.var(0), 1 - 1 / 40, atol=0.15)
    np.testing.assert_array_equal(weights, statistics.draw_weights(40, draws=3000, seed=5))
    assert (weights != statistics.draw_weights(40, draws=3000, seed=6)).any()
    with pytest.raises(MetricUndefinedError, match="2 or more subjects"):
        statistics.draw_weights(1)


def all_pairs(n_subjects: int, images: int, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(n_subjects), images)
    first, second = np.triu_indices(len(subjects), 1)
    a, b = subjects[first], subjects[second]
    return {"scores": random.normal(0, 1, len(a)) + 2 * (a == b), "a": a, "b": b}


def looped(pairs: dict[str, Any], weights: Array, edges: Array) -> tuple[Array, Array]:
    """The counts of every draw, one pair at a time."""
    counts = {same: np.zeros((len(weights), len(edges) - 1)) for same in (True, False)}
    for score, i, j in zip(*(pairs[key] for key in ("scores", "a", "b")), strict=True):
        inside = (edges[:-1] <= score) & (score < edges[1:])
        weight = weights[:, i] if i == j else weights[:, i] * weights[:, j]
        counts[bool(i == j)][:, inside] += weight[:, None]
    return counts[True], counts[False]


@pytest.mark.parametrize(("subjects", "images"), [(6, 8), (40, 2)], ids=["dense", "sparse"])
def test_counts_equal_a_plain_loop_over_pairs(subjects: int, images: int) -> None:
    pairs = all_pairs(subjects, images)
    if subjects == 40:  # a short official list of many subjects
        pairs = {key: values[::7] for key, values in pairs.items()}
    pairs["scores"][::20] = -np.inf
    weights = statistics.draw_weights(subjects, draws=20, seed=1)
    assert statistics._is_dense(len(pairs["a"]) / 30, subjects) == (subjects == 6)
    counts = statistics.count_scores(**pairs, weights=weights, thresholds=[0.1, 1.0], bins=30)
    genuine, impostor = looped(pairs, weights, counts.edges)
    np.testing.assert_array_equal(counts.genuine, genuine)
    np.testing.assert_array_equal(counts.impostor, impostor)
    assert {0.1, 1.0} <= set(counts.edges.tolist())


def test_both_ways_of_counting_agree_and_order_within_a_pair_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = all_pairs(10, 5)
    weights = statistics.draw_weights(10, draws=50)
    bins = np.random.default_rng(0).integers(0, 12, len(pairs["a"]))
    found = []
    for cost, sides in ((0, ("a", "b")), (np.inf, ("b", "a"))):
        monkeypatch.setattr(statistics, "SPARSE_COST", cost)
        one, other = (pairs[side] for side in sides)
        found.append(statistics._impostor_counts(bins, one, other, weights, 12))
    np.testing.assert_array_equal(*found)


def test_bins_are_ascending_and_end_at_infinity_and_failures_are_apart() -> None:
    pairs = all_pairs(8, 6)
    pairs["scores"][:100] = -np.inf
    counts = statistics.count_scores(**pairs, weights=np.ones((1, 8), np.float32))
    assert (counts.edges[0], counts.edges[-1]) == (-np.inf, np.inf)
    assert (np.diff(counts.edges[1:-1]) > 0).all()
    assert counts.edges[1] == pairs["scores"][100:].min()
    assert counts.genuine[0, 0] + counts.impostor[0, 0] == 100
    assert counts.centres[0] == -np.inf
    inside = (counts.edges[1:-1] <= counts.centres[1:]) & (counts.centres[1:] < counts.edges[2:])
    assert inside.all()
    assert len(counts.edges) - 1 <= statistics.BINS + 2


def test_fewer_bins_are_used_for_dense_pairs_of_many_subjects() -> None:
    few, many = (np.broadcast_to(np.float32(1), (2000, subjects)) for subjects in (366, 1000))
    assert statistics._affordable_bins(10**8, few) == statistics.BINS
    assert statistics.FEWEST_BINS < statistics._affordable_bins(10**8, many) < statistics.BINS
    assert statistics._affordable_bins(10**6, many) == statistics.BINS


def test_no_scores_give_empty_counts_that_define_nothing() -> None:
    empty = np.array([], int)
    weights = np.ones((3, 5), np.float32)
    counts = statistics.count_scores(np.array([]), empty, empty, weights, [0.5])
    assert counts.edges.tolist() == [-np.inf, 0.5, np.inf]
    assert counts.genuine.sum() == counts.impostor.sum() == 0
    with pytest.raises(MetricUndefinedError, match="0 of 3"):
        statistics.interval(AreaUnderCurve().from_counts(counts))


@pytest.mark.parametrize(("a", "b"), [([0, 9], [0, 1]), ([0, -1], [0, 1]), ([0, 1, 1], [0, 1, 1])])
def test_subject_numbers_that_do_not_fit_are_refused(a: list[int], b: list[int]) -> None:
    with pytest.raises(DeidbenchError, match="expected 2 subject numbers from 0 to 4"):
        statistics.count_scores(np.ones(2), np.array(a), np.array(b), np.ones((1, 5), np.float32))


def test_the_ratio_is_the_mean_over_the_drawn_subjects() -> None:
    values = {0: [1.0, 2.0], 1: [5.0], 2: []}
    sums, sizes = np.array([3.0, 5.0, 0.0]), np.array([2, 1, 0])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3]], np.float32)
    found = statistics.ratio_bootstrap(sums, sizes, weights)
    for drawn, ratio in zip(weights.astype(int)[:2], found[:2], strict=True):
        repeated = [v for subject in values for v in values[subject] * drawn[subject]]
        assert ratio == pytest.approx(np.mean(repeated))
    assert np.isnan(found[2])


def test_the_interval_is_percentiles_of_the_defined_draws() -> None:
    values = np.append(np.arange(1001.0), [np.nan] * 1000)
    assert statistics.interval(values) == pytest.approx((25, 975))
    assert statistics.interval(values, level=0.5) == pytest.approx((250, 750))
    with pytest.raises(MetricUndefinedError, match="only 3 of 7 bootstrap draws"):
        statistics.interval(np.array([1.0, 2.0, 3.0, np.nan, np.nan, np.nan, np.nan]))


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize("people", [5, 28, 400])
def test_normal_draws_of_few_people_give_the_interval_of_student(people: int, level: float) -> None:
    """Draws as exact as can be, with the variance of resamples. Oracle: scipy's t interval."""
    error = 0.3  # of the mean of the sample
    resampled = stats.norm(7, error * np.sqrt((people - 1) / people))
    draws = resampled.ppf((np.arange(200_000) + 0.5) / 200_000)
    expected = stats.t.interval(level, people - 1, loc=7, scale=error)
    assert statistics.interval(draws, level, subjects=people) == pytest.approx(expected, abs=1e-3)


def test_the_interval_of_fewer_people_is_wider_and_of_many_the_plain_one() -> None:
    draws = np.random.default_rng(0).gamma(3, size=4000)
    widths = [np.ptp(statistics.interval(draws, subjects=people)) for people in (3, 10, 30, 300)]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 4
    many = statistics.interval(draws, subjects=10**9)
    assert many == pytest.approx(statistics.interval(draws), rel=1e-6)
    with pytest.raises(MetricUndefinedError, match="2 or more people, but got 1"):
        statistics.interval(draws, subjects=1)


@pytest.mark.parametrize("people", [1, 5, 28, 1000])
def test_what_nobody_showed_is_bounded_as_clopper_and_pearson_do(people: int) -> None:
    exact = stats.binomtest(0, people).proportion_ci(0.95, "exact").high
    assert statistics.unseen_bound(people) == pytest.approx(exact, rel=1e-9)
    # One-sided at 95 % is two-sided at 90 %: the rule of three, an upper bound of it.
    assert statistics.unseen_bound(people, 0.9) <= 3 / people
    with pytest.raises(MetricUndefinedError, match="there are no people"):
        statistics.unseen_bound(0)


def test_an_attacker_may_flip_the_sign() -> None:
    assert statistics.attacker_auc(0.3) == pytest.approx(0.7)
    assert statistics.attacker_auc(0.8) == 0.8


def naive_accuracy(scores: Array, same: Array, folds: Array) -> tuple[float, float]:
    accuracies = []
    for fold in sorted(Counter(folds.tolist())):
        training = [(s, g) for s, g, f in zip(scores, same, folds, strict=True) if f != fold]
        ordered = sorted({s for s, _ in training if s > -np.inf})
        halves = [(low + high) / 2 for low, high in pairwise(ordered)]
        cuts = [ordered[0], *halves, float("inf")]
        right = [sum((s >= cut) == g for s, g in training) for cut in cuts]
        best = cuts[right.index(max(right))]
        held = [(s >= best) == g for s, g, f in zip(scores, same, folds, strict=True) if f == fold]
        accuracies.append(np.mean(held))
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / len(accuracies) ** 0.5)


@pytest.mark.parametrize("decimals", [1, 6])
def test_ten_fold_accuracy_equals_trying_every_cut(decimals: int) -> None:
    random = np.random.default_rng(2)
    same = np.tile([True, False], 100)
    scores = (random.normal(0, 1, 200) + 1.5 * same).round(decimals)
    scores[::17] = -np.inf
    folds = np.repeat(np.arange(10), 20)
    found = statistics.ten_fold_accuracy(scores, same, folds)
    assert found == pytest.approx(naive_accuracy(scores, same, folds), abs=1e-12)


def test_separable_pairs_are_all_right_also_between_the_classes() -> None:
    same = np.tile([True, False], 50)
    scores = np.where(same, 0.8, 0.2)
    scores[:2] = [0.6, 0.4]  # nearer to the other class than any pair of the other folds
    folds = np.repeat(np.arange(10), 10)
    assert statistics.ten_fold_accuracy(scores, same, folds) == (1, 0)
    with pytest.raises(MetricUndefinedError, match="2 or more folds"):
        statistics.ten_fold_accuracy(scores, same, np.zeros(100, int))


def simulated(random: np.random.Generator, n_subjects: int, images: int) -> dict[str, Any]:
    """Cross-image cosines of people with an identity, an image noise and a quality of their own."""
    quality = random.uniform(0.3, 1.0, n_subjects)[:, None, None]
    identity = random.normal(size=(n_subjects, 1, 16))
    drawn = identity * quality + random.normal(size=(n_subjects, images, 16))
    vectors = drawn.reshape(-1, 16) / np.linalg.norm(drawn.reshape(-1, 16), axis=1, keepdims=True)
    subjects = np.repeat(np.arange(n_subjects), images)
    first, second = np.triu_indices(len(subjects), 1)
    cosines = np.einsum("nd,nd->n", vectors[first], vectors[second])
    return {"scores": cosines, "a": subjects[first], "b": subjects[second]}


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """100 samples of 40 people: 95 % intervals hold the value of 600 people 90 to 99 times."""
    metrics: list[Any] = [AreaUnderCurve(), EqualErrorRate(), TrueAcceptRate()]
    random = np.random.default_rng(0)
    crowd = simulated(random, 600, 4)
    same = crowd["a"] == crowd["b"]
    parts = {"genuine": crowd["scores"][same], "impostor": crowd["scores"][~same]}
    truth = [metric(**parts, threshold=0.4) for metric in metrics]
    weights = statistics.draw_weights(40, draws=500)
    covered = np.zeros(len(metrics))
    for _ in range(100):
        counts = statistics.count_scores(
            **simulated(random, 40, 4), weights=weights, thresholds=[0.4]
        )
        for index, metric in enumerate(metrics):
            low, high = statistics.interval(metric.from_counts(counts, 0.4))
            covered[index] += low <= truth[index] <= high
    assert (covered >= 90).all() and (covered <= 99).all(), covered
