"""Entries of the leaderboard: made from finished runs, checked, run again, and ranked."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import plugins, protocols, statistics
from .assets import needed_by
from .config import RunConfig
from .errors import DeidbenchError, MetricUndefinedError
from .measure import ATTACKS_ON_PEOPLE, SYSTEM_NAMES, Attack, curve, worst_rows
from .ranking import rank as rank_methods
from .rebuilt import Stored, read_stored, rebuilt_rows, verification_metrics
from .results import store
from .results.entry import (
    MOST_JSON,
    AttackRecord,
    Claim,
    Comparisons,
    Entry,
    Place,
    Ranking,
    ScoresRecord,
    entry_place,
    parse_entry,
    read_bytes,
    read_comparisons,
    read_entry,
    write_comparisons,
    write_entry,
)
from .results.schema import Curve, MetricRow, Record, RunRecord
from .throughput import read_throughput

if TYPE_CHECKING:
    import pandas as pd

    from .types import FloatArray

R = TypeVar("R", bound=Record)

SAME = 1e-9
"""Relative difference of numbers that are one and the same: processors add up in other orders."""
CONTROLS = ("identity",)
"""Methods that protect nobody: shown for comparison, never ranked."""
RANKING_FARS = (0.01, 0.1)
"""Accept rates that rank, the first that all entries have; else the AUC does."""
ALPHA = 0.05
"""How often equal methods may be told apart in a ranking."""
DRAWS, SEED = 2000, 0
"""Of the paired bootstrap: the same resamples of people for all entries."""
WORST = ("worst-case-tar", "worst-case-auc")


# Making an entry


@dataclass(frozen=True)
class About:
    """What the one who submits says of a run."""

    title: str = ""
    author: str = ""
    link: str | None = None
    claim: Claim | None = None
    external: bool = False
    unreliable: str | None = None
    bench: dict[str, Any] | None = None


def submit(run: Path, out: Path, about: About, *, replace_old: bool = False) -> Path:
    """Check a run folder and write its entry below ``out``: two files, the JSON last.

    Returns the path of the JSON.

    Raises:
        DeidbenchError: the run is not whole, its numbers do not follow from its scores, or there is
            such an entry already.
    """
    record = store.validate(run)
    folder, protocol, name = entry_place(record, external=about.external)
    path = Path(out) / folder / protocol / f"{name}.json"
    scores = path.with_name(f"{name}.scores.parquet")
    for file in (path, scores):
        if file.exists() and not replace_old:
            raise DeidbenchError(f"{file} exists; name another --out, or use --replace.")
    _refuse_other_method(record, about.bench)
    stored = read_stored(run)
    wrong = differences(record, *_recomputed(stored)) + gaps(record)
    if wrong:
        raise DeidbenchError(
            f"{run} is no entry: {wrong[0]}{_and_more(wrong)}; evaluate again and change nothing."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    subjects, found = compared(stored)
    sha256, _ = write_comparisons(scores, found)
    told = ScoresRecord(file=scores.name, sha256=sha256, comparisons=len(found.probe),
                        attacks=list(found.scores))  # fmt: skip
    write_entry(path, _entry(about, told, stored, subjects))
    return path


def _refuse_other_method(record: RunRecord, bench: Mapping[str, Any] | None) -> None:
    """The speed of one method must not stand beside the privacy of another."""
    measured = (bench or {}).get("method")
    if not isinstance(measured, dict):
        return
    for name in ("name", "version", "strength", "parameters", "weights_sha256"):
        ours = getattr(record.method, name)
        if name in measured and measured[name] != ours:
            raise DeidbenchError(
                f"--bench measured a method whose {name} is {measured[name]!r}, but that of the "
                f"run is {ours!r}; measure the same method."
            )


def _entry(about: About, told: ScoresRecord, stored: Stored, subjects: list[int]) -> Entry:
    fields = {key: getattr(about, key) for key in About.__dataclass_fields__}
    record = stored.record.model_copy(update={"examples": []})
    return validated(
        Entry, scores=told, n_measured=stored.n_measured, subjects=subjects, record=record, **fields
    )


def compared(stored: Stored) -> tuple[list[int], Comparisons]:
    """The comparisons of a run without names: images are numbered as they are used.

    Returns the number of each used image's person, and the comparisons.

    Raises ``DeidbenchError`` when its attacks are not of the same comparisons.
    """
    attacks = {
        AttackRecord(threat=threat, recognizer=recognizer, view=view): attack
        for threat, recognizer, view in stored.known()
        if (attack := stored.attack(threat, recognizer, view)) is not None
    }
    if not attacks:
        raise DeidbenchError(f"run {stored.record.run_id} has no comparisons of different images.")
    pairs = next(iter(attacks.values())).pairs
    for attack in attacks.values():
        same = (np.array_equal(attack.pairs.reference, pairs.reference)
                and np.array_equal(attack.pairs.probe, pairs.probe))  # fmt: skip
        if not same:
            raise DeidbenchError(
                f"{attack.threat} by {attack.recognizer} compares other images than the first "
                "attack of the run; evaluate again with one deidbench."
            )
    used, places = np.unique([pairs.reference, pairs.probe], return_inverse=True)
    reference, probe = places.reshape(2, -1).astype(np.int32)
    scores = {told: attack.scores for told, attack in attacks.items()}
    return stored.subjects[used].tolist(), Comparisons(reference, probe, scores)


def read_claim(path: Path) -> Claim:
    """The author's own numbers from a JSON file: ``{"source": ..., "rows": [...]}``."""
    return validated(Claim, **read_plain(path))


