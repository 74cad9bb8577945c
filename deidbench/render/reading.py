"""What a page asks of run records: the right row, the strongest attacker, plain sentences."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deidbench.errors import DeidbenchError
from deidbench.results.schema import CmcCurve, Curve, MetricRow, PairKind, RunRecord

from . import numbers

LADDER = ("T0", "T1", "T1w", "P", "T2", "T3", "T3f", "T4", "T5", "T6")
HEADLINE_FAR = 0.01
ATTACKS = {
    "T0": "untreated",
    "T1": "naive",
    "T1w": "white box: seen in training",
    "P": "purified: filtered first",
    "T2": "parrot",
    "T3": "adapted: learned from treated faces",
    "T3f": "fine-tuned: the recognizer learned",
    "T4": "reconstruction: faces restored first",
    "T5": "linkage: treated against treated",
    "T6": "detection: treated or not",
}
"""A short name of each and, behind the colon, what it means."""
MEANINGS = {
    "T0": "T0 is the control without treatment.",
    "T1": "T1 knows nothing about the method.",
    "T2": "T2 treats the gallery in the same way.",
    "T1w": "T1w uses a recognizer that the method saw in training, so it flatters the method.",
    "P": "P filters the treated faces first, with the best of five filters.",
    "T3": "T3 has learned on other people what the method does to them.",
    "T3f": "T3f has trained the recognizer itself on treated faces of other people.",
    "T4": "T4 restores the faces first, with what was learned on other people.",
    "T5": "T5 has no untreated face: it compares treated photos with each other.",
    "T6": "T6 only asks whether a face was treated.",
}
ATTACKERS = {
    "T1": "An attacker who knows nothing of the method",
    "T1w": "An attacker with a recognizer that the method saw in training",
    "P": "An attacker who filters the faces first",
    "T2": "An attacker who treats the gallery with the same method",
    "T3": "An attacker who adapts",
    "T3f": "An attacker who trains the recognizer itself on treated faces",
    "T4": "An attacker who restores the faces first",
    "T5": "An attacker who compares treated photos with each other",
}
INDEXED = (("group", "threat", "recognizer"), ("group", "metric"), ("group",))
"""Fields that rows are found by, the narrowest first."""
ADAPTED = ("T3", "T3f", "T4")
"""Those who have learned from the method's output and name people."""


