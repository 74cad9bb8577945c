"""How attackers learn to see through a treatment, from embeddings alone.

A ``Channel`` is one way to compare: an enrolled face, mapped, with a treated probe, mapped. A
``Gaze`` weighs several of them, so that one cosine is the weighted sum of theirs. What has to be
chosen, a penalty or a weight, is chosen by folds that share no person.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np

from deidbench import pairs
from deidbench.statistics import auc

from ._refine import LOOKS, Network, trained

if TYPE_CHECKING:
    from deidbench.types import BoolArray, FloatArray, IntArray, Similarity

PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.01)
"""Of a ridge map, in units of the mean squared length of its input along a direction; the most
cautious one first, as below: of equally good ones the first is taken."""
SHRINKAGES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.03)
"""How far the scatter within a person is drawn towards the same in all directions; 1: wholly."""
UNMEASURED = (10.0, 0.6)
"""Penalty and shrinkage where there are too few people to choose by."""
STEP = 5
"""A weight is a multiple of 1 / STEP."""
FOLDS = 3
SMALLEST_FOLD = 2  # people: one alone makes no impostor pair
SILENCE = 1e-4
"""Embeddings that differ by less than this share of their length are one embedding: what is left
comes from how faces were batched. Only rounding errors would be learned from it."""
CROWD = 512
"""Faces that one fold is judged by, at most."""
TINY = 1e-12


@dataclass(frozen=True)
class Faces:
    """What a gaze is fitted on or judged by: M faces, (M, D) each."""

    clean: FloatArray
    treated: FloatArray
    subjects: IntArray
    rekeyed: FloatArray | None = None
    """Treated with another key, where the attack compares keys."""

    @property
    def probe(self) -> FloatArray:
        """What is to be recognised."""
        return self.treated if self.rekeyed is None else self.rekeyed

    @property
    def shown(self) -> tuple[FloatArray, IntArray]:
        """All treated embeddings that there are, (K, D), and whose they are, (K,)."""
        if self.rekeyed is None:
            return self.treated, self.subjects
        return np.concatenate([self.treated, self.rekeyed]), np.tile(self.subjects, 2)

    def of(self, rows: BoolArray) -> Faces:
        """Some of them."""
        rekeyed = None if self.rekeyed is None else self.rekeyed[rows]
        return Faces(self.clean[rows], self.treated[rows], self.subjects[rows], rekeyed)


@dataclass(frozen=True)
class Map:
    """Embeddings, centred and brought to length 1 (z), to scale z + (z left) right."""

    mean: FloatArray
    """(D,)."""
    scale: float
    left: FloatArray
    """(D, R), R the rank of what was learned."""
    right: FloatArray
    """(R, D)."""
    silent: bool = False
    """Whether all embeddings were one: then all are mapped to 0, and nothing is compared."""

    def __call__(self, embeddings: FloatArray) -> FloatArray:
        """(N, D) to (N, D); NaN stays NaN."""
        z = self.centred(embeddings)
        mapped: FloatArray = self.scale * z + (z @ self.left) @ self.right
        return mapped

    def centred(self, embeddings: FloatArray) -> FloatArray:
        """(N, D), each row of length 1 unless it is the mean itself."""
        return unit(embeddings - self.mean) * (0.0 if self.silent else 1.0)


@dataclass(frozen=True)
class Channel:
    """One way to compare: an enrolled face of one side with a treated probe."""

    side: Literal["clean", "treated"]
    enrol: Map
    probe: Map


@dataclass(frozen=True)
class Gaze:
    """An attack: enrolled and probe embeddings whose similarity tells who is who.

    Without channels it compares ``side`` with the probes as they are, by the recognizer's own
    similarity; with channels it compares by cosine.
    """

    similarity: Similarity = "cosine"
    side: Literal["clean", "treated"] = "clean"
    channels: Sequence[Channel] = ()
    weights: Sequence[float] = (1.0,)
    networks: tuple[Network, Network] | None = None
    """Of the enrolled and the probe side, behind the channels."""

    def enrolled(self, clean: FloatArray, treated: FloatArray) -> FloatArray:
        """(N, D) each -> (N, K)."""
        sides = {"clean": clean, "treated": treated}
        if not self.channels:
            return sides[self.side]
        mapped = self._joined([one.enrol(sides[one.side]) for one in self.channels])
        return self.networks[0](mapped) if self.networks else mapped

    def probes(self, probe: FloatArray) -> FloatArray:
        """(N, D) -> (N, K)."""
        if not self.channels:
            return probe
        mapped = self._joined([one.probe(probe) for one in self.channels])
        return self.networks[1](mapped) if self.networks else mapped

    def sides(self, faces: Faces) -> tuple[FloatArray, FloatArray]:
        """Enrolled and probe side, (M, K) each."""
        return self.enrolled(faces.clean, faces.treated), self.probes(faces.probe)

    def _joined(self, parts: Sequence[FloatArray]) -> FloatArray:
        """Side by side, so that a dot product is the weighted sum of cosines."""
        weighed = zip(self.weights, parts, strict=True)
        return np.concatenate([math.sqrt(w) * unit(part) for w, part in weighed if w > 0], axis=1)


Fit = Callable[[Faces], Gaze]
Path = Callable[[Faces], Sequence[Gaze]]
"""The same attack in several settings, the most cautious one first."""


def unit(embeddings: FloatArray) -> FloatArray:
    """Rows of length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows: FloatArray = embeddings / np.maximum(lengths, TINY)
    return rows