def read_bench(path: Path, run: Path) -> dict[str, Any]:
    """What 'deidbench bench' wrote, of the method of the run folder ``run``.

    Raises:
        DeidbenchError: it is no such record, or is of another method, strength or weights.
    """
    timed, measured = read_throughput(path), store.read_run(run).method
    for what in ("name", "version", "strength", "parameters", "weights_sha256"):
        one, other = getattr(timed.method, what), getattr(measured, what)
        if one != other:
            raise DeidbenchError(
                f"{path} is of another {what} ({one!r}) than the run's method ({other!r}); "
                "measure the speed of the method that was attacked."
            )
    return timed.model_dump(mode="json")


def read_plain(path: Path) -> dict[str, Any]:
    """A JSON object of a file. Raises ``DeidbenchError`` for anything else."""
    try:
        content = json.loads(read_bytes(path, MOST_JSON))
    except (ValueError, RecursionError) as error:
        raise DeidbenchError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(content, dict):
        raise DeidbenchError(f"{path} must hold one JSON object, in braces.")
    return content


def validated(kind: type[R], **fields: Any) -> R:
    """A record of these fields; the first thing that does not fit is one clear error."""
    from pydantic import ValidationError

    try:
        return kind(**fields)
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = ".".join(str(part) for part in first.get("loc", ())) or kind.__name__.lower()
        raise DeidbenchError(f"{where}: {first['msg']}. See docs/leaderboard.md.") from error


# Checking an entry


@dataclass(frozen=True)
class Verdict:
    """What came of checking an entry."""

    path: Path
    checked: int
    """Numbers and curves that were made again."""
    unchecked: int
    """Numbers that do not follow from the scores: likeness, speed, groups, search."""
    wrong: tuple[str, ...]
    """What differs, or is missing; empty when the claim stands."""

    @property
    def stands(self) -> bool:
        """Whether all that was checked is as claimed."""
        return not self.wrong


def stored_entry(entry: Entry, found: Comparisons) -> Stored:
    """An entry as the run that it came from would be read."""
    import pandas as pd

    blocks = [
        pd.DataFrame(
            {"threat": told.threat, "recognizer": told.recognizer, "view": told.view,
             "reference": found.reference, "probe": found.probe, "score": score}
        ).astype(dict.fromkeys(("threat", "recognizer", "view"), "category"))
        for told, score in found.scores.items()
    ]  # fmt: skip
    subjects = np.array(entry.subjects, np.int32)
    return Stored(entry.record, subjects, entry.n_measured, _joined(blocks))


