"""The records and protocols that all parts of deidbench share. Imports nothing of ours.

Conventions: images inside the program are float32 RGB tensors (N, 3, H, W) in [0, 1]; landmarks
are (N, 5, 2) as (x, y) in pixels of the image, in the order left eye, right eye, nose tip, left
mouth corner, right mouth corner (left and right as seen by the viewer); similarity scores are
larger for faces that are more alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    FloatArray = NDArray[np.floating[Any]]
    IntArray = NDArray[np.integer[Any]]
    BoolArray = NDArray[np.bool_]

View = Literal["landmarks", "system", "conditional"]
Similarity = Literal["cosine", "negative-euclidean", "negative-chi-square"]


@dataclass(frozen=True)
class Sample:
    """One photograph of one person."""

    id: str
    """Unique in its dataset and stable between machines: the POSIX path below the dataset."""
    subject: str
    path: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    """Optional group labels (sex, age band, skin tone, ...). Never guessed."""
    split: str | None = None
    """The part that the dataset itself puts this sample in, when it has fixed splits."""
    fault: str | None = None
    """What is known to be wrong with its label; such a sample is left out of cross-image pairs."""


def subject_digest(subject: str) -> str:
    """12 hex digits that stand for a person: enough to find an overlap without a list of names."""
    return hashlib.sha256(subject.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Pair:
    """One comparison of an official pair list, by sample id."""

    reference: str
    probe: str
    same: bool
    fold: int = 0


class Dataset(Protocol):
    """Photographs with known subjects. Built as ``cls(argument)``; argument is what follows ':'.

    ``official_only = True`` says that different subjects may be one person, as in a list that names
    no one: only the official pairs are then honest, and a run over all pairs is refused.

    A dataset may also offer a class method ``card() -> str``, its datasheet in Markdown (what is in
    it, how it was made, what it is good for and what not): ``deidbench datasets card`` prints it.
    It is called without an argument of the dataset, and must not import torch.

    For ``deidbench datasets check`` it may offer ``recognises(path) -> str | None``, a class method
    that says why a path looks like it, ``notes() -> Sequence[str]``, and ``root``, its folder.

    One that knows where landmarks are may offer ``truth()``, a mapping from sample ids to (5, 2)
    arrays in pixels of the photographs. ``truth_labels`` names labels that a treated face should
    still show: a classifier learns them from the clean faces of people whom the dataset sets apart
    for training ("method-train", "attacker-train") and is tried on the measured ones.
    """

    name: str
    version: int
    synthetic: bool
    """True when no real person is shown: only such faces may appear in a report by default."""

    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by id."""

    def pairs(self) -> Sequence[Pair]:
        """The official pair list; empty when there is none."""


class Named(Protocol):
    """What a part of any kind may offer besides its contract; the harness looks for each.

    Parts are named ``NAME`` or ``NAME:ARGUMENT``. A constructor with a parameter ``argument`` gets
    what follows the colon, or None; its other parameters are settings (``--set NAME=VALUE``).
    """

    by_default: bool
    """False: only used when a user names it."""
    needs_argument: bool
    """True: it cannot be built without an argument, so 'all' leaves it out."""


class Method(Protocol):
    """A de-identification method. Built as ``cls()`` or ``cls(strength=...)``.

    A method may also offer:

    - ``fit(faces, subjects)``, for one that needs the set that is to be published (k-Same). It is
      called before ``deidentify``, with all faces of one part, (N, 3, H, W), and a name for each.
    - ``parameters``, a mapping of the settings besides strength that change its output.
    - ``fingerprint``, a string that changes with its code, where that lies outside its module.
    - ``training_subjects``, a ``subject_digest`` for each person that it was trained on: a run that
      would measure one of them is refused.
    - ``trained_on_metrics``, the image metrics in its loss: they flatter it, and reports say so.
    - ``rank_1_bound``, the share of people that anybody can name rightly by one treated image of
      each, whatever he has learnt (1/k for k-Same): a run checks that its searches stay below.
    """

    name: str
    version: int
    strength: float | None
    """In [0, 1], larger = stronger; None when the method has a single setting."""
    trained_against: Sequence[str]
    """Recognizers that the method saw in training; they attack as T1w, never as T1."""

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """float32 RGB (N, 3, H, W) in [0, 1] -> same shape, dtype and device, finite, in [0, 1].

        The same faces and seed give the same output.
        """


