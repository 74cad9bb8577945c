"""Who is in the set: strata and splits by design, and the file that keeps the choice."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

GENDERS = ("female", "male")
ANCESTRIES = ("african", "asian", "caucasian")
BANDS = {"25-34": (0.0, 0.14), "35-54": (0.16, 0.45), "55-90": (0.47, 0.85)}
STRATA = tuple(product(GENDERS, ANCESTRIES, BANDS))
FILE = Path(__file__).parent.parent / "people.csv"
RETAKES = FILE.with_name("retakes.csv")
NEXT_DRAW = 100  # added to a photograph's number for each time that it is taken again
FIELDS = ("subject", "seed", "candidate", "gender", "age_band", "ancestry", "split")

# Split, people, and shifts of the two cycles: a split that is no multiple of 18 lacks something,
# and the shifts make each lack something else, so that the whole set is balanced.
SPLITS = (
    ("method-train", 24, 0, 0),
    ("attacker-train", 28, 0, 0),
    ("calibration", 16, 1, 0),
    ("eval", 28, 2, 2),
)


class PeopleError(RuntimeError):
    """The file of people does not fit what was asked for."""


@dataclass(frozen=True)
class Place:
    """A place in the set that one candidate of its stratum fills."""

    split: str
    gender: str
    ancestry: str
    band: str

    @property
    def stratum(self) -> int:
        """Number of the stratum; candidates of it are stratum, stratum + 18, ..."""
        return STRATA.index((self.gender, self.ancestry, self.band))


@dataclass(frozen=True)
class Member:
    """An accepted candidate."""

    subject: str
    seed: int
    candidate: int
    split: str

    @property
    def stratum(self) -> tuple[str, str, str]:
        """Gender, ancestry, age band."""
        return STRATA[self.candidate % len(STRATA)]


def places() -> Iterator[Place]:
    """All places; genders alternate, ancestries and age bands run through a Latin square."""
    for split, count, shift, band_shift in SPLITS:
        for j in range(count):
            m = j // 2
            band = tuple(BANDS)[(m + m // 3 + band_shift) % 3]
            yield Place(split, GENDERS[j % 2], ANCESTRIES[(m + shift) % 3], band)


def shuffled_places(seed: int) -> list[Place]:
    """The places in the order of the subjects' names, which says nothing about them."""
    ordered = list(places())
    return [ordered[i] for i in np.random.default_rng([seed, 96]).permutation(len(ordered))]


def write(path: Path, members: list[Member]) -> None:
    """Write the choice."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(FIELDS)
        for one in members:
            gender, ancestry, band = one.stratum
            table.writerow(
                [one.subject, one.seed, one.candidate, gender, band, ancestry, one.split]
            )


def read(path: Path, *, seed: int, count: int) -> list[Member]:
    """The first ``count`` people.

    Raises:
        PeopleError: the choice was made for another seed, or holds too few people.
    """
    with path.open(newline="", encoding="utf-8") as file:
        members = [
            Member(row["subject"], int(row["seed"]), int(row["candidate"]), row["split"])
            for row in csv.DictReader(file)
        ]
    if any(one.seed != seed for one in members):
        raise PeopleError(f"{path.name} was made for another seed. Run choose.py --seed {seed}.")
    if count > len(members):
        raise PeopleError(f"{path.name} holds {len(members)} people, but {count} were asked for.")
    return members[:count]


def read_retakes(path: Path) -> dict[tuple[str, int], int]:
    """The draw of each photograph that was taken again, by person and number."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (row["subject"], int(row["photo"])): int(row["draw"]) for row in csv.DictReader(file)
        }


def write_retakes(path: Path, retakes: dict[tuple[str, int], int]) -> None:
    """Write them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["subject", "photo", "draw"])
        table.writerows([*key, draw] for key, draw in sorted(retakes.items()))