def _joined(blocks: list[pd.DataFrame]) -> pd.DataFrame:
    """One under the other; names stay categories, a code a row."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    joined: dict[str, Any] = {
        name: union_categoricals([block[name] for block in blocks])
        for name in ("threat", "recognizer", "view")
    }
    rest = pd.concat([block[["reference", "probe", "score"]] for block in blocks])
    joined |= {name: rest[name].to_numpy() for name in ("reference", "probe", "score")}
    return pd.DataFrame(joined)


def verify(path: Path) -> Verdict:
    """Make an entry's numbers again from its scores, and say which differ.

    Raises:
        DeidbenchError: it is no entry, or its scores are not those that it was made with.
    """
    entry = read_entry(path)
    found = read_comparisons(path, entry)
    _refuse_other_versions(path, entry.record)
    try:
        rows, curves = _recomputed(stored_entry(entry, found))
    except MetricUndefinedError as error:
        raise DeidbenchError(f"{path}: {error}") from error
    wrong = differences(entry.record, rows, curves) + gaps(entry.record)
    checked = len(rows) + len(curves)
    return Verdict(path, checked, len(entry.record.rows) - len(rows), tuple(wrong))


def _recomputed(stored: Stored) -> tuple[list[MetricRow], list[Curve]]:
    """All rows that follow from the scores, the worst cases among them, and the drawn curves."""
    # Other metrics would be built too, and some of those need weights.
    named = [row for row in stored.record.rows if row.metric in _from_scores()]
    stored = replace(stored, record=stored.record.model_copy(update={"rows": named}))
    rows = list(rebuilt_rows(stored))
    attacks = (stored.attack(*known) for known in stored.known() if known[2] == "landmarks")
    curves = [drawn for attack in attacks if attack and (drawn := curve(attack))]
    return [*rows, *worst_rows(rows)], curves


def _refuse_other_versions(path: Path, record: RunRecord) -> None:
    named = {row.metric for row in record.rows} & _from_scores()
    here = {metric.name: metric.version for metric in verification_metrics(named)}
    for row in record.rows:
        if here.get(row.metric, row.version) != row.version:
            raise DeidbenchError(
                f"{path} was measured with version {row.version} of {row.metric}, which is version "
                f"{here[row.metric]} here; check it with deidbench {record.deidbench_version}."
            )


Key = tuple[Any, ...]


def _key(row: MetricRow) -> Key:
    settings = tuple(sorted(row.params.items()))
    return row.metric, row.threat, row.recognizer, row.pairs, row.view, settings


def differences(record: RunRecord, rows: Sequence[MetricRow], curves: Sequence[Curve]) -> list[str]:
    """Where the claims of a record and what its scores give differ, the worst cases first.

    Besides numbers that differ these are numbers that only one of the two has, and numbers that are
    claimed twice.
    """
    claimed = [row for row in record.rows if _follows(row)]
    twice = [key for key, count in Counter(map(_key, claimed)).items() if count > 1]
    told, found = ({_key(row): row for row in some} for some in (claimed, rows))
    wrong = [f"{_named(told[key])}: claimed twice" for key in twice]
    for key in dict.fromkeys([*told, *found]):
        if key not in found:
            wrong.append(f"{_named(told[key])}: claimed, but no scores give it")
        elif key not in told:
            wrong.append(f"{_named(found[key])}: left out of the record")
        elif not _agree(told[key], found[key]):
            wrong.append(f"{_named(told[key])}: {_both(told[key], found[key])}")
    wrong += _other_curves(record, curves)
    return sorted(wrong, key=lambda text: not text.startswith("worst"))


def _follows(row: MetricRow) -> bool:
    """Whether a row is of comparisons that an entry stores."""
    return _of_comparisons(row) and row.metric in _from_scores()


def _of_comparisons(row: MetricRow) -> bool:
    seen = row.view in ("landmarks", "system") and row.pairs in ("cross", "official")
    return seen and row.group is None


@lru_cache(maxsize=1)
def _from_scores() -> frozenset[str]:
    """Names of the rows that comparisons give by themselves."""
    kinds = {name: plugins.load("metrics", name).kind for name in plugins.names("metrics")}
    metrics = {name for name, kind in kinds.items() if kind in ("verification", "paired")}
    return frozenset({*metrics, *SYSTEM_NAMES.values(), *WORST})


def _agree(one: MetricRow, other: MetricRow) -> bool:
    numbers = ("value", "low", "high")
    rest = MetricRow.model_fields.keys() - set(numbers)
    return all(_close(getattr(one, name), getattr(other, name)) for name in numbers) and all(
        getattr(one, name) == getattr(other, name) for name in rest
    )


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=SAME, abs_tol=SAME)


def _named(row: MetricRow) -> str:
    """'tar at far 0.01 of T4 by sface (landmarks)'."""
    settings = "".join(f" at {key} {value}" for key, value in row.params.items())
    return f"{row.metric}{settings} of {row.threat} by {row.recognizer} ({row.view})"


def _both(one: MetricRow, other: MetricRow) -> str:
    told, found = _numbers(one), _numbers(other)
    if told != found:
        return f"claimed {told}, found {found}"
    shown = [
        f"{name} claimed {getattr(one, name)!r}, found {getattr(other, name)!r}"
        for name in MetricRow.model_fields
        if getattr(one, name) != getattr(other, name)
    ]
    return "; ".join(shown)


def _numbers(row: MetricRow) -> str:
    if row.value is None:
        return "none"
    ends = "" if row.low is None or row.high is None else f" [{row.low:.6g}, {row.high:.6g}]"
    return f"{row.value:.6g}{ends}"


def _other_curves(record: RunRecord, curves: Sequence[Curve]) -> Iterator[str]:
    kinds = ("cross", "official")
    told = [one for one in record.curves if one.pairs in kinds and one.view == "landmarks"]
    found = {(one.threat, one.recognizer): one for one in curves}
    names = [(one.threat, one.recognizer) for one in told]
    for one, name in zip(told, names, strict=True):
        if name not in found or not _same_curve(one, found[name]):
            yield f"curve of {name[0]} by {name[1]}: not the one of the scores"
    for name in found.keys() - set(names):
        yield f"curve of {name[0]} by {name[1]}: left out of the record"
    if len(set(names)) < len(names):
        yield "a curve is claimed twice"


def _same_curve(one: Curve, other: Curve) -> bool:
    lists = ("fmr", "tar", "histogram_edges", "genuine_histogram", "impostor_histogram")
    pairs = [(getattr(one, name), getattr(other, name)) for name in lists]
    return one.pairs == other.pairs and all(
        len(a) == len(b) and np.allclose(a, b, rtol=SAME, atol=SAME) for a, b in pairs
    )


def gaps(record: RunRecord) -> list[str]:
    """Attacks that the protocol asks for and that the record neither has nor accounts for.

    A run that leaves out its strongest attacker would look good.
    """
    if record.protocol in protocols.names():
        asked: Mapping[str, Any] = protocols.load(record.protocol).model_dump(mode="json")
        told = record.protocol_settings
        other = [k for k, v in asked.items() if v and k != "summary" and v != told.get(k)]
        if other:
            return [f"protocol {record.protocol}: the record's settings of {other[0]} are others"]
    excused = {one.what for one in record.not_measured}
    wanted = [t for t in record.protocol_settings.get("threats", []) if t not in excused]
    carried = {(row.threat, row.recognizer) for row in record.rows}
    run = [one.name for one in record.recognizers if one.status == "run"]
    return [
        f"{threat} by {name}: the protocol asks for it, but there are no numbers"
        for name in run
        for threat in wanted
        if _must(threat, name, record) and (threat, name) not in carried
    ]


def _must(threat: str, recognizer: str, record: RunRecord) -> bool:
    """Whether this recognizer carries out this attack; T3f only some can."""
    seen = recognizer in record.method.trained_against
    if threat in ("T1", "T1w"):
        return seen == (threat == "T1w")
    return threat == "T0" or (threat in ATTACKS_ON_PEOPLE and threat != "T3f")


def _and_more(wrong: Sequence[str]) -> str:
    return f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""


# Running an entry again


TOLERANCE = 0.005
"""Half a point. Scores keep five decimals, so that the same machine gives the same numbers; others
round on the way there, and a few of some hundred genuine pairs cross a threshold."""
SHARE = 0.25
"""Of the claimed interval's width, where that is more. Attackers who learn (T3, T4, T5) end up
elsewhere on another processor. A quarter of what the claim itself calls uncertain never turns a
finding round, while a claim that was made up would have to hit the truth that closely."""


def rerun(path: Path, *, quiet: bool = True) -> Verdict:
    """Evaluate an entry's method again, and compare the headline numbers.

    Raises:
        DeidbenchError: this run cannot be repeated here: its faces, weights or method are not here,
            or are others.
    """
    from .harness import evaluate
    from .progress import Progress

    record = read_entry(path, groups=False).record
    with tempfile.TemporaryDirectory(prefix="deidbench-rerun-") as folder:
        config = rerun_config(path, record, Path(folder) / "run")
        anew = evaluate(config, Progress(quiet=quiet))[1]
    _refuse_other_parts(path, record, anew)
    rows = {_headline_key(row): row for row in anew.rows if _is_headline(row)}
    told = [row for row in record.rows if _is_headline(row)]
    wrong = [text for row in told if (text := _moved(row, rows.get(_headline_key(row))))]
    names = set(map(_headline_key, told))
    wrong += [f"{_named(row)}: left out of the record" for k, row in rows.items() if k not in names]
    return Verdict(path, len(told), len(record.rows) - len(told), tuple(wrong))


def rerun_config(path: Path, record: RunRecord, out: Path) -> RunConfig:
    """What would have to be run again. Raises ``DeidbenchError`` where that is not possible here.

    A record comes from a stranger: only what is installed here is run, by its plain name, and no
    path, program or module that a record names.
    """
    # Recognizers that attacked are named: those of another default would be other attackers.
    asked = {
        **record.config, "method": record.method.name, "protocol": record.protocol,
        "recognizers": [one.name for one in record.recognizers if one.status == "run"],
    }  # fmt: skip
    why = _not_here(asked)
    if why:
        raise DeidbenchError(f"{path} cannot be run again here: {why}.")
    settings = tuple(sorted(dict(asked.pop("settings", None) or {}).items()))
    known = {key: value for key, value in asked.items() if key in RunConfig.__dataclass_fields__}
    lists = {name: tuple(known.get(name) or ()) for name in ("recognizers", "metrics")}
    try:
        return RunConfig(**{**known, **lists, "settings": settings, "device": "auto", "out": out,
                            "show_faces": False})  # fmt: skip
    except TypeError as error:
        raise DeidbenchError(f"{path} cannot be run again here: {error}.") from error


def _not_here(asked: Mapping[str, Any]) -> str:
    """Why a run cannot be repeated; empty when it can."""
    for what, known in (
        ("method", plugins.names("methods")), ("dataset", plugins.names("datasets"))
    ):  # fmt: skip
        name = asked.get(what)
        if name not in known:
            plain = str(name).partition(":")[0] in known
            rest = "it needs a path or a program of its author" if plain else "it is not installed"
            return f"{what} {name!r}: {rest}"
    if asked["protocol"] not in protocols.names():
        return f"protocol {asked['protocol']!r} is not one of the package"
    if asked.get("weights") is not None:
        return f"its weights, {asked['weights']!r}, are not part of an entry"
    settings = asked.get("settings") or {}
    if not isinstance(settings, dict) or any(not _harmless(value) for value in settings.values()):
        return "a setting of the method is a path"
    strange = [name for name in asked["recognizers"] if not _installed("recognizers", name)]
    return f"recognizer {strange[0]!r} is not installed" if strange else ""


def _harmless(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (
        isinstance(value, str) and not set("/\\:") & set(value)
    )


def _installed(kind: plugins.Kind, name: str) -> bool:
    """By its plain name, or as a variant whose weights are known (deepface:ArcFace)."""
    return name in plugins.names(kind) or name in needed_by(f"{kind}/{name.partition(':')[0]}")


def _refuse_other_parts(path: Path, record: RunRecord, anew: RunRecord) -> None:
    """Numbers of other faces, weights or versions say nothing about a claim."""
    parts: dict[str, Callable[[RunRecord], object]] = {
        "faces": lambda one: one.dataset.sha256,
        "split": lambda one: one.split.sha256,
        "method version": lambda one: one.method.version,
        "weights of the method": lambda one: one.method.weights_sha256,
        "recognizers": lambda one: sorted(_eyes(one)),
        "threat versions": lambda one: sorted((t.id, t.version) for t in one.threats),
    }
    for name, part in parts.items():
        if part(record) != part(anew):
            raise DeidbenchError(
                f"{path} cannot be checked by running it again: the {name} here are not those of "
                f"the record; use deidbench {record.deidbench_version} and its weights."
            )


def _eyes(record: RunRecord) -> list[tuple[str, int, str]]:
    return [
        (one.name, one.version, one.weights_sha256 or "")
        for one in record.recognizers
        if one.status == "run"
    ]


def _is_headline(row: MetricRow) -> bool:
    headline = row.metric in ("auc", "tar", *WORST)
    return headline and row.view == "landmarks" and _of_comparisons(row)


def _headline_key(row: MetricRow) -> Key:
    """Of two attacks that are equally strong another one may come out as the worst."""
    key = _key(row)
    return (key[0], key[-1]) if row.metric in WORST else key


def _moved(claimed: MetricRow, found: MetricRow | None) -> str:
    """How far a number is from its claim, where that is too far; else nothing."""
    if found is None:
        return f"{_named(claimed)}: claimed, but a new run has none"
    if claimed.value is None or found.value is None:
        return "" if claimed.value is found.value else f"{_named(claimed)}: {_both(claimed, found)}"
    width = (claimed.high or 0.0) - (claimed.low or 0.0)
    if abs(claimed.value - found.value) <= max(TOLERANCE, SHARE * width):
        return ""
    return f"{_named(claimed)}: {_both(claimed, found)}"


# Ranking entries


def rank(paths: Iterable[Path], root: Path) -> tuple[list[Ranking], list[str]]:
    """Read entries and rank those that may stand side by side.

    The number that ranks is made again from the scores; an entry where it differs is left out.

    Returns the rankings, and a line for each entry that was left out.
    """
    found: dict[str, list[Candidate]] = {}
    problems = []
    for path in sorted(paths):
        try:
            one = _candidate(path, root)
            found.setdefault(_company(one.entry), []).append(one)
        except DeidbenchError as error:
            problems.append(str(error))
    rankings = []
    for company in found.values():
        ranking = _ranking(company, problems)
        if ranking.places:
            rankings.append(ranking)
    return sorted(rankings, key=_order), problems


@dataclass(frozen=True)
class Candidate:
    """An entry that is to be ranked."""

    path: Path
    place: Place

    @property
    def entry(self) -> Entry:
        """What the file holds."""
        return self.place.entry

    @cached_property
    def attacks(self) -> frozenset[tuple[str, str]]:
        """Threat and recognizer of each attack that has a number; T1 and T1w are one attack."""
        return frozenset(
            ((row.threat or "").replace("T1w", "T1"), row.recognizer or "")
            for row in self.entry.record.rows
            if row.metric in ("auc", "tar") and _is_headline(row) and row.value is not None
        )

    def worst(self, far: float | None) -> MetricRow | None:
        """The worst case by accept rate, or by AUC for None; only with its interval."""
        metric = WORST[1] if far is None else WORST[0]
        rows = (
            r for r in self.entry.record.rows if (r.metric, r.params.get("far")) == (metric, far)
        )
        return next((row for row in rows if row.high is not None and row.value is not None), None)

    def draws(self, far: float | None) -> FloatArray:
        """Success of the worst attack in each resample of people, (DRAWS,).

        Raises:
            DeidbenchError: the scores are not there, or give another worst case than is claimed.
        """
        claimed = self.worst(far)
        assert claimed is not None  # noqa: S101 -- only such candidates are ranked
        told = AttackRecord(threat=claimed.threat or "", recognizer=claimed.recognizer or "",
                            view="landmarks")  # fmt: skip
        if told not in self.entry.scores.attacks:
            raise DeidbenchError(f"{self.path}: its worst case has no scores; submit it again.")
        stored = stored_entry(self.entry, read_comparisons(self.path, self.entry, [told]))
        attack = stored.attack(told.threat, told.recognizer)
        assert attack is not None  # noqa: S101 -- its scores were just read
        value, draws = _success(attack, far, self.entry.n_measured, stored.subjects)
        if not _close(value, claimed.value):
            raise DeidbenchError(
                f"{self.path}: its scores give a worst case of {value:.6g}, but it claims "
                f"{claimed.value:.6g}; 'deidbench leaderboard verify' says more."
            )
        return draws


def _candidate(path: Path, root: Path) -> Candidate:
    data = read_bytes(path, MOST_JSON)
    entry = parse_entry(path, data, groups=False)
    claimed = {_key(row): row for row in entry.record.rows if row.metric in WORST}
    for row in worst_rows(entry.record.rows):
        told = claimed.get(_key(row))
        if told is None or not _agree(told, row):
            raise DeidbenchError(
                f"{path}: {_named(row)} is {_numbers(row)} by its own rows, but it claims "
                f"{_numbers(told) if told else 'another attack'}; submit it again."
            )
    shown = path.relative_to(root).as_posix()
    return Candidate(path, Place(entry, shown, hashlib.sha256(data).hexdigest()))


def _company(entry: Entry) -> str:
    """A text that is the same for entries that may stand side by side, and for no others."""
    record = entry.record
    asked = {k: v for k, v in record.protocol_settings.items() if v and k != "summary"}
    config = [record.config.get(key) for key in ("pairs", "aligned")]
    versions = sorted({(r.metric, r.version) for r in record.rows if r.metric in ("auc", "tar")})
    return json.dumps(
        [record.protocol, asked, record.dataset.sha256, record.split.sha256, entry.n_measured,
         record.chip_size, config, sorted(_eyes(record)), versions,
         sorted((one.id, one.version) for one in record.threats)],
        sort_keys=True,
    )  # fmt: skip


def _order(ranking: Ranking) -> tuple[int, str, str, str]:
    """The largest ranking first."""
    record = ranking.record
    first = min(place.path for place in ranking.places)
    return -len(ranking.places), record.dataset.label, record.protocol, first


def _ranking(company: Sequence[Candidate], problems: list[str]) -> Ranking:
    """Places of one company, the best first; entries whose scores are wrong are problems."""
    out = {one.path: why for one in company if (why := _unranked(one, company))}
    ranked = [one for one in company if one.path not in out]
    far = next((f for f in RANKING_FARS if ranked and all(one.worst(f) for one in ranked)), None)
    draws: dict[Path, FloatArray] = {}
    for one in company:
        try:
            if one.worst(far):
                draws[one.path] = one.draws(far)
            else:
                read_comparisons(one.path, one.entry, [])
                out.setdefault(one.path, "it has no worst case to be ranked by")
        except DeidbenchError as error:
            problems.append(str(error))
            out[one.path] = ""
    bound = {one.path: one.worst(far) for one in company}
    ranked = sorted(
        (one for one in company if one.path not in out),
        key=lambda one: (*_bounds(bound[one.path]), str(one.path)),
    )
    ranks = _ranks(ranked, far, draws)
    places = [replace(one.place, rank=ranks[i]) for i, one in enumerate(ranked)]
    places += [replace(one.place, unranked=out[one.path]) for one in company if out.get(one.path)]
    return Ranking(places, far)


def _bounds(row: MetricRow | None) -> tuple[float, float]:
    return (math.inf, math.inf) if row is None else (row.high or 0.0, row.value or 0.0)


def _unranked(one: Candidate, company: Sequence[Candidate]) -> str:
    """Why an entry has no rank; empty when it has one."""
    record = one.entry.record
    if record.method.name in CONTROLS:
        return "a control: it leaves faces as they are"
    if one.entry.unreliable:
        return "unreliable"
    counts = Counter(attack for other in company for attack in other.attacks)
    usual = {attack for attack, count in counts.items() if 2 * count >= len(company)}
    lacking = sorted(usual - one.attacks)
    if lacking:
        named = [f"{threat} by {name}" for threat, name in lacking]
        return f"attacked less than the others: no {', '.join(named[:3])}{_and_more(named[2:])}"
    return ""


def _ranks(
    ranked: Sequence[Candidate], far: float | None, draws: Mapping[Path, FloatArray]
) -> list[int]:
    """From 1, of entries in their order: who cannot be told from the first of a rank shares it.

    Two are told apart by the paired draws, with Holm over all comparisons of the ranking.
    """
    rows = {str(one.path): row for one in ranked if (row := one.worst(far)) is not None}
    if not rows:
        return []
    drawn = {str(path): found for path, found in draws.items() if str(path) in rows}
    values = {name: row.value or 0.0 for name, row in rows.items()}
    found = rank_methods(values, drawn, people=ranked[0].entry.n_measured)
    apart = {
        frozenset((one.first, one.second))
        for one in found.comparisons
        if one.adjusted <= ALPHA and _apart(one.first, one.second, rows, drawn)
    }
    ranks: list[int] = []
    for place, name in enumerate(rows):
        first = list(rows)[ranks[-1] - 1] if ranks else name
        told = not ranks or frozenset((first, name)) in apart
        ranks.append(place + 1 if told else ranks[-1])
    return ranks


def _apart(
    one: str, other: str, rows: Mapping[str, MetricRow], draws: Mapping[str, FloatArray]
) -> bool:
    """Whether two that the draws tell apart may be told apart.

    Where no resample changes one of the two (nobody or everybody was recognised) the draws know
    nothing of that one's uncertainty; then the intervals themselves must lie apart.
    """
    if all(np.nanmin(draws[name]) < np.nanmax(draws[name]) for name in (one, other)):
        return True
    ends = [(rows[name].low or 0.0, rows[name].high or 0.0) for name in (one, other)]
    return max(low for low, _ in ends) > min(high for _, high in ends)


@lru_cache(maxsize=4)
def _weights(people: int) -> FloatArray:
    return statistics.draw_weights(people, draws=DRAWS, seed=SEED)


def _success(
    attack: Attack, far: float | None, people: int, subjects: Any
) -> tuple[float, FloatArray]:
    """What an attacker achieves, and in each resample of people: accept rate, or AUC for None."""
    if far is None:
        return _auc(attack, people, subjects)
    threshold = next((t.value for t in attack.thresholds if t.far == far), None)
    chosen = attack.kept & attack.pairs.same
    if threshold is None or not chosen.any():
        raise DeidbenchError(
            f"{attack.threat} by {attack.recognizer} has no threshold at FAR {far:g}, or no pair "
            "of one person; submit the run again."
        )
    accepted = attack.scores[chosen] >= threshold
    owner = subjects[attack.pairs.reference[chosen]]
    part, whole = (
        np.bincount(owner, x, people).astype(np.float64) for x in (accepted, np.ones_like(accepted))
    )
    return float(accepted.mean()), statistics.ratio_bootstrap(part, whole, _weights(people))


def _auc(attack: Attack, people: int, subjects: Any) -> tuple[float, FloatArray]:
    """An attacker whose AUC is below 0.5 turns his scores round."""
    same, kept = attack.pairs.same, attack.kept
    scores = np.where(np.isnan(attack.scores), -np.inf, attack.scores)
    value = statistics.auc(scores[kept & same], scores[kept & ~same])
    one, other = (subjects[side[kept]] for side in (attack.pairs.reference, attack.pairs.probe))
    counts = statistics.count_scores(scores[kept], one, other, _weights(people))
    draws = plugins.build("metrics", "auc").from_counts(counts)
    return (value, draws) if value >= 0.5 else (1 - value, 1 - draws)