class FileMethod(Protocol):
    """A method that treats whole photographs, as files: a program, or somebody else's folder.

    Each treated photograph is warped as its original was, so that both give the same chip.
    """

    name: str
    version: int
    strength: float | None
    trained_against: Sequence[str]

    def treat(self, samples: Sequence[Sample], workspace: Path) -> Mapping[str, Path]:
        """Sample ids to treated files; a sample that is left out counts as a failure.

        ``workspace`` is an empty folder to work in, which is removed after the run.
        """


class Recognizer(Protocol):
    """An attacker's eyes: faces to embeddings. Built as ``cls()``; a frozen torch module.

    ``differentiable = False`` says that no gradient reaches the image: it attacks as any other, but
    no method can be trained against it. Raises ``AssetUnavailableError`` when its weights cannot be
    had.
    """

    name: str
    version: int
    similarity: Similarity
    weights_sha256: str

    def to(self, device: Any) -> Any:
        """Move the weights, as ``torch.nn.Module.to``."""

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] and (N, 5, 2) in chip pixels -> (N, D) float32, differentiable.

        Each recognizer warps from the landmarks to its own template.
        """


@dataclass(frozen=True)
class ScoreCounts:
    """Scores of B weighted draws, counted in K bins: what intervals are computed from.

    ``edges`` (K + 1,) ascending, -inf first and +inf last; bin k holds edges[k] <= s < edges[k+1].
    ``genuine`` and ``impostor`` are (B, K) float: the summed weight of the scores in each bin.
    ``centres`` (K,) are the mean scores of the bins, for metrics of moments.
    Every decision threshold in use is one of the edges, so that rates at it are exact.
    """

    edges: FloatArray
    centres: FloatArray
    genuine: FloatArray
    impostor: FloatArray


class VerificationMetric(Protocol):
    """A number made of genuine and impostor scores.

    ``threats`` may name those that it makes sense of; the default is all.
    """

    name: str
    version: int
    """+1 when its values change; numbers of different versions are never compared."""
    higher_is_better: bool
    """As the defender sees it."""
    unit: str
    needs_threshold: bool
    kind: Literal["verification"]

    def __call__(
        self, *, genuine: FloatArray, impostor: FloatArray, threshold: float | None = None
    ) -> float:
        """Exact value from all scores, (G,) and (I,). Raises ``MetricUndefinedError``."""

    def from_counts(self, counts: ScoreCounts, threshold: float | None = None) -> FloatArray:
        """Its value in each of the B draws, (B,); NaN where a draw does not define it."""


class ImageMetric(Protocol):
    """A number made of an image and its treated version: utility, never privacy.

    ``regions`` may say that it makes sense of the whole chip only, ("chip",); the default is
    ("chip", "face"). A value of NaN says that this image does not define it.
    """

    name: str
    version: int
    higher_is_better: bool
    unit: str
    kind: Literal["image"]

    def to(self, device: Any) -> Any:
        """Move any weights to a device; returns self."""

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) in [0, 1] -> (N,) float32, one value an image."""


class LandmarkMetric(Protocol):
    """A number made of the landmarks of a face before and after its treatment."""

    name: str
    version: int
    higher_is_better: bool
    unit: str
    kind: Literal["landmarks"]

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 5, 2) in chip pixels, NaN for lost faces -> (N,) float32, NaN where undefined."""


class SetMetric(Protocol):
    """A number made of all images together: how far the treated set is from the original one.

    It may also offer ``note(n) -> str | None``: what a reader must know of a number of n images.
    """

    name: str
    version: int
    higher_is_better: bool
    unit: str
    kind: Literal["set"]

    def to(self, device: Any) -> Any:
        """Move any weights to a device; returns self."""

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, D), what images are compared by."""

    def __call__(self, original: FloatArray, treated: FloatArray) -> float:
        """Features of both sets, (N, D) each. Raises ``MetricUndefinedError``."""


