"""From scores and image values to the rows of a run record, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit

from . import statistics
from .errors import MetricUndefinedError
from .pairs import PairList
from .results.schema import Curve, MetricRow, ThresholdRecord
from .types import View

if TYPE_CHECKING:
    from .types import BoolArray, FloatArray, IntArray, ScoreCounts

SYSTEM_NAMES = {"fmr": "far", "fnmr": "frr"}  # ISO/IEC 19795-1: with failures counted
PEOPLE_OF_A_PAIR = {"tar": 1, "fnmr": 1, "fmr": 2}
"""Of the rates of errors: a genuine pair shows one person, an impostor pair two."""
ATTACKS_ON_PEOPLE = ("T1", "T1w", "T2", "T3", "T3f", "T4", "T5", "P")
"""Those that the worst case is taken of: T0 treats nothing, T6 names nobody."""
INVERTED = (
    "AUC and its interval are below 0.5: identity is encoded with its sign flipped; "
    "attacker success is 1 - AUC"
)


@dataclass(frozen=True)
class Measured:
    """A number, or the reason why there is none or no interval."""

    value: float | None
    interval: tuple[float, float] | None = None
    note: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of what it was made, where that is not all comparisons of the attack."""


@dataclass(frozen=True)
class Before:
    """The same comparisons without treatment, for what it changed."""

    scores: FloatArray
    thresholds: Sequence[ThresholdRecord]


@dataclass(frozen=True)
class Attack:
    """One recognizer under one threat: the scores of one pair list, seen in one way."""

    threat: str
    recognizer: str
    view: View
    pairs: PairList
    scores: FloatArray
    """(P,), NaN where a face was lost."""
    thresholds: Sequence[ThresholdRecord]
    before: Before | None = None

    @property
    def kept(self) -> BoolArray:
        """The comparisons that count: all in the system view, else those that were made."""
        if self.view == "system":
            return np.ones(len(self.scores), bool)
        return ~np.isnan(self.scores)


@dataclass(frozen=True)
class Ruler:
    """What every attack of a run is measured with."""

    metrics: Sequence[Any]
    subjects: IntArray
    """Subject number of each sample, (N,)."""
    weights: FloatArray
    """Bootstrap draws of subjects, (B, S)."""


def fix_thresholds(
    impostor: FloatArray, fars: Sequence[float], **fields: Any
) -> list[ThresholdRecord]:
    """Thresholds from CALIBRATION impostors (I,); the reason where there are too few."""
    return [_threshold(impostor, far, **fields) for far in fars]


def attack_rows(attack: Attack, ruler: Ruler) -> Iterator[MetricRow]:
    """All verification rows of one attack; a row that is undefined says why."""
    kept = attack.kept
    if not kept.any():
        yield from _rows("verification", _lost, attack, ruler)
        return
    same, scores = attack.pairs.same[kept], _failed_as_refused(attack.scores[kept])
    scored = {"genuine": scores[same], "impostor": scores[~same]}
    counts = count(attack, ruler)
    owners = np.unique(ruler.subjects[attack.pairs.probe[kept]])

    def measure(metric: Any, threshold: ThresholdRecord | None) -> Measured:
        at = _value_of(threshold)
        value = metric(**scored, threshold=at)
        shown_by = PEOPLE_OF_A_PAIR.get(metric.name)
        return _with_interval(value, metric.from_counts(counts, at), len(owners), shown_by)

    yield from _rows("verification", measure, attack, ruler)