@dataclass(frozen=True)
class Run:
    """One run of a report: its record, its folder, and the letter that stands for it."""

    record: RunRecord
    folder: Path | None = None
    letter: str = "A"

    @property
    def label(self) -> str:
        """Method and strength."""
        method = self.record.method
        strength = "" if method.strength is None else f" (strength {method.strength:g})"
        return numbers.plain(f"{method.name}{strength}")

    @cached_property
    def pairs(self) -> PairKind:
        """The kind of pairs that its headline rests on: other photos of the same person."""
        kinds = {row.pairs for row in self.record.rows}
        return "cross" if "cross" in kinds else "official" if "official" in kinds else "same"

    @cached_property
    def recognizers(self) -> list[str]:
        """Those that have rows, in the order of the record."""
        named = [one.name for one in self.record.recognizers]
        seen = {row.recognizer for row in self.record.rows}
        return [name for name in named if name in seen]

    @cached_property
    def threats(self) -> list[str]:
        """Those that have rows, the ladder first."""
        seen = {row.threat for row in self.record.rows if row.threat}
        return [*(t for t in LADDER if t in seen), *sorted(seen - set(LADDER))]

    def rows(self, **wanted: object) -> Iterator[MetricRow]:
        """Rows whose fields equal the wanted ones; of the whole set unless a group is named."""
        wanted = {"group": None, **wanted}
        names = next(names for names in INDEXED if wanted.keys() >= set(names))
        near = self._indexed[names].get(tuple(wanted[name] for name in names), [])
        for row in near:
            if all(getattr(row, name) == value for name, value in wanted.items()):
                yield row

    @cached_property
    def _indexed(self) -> dict[tuple[str, ...], dict[tuple[object, ...], list[MetricRow]]]:
        """Rows by some of their fields: a page asks thousands of times."""
        found: dict[tuple[str, ...], dict[tuple[object, ...], list[MetricRow]]] = {}
        for names in INDEXED:
            rows = found.setdefault(names, {})
            for row in self.record.rows:
                rows.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
        return found

    def headline(self, threat: str, recognizer: str, metric: str) -> list[MetricRow]:
        """Rows of an attack as the headline sees it: landmarks known, other photos."""
        found = self.rows(
            threat=threat, recognizer=recognizer, metric=metric, pairs=self.pairs, view="landmarks"
        )
        return list(found)

    def success(self, threat: str, recognizer: str, far: float | None) -> MetricRow | None:
        """What an attacker achieves: the accept rate at a FAR, or the AUC where far is None."""
        rows = self.headline(threat, recognizer, "auc" if far is None else "tar")
        return next((row for row in rows if far is None or row.params.get("far") == far), None)

    def worst(self, far: float | None) -> MetricRow | None:
        """The attack with the largest upper bound of success at a FAR, or by AUC for None."""
        rows = self.rows(metric="worst-case-auc" if far is None else "worst-case-tar")
        return next((row for row in rows if row.params.get("far") == far), None)

    def threshold(self, threat: str, recognizer: str, far: float | None) -> float | None:
        """The decision threshold of an attack at a FAR, where there is one."""
        wanted = (threat, recognizer, "landmarks", far)
        fixed = self.record.thresholds
        found = (t for t in fixed if (t.threat, t.recognizer, t.view, t.far) == wanted)
        return next((one.value for one in found), None)

    def lpips(self) -> list[MetricRow]:
        """What treatment changes of the whole chip: the one row, AlexNet's before others."""
        rows = self.rows(metric="lpips", threat=None)
        chip = [row for row in rows if row.params.get("region") == "chip" and row.value is not None]
        return sorted(chip, key=lambda row: row.params.get("net", "alex") != "alex")[:1]

    def detection(self, metric: str) -> MetricRow | None:
        """How well treated faces are told from untreated ones (T6), where that was measured."""
        found = self.rows(threat="T6", metric=metric, pairs=None)
        return next((row for row in found if row.value is not None), None)

    def ranked(self, threat: str, far: float | None) -> list[MetricRow]:
        """Defined successes of all recognizers under a threat, worst for the defender first."""
        rows = [self.success(threat, name, far) for name in self.recognizers]
        defined = [row for row in rows if row and row.value is not None]
        return sorted(defined, key=lambda row: (strength(row), self._by_auc(row)))

    def _by_auc(self, row: MetricRow) -> float:
        auc = self.success(row.threat or "", row.recognizer or "", None)
        return strength(auc) if auc else 0.0

    def curves(self, recognizer: str) -> list[Curve]:
        """The headline curves of a recognizer, in the order of the ladder."""
        wanted = (recognizer, self.pairs, "landmarks")
        found = [c for c in self.record.curves if (c.recognizer, c.pairs, c.view) == wanted]
        known = [curve for curve in found if curve.threat in LADDER]
        return sorted(known, key=lambda curve: LADDER.index(curve.threat))

    def searches(self, recognizer: str) -> list[CmcCurve]:
        """The same of rank-k rates."""
        wanted = (recognizer, self.pairs, "landmarks")
        found = [c for c in self.record.identification if (c.recognizer, c.pairs, c.view) == wanted]
        known = [curve for curve in found if curve.threat in LADDER]
        return sorted(known, key=lambda curve: LADDER.index(curve.threat))

    def anew(self, threat: str, far: float) -> dict[str, float]:
        """Accept rates by recognizer with thresholds set anew on treated faces."""
        return {
            name: max((t for f, t in zip(c.fmr, c.tar, strict=True) if f <= far), default=0.0)
            for name in self.recognizers
            for c in self.curves(name)
            if c.threat == threat
        }

    def inverted(self) -> list[MetricRow]:
        """Headline AUCs clearly below 0.5: identity is there, with its sign flipped."""
        rows = self.rows(metric="auc", pairs=self.pairs, view="landmarks")
        return [row for row in rows if flipped(row)]