@dataclass(frozen=True)
class Embeddings:
    """One recognizer's embeddings of all samples: (N, D) each, rows of NaN for lost faces."""

    clean: FloatArray
    treated: FloatArray
    rekeyed: FloatArray | None = None
    """Treated again with another key, for threats that ask for it; None to all others."""

    def of(self, rows: IntArray | BoolArray) -> Embeddings:
        """Those of some samples."""
        rekeyed = None if self.rekeyed is None else self.rekeyed[rows]
        return Embeddings(self.clean[rows], self.treated[rows], rekeyed)


@dataclass(frozen=True)
class Lesson:
    """What an attacker learns from who works on embeddings: M faces of ATTACKER-TRAIN people.

    No face is lost: rows are finite. None of the people is in CALIBRATION or EVAL.
    """

    embeddings: Embeddings
    """(M, D) each."""
    subjects: IntArray
    """Subject number of each face, (M,), from 0."""
    held: BoolArray
    """Faces of people to choose between attacks by, (M,); parameters are fitted on the others."""
    similarity: Similarity
    """The recognizer's own."""
    seed: int


@dataclass(frozen=True)
class FaceLesson:
    """The same for an attacker who works on images."""

    clean: Tensor
    """uint8 RGB (M, 3, S, S): chips as the harness aligns them."""
    treated: Tensor
    landmarks: Tensor
    """(M, 5, 2) float32 in chip pixels, of the clean faces."""
    subjects: IntArray
    held: BoolArray
    seed: int
    device: str
    progress: Callable[[str], None]
    """Shows one line of how far the learning is."""


class Threat(Protocol):
    """Who compares what with what (docs/protocol.md).

    ``kind`` says what the attacker works on, and which methods he has besides:

    - "embeddings": nothing else, or ``learn(lesson: Lesson)``, which returns the threat as it
      attacks after the lesson.
    - "images": ``learn(lesson: FaceLesson) -> dict[str, ndarray]``, what he remembers, and
      ``restorers(memory) -> Sequence[Restorer]``. The harness embeds treated faces behind each and
      keeps the one that recognises the held people best; ``treated`` is then what it gives.
      ``learns = False`` says that it remembers nothing: controls then ask less of it.
    - "recognizer": ``learn(lesson: FaceLesson, recognizer) -> dict[str, ndarray]`` and
      ``adapted(memory, recognizer) -> Recognizer``, which embeds all faces anew.
    - "detection": ``learn`` as for images, and ``detector(memory)``, a function of faces
      (n, 3, S, S) float in [0, 1] to scores (n,), larger = more likely treated.

    A threat may also offer ``similarity``, in place of the recognizer's own, and ``note``, what a
    reader should know of how it went (which attack was chosen). One that chooses between attacks
    may offer ``alone()``, which gives them each by itself for the controls, and ``only``, its name.
    """

    id: str
    version: int
    title: str
    kind: Literal["embeddings", "images", "recognizer", "detection"]
    enrolled: Literal["clean", "treated", "both"]
    probe: Literal["clean", "treated"]
    views: Sequence[View]
    """In which ways a face that is lost is dealt with; the headline view is 'landmarks'."""
    rekeys: bool
    """Whether it compares faces that were treated with different keys."""
    summary: ClassVar[str]

    def applies(self, recognizer: str, trained_against: Sequence[str]) -> bool:
        """Whether this recognizer may carry out this attack."""

    def attack(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """Enrolled and probe embeddings, (N, D) each, that the pair list is scored with."""

    def calibrate(self, embeddings: Embeddings) -> tuple[FloatArray, FloatArray]:
        """The same for the CALIBRATION pairs that this attacker fixes his thresholds on."""


class Restorer(Protocol):
    """What an attacker does to a treated face before a recognizer sees it."""

    name: str
    fingerprint: str
    """Changes with all that changes its output, its weights among it."""

    def to(self, device: Any) -> Any:
        """Move any weights to a device; returns self."""

    def __call__(self, faces: Tensor) -> Tensor:
        """float32 RGB (N, 3, S, S) in [0, 1] -> the same."""
