"""Who ranks before whom: methods measured on the same people, with ties where nothing tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from . import statistics
from .errors import DeidbenchError, MetricUndefinedError

if TYPE_CHECKING:
    from .types import FloatArray


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same people; ``first`` has the smaller name."""

    first: str
    second: str
    difference: float
    """Attacker success against ``first`` minus that against ``second``: negative, it is better."""
    low: float
    high: float
    p: float
    """Two-sided, of no difference."""
    adjusted: float
    """The same for all comparisons of the ranking at once, by Holm's method."""


@dataclass(frozen=True)
class Place:
    """One method in the ranking."""

    method: str
    value: float
    low: float
    high: float
    rank: int
    """1 + how many methods are better than it beyond chance."""
    tied_with: tuple[str, ...]
    """Methods that nothing tells apart from it. A tie is not passed on: of three methods, the
    first and the last may differ though both tie with the second."""


@dataclass(frozen=True)
class Ranking:
    """Places by rank, then value, then name; and every comparison that they rest on."""

    places: tuple[Place, ...]
    comparisons: tuple[Comparison, ...]


def rank(
    values: Mapping[str, float],
    draws: Mapping[str, FloatArray],
    *,
    people: int,
    alpha: float = 0.05,
) -> Ranking:
    """Ranks by attacker success, low is good: 1 + the number of methods significantly better.

    Every two methods are compared by the differences of their paired draws, and all p-values are
    adjusted together (Holm, Scand. J. Stat. 6:65, 1979): where all methods are alike, the chance
    that any two get different ranks is at most ``alpha``. The order of the methods changes nothing.

    Args:
        values: attacker success against each method.
        draws: the same in each bootstrap draw, (B,), NaN where a draw does not define it. Draws of
            all methods come from the same ``statistics.draw_weights``, so that they are paired.
        people: how many people were drawn from.
        alpha: the share of rankings that may tell equal methods apart.

    Raises:
        DeidbenchError: names differ, there are no methods, or numbers of draws do not agree.
        MetricUndefinedError: a value is NaN, or most draws leave a number undefined.
    """
    names = _checked(values, draws)
    pairs = list(combinations(names, 2))
    differences = [values[first] - values[second] for first, second in pairs]
    drawn = [draws[first] - draws[second] for first, second in pairs]
    tested = [_p_value(*each, people) for each in zip(differences, drawn, strict=True)]
    comparisons = tuple(
        Comparison(*pair, difference, *statistics.interval(each, subjects=people), p, adjusted)
        for pair, difference, each, p, adjusted in zip(
            pairs, differences, drawn, tested, holm(tested), strict=True
        )
    )
    places = [_place(name, values, draws, comparisons, people, alpha) for name in names]
    return Ranking(
        tuple(sorted(places, key=lambda place: (place.rank, place.value, place.method))),
        comparisons,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of m hypotheses, each as large as the step-down method of Holm (1979) makes it.

    The smallest is multiplied by m, the next by m - 1, and so on; none may be below one that
    comes before it, or above 1. Rejecting what is at most alpha errs once in 1/alpha families at
    most, however the hypotheses depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    factors = np.arange(len(p_values), 0, -1)
    raised = np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors)
    adjusted[order] = np.minimum(raised, 1)
    return [float(p) for p in adjusted]


def _p_value(difference: float, drawn: FloatArray, people: int) -> float:
    """The level at which the interval of the drawn differences (B,) would end at 0, two-sided.

    The interval is that of ``statistics.interval`` for so many people, so that it holds 0 where p
    is large, and the reverse. B draws cannot tell a share below 1/(B + 1): where none of them
    reaches 0, the tail is taken to be normal. No test of n people tells less than 2^(1 - n), the
    chance that all of them fall on one side.
    """
    from scipy.special import stdtr  # Student's t

    defined = drawn[np.isfinite(drawn)]
    crossed = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    share = (crossed + 1) / (defined.size + 1)
    if share >= 0.5:
        return 1.0
    reach = -NormalDist().inv_cdf(share)
    if crossed == 0:
        spread = float(defined.std())
        reach = max(reach, abs(difference) / spread if spread else np.inf)
    t = reach * np.sqrt((people - 1) / people)
    return float(max(2 * stdtr(people - 1, -t), 2.0 ** (1 - people)))


def _place(
    name: str,
    values: Mapping[str, float],
    draws: Mapping[str, FloatArray],
    comparisons: Sequence[Comparison],
    people: int,
    alpha: float,
) -> Place:
    better, tied = 0, []
    for one in comparisons:
        if name not in (one.first, one.second):
            continue
        other = one.second if name == one.first else one.first
        if one.adjusted > alpha:
            tied.append(other)
        else:
            better += values[other] < values[name]
    low, high = statistics.interval(draws[name], subjects=people)
    return Place(name, values[name], low, high, 1 + better, tuple(tied))


def _checked(values: Mapping[str, float], draws: Mapping[str, FloatArray]) -> list[str]:
    """The names, sorted: what the table shows does not depend on the order that they came in."""
    names = sorted(values)
    if not names or names != sorted(draws):
        raise DeidbenchError(
            f"ranking: expected values and draws of the same methods, but got {names} and "
            f"{sorted(draws)}."
        )
    sizes = {np.shape(each) for each in draws.values()}
    if len(sizes) > 1:
        raise DeidbenchError(
            f"ranking: expected draws (B,) of one size, but got {sorted(sizes)}; draw the same "
            "people for all methods."
        )
    undefined = [name for name in names if not np.isfinite(values[name])]
    if undefined:
        raise MetricUndefinedError(f"ranking: {', '.join(undefined)} has no attacker success.")
    return names
