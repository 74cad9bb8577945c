"""Two runs side by side: what changed, how surely, and whether it is a regression.

All differences are HEAD minus BASE. Both runs must have measured the same faces under the same
conditions; then their numbers are taken from the very same comparisons, in the same draws of
people, so that what both have in common cancels out.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from . import __version__, statistics
from .errors import DeidbenchError, MetricUndefinedError
from .measure import ATTACKS_ON_PEOPLE, PEOPLE_OF_A_PAIR, Attack, Ruler, count
from .pairs import PairList
from .rebuilt import Stored, read_stored, verification_metrics
from .results import store
from .results.schema import MetricRow, RunRecord
from .split import EVAL

if TYPE_CHECKING:
    import pandas as pd

    from .types import BoolArray, FloatArray, IntArray, ScoreCounts

Verdict = Literal["better", "same", "worse", "not judged"]
Kind = Literal["worst case", "attack", "utility", "other", "speed"]
Params = Mapping[str, float | int | str]

SCHEMA_VERSION = 1
DEFAULT = "default"
"""The rule that holds when no other is given; it may be named beside others."""
LEVEL = 0.05
"""How often the default rule may raise an alarm although nothing changed."""
COMPARED = ("tar", "auc", "eer")
HEADLINE_FAR = 0.01
SPEED = "images-per-second"
DETECTION = "detection-rate"
NAIVE, WHITE_BOX = "T1", "T1w"
UNTREATED = "T0"
_RULE = re.compile(r"(?P<name>.+?)\s*(?P<sign>[<>]=?)\s*(?P<number>[^\s%]+)\s*(?P<percent>%?)")
_SYNTAX = (
    "write 'NAME > +0.02' or 'NAME < -5%': a name, one of > >= < <=, and a difference with its "
    "sign, of the number itself or in percent of BASE"
)


@dataclass(frozen=True)
class Row:
    """One number in both runs, and how it changed."""

    name: str
    """As rules call it: ``T3.dlib.tar@0.01``."""
    kind: Kind
    metric: str
    params: Params
    base: float | None
    head: float | None
    unit: str = ""
    higher_is_better: bool | None = None
    """As the defender sees it."""
    threat: str | None = None
    recognizer: str | None = None
    difference: float | None = None
    """HEAD minus BASE."""
    low: float | None = None
    high: float | None = None
    """Of the difference, 95 %, by draws of people; None where there are none to draw."""
    verdict: Verdict = "not judged"
    p: float | None = None
    """Of rows of the default rule: how likely any of them rises so far where nothing changed."""
    people: int | None = None
    note: str | None = None
    aliases: tuple[str, ...] = ()
    """What else rules may call it."""

    @property
    def ratio(self) -> float | None:
        """The difference as a share of BASE; None where BASE is 0 or unknown."""
        if self.difference is None or not self.base:
            return None
        return self.difference / abs(self.base)


@dataclass(frozen=True)
class Side:
    """A run, as far as a reader of the comparison must know it."""

    run_id: str
    created: str
    method: str
    version: int
    strength: float | None
    trained_against: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """What counts as a regression: a difference beyond a bound."""

    text: str
    name: str
    sign: str
    bound: float
    relative: bool
    """Whether the bound is a share of BASE."""


@dataclass(frozen=True)
class Regression:
    """A number that broke a rule."""

    rule: str
    name: str
    told: str
    """One line in plain words."""


@dataclass(frozen=True)
class Comparison:
    """What two runs say about each other."""

    base: Side
    head: Side
    protocol: str
    dataset: str
    synthetic: bool
    people: int
    draws: int
    rules: tuple[str, ...]
    certain: bool
    far: float | None
    """At which rates stand where a rule names none."""
    tests: int
    """How many numbers the default rule looks at."""
    rows: tuple[Row, ...]
    regressions: tuple[Regression, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 where a rule was broken, else 0."""
        return 1 if self.regressions else 0

    def row(self, name: str) -> Row:
        """The row of this name. Raises ``KeyError`` when there is none."""
        for one in self.rows:
            if name == one.name or name in one.aliases:
                return one
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        """What ``comparison.json`` holds."""
        outcome = "regression" if self.regressions else "same or better"
        about = {"schema_version": SCHEMA_VERSION, "generator": "deidbench compare",
                 "deidbench_version": __version__, "outcome": outcome}  # fmt: skip
        return {**about, **asdict(self)}


