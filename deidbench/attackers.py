"""Attackers at work: what each threat does with one recognizer, from faces to scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import measure, statistics
from .cache import digest
from .measure import Attack, Before
from .pairs import PairList, cross_pairs, score
from .results import schema
from .split import FEWEST_TEACHERS
from .stages import Side, Stages, identity
from .types import Embeddings, FaceLesson, Lesson, Recognizer, Restorer, Similarity, Threat, View

if TYPE_CHECKING:
    from .setup import Job
    from .types import BoolArray, FloatArray, IntArray, ScoreCounts

VIEWS: dict[Side, tuple[View, ...]] = {
    "treated": ("landmarks",),
    "detected": ("system", "conditional"),
}
"""How each embedded side is looked at; thresholds carry the name of the first view."""
ALL_VIEWS: tuple[View, ...] = ("landmarks", "system", "conditional")
DETECTION_METRICS = ("auc", "eer")
RESTORATION_METRICS = ("lpips", "psnr", "ssim")
ANOTHER_KEY = 1
"""What is added to the seed of a method for its second key."""


@dataclass(frozen=True)
class Sides:
    """What an attacker compares: embeddings of all samples, (N, D) each."""

    enrolled: FloatArray
    probe: FloatArray
    similarity: Similarity


@dataclass(frozen=True)
class Assault:
    """An attack with the embeddings that it scored."""

    attack: Attack
    sides: Sides


@dataclass
class School:
    """What the attackers of a job learn from; the same faces for all recognizers."""

    job: Job

    @property
    def stages(self) -> Stages:
        """Of the job's method."""
        return self.job.stages

    @cached_property
    def rows(self) -> BoolArray:
        """Which of the learning samples have a face and its treated version."""
        there = self.stages.align()["found"] & self.stages.treat()["treated"]
        rows: BoolArray = there[self.job.learning]
        return rows

    @property
    def people(self) -> int:
        """How many people there are to learn from."""
        return self._people(self.job.held) + self._people(~self.job.held)

    @property
    def why_not(self) -> str | None:
        """Why nothing can be learnt; None when it can."""
        both = self._people(self.job.held) and self._people(~self.job.held)
        if both and self.people >= FEWEST_TEACHERS:
            return None
        return f"fewer than {FEWEST_TEACHERS} people to learn from with a treated face each"

    def _people(self, which: BoolArray) -> int:
        chosen = self.job.learning[which & self.rows]
        return len(np.unique(self.job.ruler.subjects[chosen]))

    @cached_property
    def samples(self) -> Any:
        """Indices of the learning samples that can be used, (M,)."""
        return self.job.learning[self.rows]

    @cached_property
    def held(self) -> BoolArray:
        """Which of them are held out, (M,)."""
        held: BoolArray = self.job.held[self.rows]
        return held

    @cached_property
    def subjects(self) -> Any:
        """Their subject numbers from 0, (M,)."""
        return np.unique(self.job.ruler.subjects[self.samples], return_inverse=True)[1]

    def lesson(self, embeddings: Embeddings, similarity: Similarity) -> Lesson:
        """From embeddings of all samples to those that are learnt from."""
        known = embeddings.of(self.samples)
        sides = [side for side in (known.clean, known.treated, known.rekeyed) if side is not None]
        usable = np.logical_and.reduce([np.isfinite(side).all(1) for side in sides])
        return Lesson(
            known.of(usable), self.subjects[usable], self.held[usable], similarity,
            self.job.config.seed,
        )  # fmt: skip

    def remembered(self, threat: Any, *learner: Recognizer) -> Mapping[str, Any]:
        """What a threat remembers of the faces, learnt once and cached."""
        key = digest(
            identity(threat), getattr(threat, "only", None), self.stages.treated_key,
            self.samples.tolist(), self.held.tolist(),
            [[one.name, one.weights_sha256] for one in learner], self.job.config.seed,
        )  # fmt: skip
        with self.stages.timed(f"learn {threat.id}", len(self.samples)):
            return self.stages.cache.get("learn", key, lambda: threat.learn(self.faces(), *learner))

    def faces(self) -> FaceLesson:
        """The learning faces themselves."""
        clean, treated, landmarks = self.stages.faces_at(self.samples)
        return FaceLesson(
            clean=torch.from_numpy(clean), treated=torch.from_numpy(treated),
            landmarks=torch.from_numpy(landmarks), subjects=self.subjects, held=self.held,
            seed=self.job.config.seed, device=self.stages.device,
            progress=self.stages.progress.say,
        )  # fmt: skip