def flipped(row: MetricRow) -> bool:
    """Whether an AUC lies below 0.5 with its whole interval; a guess does so half the time."""
    return row.metric == "auc" and row.high is not None and row.high < 0.5


def open_runs(records: Sequence[tuple[RunRecord, Path]]) -> list[Run]:
    """Runs with letters. Raises ``DeidbenchError`` when their numbers must not stand together."""
    if not records:
        raise DeidbenchError("there is no run to report; name at least one run folder.")
    letters = [*string.ascii_uppercase, *map(str, range(27, len(records) + 1))]
    runs = [Run(record, path, letters[i]) for i, (record, path) in enumerate(records)]
    check_comparable([run.record for run in runs])
    return runs


def check_comparable(records: Iterable[RunRecord]) -> None:
    """Raise ``DeidbenchError`` unless protocol and metric versions are one and the same."""
    protocols: set[str] = set()
    settings: dict[str, dict[str, object]] = {}
    versions: dict[str, set[int]] = {}
    for record in records:
        protocols.add(record.protocol)
        _refuse_other(settings.setdefault(record.protocol, _asked(record)), record)
        for row in record.rows:
            versions.setdefault(row.metric, set()).add(row.version)
    if len(protocols) > 1:
        raise DeidbenchError(
            f"the runs follow different protocols ({_listed(protocols)}) and cannot stand side "
            "by side; report them apart."
        )
    for metric, found in versions.items():
        if len(found) > 1:
            raise DeidbenchError(
                f"metric {numbers.plain(metric)} has versions {_listed(map(str, found))} in these "
                "rows, which cannot stand side by side; evaluate again with one deidbench."
            )


def _asked(record: RunRecord) -> dict[str, object]:
    """What a protocol asks for; what it leaves empty, and how it is described, asks for nothing."""
    settings = record.protocol_settings.items()
    return {key: value for key, value in settings if value and key not in ("name", "summary")}


def _refuse_other(settings: dict[str, object], record: RunRecord) -> None:
    mine = _asked(record)
    name = numbers.plain(record.protocol)
    keys = [key for key in {**settings, **mine} if settings.get(key) != mine.get(key)]
    if keys and not (settings and mine):  # an older deidbench did not record them
        raise DeidbenchError(
            f"one run of protocol {name} tells its settings and another, of an older deidbench, "
            "does not, so they cannot stand side by side; evaluate the older one again."
        )
    if keys:
        raise DeidbenchError(
            f"the runs follow two protocols that are both named {name} "
            f"but differ in {_listed(keys)}, so they cannot stand side by side; report them apart."
        )


def differences(runs: Sequence[Run]) -> list[str]:
    """Why numbers of several runs may not be alike although they can be shown together."""
    found = []
    records = [run.record for run in runs]
    if len({record.dataset.sha256 for record in records}) > 1:
        found.append("The runs used different faces: compare within a dataset only.")
    elif len({record.split.sha256 for record in records}) > 1:
        found.append("The runs split the same faces differently: small differences mean nothing.")
    for key in ("pairs", "chip_size", "aligned"):
        if len({str(record.config.get(key)) for record in records}) > 1:
            found.append(f"The runs differ in {key}: small differences mean nothing.")
    weights: dict[str, set[str | None]] = {}
    for record in records:
        for one in record.recognizers:
            if one.status == "run":
                weights.setdefault(one.name, set()).add(one.weights_sha256)
    found += [
        f"Recognizer {numbers.plain(name)} had different weights in these runs."
        for name, hashes in weights.items()
        if len(hashes) > 1
    ]
    return found


def fars(runs: Sequence[Run]) -> list[float]:
    """All false accept rates of the accept rates, largest first."""
    values = {
        row.params["far"]
        for run in runs
        for row in run.record.rows
        if row.metric == "tar" and isinstance(row.params.get("far"), (int, float))
    }
    return sorted((float(value) for value in values), reverse=True)


def honest_fars(runs: Sequence[Run]) -> list[float]:
    """Rates with enough impostors for every headline attack, largest first."""
    refused = set()
    for run in runs:
        for row in run.rows(metric="tar", pairs=run.pairs, view="landmarks"):
            if row.value is None:
                refused.add(row.params.get("far"))
    return [far for far in fars(runs) if far not in refused]


