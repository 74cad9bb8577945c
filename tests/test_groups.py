from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deidbench import groups, measure, plugins, statistics
from deidbench.errors import MetricUndefinedError
from deidbench.measure import Attack, Before, Ruler
from deidbench.pairs import cross_pairs
from deidbench.results.schema import MetricRow, ThresholdRecord

PEOPLE, SHOTS = 12, 4
SUBJECTS = np.repeat(np.arange(PEOPLE), SHOTS).astype(np.int32)
PAIRS = cross_pairs(range(PEOPLE * SHOTS), SUBJECTS)
FIRST, SECOND = np.flatnonzero(SUBJECTS < 5), np.flatnonzero(SUBJECTS >= 5)
MEMBERS: dict[str | None, Any] = {
    None: np.arange(len(SUBJECTS)), "sex=a": FIRST, "sex=b": SECOND
}  # fmt: skip


def attack(**changes: Any) -> Attack:
    """Members of sex=a are recognised far better."""
    noise = np.random.default_rng(0).normal(size=len(PAIRS.same))
    owner = SUBJECTS[PAIRS.reference]
    scores = noise + np.where(owner < 5, 4.0, 1.0) * PAIRS.same
    threshold = ThresholdRecord(
        threat="T1", recognizer="r", view="landmarks", far=0.1, value=1.3, n_impostor=400
    )
    fields = {"scores": scores.astype(np.float32), "thresholds": [threshold]} | changes
    return Attack(threat="T1", recognizer="r", view="landmarks", pairs=PAIRS, **fields)


def test_both_people_of_a_comparison_belong_to_the_group() -> None:
    """Counted in a plain loop."""
    whole = attack()
    found = groups.group_attacks(whole, MEMBERS, SUBJECTS)
    assert set(found) == {"sex=a", "sex=b"}
    for name, one in found.items():
        expected = []
        for i, j, score in zip(PAIRS.reference, PAIRS.probe, whole.scores, strict=True):
            if i in MEMBERS[name] and j in MEMBERS[name]:
                expected.append((i, j, SUBJECTS[i] == SUBJECTS[j], score))
        columns = one.pairs.reference, one.pairs.probe, one.pairs.same, one.scores
        assert list(zip(*columns, strict=True)) == expected
        assert one.thresholds == whole.thresholds
        assert len(one.pairs.fold) == len(expected)


def test_each_group_is_measured_as_if_it_were_alone() -> None:
    metrics = [plugins.load("metrics", name)() for name in ("auc", "tar", "eer", "dodging-psr")]
    ruler = Ruler(metrics, SUBJECTS, statistics.draw_weights(PEOPLE, draws=200))
    before = Before(attack().scores + 1, attack().thresholds)
    found = groups.group_attacks(attack(before=before), MEMBERS, SUBJECTS)
    values = {}
    for name, one in found.items():
        made = [*measure.attack_rows(one, ruler), *measure.paired_rows(one, ruler)]
        values[name] = {row.metric: row for row in made}
        scores, same = one.scores, one.pairs.same
        exact = metrics[0](genuine=scores[same], impostor=scores[~same])
        assert values[name]["auc"].value == pytest.approx(exact)
        assert values[name]["auc"].low is not None
        assert values[name]["dodging-psr"].value is not None
    assert (values["sex=a"]["tar"].value or 0) > (values["sex=b"]["tar"].value or 0) + 0.3


def test_a_group_without_genuine_or_impostor_comparisons_is_left_out() -> None:
    single, strangers = np.arange(SHOTS), np.arange(0, len(SUBJECTS), SHOTS)
    members = {"one": single, "strangers": strangers, "none": np.array([], int), **MEMBERS}
    assert set(groups.group_attacks(attack(), members, SUBJECTS)) == {"sex=a", "sex=b"}