@dataclass
class Attacker:
    """One recognizer in the hands of everybody who may use it."""

    job: Job
    recognizer: Recognizer
    school: School
    learned: list[schema.LearnedRecord] = field(default_factory=list)
    """What those who learn have chosen."""
    restorers: dict[str, Restorer] = field(default_factory=dict)
    """What those who learned to restore images have chosen, by threat."""
    _sides: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def stages(self) -> Stages:
        """Of the job's method."""
        return self.job.stages

    def embedded(self, side: Side) -> FloatArray:
        """Embeddings of all samples on one side, (N, D)."""
        if side not in self._sides:
            rows = self.job.published if side == "detected" else self.job.used
            found = self.stages.embed(self.recognizer, side, rows=rows)
            if side != "clean" and np.isnan(found).all():
                # No face was left to say how many numbers an embedding has.
                found = np.full_like(self.embedded("clean"), np.nan)
            self._sides[side] = found
        return self._sides[side]

    @cached_property
    def before(self) -> Before:
        """The comparisons of clean faces, and the thresholds that clean pairs give."""
        clean = self.embedded("clean")
        scores = score(clean, clean, self.job.cross, self.recognizer.similarity)
        sides = Sides(clean, clean, self.recognizer.similarity)
        return Before(scores, self._thresholds(sides, "T0", "landmarks"))

    def replace_sides(self, **sides: FloatArray) -> None:
        """Put other embeddings (N, D) in place of what the recognizer sees."""
        self._sides.update(sides)

    def naive(self, enrolled: FloatArray, probe: FloatArray) -> Assault:
        """Cross-image comparisons of two sides as they are, without thresholds."""
        sides = Sides(enrolled, probe, self.recognizer.similarity)
        scores = self._scores(sides, self.job.cross)
        return Assault(
            Attack("", self.recognizer.name, "landmarks", self.job.cross, scores, []), sides
        )

    def may(self, threat: Threat) -> bool:
        """Whether this recognizer carries out this attack on this method."""
        return threat.kind != "detection" and threat.applies(
            self.recognizer.name, self.job.method.trained_against
        )

    def assaults(self, threat: Threat, views: Sequence[View] = ALL_VIEWS) -> Iterator[Assault]:
        """A threat in each of its views, on cross-image (or official) and on same-image pairs."""
        views = [view for view in threat.views if view in views]
        if threat.kind == "images":
            yield from self._with_restored(threat, views)
        elif threat.kind == "recognizer":
            yield from self._with_adapted(threat, views)
        else:
            yield from self._with_embeddings(threat, views, self.embedded)

    def _with_embeddings(
        self, threat: Any, views: Sequence[View], embedded: Callable[[Side], FloatArray]
    ) -> Iterator[Assault]:
        if hasattr(threat, "learn") and threat.kind == "embeddings":
            clean, treated = embedded("clean"), embedded("treated")
            lesson = self.school.lesson(
                Embeddings(clean, treated, self._rekeyed(threat)), self.recognizer.similarity
            )
            with self.stages.timed(f"learn {threat.id} {self.recognizer.name}", len(lesson.held)):
                threat = threat.learn(lesson)
            self._note(threat, getattr(threat, "note", None))
        for side, shown in VIEWS.items():
            wanted = [view for view in shown if view in views]
            if wanted:
                embeddings = Embeddings(embedded("clean"), embedded(side), self._rekeyed(threat))
                yield from self._scored(threat, embeddings, wanted)

    def _rekeyed(self, threat: Threat) -> FloatArray | None:
        """Embeddings of faces that were treated with another key, (N, D)."""
        if not threat.rekeys:
            return None
        if "rekeyed" not in self._sides:
            again = self.stages.with_seed(self.stages.seed + ANOTHER_KEY)
            self._sides["rekeyed"] = again.embed(self.recognizer, "treated", rows=self.job.used)
        return self._sides["rekeyed"]

    def _with_restored(self, threat: Any, views: Sequence[View]) -> Iterator[Assault]:
        """Treated faces behind the restorer that serves this recognizer best."""
        memory = self.school.remembered(threat)
        held = self.school.held if memory else np.ones(len(self.school.samples), bool)
        chosen, note = self._best(threat.restorers(memory), self.school.samples[held])
        if memory:
            self.restorers[threat.id] = chosen
        self._note(threat, note, chosen)
        restored = self.stages.embed(
            self.recognizer, "treated", restorer=chosen, rows=self.job.published
        )
        yield from self._scored(threat, Embeddings(self.embedded("clean"), restored), views)

    def _best(self, restorers: Sequence[Restorer], samples: Any) -> tuple[Restorer, str]:
        """The restorer behind which learning faces are told apart best, and how well by each."""
        rows = self.job.rows(samples)
        pairs = cross_pairs(samples, self.job.ruler.subjects)
        found: list[tuple[float, Restorer]] = []
        for restorer in restorers:
            probe = self.stages.embed(self.recognizer, "treated", restorer=restorer, rows=rows)
            scores = score(self.embedded("clean"), probe, pairs, self.recognizer.similarity)
            made = ~np.isnan(scores)
            genuine, impostor = scores[made & pairs.same], scores[made & ~pairs.same]
            found.append((statistics.auc(genuine, impostor), restorer))
        best = max(found, key=lambda one: one[0])[1]
        told = ", ".join(f"{one.name} {auc:.3f}" for auc, one in found)
        return best, f"{best.name}, by the AUC on ATTACKER-TRAIN: {told}"

    def _with_adapted(self, threat: Any, views: Sequence[View]) -> Iterator[Assault]:
        """Everything embedded anew by the recognizer that learnt."""
        memory = self.school.remembered(threat, self.recognizer)
        other = Attacker(self.job, threat.adapted(memory, self.recognizer), self.school)
        self._note(threat, getattr(threat, "note", None))
        yield from self._with_embeddings(threat, views, other.embedded)

    def _scored(
        self, threat: Any, embeddings: Embeddings, views: Sequence[View]
    ) -> Iterator[Assault]:
        """The comparisons of one threat; views that share a side share its scores."""
        sides = self._sides_of(threat, *threat.attack(embeddings))
        thresholds = self._thresholds(
            self._sides_of(threat, *threat.calibrate(embeddings)), threat.id, views[0]
        )
        treats = threat.probe == "treated"
        scores = self._scores(sides, self.job.cross) if treats else self.before.scores
        scored = [(self.job.cross, scores, self.before if treats else None)]
        if threat.enrolled == "clean" and treats:  # else one image would stand on both sides
            own = self._scores(sides, self.job.own)
            scored.append((self.job.same, np.append(own, scores[~self.job.cross.same]), None))
        for pairs, found, earlier in scored:
            for view in views:
                name = self.recognizer.name
                yield Assault(
                    Attack(threat.id, name, view, pairs, found, thresholds, earlier), sides
                )

    def _sides_of(self, threat: Any, enrolled: FloatArray, probe: FloatArray) -> Sides:
        own = getattr(threat, "similarity", None)
        return Sides(enrolled, probe, own or self.recognizer.similarity)

    @staticmethod
    def _scores(sides: Sides, pairs: PairList) -> FloatArray:
        return score(sides.enrolled, sides.probe, pairs, sides.similarity)

    def _thresholds(self, sides: Sides, threat: str, view: View) -> list[schema.ThresholdRecord]:
        """Those of the protocol, or from CALIBRATION pairs; none for an official list."""
        about: dict[str, Any] = {"threat": threat, "recognizer": self.recognizer.name, "view": view}
        published = self.job.protocol.thresholds.get(self.recognizer.name)
        if published is not None:
            return [
                schema.ThresholdRecord(
                    far=float(far), value=value, n_impostor=0, note="a published number", **about
                )
                for far, value in published.items()
            ]
        if self.job.calibration is None:
            return []
        scores = self._scores(sides, self.job.calibration)
        impostor = scores[~self.job.calibration.same & ~np.isnan(scores)]
        return measure.fix_thresholds(impostor, self.job.protocol.fars, **about)

    def _note(self, threat: Threat, note: str | None, restorer: Restorer | None = None) -> None:
        if note:
            self.learned.append(
                schema.LearnedRecord(
                    threat=threat.id, recognizer=self.recognizer.name, note=note,
                    restorer=restorer.name if restorer else None,
                )
            )  # fmt: skip


