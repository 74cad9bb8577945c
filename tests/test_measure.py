"""Rows made of invented scores, whose right values can be told by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from deidbench import measure, plugins, statistics
from deidbench.measure import Attack, Before, Ruler
from deidbench.pairs import PairList, cross_pairs
from deidbench.results.schema import MetricRow, ThresholdRecord
from deidbench.types import View

PEOPLE, SHOTS = 8, 4
SUBJECTS = np.repeat(np.arange(PEOPLE), SHOTS).astype(np.int32)
PAIRS = cross_pairs(range(PEOPLE * SHOTS), SUBJECTS)
VERIFICATION = ("auc", "dodging-psr", "dprime", "eer", "fmr", "fnmr", "tar")


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    metrics = [plugins.load("metrics", name)() for name in VERIFICATION]
    return Ruler(metrics, SUBJECTS, statistics.draw_weights(PEOPLE, draws=300, seed=0))


def threshold(value: float | None, far: float = 0.1) -> ThresholdRecord:
    return ThresholdRecord(
        threat="T1", recognizer="r", view="landmarks", far=far, value=value, n_impostor=400,
        note=None if value is not None else "too few impostors",
    )  # fmt: skip


def scores(separation: float, seed: int = 0) -> np.ndarray:
    """Normal scores: impostors around 0, genuine ones around the separation."""
    noise = np.random.default_rng(seed).normal(size=len(PAIRS.reference))
    return (noise + separation * PAIRS.same).astype(np.float32)


def attack(values: np.ndarray, view: View = "landmarks", at: float | None = 1.0) -> Attack:
    return Attack("T1", "r", view, PAIRS, values, [threshold(at)])


def rows(attacked: Attack, ruler: Ruler) -> dict[str, MetricRow]:
    made = [*measure.attack_rows(attacked, ruler), *measure.paired_rows(attacked, ruler)]
    return {row.metric: row for row in made}


def test_values_lie_within_their_intervals(ruler: Ruler) -> None:
    for row in rows(attack(scores(1.5)), ruler).values():
        assert row.low is not None and row.high is not None and row.value is not None
        assert row.low <= row.value <= row.high
        assert row.low < row.high


def test_swapping_the_labels_mirrors_the_auc(ruler: Ruler) -> None:
    straight = rows(attack(scores(1.0)), ruler)["auc"].value
    mirrored = rows(attack(-scores(1.0)), ruler)["auc"]
    assert straight == pytest.approx(1 - (mirrored.value or 0))
    assert "sign flipped" in (mirrored.note or "")


def test_a_guess_below_a_half_is_not_called_a_flipped_identity(ruler: Ruler) -> None:
    guesses = [rows(attack(scores(0.0, seed)), ruler)["auc"] for seed in range(8)]
    assert min(guess.value or 0 for guess in guesses) < 0.5
    assert not any(guess.note for guess in guesses if (guess.high or 1) >= 0.5)


def test_shuffled_labels_leave_nothing(ruler: Ruler) -> None:
    shuffled = np.random.default_rng(1).permutation(scores(3.0))
    auc = rows(attack(shuffled), ruler)["auc"]
    assert (auc.low or 0) <= 0.5 <= (auc.high or 1)


def test_a_lost_face_counts_in_the_system_view_and_only_there(ruler: Ruler) -> None:
    values = scores(2.0)
    lost = (PAIRS.probe == 3) | (PAIRS.reference == 3)
    values[lost] = np.nan
    conditional = rows(attack(values, "conditional"), ruler)
    system = rows(attack(values, "system"), ruler)
    n_genuine, n_lost = PAIRS.same.sum(), (PAIRS.same & lost).sum()
    assert conditional["tar"].n_genuine == n_genuine - n_lost
    assert system["tar"].n_genuine == n_genuine
    assert {conditional["tar"].n_failed, system["tar"].n_failed} == {lost.sum()}
    ratio = (n_genuine - n_lost) / n_genuine
    assert system["tar"].value == pytest.approx((conditional["tar"].value or 0) * ratio)
    assert "dprime" in system and system["dprime"].value is None


def test_error_rates_are_named_by_what_they_count(ruler: Ruler) -> None:
    """ISO/IEC 19795-1: FMR and FNMR of comparisons made, FAR and FRR with failures."""
    assert {"fmr", "fnmr"} <= rows(attack(scores(1.0)), ruler).keys()
    system = rows(attack(scores(1.0), "system"), ruler)
    assert {"far", "frr"} <= system.keys()
    assert not {"fmr", "fnmr"} & system.keys()
    assert (system["frr"].value or 0) + (system["tar"].value or 0) == pytest.approx(1)


def test_an_undefined_threshold_gives_rows_that_say_why(ruler: Ruler) -> None:
    made = rows(attack(scores(1.0), at=None), ruler)
    assert made["tar"].value is None
    assert made["tar"].note == "too few impostors"
    assert made["auc"].value is not None


def test_dodging_counts_the_pairs_that_matched_before_and_no_longer_do(ruler: Ruler) -> None:
    before, after = scores(2.0), scores(2.0)
    genuine = np.flatnonzero(PAIRS.same)
    after[genuine[::2]] = -5
    attacked = replace(attack(after), before=Before(before, [threshold(1.0)]))
    matched = before[genuine] >= 1.0
    expected = matched[::2].sum() / matched.sum()
    row = rows(attacked, ruler)["dodging-psr"]
    assert row.value == pytest.approx(expected)
    assert row.n_genuine == matched.sum()


def test_dodging_judges_each_side_by_its_own_threshold(ruler: Ruler) -> None:
    """Treated scores that all moved up by 3, and a threshold that moved with them: no change."""
    before = scores(2.0)
    attacked = replace(attack(before + 3, at=4.0), before=Before(before, [threshold(1.0)]))
    assert rows(attacked, ruler)["dodging-psr"].value == 0


def test_thresholds_are_fixed_on_impostors_alone() -> None:
    impostor = np.arange(1000, dtype=np.float32)
    fields = {"threat": "T0", "recognizer": "r", "view": "landmarks"}
    tenth, hundredth = measure.fix_thresholds(impostor, (0.1, 0.01), **fields)
    assert (impostor >= (tenth.value or 0)).mean() == 0.1
    assert hundredth.value is None
    assert "1000 of the 3000 needed" in (hundredth.note or "")


def test_every_metric_says_so_when_all_faces_were_lost(ruler: Ruler) -> None:
    made = rows(attack(scores(1.0) * np.nan, "conditional"), ruler)
    assert {"auc", "eer", "tar", "fmr", "fnmr", "dprime"} <= made.keys()
    assert {row.note for row in made.values()} == {"every comparison lost a face"}


def test_fold_accuracy_without_faces_is_a_row_that_says_why() -> None:
    official = replace(PAIRS, kind="official", fold=np.arange(len(PAIRS.same)) % 10)
    lost = replace(attack(scores(1.0) * np.nan, "conditional"), pairs=official)
    (row,) = measure.fold_accuracy_rows(lost)
    assert row.value is None and row.note
    (made,) = measure.fold_accuracy_rows(replace(lost, scores=scores(2.0)))
    assert 0.8 < (made.value or 0) < 1


def test_a_mean_over_images_leaves_out_what_has_no_value() -> None:
    values = np.array([1.0, 3.0, np.nan, np.inf], np.float32)
    owner = np.array([0, 1, 0, 1])
    weights = statistics.draw_weights(2, draws=200, seed=0)
    row = measure.mean_row("psnr", values, owner, weights, unit="dB")
    assert (row.value, row.low, row.high, row.n) == (2.0, 1.0, 3.0, 2)
    assert "1 unchanged images" in (row.note or "")
    nothing = measure.mean_row("psnr", values[2:3], owner[2:3], weights)
    assert nothing.value is None
    assert nothing.note


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_the_interval_of_fold_accuracy_follows_the_number_of_folds(folds: int) -> None:
    """Oracle: scipy's own interval."""
    count = 40 * folds
    generator = np.random.default_rng(folds)
    same = np.arange(count) % 2 == 0
    found = (same + generator.normal(0, 0.6, count)).astype(np.float32)
    fold = np.repeat(np.arange(folds), 40)
    index = np.arange(count, dtype=np.int32)
    pairs = PairList("official", index, index, same, fold)
    (row,) = measure.fold_accuracy_rows(Attack("T1", "r", "landmarks", pairs, found, ()))
    value, error = statistics.ten_fold_accuracy(found, same, fold)
    assert (row.low, row.high) == pytest.approx(
        stats.t.interval(0.95, folds - 1, loc=value, scale=error)
    )