def lost_as_a_whole(rows: FloatArray) -> FloatArray:
    """float32; a row that is NaN somewhere is NaN everywhere."""
    lost = np.isnan(rows).any(1, keepdims=True)
    whole: FloatArray = np.where(lost, np.nan, rows).astype(np.float32)
    return whole


def held_auc(gaze: Gaze, faces: Faces) -> float | None:
    """AUC over each two different images, scored as a run scores them; None without both kinds."""
    return pair_auc(*gaze.sides(faces), faces.subjects, gaze.similarity)


def pair_auc(
    enrolled: FloatArray, probe: FloatArray, subjects: IntArray, similarity: Similarity
) -> float | None:
    """The same for two sides (M, K)."""
    if not measurable(subjects):
        return None
    listed = pairs.cross_pairs(range(len(subjects)), subjects)
    both_ways = replace(
        listed,
        reference=np.concatenate([listed.reference, listed.probe]),
        probe=np.concatenate([listed.probe, listed.reference]),
    )
    scores = pairs.score(enrolled, probe, both_ways, similarity)
    same = np.concatenate([listed.same, listed.same])
    return auc(scores[same], scores[~same])


def measurable(subjects: IntArray) -> bool:
    """Whether there are genuine pairs of different images, and impostor pairs."""
    counts = np.unique(subjects, return_counts=True)[1]
    return len(counts) > 1 and bool((counts > 1).any())


def naive(faces: Faces) -> Gaze:
    """Clean enrolled, treated probe, each side centred: what a treatment does to all alike."""
    return _one("clean", centring(faces.clean), centring(faces.shown[0]))


def parrot(faces: Faces) -> Gaze:
    """Treated enrolled, treated probe, centred."""
    centre = centring(faces.shown[0])
    return _one("treated", centre, centre)


def ridge(faces: Faces, penalty: float) -> Gaze:
    """Clean enrolled, probe behind a linear map g with g(treated) ~ clean."""
    return _one("clean", centring(faces.clean), _ridges(faces, (penalty,))[0])


def whitened(faces: Faces, shrinkage: float) -> Gaze:
    """Treated enrolled, treated probe, where what varies within a person counts less.

    Within-class covariance normalisation (Hatch, Kajarekar, Stolcke, Interspeech 2006).
    """
    metric = _whitenings(faces, (shrinkage,))[0]
    return _one("treated", metric, metric)


def mapped(faces: Faces, penalty: float) -> Gaze:
    """Treated enrolled, treated probe, both behind the map of ``ridge``."""
    both = _ridges(faces, (penalty,))[0]
    return _one("treated", both, both)


def fused(parts: Sequence[Gaze], weights: Sequence[float]) -> Gaze:
    """The weighted sum of the cosines of several gazes of one channel."""
    return Gaze(channels=[channel for one in parts for channel in one.channels], weights=weights)


def chosen_penalty(faces: Faces, seed: int, *, side: Literal["clean", "treated"]) -> float:
    """The penalty of the ridge map that recognises best in folds; probes against ``side``."""

    def path(fitting: Faces) -> list[Gaze]:
        clean = centring(fitting.clean)
        maps = _ridges(fitting, PENALTIES)
        return [_one(side, clean if side == "clean" else one, one) for one in maps]

    best = best_in_folds(faces, path, seed)
    return UNMEASURED[0] if best is None else PENALTIES[best]