def paired_rows(attack: Attack, ruler: Ruler) -> Iterator[MetricRow]:
    """Rows of what treatment did to genuine pairs that matched before (dodging PSR)."""
    if attack.before is None:
        return
    before = attack.before
    chosen = attack.pairs.same & attack.kept & ~np.isnan(before.scores)
    paired = {"before": before.scores[chosen], "after": _failed_as_refused(attack.scores[chosen])}
    owner = ruler.subjects[attack.pairs.reference[chosen]]
    threshold_before = {one.far: one for one in before.thresholds}

    def measure(metric: Any, threshold: ThresholdRecord) -> Measured:
        at = {
            "threshold": _value_of(threshold),
            "threshold_before": _value_of(threshold_before[threshold.far]),
        }
        part, whole = metric.terms(**paired, **at)
        draws = _ratio_draws(part, whole, owner, ruler)
        people = len(np.unique(owner))
        found = _with_interval(metric(**paired, **at), draws, people, 1)
        return replace(found, counts={"n_genuine": int(whole.sum())})

    yield from _rows("paired", measure, attack, ruler)


def _rows(
    kind: str,
    measure: Callable[[Any, Any], Measured],
    attack: Attack,
    ruler: Ruler,
) -> Iterator[MetricRow]:
    """One row for each metric of a kind and, where it needs one, each threshold."""
    template = _template(attack, attack.pairs.same[attack.kept])
    for metric in ruler.metrics:
        if metric.kind != kind or attack.threat not in getattr(metric, "threats", [attack.threat]):
            continue
        for threshold in attack.thresholds if metric.needs_threshold else [None]:
            try:
                found = measure(metric, threshold)
                yield _row({**template, **found.counts}, metric, threshold, found)
            except MetricUndefinedError as error:
                yield _row(template, metric, threshold, Measured(None, note=str(error)))


def detection_row(
    metric: Any, scored: Mapping[str, FloatArray], counts: ScoreCounts, people: int, **fields: Any
) -> MetricRow:
    """A verification metric of treated ('genuine') against clean images, with its interval."""
    about = {"metric": metric.name, "unit": metric.unit, "version": metric.version,
             "higher_is_better": metric.higher_is_better}  # fmt: skip
    try:
        found = _with_interval(metric(**scored), metric.from_counts(counts), people)
    except MetricUndefinedError as error:
        return MetricRow(value=None, **{**about, **fields, "note": str(error)})
    low, high = found.interval or (None, None)
    return MetricRow(value=found.value, low=low, high=high, **about, **fields)


def worst_rows(rows: Sequence[MetricRow]) -> Iterator[MetricRow]:
    """The attack with the largest upper bound of success, among those on treated faces.

    One row of the AUC, where an attacker may flip the sign of his scores, and one of the true
    accept rate at each FAR.
    """
    attacks = [
        row
        for row in rows
        if row.threat in ATTACKS_ON_PEOPLE
        and (row.view, row.group) == ("landmarks", None)
        and row.pairs in ("cross", "official")
        and row.value is not None
        and row.high is not None
    ]
    for metric, far in dict.fromkeys((row.metric, row.params.get("far")) for row in attacks):
        if metric in ("auc", "tar"):
            yield _worst([r for r in attacks if (r.metric, r.params.get("far")) == (metric, far)])


def _worst(rows: Sequence[MetricRow]) -> MetricRow:
    # An attack that never succeeded has a bound too, but nobody would call it the worst.
    worst = max(map(_success, rows), key=lambda row: (bool(row.value), row.high, row.value))
    return worst.model_copy(
        update={
            "metric": f"worst-case-{worst.metric}",
            "note": f"the largest upper bound of {len(rows)} attacks",
        }
    )


def _success(row: MetricRow) -> MetricRow:
    """An AUC as an attacker would use it: whoever is always wrong has only to turn round."""
    if row.metric != "auc" or row.value is None or row.value >= 0.5:
        return row
    low, high = (None if x is None else 1 - x for x in (row.high, row.low))
    return row.model_copy(update={"value": 1 - row.value, "low": low, "high": high})