# Rates that no draw can leave


def test_a_rate_of_zero_has_the_bound_of_its_people(ruler: Ruler) -> None:
    found = rows(attack(scores(0.0), at=50.0), ruler)
    tar, fmr, fnmr = (found[name] for name in ("tar", "fmr", "fnmr"))
    assert (tar.value, tar.low) == (0, 0)
    assert tar.high == pytest.approx(statistics.unseen_bound(PEOPLE))
    assert (fnmr.value, fnmr.high) == (1, 1)
    assert fnmr.low == pytest.approx(1 - statistics.unseen_bound(PEOPLE))
    # A false match shows two people: half as many are independent.
    assert fmr.high == pytest.approx(statistics.unseen_bound(PEOPLE // 2))


def test_a_perfect_auc_is_no_rate_of_errors(ruler: Ruler) -> None:
    auc = rows(attack(scores(50.0)), ruler)["auc"]
    assert (auc.value, auc.low, auc.high) == (1, 1, 1)


# The worst case


def one_row(
    threat: str, metric: str, value: float, low: float, high: float, **more: Any
) -> MetricRow:
    about = {"recognizer": "r", "pairs": "cross", "view": "landmarks", **more}
    return MetricRow(threat=threat, metric=metric, value=value, low=low, high=high, **about)


def test_the_worst_case_has_the_largest_upper_bound() -> None:
    listed = [
        one_row("T0", "auc", 0.99, 0.98, 1.0),
        one_row("T1", "auc", 0.7, 0.65, 0.75),
        one_row("T3", "auc", 0.69, 0.6, 0.8, recognizer="other"),
        one_row("T3", "auc", 0.95, 0.9, 0.99, pairs="same"),
        one_row("T3", "auc", 0.95, 0.9, 0.99, view="system"),
        one_row("T3", "auc", 0.95, 0.9, 0.99, group="sex=f"),
        one_row("T6", "auc", 1.0, 1.0, 1.0, pairs=None, view=None),
        one_row("T2", "eer", 0.5, 0.5, 0.99),
    ]
    (worst,) = measure.worst_rows(listed)
    assert (worst.metric, worst.threat, worst.recognizer) == ("worst-case-auc", "T3", "other")
    assert (worst.value, worst.high) == (0.69, 0.8)
    assert "of 2 attacks" in (worst.note or "")


def test_an_attacker_who_is_always_wrong_turns_round() -> None:
    listed = [one_row("T1", "auc", 0.6, 0.5, 0.7), one_row("T1w", "auc", 0.1, 0.05, 0.2)]
    (worst,) = measure.worst_rows(listed)
    assert worst.threat == "T1w"
    assert (worst.value, worst.low, worst.high) == pytest.approx((0.9, 0.8, 0.95))


def test_an_attack_that_never_succeeded_is_not_the_worst() -> None:
    far = {"params": {"far": 0.01}}
    listed = [
        one_row("T1", "tar", 0.0, 0.0, 0.3, **far),
        one_row("T2", "tar", 0.1, 0.05, 0.2, **far),
    ]
    (worst,) = measure.worst_rows(listed)
    assert (worst.metric, worst.threat, worst.params) == ("worst-case-tar", "T2", {"far": 0.01})
    (only,) = measure.worst_rows(listed[:1])
    assert (only.value, only.high) == (0, 0.3)


# Folds of people


def test_folds_are_of_people_and_say_how_much_they_differ(ruler: Ruler) -> None:
    attacked = attack(scores(1.0))
    found = {row.metric: row for row in measure.fold_rows(attacked, ruler, 4)}
    assert set(found) == {"auc-over-folds", "eer-over-folds"}
    owners = SUBJECTS[PAIRS.reference], SUBJECTS[PAIRS.probe]
    values = []
    for fold in range(4):
        inside = (owners[0] % 4 == fold) & (owners[1] % 4 == fold)
        values.append(roc_auc_score(PAIRS.same[inside], attacked.scores[inside]))
    row = found["auc-over-folds"]
    assert row.value == pytest.approx(np.mean(values))
    assert (row.high or 0) - (row.value or 0) == pytest.approx(np.std(values, ddof=1))
    assert row.params == {"folds": 4}


def test_folds_of_one_person_have_no_number(ruler: Ruler) -> None:
    (auc, _) = measure.fold_rows(attack(scores(1.0)), ruler, PEOPLE)
    assert auc.value is None
    assert f"of {PEOPLE} folds" in (auc.note or "")
    assert list(measure.fold_rows(attack(scores(1.0)), ruler, None)) == []


def test_a_metric_is_left_to_the_threats_that_it_names(ruler: Ruler) -> None:
    linkable = plugins.build("metrics", "d-sys")
    assert linkable.threats == ("T5",)
    ruler = replace(ruler, metrics=[*ruler.metrics, linkable])
    assert "d-sys" not in rows(attack(scores(1.0)), ruler)
    assert "d-sys" in rows(replace(attack(scores(1.0)), threat="T5"), ruler)


# Detection


def test_detection_is_an_auc_of_images_with_intervals_by_person(ruler: Ruler) -> None:
    draw = np.random.default_rng(0)
    treated, clean = draw.normal(1, 1, len(SUBJECTS)), draw.normal(0, 1, len(SUBJECTS))
    counts = statistics.count_images(treated, clean, SUBJECTS, ruler.weights)
    auc = next(one for one in ruler.metrics if one.name == "auc")
    scored = {"genuine": treated, "impostor": clean}
    row = measure.detection_row(auc, scored, counts, PEOPLE, threat="T6", n=len(SUBJECTS))
    labels = np.repeat([True, False], len(SUBJECTS))
    assert row.value == pytest.approx(roc_auc_score(labels, np.concatenate([treated, clean])))
    assert row.low is not None and row.high is not None
    assert row.low < row.value < row.high
    for weights, found in zip(ruler.weights[:20], auc.from_counts(counts)[:20], strict=True):
        each = np.tile(weights[SUBJECTS], 2)
        pooled = np.concatenate([treated, clean])
        drawn = roc_auc_score(labels, pooled, sample_weight=each)
        assert found == pytest.approx(drawn, abs=0.01), "scores of one bin count as ties"