def chosen_shrinkage(faces: Faces, seed: int) -> float:
    """The shrinkage of the whitening that recognises best in folds."""

    def path(fitting: Faces) -> list[Gaze]:
        return [_one("treated", one, one) for one in _whitenings(fitting, SHRINKAGES)]

    best = best_in_folds(faces, path, seed)
    return UNMEASURED[1] if best is None else SHRINKAGES[best]


def chosen_weights(faces: Faces, parts: Sequence[Fit], seed: int) -> Sequence[float]:
    """Weights of the parts, which add up to 1, that recognise best in folds; else all alike."""
    grid = _simplex(len(parts))

    def path(fitting: Faces) -> list[Gaze]:
        fitted = [part(fitting) for part in parts]
        return [fused(fitted, weights) for weights in grid]

    best = best_in_folds(faces, path, seed)
    return [1 / len(parts)] * len(parts) if best is None else grid[best]


def chosen_looks(faces: Faces, base: Fit, seed: int) -> int:
    """How long networks behind a gaze should learn, judged by folds; 0 where it does not help."""

    def path(fitting: Faces) -> list[Gaze]:
        return _training(base(fitting), fitting, LOOKS, seed)

    return best_in_folds(faces, path, seed) or 0


def best_in_folds(faces: Faces, path: Path, seed: int) -> int | None:
    """Which gaze of a path has the best mean AUC over the folds; None where there are none."""
    areas = fold_areas(faces, path, seed)
    return None if areas is None else int(np.argmax(areas.round(6)))


def fold_areas(faces: Faces, path: Path, seed: int) -> FloatArray | None:
    """Mean AUC over the folds of each gaze of a path; None where there are none."""
    areas = [
        [_quick_auc(gaze, test) for gaze in path(fitting)]
        for fitting, test in people_folds(faces, seed)
    ]
    return np.mean(areas, axis=0) if areas else None


def strangers_auc(fits: Sequence[Fit], faces: Faces, held: BoolArray, seed: int) -> list[float]:
    """AUC of each attack among people whom it was not fitted on, by folds and the held people.

    Each group of people counts by its size: the held ones alone would be few to choose by. Where
    these make no pairs, all faces count, which is only fair to attacks that are not fitted.
    """
    known, strangers = faces.of(~held), faces.of(crowd(held, faces.subjects))
    fitted = [fit(known) for fit in fits]
    if not measurable(strangers.subjects):
        return [0.5 if area is None else area for area in (held_auc(x, faces) for x in fitted)]
    areas = np.array([held_auc(gaze, strangers) for gaze in fitted], float)
    inner = fold_areas(known, lambda fitting: [fit(fitting) for fit in fits], seed)
    if inner is not None:
        sizes = [len(np.unique(one.subjects)) for one in (known, strangers)]
        areas = np.average([inner, areas], axis=0, weights=sizes)
    return [float(one) for one in areas]