@dataclass(frozen=True)
class Value:
    """A number of one run: its value, its ends, and its value in each draw of people, (B,)."""

    value: float
    draws: FloatArray
    low: float | None = None
    high: float | None = None
    flipped: bool = False
    """Whether it is one minus what the run records."""


@dataclass(frozen=True)
class Drawn:
    """A row with what it was made from; None where a run does not define the number."""

    row: Row
    base: Value | None = None
    head: Value | None = None

    @property
    def both(self) -> bool:
        """Whether both runs define the number."""
        return self.base is not None and self.head is not None

    @property
    def sides(self) -> tuple[Value, Value]:
        """Of BASE and HEAD, where both define the number."""
        if self.base is None or self.head is None:
            raise MetricUndefinedError(f"{self.row.name} is not defined in both runs.")
        return self.base, self.head


@dataclass(frozen=True)
class _Run:
    """A run folder, read and checked."""

    stored: Stored
    images: pd.DataFrame

    @property
    def record(self) -> RunRecord:
        return self.stored.record


@dataclass(frozen=True)
class Match:
    """One attack in both runs, on the comparisons that both made."""

    threat: str
    """Of both runs; T1 where one of them calls it T1w."""
    base: Attack
    head: Attack
    """The same pairs in the same order; no score is NaN."""
    lost: int = 0
    """Comparisons that only one of them made."""


def compare(
    base: Path,
    head: Path,
    *,
    fail_on: Sequence[str] = (),
    certain: bool = False,
    draws: int | None = None,
) -> Comparison:
    """How the run folder HEAD differs from BASE, and which rules it breaks.

    Args:
        fail_on: rules such as ``worst_case.tar > +0.02``; without any, the default rule: an attack
            or the worst case is surely more successful (see ``docs/ci.md``).
        certain: a rule is broken only when the whole interval passes its bound, instead of the
            difference alone.
        draws: bootstrap draws of people; by default as many as BASE has.

    Raises:
        DeidbenchError: a rule is malformed, a folder is no run, or the two cannot be compared.
    """
    rules = [parse_rule(text) for text in fail_on or (DEFAULT,)]
    runs = _read(base), _read(head)
    refuse_other_conditions(*(run.record for run in runs))
    index = _positions(*runs)
    ruler = _ruler(runs[0], draws)
    matches = list(_matches(*runs, index))
    attacks, far = differences(matches, ruler)
    rows = [
        *attacks,
        *_value_rows(*runs, index, ruler),
        *_other_rows(runs[0].record, runs[1].record),
    ]
    rows = _with_aliases(rows, far)
    notes = [*_notes(runs[0].record, runs[1].record), *_lost(matches), *_untreated(rows)]
    return Comparison(
        base=_side(runs[0].record), head=_side(runs[1].record),
        protocol=runs[0].record.protocol, dataset=runs[0].record.dataset.label,
        synthetic=runs[0].record.dataset.synthetic, people=runs[0].stored.n_measured,
        draws=len(ruler.weights), rules=tuple(rule.text for rule in rules), certain=certain,
        far=far, tests=sum(row.p is not None for row in rows), rows=tuple(rows), notes=tuple(notes),
        regressions=tuple(_regressions(rules, rows, certain=certain)),
    )  # fmt: skip


def _read(folder: Path) -> _Run:
    store.validate(folder)
    return _Run(read_stored(folder), store.read_images(folder))


def _side(record: RunRecord) -> Side:
    method = record.method
    return Side(
        record.run_id, record.created, method.name, method.version, method.strength,
        tuple(method.trained_against),
    )  # fmt: skip


