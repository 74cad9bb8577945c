"""Identification: whom an attacker names who searches for a face in a gallery of people.

The gallery holds one image of each enrolled person: the first, by sample order, that was not lost.
The words are those of ISO/IEC 19795-1: a search is mated when its person is enrolled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import statistics
from .errors import MetricUndefinedError
from .measure import Ruler, mean_row
from .pairs import score_matrix
from .results.schema import CmcCurve, MetricRow
from .types import View

if TYPE_CHECKING:
    from .types import BoolArray, FloatArray, IntArray

CELLS = 1 << 22
"""Scores, or weights of draws, that are held at once: tens of megabytes."""
HALVES = 10
"""How often other people are enrolled in the open set; one half alone would be a matter of luck."""
CURVE_POINTS = 200
RATE: dict[str, Any] = {"unit": "fraction", "higher_is_better": False}


@dataclass(frozen=True)
class Searches:
    """P probes, each compared with every image of one gallery."""

    owner: IntArray
    """Subject number of each probe, (P,)."""
    mated: BoolArray
    """Whether its person was to be enrolled, (P,)."""
    score: FloatArray
    """Similarity to its own person, (P,) float32; NaN where a face was lost or nobody is there."""
    above: IntArray
    """How many other people look more alike than its own person, (P,)."""
    equal: IntArray
    """How many look exactly as much alike, (P,)."""
    best_other: FloatArray
    """The best score of other people, (P,) float32; NaN where the probe's face was lost."""
    n_enrolled: int
    """People in the gallery."""

    @property
    def lost(self) -> BoolArray:
        """Searches that lost a face: the probe's or, when mated, all of its person's, (P,)."""
        lost: BoolArray = np.isnan(np.where(self.mated, self.score, self.best_other))
        return lost

    def counted(self, view: View, *, mated: bool = True) -> BoolArray:
        """Searches that count: all in the system view, else those that were made, (P,)."""
        chosen: BoolArray = self.mated == mated
        return chosen if view == "system" else chosen & ~self.lost

    def named(self, k: int) -> FloatArray:
        """Probability that its own person is among the first k, (P,); 0 where a face was lost.

        People whose scores are equal come in random order, so that a method that paints all faces
        alike gives each of N people k / N, not everybody the first place or the last.
        """
        share = np.clip((k - self.above) / (self.equal + 1), 0, 1)
        return np.where(np.isnan(self.score), 0.0, share)


def search(
    enrolled: FloatArray,
    probe: FloatArray,
    subjects: IntArray,
    chosen: IntArray,
    similarity: str,
    *,
    people: IntArray | None = None,
) -> Searches:
    """Search for each image that is not in the gallery: another photo than the enrolled one.

    Args:
        enrolled, probe: (N, D) embeddings of all samples, rows of NaN for lost faces.
        subjects: (N,) subject numbers. chosen: indices of the samples that are used.
        similarity: as in ``pairs.score``.
        people: numbers of the subjects to enrol; all by default. Searches for others are not mated.
    """
    chosen = np.sort(np.asarray(chosen))
    people = np.unique(subjects[chosen]) if people is None else people
    gallery = _first_images(enrolled, subjects, chosen, people)
    probes = np.setdiff1d(chosen, gallery)
    owner, held = subjects[probes], subjects[gallery]
    mated = np.isin(owner, people)
    return _search(enrolled[gallery], held, probe[probes], owner, mated, similarity)


def search_same_image(
    enrolled: FloatArray,
    probe: FloatArray,
    subjects: IntArray,
    chosen: IntArray,
    similarity: str,
) -> Searches:
    """Search for the very images of the gallery, one a person: the strongest that a gallery holds.

    With one search a person, a method that shows one face for k people (k-Same) cannot let more
    than one in k searches name the right one, whoever searches. Arguments as in ``search``.
    """
    chosen = np.sort(np.asarray(chosen))
    people, first = np.unique(subjects[chosen], return_index=True)
    gallery = _first_images(enrolled, subjects, chosen, people)
    lost = np.setdiff1d(people, subjects[gallery])
    probes = np.concatenate([gallery, chosen[first[np.searchsorted(people, lost)]]])
    owner, held = subjects[probes], subjects[gallery]
    mated = np.ones(len(probes), bool)
    return _search(enrolled[gallery], held, probe[probes], owner, mated, similarity)


