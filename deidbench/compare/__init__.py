"""Two runs side by side: what changed, how surely, and whether it is a regression.

All differences are HEAD minus BASE. Both runs must have measured the same faces under the same
conditions; then their numbers are taken from the very same comparisons, in the same draws of
people, so that what both have in common cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deidbench import __version__, statistics
from deidbench.errors import DeidbenchError
from deidbench.measure import Ruler
from deidbench.rebuilt import verification_metrics
from deidbench.results.schema import RunRecord

from .attacks import COMPARED, differences
from .conditions import recognizers_of, refuse_other_conditions, threats_of
from .matching import Match, Run, matches, positions, read_run
from .others import other_rows, value_rows
from .rows import Row, plain
from .rules import DEFAULT, Regression, Rule, listed, parse_rule, regressions, with_aliases

__all__ = [
    "Comparison", "Match", "Regression", "Row", "Rule", "Side", "compare", "differences",
    "parse_rule", "refuse_other_conditions",
]  # fmt: skip

SCHEMA_VERSION = 1
UNTREATED = "T0"


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
    runs = read_run(base), read_run(head)
    refuse_other_conditions(*(run.record for run in runs))
    index = positions(*runs)
    ruler = _ruler(runs[0], draws)
    attacks_of_both = list(matches(*runs, index))
    attacks, far = differences(attacks_of_both, ruler)
    rows = [
        *attacks,
        *value_rows(*runs, index, ruler),
        *other_rows(runs[0].record, runs[1].record),
    ]
    rows = with_aliases(rows, far)
    notes = [*_notes(runs[0].record, runs[1].record), *_lost(attacks_of_both), *_untreated(rows)]
    return Comparison(
        base=_side(runs[0].record), head=_side(runs[1].record),
        protocol=runs[0].record.protocol, dataset=runs[0].record.dataset.label,
        synthetic=runs[0].record.dataset.synthetic, people=runs[0].stored.n_measured,
        draws=len(ruler.weights), rules=tuple(rule.text for rule in rules), certain=certain,
        far=far, tests=sum(row.p is not None for row in rows), rows=tuple(rows), notes=tuple(notes),
        regressions=tuple(regressions(rules, rows, certain=certain)),
    )  # fmt: skip


def _side(record: RunRecord) -> Side:
    method = record.method
    return Side(
        record.run_id, record.created, method.name, method.version, method.strength,
        tuple(method.trained_against),
    )  # fmt: skip


def _ruler(base: Run, draws: int | None) -> Ruler:
    config = base.record.config
    wanted = int(config.get("draws", 2000)) if draws is None else draws
    if not 100 <= wanted <= 100_000:
        raise DeidbenchError(f"--draws must be between 100 and 100000, got {wanted}.")
    stored = base.stored
    weights = statistics.draw_weights(stored.n_measured, draws=wanted, seed=base.record.seed)
    return Ruler(verification_metrics(COMPARED), stored.subjects, weights)


# What a reader must know besides


def _notes(base: RunRecord, head: RunRecord) -> Iterator[str]:
    more = sorted(recognizers_of(head).keys() - recognizers_of(base).keys())
    more += sorted(threats_of(head).keys() - threats_of(base).keys())
    if more:
        yield f"Only HEAD was attacked by {plain(', '.join(more))}: left out on both sides."
    critics = [set(record.method.trained_against) for record in (base, head)]
    mixed = sorted((critics[0] ^ critics[1]) & recognizers_of(base).keys())
    if mixed:
        yield (
            f"{plain(', '.join(mixed))}: a critic of one of the two methods only. Its attack as "
            "T1w there is compared with T1 here, and flatters the method that was trained "
            "against it."
        )
    if base.machine != head.machine:
        yield "The runs were made on different machines: speeds say little."
    if base.deidbench_version != head.deidbench_version:
        versions = f"{plain(base.deidbench_version)} and {plain(head.deidbench_version)}"
        yield f"The runs were made by different versions of deidbench, {versions}."


def _lost(matches: Sequence[Match]) -> Iterator[str]:
    lost = {f"{one.threat} by {one.base.recognizer}": one.lost for one in matches if one.lost}
    if lost:
        listed = ", ".join(f"{plain(name)} {count:,}" for name, count in lost.items())
        yield (
            "Comparisons that lost a face in one of the runs only are left out on both sides: "
            f"{listed}."
        )


def _untreated(rows: Sequence[Row]) -> Iterator[str]:
    """Untreated faces must score alike in both runs: what moved there is no treatment."""
    moved = [row.name for row in rows if row.threat == UNTREATED and row.difference]
    if moved:
        yield (
            f"Untreated faces do not score alike ({listed(moved)}): something besides the method "
            "differs, such as a library."
        )