def _ruler(base: _Run, draws: int | None) -> Ruler:
    config = base.record.config
    wanted = int(config.get("draws", 2000)) if draws is None else draws
    if not 100 <= wanted <= 100_000:
        raise DeidbenchError(f"--draws must be between 100 and 100000, got {wanted}.")
    stored = base.stored
    weights = statistics.draw_weights(stored.n_measured, draws=wanted, seed=base.record.seed)
    return Ruler(verification_metrics(COMPARED), stored.subjects, weights)


# Whether two runs may be compared at all


def refuse_other_conditions(base: RunRecord, head: RunRecord) -> None:
    """Raise ``DeidbenchError`` unless both runs were made under the same conditions.

    These are: protocol, with its settings; faces, their parts, and the pairs; seed and size of the
    chips; recognizers, with their weights; versions of threats and metrics.
    """
    for what, of in _CONDITIONS.items():
        _refuse(what, of(base), of(head))
    _refuse_keys("protocol setting", _settings(base), _settings(head))
    _refuse_fewer("recognizer", _recognizers(base), _recognizers(head))
    _refuse_fewer("threat", _threats(base), _threats(head))
    _refuse_keys("version of metric", _metrics(base), _metrics(head), both=True)


_CONDITIONS: dict[str, Callable[[RunRecord], object]] = {
    "protocol": lambda record: record.protocol,
    "dataset (hash of its files)": lambda record: record.dataset.sha256[:12],
    "seed": lambda record: record.seed,
    "chip size": lambda record: record.chip_size,
    "pairs": lambda record: record.config.get("pairs"),
    "aligned": lambda record: bool(record.config.get("aligned")),
    "split of people into parts (hash)": lambda record: record.split.sha256[:12],
}


def _settings(record: RunRecord) -> dict[str, object]:
    """What a protocol asks for; how it is called and described asks for nothing."""
    settings = record.protocol_settings.items()
    return {key: value for key, value in settings if value and key not in ("name", "summary")}


def _recognizers(record: RunRecord) -> dict[str, object]:
    return {
        one.name: f"version {one.version}, weights {(one.weights_sha256 or 'none')[:12]}"
        for one in record.recognizers
        if one.status == "run"
    }


def _threats(record: RunRecord) -> dict[str, object]:
    return {one.id: f"version {one.version}" for one in record.threats}


def _metrics(record: RunRecord) -> dict[str, object]:
    return {row.metric: row.version for row in record.rows}


def _refuse(what: str, base: object, head: object) -> None:
    if base != head:
        raise DeidbenchError(
            f"cannot compare: another {what}: BASE has {_short(base)}, HEAD has {_short(head)}. "
            "Evaluate one of them again as the other."
        )


def _refuse_keys(
    what: str, base: Mapping[str, object], head: Mapping[str, object], *, both: bool = False
) -> None:
    """Refuse other values; ``both``: of the keys that the two have in common."""
    keys = base.keys() & head.keys() if both else base.keys() | head.keys()
    for key in sorted(keys):
        _refuse(f"{what} {_plain(key)}", base.get(key), head.get(key))


def _refuse_fewer(what: str, base: Mapping[str, object], head: Mapping[str, object]) -> None:
    """Whoever is attacked by fewer looks safer: HEAD must have met all that BASE has met."""
    missing = sorted(base.keys() - head.keys())
    if missing:
        raise DeidbenchError(
            f"cannot compare: BASE was attacked by {what} {_plain(', '.join(missing))}, HEAD was "
            "not, and fewer attacks look like protection. Evaluate HEAD with the same ones."
        )
    _refuse_keys(what, base, head, both=True)