def test_people_whose_faces_were_all_lost_do_not_make_a_group() -> None:
    whole = attack()
    lost = np.isin(SUBJECTS[PAIRS.reference], range(1, 5)) | np.isin(
        SUBJECTS[PAIRS.probe], range(1, 5)
    )
    scores = np.where(lost, np.nan, whole.scores)
    conditional = replace(whole, scores=scores, view="conditional")
    assert set(groups.group_attacks(conditional, MEMBERS, SUBJECTS)) == {"sex=b"}
    system = replace(conditional, view="system")
    assert set(groups.group_attacks(system, MEMBERS, SUBJECTS)) == {"sex=a", "sex=b"}


def row(
    value: float | None, low: float, high: float, group: str | None = None, **more: Any
) -> MetricRow:
    fields = {"metric": "tar", "higher_is_better": False, "note": "x"} | more
    return MetricRow(value=value, low=low, high=high, group=group, **fields)


def test_the_worst_group_is_where_the_attacker_does_best() -> None:
    rows = [row(0.2, 0.1, 0.3, "a"), row(0.5, 0.4, 0.6, "b"), row(0.3, 0.0, 0.9, "c")]
    people = {"a": 50, "b": 60, "c": 3}
    found = groups.worst_group(rows, row(0.3, 0.2, 0.4), people)
    assert found.row.group == "b" and found.n_groups == 3
    assert "worst of 3 groups" in found.caution
    assert "chance" not in found.caution and "too few" not in found.caution
    errors = [replace_direction(each) for each in rows]
    assert groups.worst_group(errors, errors[0], people).row.group == "a"


def replace_direction(one: MetricRow) -> MetricRow:
    return one.model_copy(update={"metric": "eer", "higher_is_better": True})


def test_the_caution_names_small_groups_and_chance() -> None:
    rows = [row(0.2, 0.1, 0.3, "a"), row(0.5, 0.1, 0.9, "c")]
    found = groups.worst_group(rows, row(0.3, 0.2, 0.4), {"a": 50, "c": 3})
    assert "only 3 people" in found.caution
    assert "chance may explain" in found.caution
    bare = [rows[0], rows[1].model_copy(update={"low": None, "high": None})]
    assert "no interval" in groups.worst_group(bare, rows[0], {"a": 50, "c": 3}).caution


def test_one_group_alone_is_not_the_worst() -> None:
    rows = [row(0.2, 0.1, 0.3, "a"), row(None, 0.0, 0.0, "b"), row(0.9, 0.8, 1.0)]
    with pytest.raises(
        MetricUndefinedError, match="2 or more groups with a value of tar, but got 1"
    ):
        groups.worst_group(rows, rows[2], {"a": 9, "b": 9})


def test_among_groups_that_are_alike_chance_is_named_more_often_than_not() -> None:
    """People of 4 groups drawn alike: the caution explains the worst of them by chance."""
    metrics = [plugins.load("metrics", "tar")()]
    subjects = np.repeat(np.arange(40), 4).astype(np.int32)
    listed = cross_pairs(range(160), subjects)
    ruler = Ruler(metrics, subjects, statistics.draw_weights(40, draws=200))
    members: dict[str | None, Any] = {f"g={k}": np.flatnonzero(subjects % 4 == k) for k in range(4)}
    explained = 0
    for seed in range(10):
        random = np.random.default_rng(seed)
        own = random.normal(0, 0.5, 40)[subjects[listed.reference]]
        scores = (random.normal(size=len(listed.same)) + (1.5 + own) * listed.same).astype("f4")
        whole = replace(attack(scores=scores), pairs=listed)
        overall = next(iter(measure.attack_rows(whole, ruler)))
        rows = [
            next(iter(measure.attack_rows(one, ruler))).model_copy(update={"group": name})
            for name, one in groups.group_attacks(whole, members, subjects).items()
        ]
        found = groups.worst_group(rows, overall, {row.group or "": 10 for row in rows})
        assert "only 10 people" in found.caution
        explained += "chance may explain" in found.caution
    assert explained >= 6
