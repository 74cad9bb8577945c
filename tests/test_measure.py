"""Rows made of invented scores, whose right values can be told by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

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