def _short(value: object) -> str:
    text = _plain("none" if value is None else str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(text: str) -> str:
    """On one line, without control characters: names come from files."""
    return "".join(c if c.isprintable() else " " for c in text)


# The same comparisons of both runs


def _positions(base: _Run, head: _Run) -> IntArray:
    """Where each image of HEAD stands in BASE, (N,)."""
    columns = ["id", "subject", "part"]
    for run in (base, head):
        missing = {*columns, "found", "found_treated"} - set(run.images.columns)
        if missing:
            raise DeidbenchError(
                f"cannot compare: {store.IMAGES} of {_plain(run.record.run_id)} has no column "
                f"{', '.join(sorted(missing))}. Evaluate again."
            )
    place = {name: i for i, name in enumerate(base.images["id"])}
    index = np.array([place.get(name, -1) for name in head.images["id"]], np.int64)
    same = len(place) == len(base.images) == len(index) == len(set(index))
    if same and index.min(initial=0) >= 0:
        there = base.images[columns].iloc[index].reset_index(drop=True)
        if there.equals(head.images[columns].reset_index(drop=True)):
            return index
    raise DeidbenchError(
        "cannot compare: the two runs list other images, people or parts, though their hashes "
        "agree. Evaluate both again."
    )


def _matches(base: _Run, head: _Run, index: IntArray) -> Iterator[Match]:
    """The attacks of both runs, those of BASE in its order."""
    theirs = _attacks(head)
    for key, (threat, recognizer) in _attacks(base).items():
        if key not in theirs:
            raise DeidbenchError(
                f"cannot compare: HEAD has no scores of {_plain(f'{threat} by {recognizer}')}, "
                "and fewer attacks look like protection. Evaluate HEAD again."
            )
        pair = [run.stored.attack(*names) for run, names in
                ((base, (threat, recognizer)), (head, theirs[key]))]  # fmt: skip
        if pair[0] is None or pair[1] is None:
            continue  # an attack with same-image pairs only
        yield _match(pair[0], pair[1], index)


def _attacks(run: _Run) -> dict[tuple[str, str], tuple[str, str]]:
    """Threat and recognizer of each attack. T1 and T1w are one: the recognizer as it is."""
    return {
        (NAIVE if threat == WHITE_BOX else threat, recognizer): (threat, recognizer)
        for threat, recognizer, view in run.stored.known()
        if view == "landmarks"
    }


def _match(base: Attack, head: Attack, index: IntArray) -> Match:
    name = _plain(f"{base.threat} by {base.recognizer}")
    theirs = head.pairs
    moved = replace(
        theirs, reference=index[theirs.reference].astype(np.int32),
        probe=index[theirs.probe].astype(np.int32),
    )  # fmt: skip
    orders = _orders(base.pairs, moved, len(index))
    if orders is None:
        raise DeidbenchError(
            f"cannot compare: the runs made other comparisons under {name}. Evaluate both again."
        )
    scores = [attack.scores[order] for attack, order in zip((base, head), orders, strict=True)]
    made = [~np.isnan(one) for one in scores]
    both = made[0] & made[1]
    if not both.any():
        raise DeidbenchError(f"cannot compare: no comparison under {name} was made in both runs.")
    pairs = _of(base.pairs, orders[0][both])
    return Match(
        threat=base.threat if base.threat == head.threat else NAIVE,
        base=replace(base, pairs=pairs, scores=scores[0][both]),
        head=replace(head, pairs=pairs, scores=scores[1][both]),
        lost=int((made[0] ^ made[1]).sum()),
    )


def _orders(base: PairList, head: PairList, size: int) -> tuple[IntArray, IntArray] | None:
    """Orders that bring both lists in line; None where they hold different pairs."""
    here, there = (one.reference.astype(np.int64) * size + one.probe for one in (base, head))
    if np.array_equal(here, there):
        return np.arange(len(here)), np.arange(len(there))
    first, second = (np.argsort(one, kind="stable") for one in (here, there))
    return (first, second) if np.array_equal(here[first], there[second]) else None


def _of(pairs: PairList, chosen: IntArray) -> PairList:
    return PairList(
        pairs.kind, pairs.reference[chosen], pairs.probe[chosen], pairs.same[chosen],
        pairs.fold[chosen],
    )  # fmt: skip


# Differences of attacks


def differences(matches: Sequence[Match], ruler: Ruler) -> tuple[list[Row], float | None]:
    """All rows of attacks and of the worst case, and the headline FAR.

    The rows that the default rule looks at have their ``p``.
    """
    everyone = np.ones((1, ruler.weights.shape[1]), ruler.weights.dtype)
    known = replace(ruler, weights=np.concatenate([ruler.weights, everyone]))
    attacks = [drawn for match in matches for drawn in _attack_rows(match, known)]
    far = _headline(attacks)
    drawn = [*_worst_rows(attacks), *attacks]
    tested = _tested(drawn, far)
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
        name=_dotted(*parts) + _at(far), kind="attack", metric=metric.name, params=params,
        base=_number(found[0]), head=_number(found[1]), unit=metric.unit,
        higher_is_better=metric.higher_is_better, threat=match.threat,
        recognizer=match.base.recognizer, people=people,
        note="; ".join(dict.fromkeys([*reasons, *_critic(match), *_flips(found)])) or None,
    )  # fmt: skip
    return _judged(Drawn(row, *found), people)


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


