"""Privacy by group: the same attack on the people of one group, and which group fares worst."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .errors import MetricUndefinedError
from .measure import Attack
from .pairs import PairList
from .results.schema import MetricRow

if TYPE_CHECKING:
    from .types import BoolArray, IntArray

SMALLEST_GROUP = 2
"""People: a group of one has no impostors, and its numbers would be that person's own."""
FEW_PEOPLE = 20
"""Below so many a group's numbers move by chance as much as groups differ from each other."""


@dataclass(frozen=True)
class WorstGroup:
    """The group that is protected least by one number."""

    row: MetricRow
    n_groups: int
    """Of how many it is the worst."""
    caution: str
    """What a reader must know before he believes it."""


def group_attacks(
    attack: Attack, members: Mapping[str | None, IntArray], subjects: IntArray
) -> dict[str, Attack]:
    """The attack on each group alone: both people of a comparison belong to it.

    Impostors within a group look more alike than others, so that a threshold fixed on everyone may
    let more of them pass: a group's FMR shows it. Thresholds stay those of everyone.

    Args:
        members: sample indices of each group, as ``utility.groups`` gives them; None, which stands
            for everyone, is left out.
        subjects: subject number of each sample, (N,).

    A group is left out whose comparisons show fewer than ``SMALLEST_GROUP`` people, or none of the
    same person, or none of two.
    """
    found = {}
    for name, chosen in members.items():
        inside = np.zeros(len(subjects), bool)
        inside[chosen] = True
        both = inside[attack.pairs.reference] & inside[attack.pairs.probe]
        same = attack.pairs.same[both & attack.kept]
        if name is None or same.all() or not same.any():
            continue
        if people_in(attack, both, subjects) >= SMALLEST_GROUP:
            found[name] = _only(attack, both)
    return found


def people_in(attack: Attack, chosen: BoolArray, subjects: IntArray) -> int:
    """How many people the chosen comparisons (P,) that count show."""
    kept = chosen & attack.kept
    sides = attack.pairs.reference[kept], attack.pairs.probe[kept]
    return len(np.unique(subjects[np.concatenate(sides)]))


def worst_group(
    rows: Iterable[MetricRow], overall: MetricRow, people: Mapping[str, int]
) -> WorstGroup:
    """The group with the worst value, as its defender sees it, of rows of one number.

    By value and not by the end of the interval, which would name the smallest group, whatever its
    protection. The worst of several noisy numbers is worse than the truth on average; the caution
    says how many there were, whether the group is small, and whether chance explains it.

    Args:
        rows: one row a group, of one metric, threshold and attack; those without a value are
            passed over. overall: the same of everyone. people: of each group.

    Raises:
        MetricUndefinedError: fewer than two groups have a value.
    """
    valued = [row for row in rows if row.value is not None and row.group is not None]
    if len(valued) < 2:
        raise MetricUndefinedError(
            f"worst group: expected 2 or more groups with a value of {overall.metric}, but got "
            f"{len(valued)}."
        )
    sign = 1 if overall.higher_is_better else -1
    worst = min(valued, key=lambda row: (sign * (row.value or 0), row.group))
    return WorstGroup(worst, len(valued), _caution(worst, overall, len(valued), people))


def _caution(worst: MetricRow, overall: MetricRow, n_groups: int, people: Mapping[str, int]) -> str:
    count = people[worst.group or ""]
    said = [f"the worst of {n_groups} groups, each measured with error: the truth is likely milder"]
    if count < FEW_PEOPLE:
        said.append(f"only {count} people: too few to say much")
    if worst.low is None or worst.high is None:
        said.append("it has no interval")
    elif overall.value is not None and worst.low <= overall.value <= worst.high:
        said.append("its interval holds the value of everyone: chance may explain the difference")
    return "; ".join(said)


def _only(attack: Attack, chosen: BoolArray) -> Attack:
    listed = attack.pairs
    part = PairList(
        listed.kind, listed.reference[chosen], listed.probe[chosen], listed.same[chosen],
        listed.fold[chosen],
    )  # fmt: skip
    before = attack.before and replace(attack.before, scores=attack.before.scores[chosen])
    return replace(attack, pairs=part, scores=attack.scores[chosen], before=before)
