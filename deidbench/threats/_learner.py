"""An attacker who tries several ways to compare, and keeps the one that works on strangers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from deidbench.errors import DeidbenchError

from . import _maps
from ._embedded import EmbeddedThreat
from ._maps import Faces, Fit, Gaze

if TYPE_CHECKING:
    from typing_extensions import Self

    from deidbench.types import Embeddings, FloatArray, IntArray, Lesson, Similarity


@dataclass(frozen=True)
class Study:
    """Faces to learn from, and what was chosen by folds over their people; each once."""

    faces: Faces
    seed: int
    similarity: Similarity
    """The recognizer's own."""
    side: Literal["clean", "treated"]
    """Of the enrolled face that a mapped probe is compared with."""

    def as_it_is(self, side: Literal["clean", "treated"]) -> Fit:
        """Nothing is adapted."""
        return lambda _: Gaze(self.similarity, side)

    @cached_property
    def ridge(self) -> Fit:
        """A linear map, its penalty chosen."""
        penalty = _maps.chosen_penalty(self.faces, self.seed, side=self.side)
        return partial(_maps.ridge if self.side == "clean" else _maps.mapped, penalty=penalty)

    @cached_property
    def whitened(self) -> Fit:
        """A metric, its shrinkage chosen."""
        shrinkage = _maps.chosen_shrinkage(self.faces, self.seed)
        return partial(_maps.whitened, shrinkage=shrinkage)

    @cached_property
    def fused(self) -> Fit:
        """The plain comparison, the linear map and the metric, their weights chosen."""
        plain: Fit = _maps.naive if self.side == "clean" else _maps.parrot
        parts = (plain, self.ridge, self.whitened)
        weights = _maps.chosen_weights(self.faces, parts, self.seed)
        return lambda faces: _maps.fused([part(faces) for part in parts], weights)

    def refined(self, base: Fit) -> Fit:
        """A network behind each side of another attack, how long they learn chosen."""
        looks = _maps.chosen_looks(self.faces, base, self.seed)
        return partial(_maps.refined, base=base, looks=looks, seed=self.seed)


Way = Callable[[Study], Fit]


class Learner(EmbeddedThreat):
    """Learns on some people, chooses on others, and attacks yet others.

    Args:
        only: one of the ways, in place of the one that works best.
    Raises:
        DeidbenchError: there is no such way.
    """

    WAYS: ClassVar[Mapping[str, Way]]
    """The simplest first: of equally good ones the first is taken. Those that adapt nothing are
    called "as ..."."""
    TRIED: ClassVar[Sequence[str]]
    """Those that controls try alone."""
    mapped_against: ClassVar[Literal["clean", "treated"]]

    similarity: Similarity
    """Of what ``attack`` gives, once it has learned."""
    note: str | None = None

    def __init__(self, only: str | None = None) -> None:
        if only is not None and only not in self.WAYS:
            raise DeidbenchError(f"{self.id}: no way '{only}'. Known: {', '.join(self.WAYS)}.")
        self._only = only
        self._gaze: Gaze | None = None

    @property
    def only(self) -> str | None:
        """The way that it is limited to."""
        return self._only

    def alone(self) -> list[Learner]:
        """The ways that learn, each by itself: controls try them, lest a good one hide a broken."""
        return [type(self)(only=way) for way in self.TRIED]

    def learn(self, lesson: Lesson) -> Self:
        """The threat as it attacks after the lesson: chosen, then fitted on all of it."""
        faces = self._faces(lesson.embeddings, lesson.subjects)
        study = Study(faces.of(~lesson.held), lesson.seed, lesson.similarity, self.mapped_against)
        fits = {name: self.WAYS[name](study) for name in self._competing(lesson)}
        areas = _maps.strangers_auc(list(fits.values()), faces, lesson.held, lesson.seed)
        ranked = dict(zip(fits, areas, strict=True))
        best = max(ranked, key=lambda name: round(ranked[name], 4))  # the first of equals
        taught = copy.copy(self)
        taught._gaze = fits[best](faces)
        taught.similarity = taught._gaze.similarity
        taught.note = _note(best, ranked)
        return taught

    def attack(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """The enrolled and the probe side, (N, K) each; a face that is lost stays a row of NaN.

        Raises:
            DeidbenchError: it has not learned yet.
        """
        if self._gaze is None:
            raise DeidbenchError(f"{self.id} has learned nothing yet: call learn(lesson) first.")
        faces = self._faces(embeddings, np.arange(len(embeddings.clean)))
        enrolled, probe = (_maps.lost_as_a_whole(side) for side in self._gaze.sides(faces))
        return enrolled, probe

    def calibrate(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """As the attack: who has the method can treat his calibration faces too."""
        return self.attack(embeddings)

    def _competing(self, lesson: Lesson) -> list[str]:
        """Where the held people make no pairs, nobody can say whether anything was learned, and
        only the ways that learn nothing compete.
        """
        if self._only is not None:
            return [self._only]
        told = _maps.measurable(lesson.subjects[lesson.held])
        return [name for name in self.WAYS if told or name.startswith("as ")]

    def _faces(self, embeddings: Embeddings, subjects: IntArray) -> Faces:
        if not self.rekeys:
            return Faces(_float64(embeddings.clean), _float64(embeddings.treated), subjects)
        if embeddings.rekeyed is None:
            raise DeidbenchError(f"{self.id}: expected faces treated with two keys, but got one.")
        three = (embeddings.clean, embeddings.treated, embeddings.rekeyed)
        clean, treated, rekeyed = (_float64(one) for one in three)
        return Faces(clean, treated, subjects, rekeyed)


def _float64(rows: FloatArray) -> FloatArray:
    return np.asarray(rows, np.float64)


def _note(best: str, areas: Mapping[str, float]) -> str:
    each = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
    return f"compares by '{best}'; AUC among people that the attacker did not learn from: {each}"
