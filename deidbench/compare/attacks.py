"""Differences of attacks and of the worst case, and how surely they are none by chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deidbench import statistics
from deidbench.errors import MetricUndefinedError
from deidbench.measure import ATTACKS_ON_PEOPLE, PEOPLE_OF_A_PAIR, Attack, Ruler, count

from .matching import NAIVE, WHITE_BOX, Match
from .rows import Drawn, Params, Row, Value, dotted, judged, plain, suffix

if TYPE_CHECKING:
    from deidbench.types import FloatArray, ScoreCounts

COMPARED = ("tar", "auc", "eer")
HEADLINE_FAR = 0.01


def differences(matches: Sequence[Match], ruler: Ruler) -> tuple[list[Row], float | None]:
    """All rows of attacks and of the worst case, and the headline FAR.

    The rows that the default rule looks at have their ``p``.
    """
    everyone = np.ones((1, ruler.weights.shape[1]), ruler.weights.dtype)
    known = replace(ruler, weights=np.concatenate([ruler.weights, everyone]))
    attacks = [drawn for match in matches for drawn in _attack_rows(match, known)]
    far = headline(attacks)
    drawn = [*worst_rows(attacks), *attacks]
    tested = tested_by_default(drawn, far)
    p_values = dict(zip(map(id, tested), joint_p_values(tested), strict=True))
    return [replace(one.row, p=p_values.get(id(one))) for one in drawn], far


def _attack_rows(match: Match, ruler: Ruler) -> Iterator[Drawn]:
    """The rates at each FAR, the AUC and the EER of one attack; everybody is the last draw."""
    counts = count(match.base, ruler), count(match.head, ruler)
    people = len(np.unique(ruler.subjects[match.base.pairs.probe]))
    for metric in sorted(ruler.metrics, key=lambda one: COMPARED.index(one.name)):
        for far in _fars(match) if metric.needs_threshold else [None]:
            yield _attack_row(match, metric, far, counts, people)


def _fars(match: Match) -> Sequence[float | None]:
    """The rates that either run asks for, largest first."""
    asked = {one.far for attack in (match.base, match.head) for one in attack.thresholds}
    return sorted(asked, reverse=True)


def _attack_row(
    match: Match,
    metric: Any,
    far: float | None,
    counts: tuple[ScoreCounts, ScoreCounts],
    people: int,
) -> Drawn:
    found: list[Value | None] = []
    reasons: list[str] = []
    for attack, counted in zip((match.base, match.head), counts, strict=True):
        try:
            value = _value(metric, attack, far, counted, people)
            found.append(_upright(value, metric.name))
        except MetricUndefinedError as error:
            found.append(None)
            reasons.append(str(error))
    params: Params = {} if far is None else {"far": far}
    parts = (match.threat, match.base.recognizer, metric.name)
    row = Row(
        name=dotted(*parts) + suffix(far), kind="attack", metric=metric.name, params=params,
        base=_number(found[0]), head=_number(found[1]), unit=metric.unit,
        higher_is_better=metric.higher_is_better, threat=match.threat,
        recognizer=match.base.recognizer, people=people,
        note="; ".join(dict.fromkeys([*reasons, *_critic(match), *_flips(found)])) or None,
    )  # fmt: skip
    return judged(Drawn(row, *found), people)


def _number(one: Value | None) -> float | None:
    return None if one is None else one.value


def _flips(found: Sequence[Value | None]) -> Iterator[str]:
    for side, one in zip(("BASE", "HEAD"), found, strict=True):
        if one and one.flipped:
            yield f"identity is there with its sign flipped in {side}: one minus the number"


def _critic(match: Match) -> Iterator[str]:
    """What must be said of a recognizer that only one of the two methods was trained against."""
    for side, attack in (("BASE", match.base), ("HEAD", match.head)):
        if match.threat == NAIVE and attack.threat == WHITE_BOX:
            yield f"the method of {side} was trained against this recognizer (T1w): it is flattered"


def _value(
    metric: Any, attack: Attack, far: float | None, counts: ScoreCounts, people: int
) -> Value:
    threshold = _threshold(attack, far)
    same, scores = attack.pairs.same, attack.scores
    value = metric(genuine=scores[same], impostor=scores[~same], threshold=threshold)
    drawn = metric.from_counts(counts, threshold)
    # What binning the scores did to the number is taken off: it would pass for a difference.
    draws = drawn[:-1] + (0.0 if metric.needs_threshold else value - drawn[-1])
    return Value(value, draws, *_ends(value, draws, people, rate=metric.name in PEOPLE_OF_A_PAIR))


def _upright(one: Value, metric: str) -> Value:
    """An AUC or EER on the wrong side of 0.5 with its whole interval, as an attacker would use it.

    Identity is there with its sign flipped, and he has only to turn the scores round.
    """
    flipped = (metric == "auc" and one.high is not None and one.high < 0.5) or (
        metric == "eer" and one.low is not None and one.low > 0.5
    )
    if not flipped:
        return one
    low, high = (None if end is None else 1 - end for end in (one.high, one.low))
    return Value(1 - one.value, 1 - one.draws, low, high, flipped=True)


def _threshold(attack: Attack, far: float | None) -> float | None:
    if far is None:
        return None
    one = next((one for one in attack.thresholds if one.far == far), None)
    if one is None or one.value is None:
        raise MetricUndefinedError((one and one.note) or f"no threshold for FAR {far:g}")
    return one.value


def _ends(
    value: float, draws: FloatArray, people: int, *, rate: bool
) -> tuple[float | None, float | None]:
    """The interval of a number, as a run records it."""
    try:
        low, high = statistics.interval(draws, subjects=max(people, 2))
    except MetricUndefinedError:
        return None, None
    if rate and low == high and value in (0.0, 1.0):
        bound = statistics.unseen_bound(people)
        return (0.0, bound) if value == 0.0 else (1 - bound, 1.0)
    return low, high


# The worst case


def worst_rows(attacks: Sequence[Drawn]) -> Iterator[Drawn]:
    """The worst case of each run by AUC and by the rate at each FAR, chosen in each run anew."""
    known = [one for one in attacks if one.row.threat in ATTACKS_ON_PEOPLE and _bounded(one)]
    keys = dict.fromkeys((one.row.metric, one.row.params.get("far")) for one in known)
    for metric, far in keys:
        if metric in ("tar", "auc"):
            same = [one for one in known if (one.row.metric, one.row.params.get("far"))
                    == (metric, far)]  # fmt: skip
            yield _worst_row(same)


def _bounded(drawn: Drawn) -> bool:
    return drawn.both and all(side.high is not None for side in drawn.sides)


def _worst_row(attacks: Sequence[Drawn]) -> Drawn:
    like = attacks[0].row
    turned = like.metric == "auc"
    sides = [[one.sides[i] for one in attacks] for i in (0, 1)]
    found = [_worst([_turned(one) if turned else one for one in side]) for side in sides]
    by = [plain(f"{attacks[i].row.threat} by {attacks[i].row.recognizer}") for i, _ in found]
    people = max(one.row.people or 2 for one in attacks)
    row = replace(
        like, name=dotted("worst_case", like.metric) + suffix(like.params.get("far")),
        kind="worst case", base=found[0][1].value, head=found[1][1].value, threat=None,
        recognizer=None, people=people, difference=None, low=None, high=None,
        note=by[0] if by[0] == by[1] else f"{by[0]} in BASE, {by[1]} in HEAD",
    )  # fmt: skip
    return judged(Drawn(row, found[0][1], found[1][1]), people)


def _worst(attacks: Sequence[Value]) -> tuple[int, Value]:
    """The attack with the largest upper bound, and what the worst is in each draw.

    Each draw chooses anew, by its own values: their upper bounds lie as far above them as those of
    the run lie above its values. Of attacks that are about alike the worst is overrated, in each
    draw more than in the run; draws are moved by twice that, which centres their percentiles where
    the value would be without it. Simulated with four equal attacks in one run, 95 % intervals of
    a difference then hold the truth 91 times of 100, without it 77 times.
    """
    at = max(range(len(attacks)), key=lambda i: _rank(attacks[i]))
    draws = np.stack([one.draws for one in attacks])
    reach = np.array([(one.high or 0.0) - one.value for one in attacks])[:, None]
    # An attack that never succeeds has a bound too, but nobody would call it the worst.
    bounds = np.where(draws > 0, draws + reach, reach - 1)
    bounds = np.where(np.isnan(draws), -np.inf, bounds)
    chosen = np.take_along_axis(draws, bounds.argmax(0)[None], 0)[0]
    overrated = np.nanmean(chosen) - attacks[at].value if np.isfinite(chosen).any() else 0.0
    return at, replace(attacks[at], draws=chosen - 2 * overrated)


def _rank(one: Value) -> tuple[bool, float, float]:
    return bool(one.value), one.high or 0.0, one.value


def _turned(one: Value) -> Value:
    """An AUC as an attacker would use it: whoever is always wrong has only to turn round."""
    draws = np.maximum(one.draws, 1 - one.draws)
    if one.value >= 0.5:
        return replace(one, draws=draws)
    low, high = (None if end is None else 1 - end for end in (one.high, one.low))
    return Value(1 - one.value, draws, low, high)


# The default rule


def headline(attacks: Sequence[Drawn]) -> float | None:
    """FAR 0.01 where every attack has a rate at it, else the smallest such; None: there is none."""
    rates = [one for one in attacks if "far" in one.row.params]
    fars = {float(one.row.params["far"]) for one in rates}
    fars -= {float(one.row.params["far"]) for one in rates if one.row.difference is None}
    return HEADLINE_FAR if HEADLINE_FAR in fars else min(fars, default=None)


def tested_by_default(drawn: Sequence[Drawn], far: float | None) -> list[Drawn]:
    """What the default rule looks at: rates of attacks and the worst case; AUCs without a FAR."""
    metric = "auc" if far is None else "tar"
    return [
        one
        for one in drawn
        if one.row.metric == metric
        and one.row.params.get("far") == far
        and (one.row.kind == "worst case" or one.row.threat in ATTACKS_ON_PEOPLE)
        and one.row.low is not None
    ]


def joint_p_values(tested: Sequence[Drawn]) -> list[float]:
    """How likely the largest of all rises is as large as each of these, where nothing changed.

    The maximum over studentized differences (max-T: Westfall and Young, 1993), its distribution
    taken from the draws around their estimates. Draws of few people vary too little and have the
    tails of a normal distribution: they are stretched as ``statistics.interval`` stretches.
    Numbers that hang together, as the attacks of one run do, cost little.
    """
    if not tested:
        return []
    value = np.array([one.row.difference or 0.0 for one in tested])
    drawn = np.stack([head.draws - base.draws for base, head in (one.sides for one in tested)])
    spread = np.nanstd(drawn, axis=1)
    people = max(min(one.row.people or 2 for one in tested), 2)
    safe = np.where(spread > 0, spread, 1.0)
    far_out = np.where(value == 0, 0.0, np.copysign(np.inf, value))  # all people moved alike
    observed = np.where(spread > 0, value / safe, far_out)
    around = np.nan_to_num((drawn - value[:, None]) / safe[:, None], nan=-np.inf)
    largest = around.max(0) * _stretch(people)
    beyond = (largest[None] >= observed[:, None]).sum(1)
    return [float(p) for p in (1 + beyond) / (1 + drawn.shape[1])]


def _stretch(people: int) -> float:
    from scipy.special import stdtrit

    student = float(stdtrit(people - 1, 0.975)) / 1.959964
    return student * math.sqrt(people / (people - 1))