def headline_far(runs: Sequence[Run]) -> float | None:
    """0.01 where it is defined, else the smallest honest one; None: speak of AUC instead."""
    honest = honest_fars(runs)
    if HEADLINE_FAR in honest:
        return HEADLINE_FAR
    return honest[-1] if honest else None


def adapted(record: RunRecord) -> bool:
    """Whether an attacker who has learned from the method's output recognised people (T3, T4)."""
    return any(row.threat in ADAPTED and row.value is not None for row in record.rows)


def not_run(record: RunRecord) -> dict[str, str]:
    """Why threats of the ladder were not carried out, by their ids ('T3' or 'T3, T4')."""
    found = {}
    for one in record.not_measured:
        several = re.fullmatch(r"attackers who adapt \((.+)\)", one.what)
        first = one.what.split(" ")[0]
        if several or first in LADDER:
            found[several[1] if several else first] = one.why.rstrip(".")
    return found


def summary(run: Run, far: float | None) -> list[str]:
    """The findings as sentences, the worst case first."""
    worst = run.worst(far)
    return [
        *_worst_case(run, worst, far),
        *_naive(run, far),
        *(s for threat in ("P", "T2", "T3", "T3f", "T4") for s in _best(run, threat, far, worst)),
        *_anew(run, far),
        *_white_box(run, far),
        *_linkage(run, far, worst),
        *_detection(run),
        *(_flipped(row) for row in run.inverted()),
        *_unasked(run.record),
    ]


def _worst_case(run: Run, row: MetricRow | None, far: float | None) -> Iterator[str]:
    auc = run.worst(None)
    if row is not None:
        who = ATTACKERS.get(row.threat or "", "An attacker")
        does = f"{_recognises(run, row)} at {numbers.odds(far)}" if far is not None else (
            f"reaches an AUC of {_with_range(row)}, where 0.5 is guessing"
        )  # fmt: skip
        tried = "attacks that were run" if adapted(run.record) else "few attacks that were run"
        yield f"{who} ({row.threat}, {_name(row)}) {does}. This is the worst case of the {tried}."
    if auc is not None and far is not None:
        yield (
            f"By AUC, which needs no threshold, the worst case is {_with_range(auc)} ({auc.threat},"
            f" {_name(auc)}), where 0.5 is guessing."
        )


def _recognises(run: Run, row: MetricRow) -> str:
    """'recognises 41 % [36, 47] of people's other photos', in the words of the pairs."""
    if row.threat == "T5":
        return f"links {_with_range(row)} of the pairs of treated photos that show one person"
    if run.pairs == "official":
        return f"recognises {_with_range(row)} of the official pairs that show one person"
    return f"recognises {_with_range(row)} of people's other photos"


def _naive(run: Run, far: float | None) -> Iterator[str]:
    ranked = run.ranked("T1", far)
    if not ranked:
        yield (
            "No off-the-shelf recognizer attacked as T1, so nothing is known about an attacker "
            "whose recognizer the method did not see in training."
        )
        return
    worst, *others = ranked
    clean = run.success("T0", worst.recognizer or "", far)
    control = f"; untreated faces: {_short(clean)}" if clean and clean.value is not None else ""
    yield (
        f"Against the naive attacker (T1) {_name(worst)} still {_achieves(worst, far)}{control}."
        f"{_reset(run, worst, far)}"
    )
    if others:
        listed = ", ".join(f"{_name(row)} {_with_range(row)}" for row in others)
        yield f"The other off-the-shelf recognizers: {listed}."


def _best(run: Run, threat: str, far: float | None, told: MetricRow | None = None) -> Iterator[str]:
    """The strongest recognizer under a threat, unless it was told already."""
    for row in run.ranked(threat, far)[:1]:
        if told and (told.threat, told.recognizer) == (threat, row.recognizer):
            return
        yield (
            f"{ATTACKERS[threat]} ({threat}) does best with {_name(row)}, which "
            f"{_achieves(row, far)}."
        )