def fold_rows(attack: Attack, ruler: Ruler, folds: int | None) -> Iterator[MetricRow]:
    """AUC and EER as mean and standard deviation over folds of people, as papers print them."""
    if folds is None or attack.pairs.kind == "official":
        return
    kept = attack.kept
    owners = [ruler.subjects[side[kept]] for side in (attack.pairs.reference, attack.pairs.probe)]
    same, scores = attack.pairs.same[kept], _failed_as_refused(attack.scores[kept])
    for metric in ruler.metrics:
        if metric.kind != "verification" or metric.name not in ("auc", "eer"):
            continue
        values = []
        for fold in range(folds):
            chosen = (owners[0] % folds == fold) & (owners[1] % folds == fold)
            try:
                values.append(
                    metric(genuine=scores[chosen & same], impostor=scores[chosen & ~same])
                )
            except MetricUndefinedError:
                continue
        yield _fold_row(metric, values, folds, _template(attack, same))


def _fold_row(
    metric: Any, values: Sequence[float], folds: int, template: Mapping[str, Any]
) -> MetricRow:
    about: dict[str, Any] = {
        **template, "metric": f"{metric.name}-over-folds", "params": {"folds": folds},
        "unit": metric.unit, "higher_is_better": metric.higher_is_better,
    }  # fmt: skip
    if len(values) < folds:
        why = f"only {len(values)} of {folds} folds of people have pairs of both kinds"
        return MetricRow(**about, value=None, note=why)
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    return MetricRow(
        **about, value=mean, low=mean - deviation, high=mean + deviation,
        note="low and high are one standard deviation over folds, not an interval of 95 %",
    )  # fmt: skip


def mean_row(
    name: str, values: FloatArray, owner: IntArray, weights: FloatArray, **fields: Any
) -> MetricRow:
    """The mean of one value an image, with its interval by subject; infinite values are left out.

    Args:
        values: (N,), NaN where an image has no value. owner: (N,) subject numbers.
    """
    finite = np.isfinite(values)
    infinite = int(np.isinf(values).sum())
    note = f"{infinite} unchanged images without a finite value are left out" if infinite else None
    if not finite.any():
        why = note or "no image has a value"
        return MetricRow(metric=name, value=None, note=why, n=0, **fields)
    values, owner = values[finite].astype(np.float64), owner[finite]
    size = weights.shape[1]
    sums, counts = (
        np.bincount(owner, terms, size).astype(np.float64)
        for terms in (values, np.ones_like(values))
    )
    low, high = statistics.interval(
        statistics.ratio_bootstrap(sums, counts, weights), subjects=_at_least_two(counts)
    )
    return MetricRow(
        metric=name, value=float(values.mean()), low=low, high=high, n=len(values), note=note,
        **fields,
    )  # fmt: skip


def curve(attack: Attack) -> Curve | None:
    """ROC and histograms for drawing; None when a class of scores is empty."""
    made = ~np.isnan(attack.scores)
    genuine = attack.scores[made & attack.pairs.same]
    impostor = attack.scores[made & ~attack.pairs.same]
    if not genuine.size or not impostor.size:
        return None
    roc = statistics.roc_curve(genuine=genuine, impostor=impostor)
    bars = statistics.histogram(genuine=genuine, impostor=impostor)
    return Curve(
        threat=attack.threat, recognizer=attack.recognizer, pairs=attack.pairs.kind,
        view=attack.view, fmr=roc.fmr.tolist(), tar=roc.tar.tolist(),
        histogram_edges=bars.edges.tolist(), genuine_histogram=bars.genuine.tolist(),
        impostor_histogram=bars.impostor.tolist(),
    )  # fmt: skip


def fold_accuracy_rows(attack: Attack) -> Iterator[MetricRow]:
    """Accuracy over the folds of an official list (View 2 of LFW), with its t interval."""
    if attack.pairs.kind != "official" or len(np.unique(attack.pairs.fold)) < 2:
        return
    kept = attack.kept
    same, scores = attack.pairs.same[kept], _failed_as_refused(attack.scores[kept])
    fields = {**_template(attack, same), "metric": "accuracy", "unit": "fraction"}
    fields["higher_is_better"] = False
    try:
        value, error = statistics.ten_fold_accuracy(scores, same, attack.pairs.fold[kept])
    except MetricUndefinedError as undefined:
        yield MetricRow(**fields, value=None, note=str(undefined))
        return
    folds = len(np.unique(attack.pairs.fold[kept]))
    reach = error * float(stdtrit(folds - 1, 0.975))  # Student's t
    yield MetricRow(
        **fields, value=value, low=value - reach, high=value + reach,
        note="interval from the standard error over folds",
    )  # fmt: skip