def _judged(drawn: Drawn, people: int) -> Drawn:
    """The row with its difference, the interval of that, and the verdict."""
    if not drawn.both:
        return drawn
    base, head = drawn.sides
    difference = head.value - base.value
    row = replace(drawn.row, difference=difference)
    try:
        low, high = statistics.interval(head.draws - base.draws, subjects=max(people, 2))
    except MetricUndefinedError as error:
        return replace(drawn, row=replace(row, note=_joined(row.note, str(error))))
    if low == high != 0 and row.metric in PEOPLE_OF_A_PAIR:
        # All people moved alike, so that no draw varies: others might not have.
        bound = statistics.unseen_bound(people)
        low, high = max(low - bound, -1.0), min(high + bound, 1.0)
    verdict = _verdict(low, high, row.higher_is_better)
    return replace(drawn, row=replace(row, low=low, high=high, verdict=verdict))


def _verdict(low: float, high: float, higher_is_better: bool | None) -> Verdict:
    """As the defender sees it: the interval must leave 0 out."""
    if higher_is_better is None:
        return "not judged"
    if low <= 0 <= high:
        return "same"
    return "better" if (low > 0) == higher_is_better else "worse"


# The worst case


def _worst_rows(attacks: Sequence[Drawn]) -> Iterator[Drawn]:
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
    by = [_plain(f"{attacks[i].row.threat} by {attacks[i].row.recognizer}") for i, _ in found]
    people = max(one.row.people or 2 for one in attacks)
    row = replace(
        like, name=_dotted("worst_case", like.metric) + _at(like.params.get("far")),
        kind="worst case", base=found[0][1].value, head=found[1][1].value, threat=None,
        recognizer=None, people=people, difference=None, low=None, high=None,
        note=by[0] if by[0] == by[1] else f"{by[0]} in BASE, {by[1]} in HEAD",
    )  # fmt: skip
    return _judged(Drawn(row, found[0][1], found[1][1]), people)


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


def _headline(attacks: Sequence[Drawn]) -> float | None:
    """FAR 0.01 where every attack has a rate at it, else the smallest such; None: there is none."""
    rates = [one for one in attacks if "far" in one.row.params]
    fars = {float(one.row.params["far"]) for one in rates}
    fars -= {float(one.row.params["far"]) for one in rates if one.row.difference is None}
    return HEADLINE_FAR if HEADLINE_FAR in fars else min(fars, default=None)


def _tested(drawn: Sequence[Drawn], far: float | None) -> list[Drawn]:
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


# Other numbers


def _value_rows(base: _Run, head: _Run, index: IntArray, ruler: Ruler) -> Iterator[Row]:
    """Means of one value an image, over the images that have it in both runs."""
    measured = (base.images["part"] == EVAL).to_numpy()
    moved = head.images.set_axis(index, axis=0).sort_index()
    for row in base.record.rows:
        if row.threat is not None or row.group is not None or row.value is None:
            continue
        columns = [_column(frame, row) for frame in (base.images, moved)]
        if columns[0] is None or columns[1] is None:
            continue
        yield _value_row(row, columns[0], columns[1], measured, ruler)