def _linkage(run: Run, far: float | None, told: MetricRow | None) -> Iterator[str]:
    yield from _best(run, "T5", far, told)
    rows = [row for name in run.recognizers for row in run.headline("T5", name, "d-sys")]
    for row in sorted(rows, key=lambda one: -(one.value or 0.0))[:1]:
        if row.value is not None:
            yield (
                f"How far treated photos of one person can be linked at all (T5, D_sys, "
                f"{_name(row)}): {_with_range(row)}, where 0 is not at all and 1 always."
            )


def _detection(run: Run) -> Iterator[str]:
    row = run.detection("auc")
    if row:
        yield (
            f"A detector (T6) tells treated faces from untreated ones with an AUC of "
            f"{_with_range(row)}, where 0.5 is guessing. It says that a face was treated, not "
            "whose it is."
        )


def _reset(run: Run, row: MetricRow, far: float | None) -> str:
    """A fixed threshold can fail an attacker whose scores still tell people apart."""
    rate = run.anew("T1", far).get(row.recognizer or "") if far is not None else None
    if rate is None or rate <= (row.high or row.value or 0.0):
        return ""
    percent = numbers.percent(rate, digits=2)
    return f" With its threshold set anew on treated faces it accepts {percent}."


def _anew(run: Run, far: float | None) -> Iterator[str]:
    rates = {} if far is None else {threat: run.anew(threat, far) for threat in ("T1",)}
    told = []
    for threat, by_name in rates.items():
        if by_name:
            name = max(by_name, key=lambda one: by_name[one])
            rate = numbers.percent(by_name[name], digits=2)
            told.append(f"{rate} ({threat}, {numbers.plain(name)})")
    if told:
        yield (
            "The thresholds of T1 are fixed on untreated faces. Set anew on treated faces, for "
            f"the same share of false matches, the best attacker accepts {' and '.join(told)}."
        )


def _white_box(run: Run, far: float | None) -> Iterator[str]:
    for row in run.ranked("T1w", far):
        yield (
            f"{_name(row)}, which the method saw in training (T1w, white box), "
            f"{_achieves(row, far)}; this says little about other recognizers and is never "
            "averaged with them."
        )


def _flipped(row: MetricRow) -> str:
    auc = row.value or 0.0
    return (
        f"{_name(row)} under {row.threat} has an AUC of {numbers.number(auc)}, below 0.5: identity "
        "is still encoded, with its sign flipped, and an attacker who turns the score around "
        f"reaches {numbers.number(1 - auc)}."
    )


def _unasked(record: RunRecord) -> Iterator[str]:
    why = "; ".join(f"{ids}: {why}" for ids, why in not_run(record).items())
    why = numbers.plain(why)
    if not adapted(record):
        yield (
            "Adapted attackers (T3 and above), who train on the method's output, were not run: "
            f"expect them to do better than these numbers.{f' {why}.' if why else ''}"
        )
    elif why:
        yield f"Attacks that were not run: {why}."
    if record.dataset.synthetic:
        yield (
            f"The faces of {numbers.plain(record.dataset.label)} are synthetic: these numbers "
            "compare methods and are not rates for real people."
        )


def _achieves(row: MetricRow, far: float | None) -> str:
    if far is None:
        return f"reaches an AUC of {_with_range(row)}"
    return f"accepts {_with_range(row)} of genuine pairs at {numbers.odds(far)}"


def _with_range(row: MetricRow) -> str:
    return f"{_short(row)}{numbers.SPACE}{numbers.interval(row, digits=2)}".rstrip()


def _short(row: MetricRow) -> str:
    if row.value is not None and numbers.is_rate(row):
        return numbers.percent(row.value, digits=2)
    return numbers.value(row)


def _name(row: MetricRow) -> str:
    return numbers.plain(row.recognizer or "?")


def strength(row: MetricRow) -> float:
    """A key that sorts attacks, the strongest first: whoever is always wrong has only to turn."""
    value = row.value or 0.0
    return -max(value, 1 - value) if row.metric == "auc" else -value


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(numbers.plain(value) for value in values))