@dataclass(frozen=True)
class Detection:
    """Scores of treated and of clean images, (n,) each, and the people they are of."""

    treated: FloatArray
    clean: FloatArray
    owner: IntArray

    @property
    def scored(self) -> dict[str, FloatArray]:
        """As the verification metrics take them."""
        return {"genuine": self.treated, "impostor": self.clean}

    def counts(self, weights: FloatArray) -> ScoreCounts:
        """Counted for the draws (B, S) of people."""
        return statistics.count_images(self.treated, self.clean, self.owner, weights)


def detect(school: School, threat: Any) -> Detection:
    """What a detector of treatment (T6) says of the measured images."""
    job = school.job
    detector = threat.detector(school.remembered(threat))
    clean, treated = job.stages.judged(detector, threat.id, job.rows(job.measured))
    there = np.isfinite(clean) & np.isfinite(treated)
    return Detection(treated[there], clean[there], job.ruler.subjects[there])


def detected_rows(job: Job, threat: Threat, found: Detection) -> Iterator[schema.MetricRow]:
    """How well treated images are told from clean ones."""
    counts, people = found.counts(job.ruler.weights), len(np.unique(found.owner))
    for metric in job.ruler.metrics:
        if metric.kind == "verification" and metric.name in DETECTION_METRICS:
            yield measure.detection_row(
                metric, found.scored, counts, people, threat=threat.id, n=len(found.owner),
                note="treated against clean images: whether a face was treated, not whose it is",
            )  # fmt: skip


def restored_rows(attacker: Attacker) -> Iterator[schema.MetricRow]:
    """How like the originals the images are that restorers make of treated ones."""
    job, samples = attacker.job, attacker.job.measured
    owner = job.ruler.subjects[samples]
    wanted = [metric for metric in job.ruler.metrics if metric.name in RESTORATION_METRICS]
    for threat, restorer in attacker.restorers.items():
        for metric in wanted:
            values = job.stages.compare(metric, restorer=restorer, rows=job.rows(samples))
            for region, column in values.items():
                yield measure.mean_row(
                    metric.name, column[samples], owner, job.ruler.weights, threat=threat,
                    recognizer=attacker.recognizer.name, params={"region": region},
                    unit=metric.unit, version=metric.version,
                    higher_is_better=not metric.higher_is_better,
                )  # fmt: skip