def _column(images: pd.DataFrame, row: MetricRow) -> FloatArray | None:
    """One value an image, (N,), of a row of the record; None where they were not kept."""
    if row.metric == DETECTION:
        if row.params.get("images") != "treated":
            return None
        found = images["found"].to_numpy(bool)
        return np.where(found, images["found_treated"].to_numpy(np.float64), np.nan)
    if row.params.keys() - {"region"}:
        return None
    name = f"{row.metric}_{row.params.get('region', '')}".rstrip("_")
    if name not in images.columns:
        return None
    return images[name].to_numpy(np.float64, na_value=np.nan)


def _value_row(
    row: MetricRow, base: FloatArray, head: FloatArray, measured: BoolArray, ruler: Ruler
) -> Row:
    chosen = measured & np.isfinite(base) & np.isfinite(head)
    owner = ruler.subjects[chosen]
    people = len(np.unique(owner))
    if people < 2:
        return _plain_row(row, "utility", None, None, "no two people have a value in both runs")
    counted = np.bincount(owner, minlength=ruler.weights.shape[1]).astype(np.float64)
    found = []
    for values in (base[chosen], head[chosen]):
        sums = np.bincount(owner, values, len(counted)).astype(np.float64)
        draws = statistics.ratio_bootstrap(sums, counted, ruler.weights)
        found.append(Value(float(values.mean()), draws))
    note = _left_out(row, base[measured], head[measured])
    made = _plain_row(row, "utility", found[0].value, found[1].value, note)
    made = replace(made, people=people)
    return _judged(Drawn(made, *found), people).row


def _left_out(row: MetricRow, base: FloatArray, head: FloatArray) -> str | None:
    unchanged = int((np.isinf(base) | np.isinf(head)).sum())
    if not unchanged:
        return None
    return f"{unchanged} images without a finite {row.metric} in one of the runs are left out"


def _other_rows(base: RunRecord, head: RunRecord) -> Iterator[Row]:
    """Numbers of the records alone: speed, memory, sets of images, detection. No interval."""
    theirs = {_key(row): row for row in head.rows}
    for row in base.rows:
        other = theirs.get(_key(row))
        alone = row.recognizer is None and row.group is None and row.threat in (None, "T6")
        if not alone or other is None or _by_image(row):
            continue
        kind: Kind = "speed" if row.metric == SPEED else "other"
        yield _plain_row(row, kind, row.value, other.value, None)


def _by_image(row: MetricRow) -> bool:
    """Whether the row is a mean of values that ``_value_rows`` takes from the image table."""
    return row.metric == DETECTION or "region" in row.params or (
        row.threat is None and not row.params and row.low is not None
    )  # fmt: skip


def _key(row: MetricRow) -> tuple[object, ...]:
    return (row.threat, row.recognizer, row.group, row.pairs, row.view, row.metric,
            tuple(sorted((key, str(value)) for key, value in row.params.items())))  # fmt: skip


def _plain_row(
    row: MetricRow, kind: Kind, base: float | None, head: float | None, note: str | None
) -> Row:
    better = True if row.metric in (SPEED, DETECTION) else row.higher_is_better
    known = base is not None and head is not None
    return Row(
        name=_dotted(row.threat, row.metric, *_words(row.params)) + _numbers(row.params),
        kind=kind, metric=row.metric, params=row.params, base=base, head=head, unit=row.unit,
        higher_is_better=better, threat=row.threat, note=note,
        difference=head - base if known and base is not None and head is not None else None,
    )  # fmt: skip


# Names


def _dotted(*parts: str | None) -> str:
    return ".".join(_plain(part) for part in parts if part).replace("-", "_")


def _at(number: float | int | str | None) -> str:
    return "" if number is None else f"@{number:g}" if isinstance(number, float) else f"@{number}"


def _words(params: Params) -> list[str]:
    """Settings that are words, but for those that a reader takes for granted."""
    usual = {("region", "chip"), ("images", "treated")}
    return [v for k, v in params.items() if isinstance(v, str) and (k, v) not in usual]


