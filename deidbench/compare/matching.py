"""The same comparisons of faces in both runs, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deidbench.errors import DeidbenchError
from deidbench.measure import Attack
from deidbench.pairs import PairList
from deidbench.rebuilt import Stored, read_stored
from deidbench.results import store
from deidbench.results.schema import RunRecord

from .rows import plain

if TYPE_CHECKING:
    import pandas as pd

    from deidbench.types import IntArray

NAIVE, WHITE_BOX = "T1", "T1w"


@dataclass(frozen=True)
class Run:
    """A run folder, read and checked."""

    stored: Stored
    images: pd.DataFrame

    @property
    def record(self) -> RunRecord:
        """Its record."""
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


def read_run(folder: Path) -> Run:
    """A run folder, checked."""
    store.validate(folder)
    return Run(read_stored(folder), store.read_images(folder))


def positions(base: Run, head: Run) -> IntArray:
    """Where each image of HEAD stands in BASE, (N,)."""
    columns = ["id", "subject", "part"]
    for run in (base, head):
        missing = {*columns, "found", "found_treated"} - set(run.images.columns)
        if missing:
            raise DeidbenchError(
                f"cannot compare: {store.IMAGES} of {plain(run.record.run_id)} has no column "
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


def matches(base: Run, head: Run, index: IntArray) -> Iterator[Match]:
    """The attacks of both runs, those of BASE in its order."""
    theirs = _attacks(head)
    for key, (threat, recognizer) in _attacks(base).items():
        if key not in theirs:
            raise DeidbenchError(
                f"cannot compare: HEAD has no scores of {plain(f'{threat} by {recognizer}')}, "
                "and fewer attacks look like protection. Evaluate HEAD again."
            )
        pair = [run.stored.attack(*names) for run, names in
                ((base, (threat, recognizer)), (head, theirs[key]))]  # fmt: skip
        if pair[0] is None or pair[1] is None:
            continue  # an attack with same-image pairs only
        yield _match(pair[0], pair[1], index)


def _attacks(run: Run) -> dict[tuple[str, str], tuple[str, str]]:
    """Threat and recognizer of each attack. T1 and T1w are one: the recognizer as it is."""
    return {
        (NAIVE if threat == WHITE_BOX else threat, recognizer): (threat, recognizer)
        for threat, recognizer, view in run.stored.known()
        if view == "landmarks"
    }


def _match(base: Attack, head: Attack, index: IntArray) -> Match:
    name = plain(f"{base.threat} by {base.recognizer}")
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