def open_searches(
    enrolled: FloatArray,
    probe: FloatArray,
    subjects: IntArray,
    chosen: IntArray,
    similarity: str,
    *,
    seed: int,
    halves: int = HALVES,
) -> list[Searches]:
    """Open set: ``search`` with half of the people enrolled, for ``halves`` seeded halves.

    All images of the other half are searched for as well: nobody of them is in the gallery.
    """
    everybody = np.unique(subjects[chosen])
    random = np.random.default_rng(seed)
    drawn = [random.permutation(everybody)[: (len(everybody) + 1) // 2] for _ in range(halves)]
    return [
        search(enrolled, probe, subjects, chosen, similarity, people=np.sort(half))
        for half in drawn
    ]


def rank_rows(
    searches: Searches,
    ruler: Ruler,
    ranks: Sequence[int],
    *,
    view: View,
    bound: float | None = None,
    **fields: Any,
) -> Iterator[MetricRow]:
    """Rank-k: the share of mated searches whose own person is among the first k.

    A probe weighs as often as its person is drawn; the gallery is held fixed in all draws.

    Args:
        ranks: k, from 1. bound: the rate that the method promises for k = 1, one search a person.
        fields: of the rows (threat, recognizer, pairs).
    """
    for k in ranks:
        row = _rank_row(searches, ruler, k, view=view, **fields)
        if bound is not None and k == 1 and row.value is not None:
            row = row.model_copy(
                update={"note": f"{row.note}; the method promises at most {bound:.3g}"}
            )
        yield row


def above_bound(row: MetricRow, bound: float) -> bool:
    """Whether a rate's interval lies above what the method promises: one of the two is wrong."""
    return row.low is not None and row.low > bound


def open_set_rows(
    halves: Sequence[Searches],
    ruler: Ruler,
    rates: Sequence[float],
    *,
    view: View,
    **fields: Any,
) -> Iterator[MetricRow]:
    """DIR: the share of mated searches that name the right person first, at or above a threshold.

    The threshold is the smallest that lets no more than a share FPIR of the non-mated searches
    name anybody: a step function of their best scores. DIR is averaged over the halves. Intervals
    resample people on both sides, so the thresholds vary with them; galleries are held fixed.
    (Detection and identification rate: Phillips, Grother, Micheals 2011, in Handbook of Face
    Recognition, 2nd ed.; it is 1 - FNIR at FPIR, rank 1, of ISO/IEC 19795-1.)

    Args:
        halves: from ``open_searches``. rates: FPIR, each above 0 and below 1.
    """
    mated, others = (
        min((int(one.counted(view, mated=kind).sum()) for one in halves), default=0)
        for kind in (True, False)
    )
    template = {
        **fields, **RATE, "view": view, "metric": "dir", "n_genuine": mated,
        "n_impostor": others, "n_failed": max((int(one.lost.sum()) for one in halves), default=0),
    }  # fmt: skip
    for rate in rates:
        row = {**template, "params": {"fpir": rate}}
        try:
            _require_enough(mated, others, rate)
        except MetricUndefinedError as error:
            yield MetricRow(**row, value=None, note=str(error))
            continue
        value = float(_dir(halves, view, rate, np.ones((1, ruler.weights.shape[1])))[0])
        people = len({int(one) for search in halves for one in np.unique(search.owner)})
        low, high = statistics.interval(_dir(halves, view, rate, ruler.weights), subjects=people)
        yield MetricRow(**row, value=value, low=low, high=high, note=_open_note(halves, rate))


def cmc(searches: Searches, view: View) -> FloatArray:
    """Cumulative match characteristic: the rank-k rate for k = 1 to N, (N,).

    Its chance line is k / N. Raises ``MetricUndefinedError`` when no search was made.
    """
    counted = searches.counted(view)
    if not counted.any():
        raise MetricUndefinedError("cmc: every search lost a face")
    made = counted & ~np.isnan(searches.score)
    above, equal = searches.above[made], searches.equal[made]
    # Each search adds 1 / (equal + 1) at the ranks above + 1 to above + equal + 1.
    size, share = searches.n_enrolled + 1, 1 / (equal + 1)
    steps = np.bincount(above, share, size) - np.bincount(above + equal + 1, share, size)
    at_rank = np.maximum(steps.cumsum()[:-1], 0)  # sums may end just below 0
    rates: FloatArray = np.minimum(at_rank.cumsum() / counted.sum(), 1)
    return rates


def cmc_curve(searches: Searches, *, view: View, **fields: Any) -> CmcCurve | None:
    """At most about ``CURVE_POINTS`` points of the CMC, for drawing; None when nothing was made."""
    if not searches.n_enrolled or not searches.counted(view).any():
        return None
    rank = np.unique(np.geomspace(1, searches.n_enrolled, CURVE_POINTS).round().astype(int))
    return CmcCurve(
        **fields, view=view, n=int(searches.counted(view).sum()), n_enrolled=searches.n_enrolled,
        rank=rank.tolist(), rate=cmc(searches, view)[rank - 1].tolist(),
    )  # fmt: skip


def _search(
    gallery: FloatArray,
    held: IntArray,
    probes: FloatArray,
    owner: IntArray,
    mated: BoolArray,
    similarity: str,
) -> Searches:
    """Compare all probes (P, D) with the gallery (G, D) of the people ``held`` (G,), in blocks."""
    score_of, best = np.full((2, len(probes)), np.nan, np.float32)
    above, equal = np.zeros((2, len(probes)), np.int64)
    column = _columns(owner, held)
    made = np.flatnonzero(_found(probes))
    step = max(1, CELLS // max(len(gallery), 1))
    for start in range(0, len(made), step):
        rows = made[start : start + step]
        scores = score_matrix(probes[rows], gallery, similarity)
        known = np.flatnonzero(column[rows] >= 0)
        own = known, column[rows][known]
        score_of[rows[known]] = scores[own]
        scores[own] = -np.inf  # what is left are other people
        mine = score_of[rows, None]
        above[rows] = np.count_nonzero(scores > mine, axis=1)
        equal[rows] = np.count_nonzero(scores == mine, axis=1)
        best[rows] = scores.max(axis=1, initial=-np.inf)
    return Searches(owner, mated, score_of, above, equal, best, n_enrolled=len(gallery))


def _first_images(
    enrolled: FloatArray, subjects: IntArray, chosen: IntArray, people: IntArray
) -> IntArray:
    """Index of the first image of each of some people that was not lost; people without are out."""
    usable = chosen[np.isin(subjects[chosen], people) & _found(enrolled[chosen])]
    _, first = np.unique(subjects[usable], return_index=True)
    return usable[first]


def _found(embeddings: FloatArray) -> BoolArray:
    found: BoolArray = np.isnan(embeddings).sum(axis=1) == 0
    return found


def _columns(owner: IntArray, enrolled: IntArray) -> IntArray:
    """Where each owner stands in the gallery, whose people are distinct; -1 where nowhere."""
    order = np.argsort(enrolled)
    place = np.searchsorted(enrolled, owner, sorter=order)
    column = np.append(order, -1)[place]
    known = np.append(enrolled, -1)[column]
    return np.where(known == owner, column, -1)


def _rank_row(searches: Searches, ruler: Ruler, k: int, *, view: View, **fields: Any) -> MetricRow:
    counted, size = searches.counted(view), searches.n_enrolled
    named: dict[str, Any] = {
        **fields, **RATE, "view": view, "params": {"k": k},
        "n_failed": int((searches.mated & searches.lost).sum()),
    }  # fmt: skip
    why = None if counted.any() else "every search lost a face"
    if 0 < size <= k:
        why = f"the gallery holds {size} people, and no rank is beyond {size}"
    if why:
        return MetricRow(metric="rank-k", value=None, note=why, n=int(counted.sum()), **named)
    owner = searches.owner[counted]
    row = mean_row("rank-k", searches.named(k)[counted], owner, ruler.weights, **named)
    note = "nobody could be enrolled"
    if size:
        note = f"chance {k / size:.3g}; {size} people enrolled, the same in all draws"
    return row.model_copy(update={"note": note})


def _dir(halves: Sequence[Searches], view: View, rate: float, weights: FloatArray) -> FloatArray:
    """DIR in each draw, mean over halves, (B,); NaN where a draw has no search of a kind."""
    draws = np.zeros(len(weights))
    for searches in halves:
        step = max(1, CELLS // max(len(searches.owner), 1))
        for start in range(0, len(weights), step):
            some = weights[start : start + step]
            draws[start : start + step] += _dir_of_half(searches, view, rate, some)
    return draws / len(halves)


def _dir_of_half(searches: Searches, view: View, rate: float, weights: FloatArray) -> FloatArray:
    refused = _best_refused(searches, view, rate, weights)
    counted = searches.counted(view)
    weight = weights[:, searches.owner[counted]].astype(np.float64)
    passed = searches.score[counted] > refused[:, None]  # a lost face never passes
    share = _ratio((weight * passed) @ searches.named(1)[counted], weight.sum(1))
    return np.where(np.isnan(refused), np.nan, share)


def _best_refused(searches: Searches, view: View, rate: float, weights: FloatArray) -> FloatArray:
    """In each draw the best score that must not pass: (B,), NaN without non-mated searches.

    The threshold lies just above it: ``statistics.threshold_at_far`` with weights.
    """
    counted = searches.counted(view, mated=False)
    best = np.where(np.isnan(searches.best_other), -np.inf, searches.best_other)[counted]
    order = np.argsort(-best)
    passed = weights[:, searches.owner[counted][order]].cumsum(1, dtype=np.float64)
    total = passed[:, -1]
    # The same quotient as in threshold_at_far, so that a share of exactly the rate passes.
    first = np.argmax(_ratio(passed, total[:, None]) > rate, axis=1)
    return np.where(total > 0, best[order][first], np.nan)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _require_enough(mated: int, others: int, rate: float) -> None:
    if mated == 0:
        raise MetricUndefinedError("no mated search was made")
    if others == 0 or rate < statistics.RULE_OF_30 / others:
        needed = math.ceil(statistics.RULE_OF_30 / rate)
        bound = f"; without any false alarm the bound would be {3 / others:.2g}" if others else ""
        raise MetricUndefinedError(
            f"too few non-mated searches for FPIR {rate:g}: {others} of the {needed} needed "
            f"(rule of 30){bound}."
        )


def _open_note(halves: Sequence[Searches], rate: float) -> str:
    size = min(one.n_enrolled for one in halves)
    chance = f"chance {rate / size:.2g}; " if size else ""
    return f"{chance}rank 1, mean over {len(halves)} halves of the people enrolled ({size})"