def _numbers(params: Params) -> str:
    return "".join(_at(value) for value in params.values() if not isinstance(value, str))


def _with_aliases(rows: Sequence[Row], far: float | None) -> list[Row]:
    batches = [row.params.get("batch", 0) for row in rows if row.kind == "speed"]
    largest = max((one for one in batches if not isinstance(one, str)), default=None)
    return [replace(row, aliases=tuple(_aliases(row, far, largest))) for row in rows]


def _aliases(row: Row, far: float | None, batch: float | None) -> Iterator[str]:
    """``T3.tar`` is every recognizer under T3; without '@', the headline rate or largest batch."""
    bare, _, at = row.name.rpartition("@")
    usual = (row.params.get("far") in (None, far)) and (row.params.get("batch") in (None, batch))
    if at and bare and usual:
        yield bare
    if row.kind == "attack":
        group = _dotted(row.threat, row.metric)
        yield group + _at(row.params.get("far"))
        if usual and "far" in row.params:
            yield group


# Rules


def parse_rule(text: str) -> Rule:
    """A rule from its text, such as ``worst_case.tar > +0.02`` or ``images_per_second < -20%``.

    Raises ``DeidbenchError`` when it is malformed, and says how it is written.
    """
    if text.strip().casefold() == DEFAULT:
        return Rule(DEFAULT, DEFAULT, ">", 0.0, relative=False)
    shown = _short(text)
    found = _RULE.fullmatch(text.strip())
    if not found:
        raise DeidbenchError(f"--fail-on: '{shown}' is no rule; {_SYNTAX}.")
    number = found["number"]
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound):
        raise DeidbenchError(f"--fail-on: '{shown}': '{_short(number)}' is no number; {_SYNTAX}.")
    if bound and number[0] not in "+-":
        raise DeidbenchError(
            f"--fail-on: '{shown}': a bound is a difference from BASE and has a sign. Did you mean "
            f"'{found['name']} {found['sign']} +{number}{found['percent']}'?"
        )
    relative = found["percent"] == "%"
    bound = bound / 100 if relative else bound
    return Rule(shown, found["name"], found["sign"], bound, relative)


def _regressions(
    rules: Sequence[Rule], rows: Sequence[Row], *, certain: bool
) -> Iterator[Regression]:
    for rule in rules:
        if rule.name == DEFAULT:
            yield from (_default_regression(row) for row in rows if _surely_worse(row))
            continue
        chosen = _chosen(rule, rows)
        for row in chosen:
            _check_direction(rule, row)
            if _passes(rule, row, certain=certain):
                yield Regression(rule.text, row.name, f"{_told(row)}; rule: {rule.text}")


def _surely_worse(row: Row) -> bool:
    return row.verdict == "worse" and row.p is not None and row.p <= LEVEL


def _default_regression(row: Row) -> Regression:
    return Regression(DEFAULT, row.name, f"{_told(row)}; surely worse (p = {row.p:.2g})")


def _told(row: Row) -> str:
    interval = "" if row.low is None else f" [{row.low:+.3g}, {row.high:+.3g}]"
    percent = "" if row.kind != "speed" or row.ratio is None else f" ({100 * row.ratio:+.0f} %)"
    return (
        f"{row.name}: {row.base:.4g} -> {row.head:.4g}, difference {row.difference:+.3g}"
        f"{interval}{percent}"
    )


def _chosen(rule: Rule, rows: Sequence[Row]) -> list[Row]:
    """The rows that a rule names; each must have a difference, or the rule would guard nothing."""
    wanted = _folded(rule.name)
    found = [row for row in rows if wanted in map(_folded, (row.name, *row.aliases))]
    if not found:
        raise DeidbenchError(f"--fail-on: {_unknown(rule.name, rows)}")
    for row in found:
        if row.difference is None:
            why = _short(row.note or "one of the runs has no value")
            raise DeidbenchError(f"--fail-on: cannot judge '{rule.text}': {row.name}: {why}.")
    return found


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")


