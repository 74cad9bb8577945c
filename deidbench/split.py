"""Who is in which part. Parts share no person; the same seed and people give the same parts."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .cache import digest
from .errors import DeidbenchError
from .types import Sample

CALIBRATION, EVAL = "calibration", "eval"
METHOD_TRAIN, ATTACKER_TRAIN = "method-train", "attacker-train"
SMALLEST_PART = 2  # people: one alone makes no impostor pair
FEWEST_TEACHERS = 4  # people: from fewer an attacker learns nothing that is true of others


@dataclass(frozen=True)
class Split:
    """The people of each part."""

    seed: int
    subjects: Mapping[str, frozenset[str]]

    @property
    def sha256(self) -> str:
        """Hash of who is where."""
        return digest({part: sorted(people) for part, people in self.subjects.items()})

    def indices(self, samples: Sequence[Sample], part: str) -> list[int]:
        """Positions of the samples of a part."""
        people = self.subjects.get(part, frozenset())
        return [i for i, sample in enumerate(samples) if sample.subject in people]


def split_subjects(samples: Sequence[Sample], *, seed: int, shares: Mapping[str, float]) -> Split:
    """The dataset's own parts when it has them, else a draw by seed.

    Args:
        shares: of the people, by part; they add up to 1.

    Raises:
        DeidbenchError: a part would have fewer than two people, or one person two parts.
    """
    parts = _own_parts(samples) or _drawn_parts(samples, seed, shares)
    for part in (CALIBRATION, EVAL):
        if len(parts.get(part, ())) < SMALLEST_PART:
            raise DeidbenchError(
                f"part '{part}' has {len(parts.get(part, ()))} people, but needs "
                f"{SMALLEST_PART}. Use a dataset with at least 4 people, or raise --limit-subjects."
            )
    return Split(seed, parts)


def used_parts(samples: Sequence[Sample], parts: Collection[str]) -> list[Sample]:
    """The samples of some parts, and those that are in none yet.

    Raises:
        DeidbenchError: one person is in two parts of the dataset.
    """
    _own_parts(samples)
    return [sample for sample in samples if sample.split is None or sample.split in parts]


def held_out(subjects: Sequence[Any], *, seed: int, share: float = 0.25) -> list[bool]:
    """Whether each sample's person is one of a share that is held out, at least one and not all."""
    order = _shuffled({str(name) for name in subjects}, seed)
    count = min(max(round(len(order) * share), 1), max(len(order) - 1, 0))
    held = set(order[:count])
    return [str(name) in held for name in subjects]


def limit_subjects(samples: Sequence[Sample], limit: int | None, *, seed: int) -> list[Sample]:
    """All samples of a draw of people, the same draw for the same seed.

    Each of the dataset's own parts keeps its share. People whom attackers learn from do not count:
    as large a share of them is kept.
    """
    if limit is None:
        return list(samples)
    parts: dict[str | None, set[str]] = {}
    for sample in samples:
        parts.setdefault(sample.split, set()).add(sample.subject)
    teachers = _ranked(parts.pop(ATTACKER_TRAIN, set()), seed)
    ranked = sorted(one for people in parts.values() for one in _ranked(people, seed))
    kept = {name for _, name in ranked[:limit]}
    kept |= {name for place, name in teachers if place <= limit / len(ranked)}
    return [sample for sample in samples if sample.subject in kept]


def _ranked(people: Iterable[str], seed: int) -> list[tuple[float, str]]:
    """How far down each person is in a draw of their part: comparable between parts."""
    order = _shuffled(people, seed)
    return [((place + 0.5) / len(order), name) for place, name in enumerate(order)]


def _own_parts(samples: Sequence[Sample]) -> dict[str, frozenset[str]]:
    people: dict[str, set[str]] = {}
    home: dict[str, str | None] = {}
    for sample in samples:
        if home.setdefault(sample.subject, sample.split) != sample.split:
            raise DeidbenchError(
                f"person '{sample.subject}' is in two parts, '{home[sample.subject]}' and "
                f"'{sample.split}'. Mend the dataset: parts may share nobody."
            )
        if sample.split is not None:
            people.setdefault(sample.split, set()).add(sample.subject)
    return {part: frozenset(names) for part, names in people.items()}


def _drawn_parts(
    samples: Sequence[Sample], seed: int, shares: Mapping[str, float]
) -> dict[str, frozenset[str]]:
    order = _shuffled({sample.subject for sample in samples}, seed)
    shares = _affordable(shares, len(order))
    drawn, start = {}, 0
    for part, share in zip(shares, accumulate(shares.values()), strict=True):
        end = max(round(len(order) * share), start + SMALLEST_PART)
        drawn[part] = frozenset(order[start:end])
        start = end
    return drawn


def _affordable(shares: Mapping[str, float], people: int) -> Mapping[str, float]:
    """The shares without ATTACKER-TRAIN where it would be too small to learn anything from."""
    if round(people * shares.get(ATTACKER_TRAIN, 1)) >= FEWEST_TEACHERS:
        return shares
    rest = {part: share for part, share in shares.items() if part != ATTACKER_TRAIN}
    return {part: share / sum(rest.values()) for part, share in rest.items()}


def _shuffled(subjects: Iterable[str], seed: int) -> list[str]:
    """An order by hash: the same on every platform and with every version of every library."""
    return sorted(subjects, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