def _failed_as_refused(scores: FloatArray) -> FloatArray:
    """A comparison that could not be made never matches."""
    return np.where(np.isnan(scores), -np.inf, scores)


def _threshold(impostor: FloatArray, far: float, **fields: Any) -> ThresholdRecord:
    value, note = None, None
    try:
        value = statistics.threshold_at_far(impostor, far).value
    except MetricUndefinedError as error:
        note = str(error)
    return ThresholdRecord(far=far, value=value, n_impostor=len(impostor), note=note, **fields)


def _value_of(threshold: ThresholdRecord | None) -> float | None:
    if threshold is not None and threshold.value is None:
        raise MetricUndefinedError(threshold.note or "the threshold is undefined")
    return None if threshold is None else threshold.value


def count(attack: Attack, ruler: Ruler) -> ScoreCounts:
    """Scores counted for the bootstrap, with every defined threshold as an edge."""
    kept = attack.kept
    return statistics.count_scores(
        _failed_as_refused(attack.scores[kept]),
        ruler.subjects[attack.pairs.reference[kept]],
        ruler.subjects[attack.pairs.probe[kept]],
        ruler.weights,
        [one.value for one in attack.thresholds if one.value is not None],
    )


def _ratio_draws(part: BoolArray, whole: BoolArray, owner: IntArray, ruler: Ruler) -> FloatArray:
    size = ruler.weights.shape[1]
    lost, all_of_them = (np.bincount(owner, x, size).astype(np.float64) for x in (part, whole))
    return statistics.ratio_bootstrap(lost, all_of_them, ruler.weights)


def _with_interval(
    value: float, draws: FloatArray, people: int, shown_by: int | None = None
) -> Measured:
    """A value with the interval of its draws; without one, and why, where too few define it.

    A rate of exactly 0 or 1, which no draw can leave, gets the bound that so many people allow
    (``statistics.unseen_bound``): half as many where an error is ``shown_by`` two.
    """
    try:
        low, high = statistics.interval(draws, subjects=max(people, 2))
    except MetricUndefinedError as error:
        return Measured(value, note=str(error))
    if shown_by and low == high and value in (0.0, 1.0):
        bound = statistics.unseen_bound(max(people // shown_by, 1))
        low, high = (low, bound) if value == 0.0 else (1 - bound, high)
    return Measured(value, (low, high))


def _at_least_two(counts: FloatArray) -> int:
    return max(int((counts > 0).sum()), 2)


def _lost(*_: object) -> Measured:
    raise MetricUndefinedError("every comparison lost a face")


def _template(attack: Attack, same: BoolArray) -> dict[str, Any]:
    """What all rows of an attack have in common."""
    return {
        "threat": attack.threat,
        "recognizer": attack.recognizer,
        "pairs": attack.pairs.kind,
        "view": attack.view,
        "n_genuine": int(same.sum()),
        "n_impostor": int((~same).sum()),
        "n_failed": int(np.isnan(attack.scores).sum()),
    }


def _row(
    template: Mapping[str, Any],
    metric: Any,
    threshold: ThresholdRecord | None,
    found: Measured,
) -> MetricRow:
    name = metric.name
    if template["view"] == "system":
        name = SYSTEM_NAMES.get(name, name)
    low, high = found.interval or (None, None)
    note = found.note
    if name == "auc" and high is not None and high < 0.5:
        note = INVERTED
    return MetricRow(
        **template, metric=name, params={} if threshold is None else {"far": threshold.far},
        value=found.value, low=low, high=high, unit=metric.unit, version=metric.version,
        higher_is_better=metric.higher_is_better, note=note,
    )  # fmt: skip