def _unknown(name: str, rows: Sequence[Row]) -> str:
    known = sorted({one for row in rows for one in (row.name, *row.aliases)})
    close = difflib.get_close_matches(_folded(name), known, n=1)
    by_fold = {_folded(one): one for one in known}
    close = close or difflib.get_close_matches(_folded(name), list(by_fold), n=1)
    hint = f" Did you mean '{by_fold.get(close[0], close[0])}'?" if close else ""
    usual = [one for one in known if "@" not in one and one.count(".") <= 1]
    return f"no number is called '{_short(name)}'.{hint} There are, among others: {_listed(usual)}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:24])


def _check_direction(rule: Rule, row: Row) -> None:
    """A rule that can only be broken by getting better is a slip, and would guard nothing."""
    worse = None if row.higher_is_better is None else "<" if row.higher_is_better else ">"
    if worse and rule.sign[0] != worse:
        way = "falls" if worse == "<" else "rises"
        sign = "-" if worse == "<" else "+"
        percent = "%" if rule.relative else ""
        size = f"{abs(rule.bound) * (100 if rule.relative else 1):g}"
        raise DeidbenchError(
            f"--fail-on: '{rule.text}' asks the wrong way: {row.name} is worse when it {way}. "
            f"Did you mean '{rule.name} {worse} {sign}{size}{percent}'?"
        )


def _passes(rule: Rule, row: Row, *, certain: bool) -> bool:
    """Whether the difference, or with ``certain`` its whole interval, is beyond the bound."""
    difference = row.difference or 0.0
    if certain:
        if row.low is None or row.high is None:
            raise DeidbenchError(
                f"--fail-on: '{rule.text}': {row.name} has no interval, so nothing is certain "
                "about it. Leave out --certain."
            )
        difference = row.low if rule.sign[0] == ">" else row.high
    bound = rule.bound
    if rule.relative:
        if not row.base:
            raise DeidbenchError(
                f"--fail-on: '{rule.text}': {row.name} is 0 in BASE, of which no percentage can be "
                "taken. Write the bound without %."
            )
        bound *= abs(row.base)
    beyond = difference > bound if rule.sign[0] == ">" else difference < bound
    return beyond or (rule.sign.endswith("=") and difference == bound)


# What a reader must know besides


def _notes(base: RunRecord, head: RunRecord) -> Iterator[str]:
    more = sorted(_recognizers(head).keys() - _recognizers(base).keys())
    more += sorted(_threats(head).keys() - _threats(base).keys())
    if more:
        yield f"Only HEAD was attacked by {_plain(', '.join(more))}: left out on both sides."
    critics = [set(record.method.trained_against) for record in (base, head)]
    mixed = sorted((critics[0] ^ critics[1]) & _recognizers(base).keys())
    if mixed:
        yield (
            f"{_plain(', '.join(mixed))}: a critic of one of the two methods only. Its attack as "
            "T1w there is compared with T1 here, and flatters the method that was trained "
            "against it."
        )
    if base.machine != head.machine:
        yield "The runs were made on different machines: speeds say little."
    if base.deidbench_version != head.deidbench_version:
        versions = f"{_plain(base.deidbench_version)} and {_plain(head.deidbench_version)}"
        yield f"The runs were made by different versions of deidbench, {versions}."


def _lost(matches: Sequence[Match]) -> Iterator[str]:
    lost = {f"{one.threat} by {one.base.recognizer}": one.lost for one in matches if one.lost}
    if lost:
        listed = ", ".join(f"{_plain(name)} {count:,}" for name, count in lost.items())
        yield (
            "Comparisons that lost a face in one of the runs only are left out on both sides: "
            f"{listed}."
        )


def _untreated(rows: Sequence[Row]) -> Iterator[str]:
    """Untreated faces must score alike in both runs: what moved there is no treatment."""
    moved = [row.name for row in rows if row.threat == UNTREATED and row.difference]
    if moved:
        yield (
            f"Untreated faces do not score alike ({_listed(moved)}): something besides the method "
            "differs, such as a library."
        )


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)
