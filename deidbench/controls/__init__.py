"""Controls: every attack is tried on faces where its outcome is known before it is believed.

A broken attack looks like good protection. So each run of a protocol that asks for it tries its
attackers on faces that are not treated at all, on faces that show nothing, on faces behind a blur
that can be undone, and on embeddings that were turned in their space. An attack that fails there
stops the run: ``ControlError``.

Intervals here are of 99.9 %, not 95 %: dozens of controls are read at once, and one of twenty good
attacks would else be called broken. Where an attack must gain, it must take away at least a fifth
of what an attacker who learns nothing misses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deidbench import statistics
from deidbench.attackers import Assault, Attacker, School, detect
from deidbench.errors import ControlError
from deidbench.identification import rank_rows, search
from deidbench.measure import Ruler, count
from deidbench.pairs import cross_pairs, same_image_pairs, with_impostors
from deidbench.results.schema import ControlRecord, NotMeasured

from .stand_ins import BLURS, Grey, MildBlur, Unchanged

if TYPE_CHECKING:
    from deidbench.setup import Job
    from deidbench.types import BoolArray, FloatArray, IntArray, Recognizer, Restorer, ScoreCounts

PEOPLE = 16
"""Of EVAL, that the controls look at: enough to see what is broken, and quick."""
TEACHERS = 28
"""Of ATTACKER-TRAIN, that attackers learn from here; a quarter of them to choose by."""
FEWEST_PEOPLE = 5
"""Of EVAL: fewer give no interval of 99.9 %."""
FEWEST_TEACHERS = 16
"""Of ATTACKER-TRAIN: from fewer, an attacker who is not broken may learn nothing."""
LEVEL = 0.999
ROOM = 0.95
"""The mild blur is the mildest behind which no recognizer has a larger AUC: room to gain."""
GAIN = 0.2
"""Share of 1 - AUC of an attacker who learns nothing that one who learns must take away."""
EXACT = 1e-9
SEEN = 0.99
"""AUC with which a detector must tell grey squares from faces."""


@dataclass(frozen=True)
class Outcome:
    """The AUC of an attack, and its value in each draw of people, (B,)."""

    auc: float
    draws: FloatArray
    people: int

    def interval(self) -> tuple[float, float]:
        """Of the AUC, at ``LEVEL``."""
        return statistics.interval(self.draws, LEVEL, subjects=self.people)

    def above(self, other: Outcome) -> tuple[float, float]:
        """Interval of how much larger it is than another on the same people."""
        return statistics.interval(self.draws - other.draws, LEVEL, subjects=self.people)

    def gains(self, other: Outcome) -> tuple[str, str, bool]:
        """What is expected of one who learned where another did not, what came out, and whether."""
        low, high = self.above(other)
        least = other.auc + GAIN * (1 - other.auc)
        return (
            f"AUC at least {least:.4f}; without learning it is {other.auc:.4f}",
            f"{self.auc:.4f}, difference [{low:.4f}, {high:.4f}]", self.auc >= least,
        )  # fmt: skip


def check(job: Job) -> tuple[list[ControlRecord], list[NotMeasured]]:
    """Try all attacks of a job: what was expected and came out of each, and what was not tried.

    Raises:
        ControlError: an attack failed its control.
    """
    if len(np.unique(job.ruler.subjects[job.measured])) < FEWEST_PEOPLE:
        return [], [NotMeasured(what="controls", why=f"fewer than {FEWEST_PEOPLE} people in EVAL")]
    job.progress.say("controls: every attack is tried where its outcome is known")
    small = _fewer_people(job)
    taught = School(small).people >= FEWEST_TEACHERS
    blur = mild_blur(small)
    blurred = School(_with(small, blur))
    restorers = {
        _title(part): part.restorers(blurred.remembered(part))
        for threat in job.threats
        for part in (_alone(threat) if threat.kind == "images" and taught else ())
    }
    found: list[ControlRecord] = []
    for recognizer in job.recognizers:
        found += Trial(small, recognizer, blur, restorers, taught).records()
    found += _detectors(small) if taught else []
    job.progress.say(f"controls: all {len(found)} hold")
    why = f"fewer than {FEWEST_TEACHERS} people to learn from; only the others were tried"
    learns = any(hasattr(threat, "learn") for threat in job.threats)
    gaps = [NotMeasured(what="controls of attackers who learn", why=why)]
    return found, gaps if learns and not taught else []


@dataclass
class Trial:
    """The controls of all attacks by one recognizer."""

    job: Job
    recognizer: Recognizer
    blur: MildBlur
    restorers: Mapping[str, Sequence[Restorer]]
    """Of those who restore images, as they learned to undo the mild blur, by title."""
    taught: bool
    _attackers: dict[str, Attacker] = field(default_factory=dict)

    def records(self) -> Iterator[ControlRecord]:
        """One control after the other."""
        clean = self.naive(Unchanged())
        yield self._mirrored()
        for threat in self._threats("embeddings", "recognizer"):
            yield from self._grey(threat)
            yield self._unchanged(threat, clean)
            for part in _alone(threat) if hasattr(threat, "alone") else ():
                yield self._unchanged(part, clean)
                if threat.enrolled != "treated":
                    yield self._turned(part)
            if threat.kind == "recognizer":
                yield self._seen_through(threat)
        for threat in self._threats("images"):
            for part in _alone(threat):
                yield from self._restored(part, clean)

    def _threats(self, *kinds: str) -> Iterator[Any]:
        """Those that treat faces; those that learn only where there is something to learn from."""
        for threat in self.job.threats:
            learns = hasattr(threat, "learn")
            if threat.kind in kinds and threat.probe == "treated" and (self.taught or not learns):
                yield threat

    def naive(self, method: Any) -> Outcome:
        """Clean faces against those of a method, by the recognizer as it is."""
        attacker = self._attacker(method)
        return self._compared(attacker, attacker.embedded("clean"), attacker.embedded("treated"))

    def _mirrored(self) -> ControlRecord:
        attacker = self._attacker(Unchanged())
        scores, same = attacker.before.scores, self.job.cross.same
        made = ~np.isnan(scores)
        genuine, impostor = scores[made & same], scores[made & ~same]
        total = statistics.auc(genuine, impostor) + statistics.auc(impostor, genuine)
        return self._judged(
            "swapped labels", "AUC and AUC with labels swapped add up to 1", f"{total:.9f}",
            abs(total - 1) < EXACT,
        )  # fmt: skip

    def _unchanged(self, threat: Any, clean: Outcome) -> ControlRecord:
        """Faces that nobody treated: an attack must not lose what is there."""
        outcome = self._outcome(self._attacker(Unchanged()), threat)
        low, high = outcome.above(clean)
        return self._judged(
            f"{_title(threat)} on unchanged faces", f"AUC not below {clean.auc:.4f}, as T0",
            f"{outcome.auc:.4f}, difference [{low:.4f}, {high:.4f}]", high >= -EXACT,
        )  # fmt: skip

    def _grey(self, threat: Any) -> Iterator[ControlRecord]:
        """Faces that show nothing: an attack must find nothing."""
        assault = self._assault(self._attacker(Grey()), threat)
        yield self._guessing(_title(threat), self._of(assault))
        yield self._at_chance(threat, assault)

    def _guessing(self, title: str, outcome: Outcome) -> ControlRecord:
        low, high = outcome.interval()
        return self._judged(
            f"{title} on grey faces", "AUC 0.5",
            f"{outcome.auc:.4f} [{low:.4f}, {high:.4f}]", low - EXACT <= 0.5 <= high + EXACT,
        )  # fmt: skip

    def _at_chance(self, threat: Any, assault: Assault) -> ControlRecord:
        job, sides = self.job, assault.sides
        found = search(
            sides.enrolled, sides.probe, job.ruler.subjects, job.measured, sides.similarity
        )
        row = next(rank_rows(found, job.ruler, [1], view="landmarks"))
        chance = 1 / found.n_enrolled
        low, high = row.low, row.high
        good = low is not None and high is not None and low - EXACT <= chance <= high + EXACT
        return self._judged(
            f"rank-1 of {_title(threat)} on grey faces", f"{chance:.4f}, chance",
            f"{row.value} [{low}, {high}]", good,
        )  # fmt: skip

    def _turned(self, threat: Any) -> ControlRecord:
        """Embeddings turned by a fixed rotation: who learns must undo it, who does not cannot."""
        clean = self._attacker(Unchanged()).embedded("clean")
        turned = clean @ rotation(clean.shape[1]).astype(clean.dtype)
        job = _with(self.job, Unchanged())
        attacker = Attacker(job, self.recognizer, School(job))
        attacker.replace_sides(clean=clean, treated=turned, rekeyed=turned)
        naive = self._compared(attacker, clean, turned)
        outcome = self._outcome(attacker, threat)
        return self._judged(f"{_title(threat)} on turned embeddings", *outcome.gains(naive))

    def _restored(self, threat: Any, clean: Outcome) -> Iterator[ControlRecord]:
        """Who learned to undo a mild blur must gain by it; a filter must leave faces recognisable.

        And nobody may see anything in grey faces.
        """
        title = _title(threat)
        learned = self.restorers[title]
        if not learned:
            yield self._judged(f"{title} on a mild blur", "a restorer", "none", False)
        for restorer in learned:
            name = title if title != threat.id else f"{title} ({restorer.name})"
            yield self._guessing(name, self._behind(self._attacker(Grey()), restorer))
            if getattr(threat, "learns", True):
                yield self._gaining(name, self._behind(self._attacker(self.blur), restorer))
            else:
                yield self._harmless(name, restorer, clean)

    def _seen_through(self, threat: Any) -> ControlRecord:
        return self._gaining(threat.id, self._outcome(self._attacker(self.blur), threat))

    def _gaining(self, title: str, outcome: Outcome) -> ControlRecord:
        naive = self.naive(self.blur)
        return self._judged(f"{title} on a mild blur", *outcome.gains(naive))

    def _harmless(self, title: str, restorer: Restorer, clean: Outcome) -> ControlRecord:
        outcome = self._behind(self._attacker(Unchanged()), restorer)
        least = (clean.auc + 0.5) / 2
        return self._judged(
            f"{title} on unchanged faces", f"AUC at least {least:.4f}", f"{outcome.auc:.4f}",
            outcome.auc >= least,
        )  # fmt: skip

    def _behind(self, attacker: Attacker, restorer: Restorer) -> Outcome:
        probe = attacker.stages.embed(
            self.recognizer, "treated", restorer=restorer, rows=self.job.published
        )
        return self._compared(attacker, attacker.embedded("clean"), probe)

    def _attacker(self, method: Any) -> Attacker:
        """The recognizer before the faces of a method; embedded once for all controls."""
        if method.name not in self._attackers:
            job = _with(self.job, method)
            self._attackers[method.name] = Attacker(job, self.recognizer, School(job))
        return self._attackers[method.name]

    def _assault(self, attacker: Attacker, threat: Any) -> Assault:
        """The attack on cross-image pairs as the headline sees it."""
        return next(attacker.assaults(threat, ("landmarks",)))

    def _outcome(self, attacker: Attacker, threat: Any) -> Outcome:
        return self._of(self._assault(attacker, threat))

    def _compared(self, attacker: Attacker, enrolled: FloatArray, probe: FloatArray) -> Outcome:
        return self._of(attacker.naive(enrolled, probe))

    def _of(self, assault: Assault) -> Outcome:
        scores, same = assault.attack.scores, assault.attack.pairs.same
        made = ~np.isnan(scores)
        scored = {"genuine": scores[made & same], "impostor": scores[made & ~same]}
        return _outcome(self.job, scored, count(assault.attack, self.job.ruler))

    def _judged(self, name: str, expected: str, found: str, good: bool) -> ControlRecord:
        return judged(name, expected, found, good, recognizer=self.recognizer.name)


def mild_blur(job: Job) -> MildBlur:
    """The mildest blur that leaves every recognizer room to gain; else the strongest."""
    for blur in map(MildBlur, BLURS):
        areas = (Trial(job, one, blur, {}, False).naive(blur).auc for one in job.recognizers)
        if all(area <= ROOM for area in areas):
            break
    return blur


def judged(
    name: str, expected: str, found: str, good: bool, recognizer: str | None = None
) -> ControlRecord:
    """The record of a control that held. Raises ``ControlError`` for one that did not."""
    if not good:
        by = f" by {recognizer}" if recognizer else ""
        raise ControlError(
            f"control failed: {name}{by}: expected {expected}, but got {found}. This attack is "
            "broken here, so no number of it can be trusted, and nothing was written. Report it, "
            "or use --protocol quick-v1."
        )
    return ControlRecord(name=name, recognizer=recognizer, expected=expected, found=found)


def rotation(size: int, seed: int = 0) -> FloatArray:
    """A random rotation or reflection, (size, size) orthogonal."""
    drawn = np.random.default_rng(seed).normal(size=(size, size))
    turned, triangle = np.linalg.qr(drawn)
    orthogonal: FloatArray = turned * np.sign(np.diag(triangle))
    return orthogonal


def _detectors(job: Job) -> Iterator[ControlRecord]:
    """Who detects treatment must see grey squares, and nothing where nothing was done."""
    for threat in job.threats:
        if threat.kind != "detection":
            continue
        for method in (Unchanged(), Grey()):
            yield _detector(_with(job, method), threat)


def _detector(job: Job, threat: Any) -> ControlRecord:
    unseen = isinstance(job.method, Unchanged)
    found = detect(School(job), threat)
    outcome = _outcome(job, found.scored, found.counts(job.ruler.weights))
    low, high = outcome.interval()
    return judged(
        f"{threat.id} on {'unchanged' if unseen else 'grey'} faces",
        "AUC 0.5" if unseen else f"AUC at least {SEEN}",
        f"{outcome.auc:.4f} [{low:.4f}, {high:.4f}]",
        low - EXACT <= 0.5 <= high + EXACT if unseen else outcome.auc >= SEEN,
    )


def _outcome(job: Job, scored: Mapping[str, FloatArray], counts: ScoreCounts) -> Outcome:
    metric = next(one for one in job.ruler.metrics if one.name == "auc")
    return Outcome(metric(**scored), metric.from_counts(counts), job.ruler.weights.shape[1])


def _fewer_people(job: Job) -> Job:
    """The same job on the first people of EVAL and ATTACKER-TRAIN, without thresholds."""
    subjects = job.ruler.subjects
    taught = _first(subjects[job.learning], job.held)
    chosen = job.measured[subjects[job.measured] < PEOPLE]
    people = len(np.unique(subjects[chosen]))
    weights = statistics.draw_weights(people, draws=job.config.draws, seed=job.config.seed)
    listed = chosen.tolist()
    cross, own = cross_pairs(listed, subjects), same_image_pairs(listed, subjects)
    published = np.zeros(len(job.samples), bool)
    published[chosen] = True
    return replace(
        job, measured=chosen, published=published, calibration=None, cross=cross, own=own,
        same=with_impostors(own, cross), ruler=Ruler(job.ruler.metrics, subjects, weights),
        learning=job.learning[taught], held=job.held[taught],
    )  # fmt: skip


def _first(subjects: IntArray, held: BoolArray) -> BoolArray:
    """Which learning samples are of the first people to fit on, and to choose by."""
    fitting, choosing = (np.unique(subjects[held == x]) for x in (False, True))
    kept = [*fitting[: TEACHERS - TEACHERS // 4], *choosing[: TEACHERS // 4]]
    return np.isin(subjects, kept)


def _with(job: Job, method: Any) -> Job:
    """The same job with another method."""
    return replace(job, method=method, stages=job.stages.with_method(method))


def _alone(threat: Any) -> Sequence[Any]:
    """The attacks that a threat chooses between, each by itself; else the threat."""
    parts: Sequence[Any] = threat.alone() if hasattr(threat, "alone") else [threat]
    return parts


def _title(threat: Any) -> str:
    """'T3 (ridge)' for a part of a threat."""
    only = getattr(threat, "only", None)
    return f"{threat.id} ({only})" if only else str(threat.id)
