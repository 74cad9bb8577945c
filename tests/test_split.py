from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deidbench.errors import DeidbenchError
from deidbench.split import (
    ATTACKER_TRAIN,
    CALIBRATION,
    EVAL,
    METHOD_TRAIN,
    limit_subjects,
    split_subjects,
    used_parts,
)
from deidbench.types import Sample

SHARES = {CALIBRATION: 0.4, EVAL: 0.6}


def people(count: int, shots: int = 2, split: str | None = None) -> list[Sample]:
    return [
        Sample(id=f"p{i:03}/{k}", subject=f"p{i:03}", path=Path("x"), split=split)
        for i in range(count)
        for k in range(shots)
    ]


@given(count=st.integers(5, 60), seed=st.integers(0, 1000))
def test_parts_share_nobody_and_lose_nobody(count: int, seed: int) -> None:
    split = split_subjects(people(count), seed=seed, shares=SHARES)
    calibration, held = split.subjects[CALIBRATION], split.subjects[EVAL]
    assert not calibration & held
    assert len(calibration | held) == count
    assert abs(len(calibration) - 0.4 * count) <= 0.5


def test_a_seed_fixes_the_parts_whatever_the_order_of_the_samples() -> None:
    samples = people(20)
    one = split_subjects(samples, seed=3, shares=SHARES)
    other = split_subjects(samples[::-1], seed=3, shares=SHARES)
    assert one.sha256 == other.sha256
    assert one.sha256 != split_subjects(samples, seed=4, shares=SHARES).sha256


def test_the_split_never_changes_between_versions() -> None:
    """Published numbers depend on it: a change needs a new protocol version."""
    split = split_subjects(people(6), seed=0, shares=SHARES)
    assert sorted(split.subjects[CALIBRATION]) == ["p000", "p004"]


def test_a_dataset_may_bring_its_own_parts() -> None:
    samples = people(3, split=CALIBRATION) + [
        Sample(id=f"q{i}/0", subject=f"q{i}", path=Path("x"), split=EVAL) for i in range(4)
    ]
    split = split_subjects(samples, seed=0, shares=SHARES)
    assert split.subjects[EVAL] == {"q0", "q1", "q2", "q3"}


def test_one_person_in_two_parts_is_refused() -> None:
    samples = [
        Sample(id="a/0", subject="a", path=Path("x"), split=CALIBRATION),
        Sample(id="a/1", subject="a", path=Path("x"), split=EVAL),
    ]
    with pytest.raises(DeidbenchError, match="'a' is in two parts"):
        split_subjects(samples, seed=0, shares=SHARES)


PARTS = {METHOD_TRAIN: 12, ATTACKER_TRAIN: 14, CALIBRATION: 8, EVAL: 14}


def four_parts() -> list[Sample]:
    return [
        Sample(id=f"{part}{i}/0", subject=f"{part}{i}", path=Path("x"), split=part)
        for part, count in PARTS.items()
        for i in range(count)
    ]


def test_people_that_others_learn_from_are_not_measured() -> None:
    kept = used_parts(four_parts(), SHARES)
    assert {sample.split for sample in kept} == {CALIBRATION, EVAL}
    assert len(kept) == PARTS[CALIBRATION] + PARTS[EVAL]
    assert used_parts(people(4), SHARES) == people(4), "a dataset without parts keeps all"


def test_a_person_in_a_part_that_is_not_measured_may_be_in_no_other() -> None:
    samples = four_parts()
    samples.append(Sample(id="x/0", subject=samples[0].subject, path=Path("x"), split=EVAL))
    with pytest.raises(DeidbenchError, match="is in two parts"):
        used_parts(samples, SHARES)


@given(limit=st.integers(4, 22), seed=st.integers(0, 1000))
def test_a_limit_keeps_the_share_of_each_part(limit: int, seed: int) -> None:
    kept = limit_subjects(used_parts(four_parts(), SHARES), limit, seed=seed)
    assert len(kept) == limit
    calibrating = sum(sample.split == CALIBRATION for sample in kept)
    assert abs(calibrating - limit * PARTS[CALIBRATION] / 22) <= 1


@given(limit=st.integers(4, 22), seed=st.integers(0, 1000))
def test_people_to_learn_from_do_not_count_and_change_nobody_else(limit: int, seed: int) -> None:
    shares = {ATTACKER_TRAIN: 0.2, **SHARES}
    kept = limit_subjects(used_parts(four_parts(), shares), limit, seed=seed)
    teachers = [sample for sample in kept if sample.split == ATTACKER_TRAIN]
    assert abs(len(teachers) - PARTS[ATTACKER_TRAIN] * limit / 22) <= 1
    rest = [sample for sample in kept if sample.split != ATTACKER_TRAIN]
    assert rest == limit_subjects(used_parts(four_parts(), SHARES), limit, seed=seed)


def test_too_few_people_are_refused_with_what_to_do() -> None:
    with pytest.raises(DeidbenchError, match="at least 4 people"):
        split_subjects(people(3), seed=0, shares=SHARES)


def test_a_limit_keeps_all_images_of_the_people_it_keeps() -> None:
    kept = limit_subjects(people(10, shots=3), 4, seed=1)
    assert len({sample.subject for sample in kept}) == 4
    assert len(kept) == 12
    assert kept == limit_subjects(people(10, shots=3), 4, seed=1)
    assert kept != limit_subjects(people(10, shots=3), 4, seed=2)