def people_folds(faces: Faces, seed: int) -> list[tuple[Faces, Faces]]:
    """(fitting, test) that share no person; fewer than FOLDS, or none, where people are few."""
    people = np.random.default_rng(seed).permutation(np.unique(faces.subjects))
    count = min(FOLDS, len(people) // SMALLEST_FOLD)
    if count < 2:
        return []
    members = [np.isin(faces.subjects, people[fold::count]) for fold in range(count)]
    folds = [(faces.of(~one), faces.of(crowd(one, faces.subjects))) for one in members]
    return [(fitting, test) for fitting, test in folds if measurable(test.subjects)]


def centring(embeddings: FloatArray) -> Map:
    """Takes the mean away and nothing else."""
    mean = embeddings.mean(0)
    size = len(mean)
    spread, length = (math.sqrt(np.mean(x**2)) for x in (embeddings - mean, embeddings))
    return Map(mean, 1.0, np.zeros((size, 0)), np.zeros((0, size)), spread <= SILENCE * length)


def _one(side: Literal["clean", "treated"], enrol: Map, probe: Map) -> Gaze:
    return Gaze(channels=[Channel(side, enrol, probe)])


def _ridges(faces: Faces, penalties: Sequence[float]) -> list[Map]:
    """argmin |y - x R|^2 + a |R - s I|^2 for each penalty a; x treated, y clean.

    Without evidence the map leaves an embedding where it is (s I): a recognizer puts a face that is
    treated mildly near the clean one. s is the multiple of x that is nearest to y.
    """
    shown, _ = faces.shown
    centre, target = centring(shown), centring(faces.clean)
    x, y = centre.centred(shown), target.centred(faces.clean)
    y = np.tile(y, (len(x) // len(y), 1))
    scale = float((x * y).sum() / max((x * x).sum(), TINY))
    u, lengths, v = _svd(x)
    right = u.T @ (y - scale * x)
    mean = max(float((lengths**2).sum()) / x.shape[1], TINY)
    return [
        replace(centre, scale=scale, left=v.T * (lengths / (lengths**2 + a * mean)), right=right)
        for a in penalties
    ]


def _whitenings(faces: Faces, shrinkages: Sequence[float]) -> list[Map]:
    shown, owner = faces.shown
    centre = centring(shown)
    parts = whitenings(centre.centred(shown), owner, shrinkages)
    return [replace(centre, left=left, right=right) for left, right in parts]


def whitenings(
    x: FloatArray, owner: IntArray, shrinkages: Sequence[float]
) -> list[tuple[FloatArray, FloatArray]]:
    """((1 - l) C + l m I)^(-1/2) (l m)^(1/2) for each shrinkage l, as I + left right.

    C is the scatter of x (K, D) within a person, m its mean along a direction: directions without
    scatter are left as they are, others shrink. left (D, R), right (R, D).
    """
    _, lengths, v = _svd(x - means_by(owner, x))
    scatter = lengths**2 / len(x)
    mean = max(float(scatter.sum()) / x.shape[1], TINY)
    kept = [np.sqrt(a * mean / ((1 - a) * scatter + a * mean)) for a in shrinkages]
    return [(v.T * (share - 1), v) for share in kept]


def means_by(owner: IntArray, rows: FloatArray) -> FloatArray:
    """The mean of each row's person, (K, D)."""
    _, number = np.unique(owner, return_inverse=True)
    sums = np.zeros((number.max() + 1, rows.shape[1]))
    np.add.at(sums, number, rows)
    means: FloatArray = (sums / np.bincount(number)[:, None])[number]
    return means


def refined(faces: Faces, base: Fit, looks: int, seed: int) -> Gaze:
    """A gaze with a network behind each side that has learned for so many looks; 0: as it is."""
    return _training(base(faces), faces, looks, seed)[-1]


def _training(gaze: Gaze, faces: Faces, looks: int, seed: int) -> list[Gaze]:
    """The gaze as it is, and with its networks as they are at each look."""
    seen = trained(*gaze.sides(faces), faces.subjects, looks=looks, seed=seed)
    return [gaze, *(replace(gaze, networks=networks) for networks in seen)]


def _quick_auc(gaze: Gaze, faces: Faces) -> float:
    """As ``held_auc``, cosines by one product of matrices."""
    if gaze.similarity != "cosine":
        area_of_pairs = held_auc(gaze, faces)
        return 0.5 if area_of_pairs is None else area_of_pairs
    enrolled, probe = (unit(side) for side in gaze.sides(faces))
    scores = (enrolled @ probe.T).round(pairs.DECIMALS)
    same = faces.subjects[:, None] == faces.subjects
    other = ~np.eye(len(scores), dtype=bool)
    return auc(scores[same & other], scores[~same])


def _simplex(parts: int) -> list[tuple[float, ...]]:
    """All weights in steps of 1 / STEP that add up to 1; those of a single part first."""
    whole = [one for one in product(range(STEP + 1), repeat=parts) if sum(one) == STEP]
    whole.sort(key=np.count_nonzero)
    return [tuple(weight / STEP for weight in one) for one in whole]


def crowd(chosen: BoolArray, subjects: IntArray, most: int = CROWD) -> BoolArray:
    """Those chosen, people left out one by one until at most ``most`` faces are left."""
    people, counts = np.unique(subjects[chosen], return_counts=True)
    enough = max(int(np.searchsorted(np.cumsum(counts), most, "right")), SMALLEST_FOLD)
    return chosen & np.isin(subjects, people[:enough])


def _svd(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """u (N, R), lengths (R,), v (R, D), without directions that hold rounding errors alone."""
    u, lengths, v = np.linalg.svd(x, full_matrices=False)
    kept = lengths > 1e-7 * max(float(lengths.max(initial=0)), TINY)
    return u[:, kept], lengths[kept], v[kept]
