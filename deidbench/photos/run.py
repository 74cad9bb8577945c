"""Treats all photographs and videos of a folder, one by one, and says what was done with each."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image as Pillow

from deidbench import __version__
from deidbench.assets import sha256_of
from deidbench.errors import DeidbenchError
from deidbench.progress import Progress

from .blend import treat, uncovered
from .detect import Face, Finder
from .metadata import Photograph, encode, open_photograph
from .tree import (
    Manifest,
    Skipped,
    Task,
    is_video,
    locked,
    plan,
    sha256,
    work_key,
    written_whole,
)
from .video import treat_video

if TYPE_CHECKING:
    from deidbench.types import FileMethod, Method
    from deidbench.yunet import Image

VERSION = 2  # +1 when the same input and settings give another output
ROUNDS = 2  # a face that shows in the output is treated in a second round

EXIT_FAILED, EXIT_LEFT = 2, 4


@dataclass(frozen=True)
class Outcome:
    """What was done with one file."""

    name: str
    status: Literal["treated", "done before", "failed"]
    faces: list[dict[str, Any]] = field(default_factory=list)
    """Box (left, top, right, bottom), score and detector; of a video, the width of each face."""
    left: list[Any] = field(default_factory=list)
    """Boxes (of a video: frames) of the output that may show an untreated face."""
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What was done with all files."""

    outcomes: list[Outcome]
    skipped: list[Skipped]

    @property
    def exit_code(self) -> int:
        """4: a face may still show; else 2: a file could not be treated; else 0."""
        if any(one.left for one in self.outcomes):
            return EXIT_LEFT
        return EXIT_FAILED if any(one.status == "failed" for one in self.outcomes) else 0

    def as_text(self) -> str:
        """A line for each file, then the sum of them."""
        faces = sum(len(one.faces) for one in self.outcomes)
        failed = sum(one.status == "failed" for one in self.outcomes)
        left = sum(bool(one.left) for one in self.outcomes)
        lines = [f"{one.name}: {_in_words(one)}" for one in self.outcomes]
        lines += [f"{one.name}: skipped, {one.why}" for one in self.skipped]
        lines.append(
            f"{len(self.outcomes) - failed} files treated, {faces} faces, {failed} failed, "
            f"{len(self.skipped)} skipped, {left} may still show a face"
        )
        return "\n".join(lines)

    def as_json(self) -> str:
        """Everything, for other programs."""
        return json.dumps({**asdict(self), "exit_code": self.exit_code}, indent=1)


class Treatment:
    """A method, the detectors and their settings, ready to treat files.

    Raises:
        AssetUnavailableError: the weights of YuNet cannot be had.
        DeidbenchError: the method cannot treat single faces.
    """

    def __init__(
        self,
        method: Method | FileMethod,
        *,
        fast: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.method = _of_faces(method)
        self.seed, self.device = seed, device
        self.finder = Finder(fast=fast, device=device)
        self.checker = Finder(quick=True) if fast else self.finder
        self.settings = json.dumps([VERSION, __version__, _identity(method), fast, seed])

    def photograph(self, task: Task) -> tuple[bytes, Outcome]:
        """The treated file, and what was done; the output is decoded and searched again."""
        photo = open_photograph(task.source)
        treated, covered = photo.pixels, np.zeros(photo.pixels.shape[:2], np.bool_)
        faces: list[Face] = []
        fresh = self.finder(photo.pixels)
        for _ in range(ROUNDS):
            seeds = [_seed_of(task, self.seed)] * len(fresh)
            treated, region = treat(treated, fresh, seeds, self.method, self.device)
            covered |= region
            faces += fresh
            content = encode(photo, treated, task.target.suffix)
            fresh = uncovered(self.checker(_decoded(content)), covered)
            if not fresh:
                break
        said = [_said(face) for face in faces]
        left = [_said(face)["box"] for face in fresh]
        notes = [*photo.notes, *_lost(photo, task)]
        return content, Outcome(task.name, "treated", said, left, notes)

    def video(self, task: Task, part: Path, progress: Progress) -> Outcome:
        """Write the treated video, and say what was done."""
        first = _seed_of(task, self.seed)

        def paint(image: Image, faces: Sequence[Face], numbers: Sequence[int]) -> Image:
            seeds = [first + number for number in numbers]
            return treat(image, faces, seeds, self.method, self.device)[0]

        result = treat_video(
            task.source, part, paint, finder=self.finder, checker=self.checker, tell=progress.say
        )
        faces = [{"width": width} for width in result.sizes]
        return Outcome(task.name, "treated", faces, list(result.left), list(result.notes))


def _seed_of(task: Task, seed: int) -> int:
    """Each file has its own numbers: two photographs of a person shall not share a key."""
    return int(hashlib.sha256(f"{seed}\n{task.name}".encode()).hexdigest()[:7], 16)


def deidentify(
    source: Path, target: Path, treatment: Treatment, strict: bool, progress: Progress
) -> Report:
    """Treat a file or a folder tree; what an earlier run of the same settings did is kept.

    A file that cannot be treated is not copied, and the others go on unless ``strict``.

    Raises:
        DeidbenchError: the places do not fit, or a file cannot be treated and ``strict`` is set.
    """
    tasks, skipped = plan(source, target)
    outcomes: list[Outcome] = []
    if not source.is_dir():
        [task] = tasks
        if task.target.exists():
            raise DeidbenchError(f"{task.target} exists; it is never overwritten. Name another.")
        return Report([_attempt(task, treatment, None, strict, progress)], skipped)
    with locked(target):
        manifest = Manifest(target)
        for task in progress.track(tasks, "deidentify"):
            outcomes.append(_attempt(task, treatment, manifest, strict, progress))
    return Report(outcomes, skipped)


def _in_words(outcome: Outcome) -> str:
    if outcome.status == "failed":
        return f"FAILED, {outcome.problem}"
    count = len(outcome.faces)
    told = [f"{count} face{'s' * (count != 1)}", *outcome.notes]
    if outcome.status == "done before":
        told.append("done before")
    if outcome.left:
        told.append(f"MAY STILL SHOW A FACE at {outcome.left}")
    return ", ".join(told)


def _attempt(
    task: Task, treatment: Treatment, manifest: Manifest | None, strict: bool, progress: Progress
) -> Outcome:
    start = time.monotonic()
    try:
        outcome = _treat(task, treatment, manifest, progress)
    except (DeidbenchError, OSError) as error:
        if strict:
            raise
        outcome = Outcome(task.name, "failed", problem=" ".join(str(error).split()))
    return replace(outcome, seconds=round(time.monotonic() - start, 3))


def _treat(
    task: Task, treatment: Treatment, manifest: Manifest | None, progress: Progress
) -> Outcome:
    key = work_key(task.source, treatment.settings)
    before = manifest.finished(task, key) if manifest else None
    if before is not None:
        return Outcome(task.name, "done before", before["faces"], before["left"], before["notes"])
    with written_whole(task.target) as part:
        if is_video(task.source):
            outcome, output = treatment.video(task, part, progress), ""
        else:
            content, outcome = treatment.photograph(task)
            part.write_bytes(content)
            output = sha256(content)
        if manifest:
            said = {"faces": outcome.faces, "left": outcome.left, "notes": outcome.notes}
            manifest.add(task, key, output or sha256_of(part), said)
        part.replace(task.target)
    return outcome


def _of_faces(method: Any) -> Method:
    if hasattr(method, "fit"):
        raise DeidbenchError(
            f"method '{method.name}' needs the whole set of people that it hides among, which "
            "photographs do not name. Use 'deidbench evaluate' for it, or another method here."
        )
    if not hasattr(method, "deidentify"):
        raise DeidbenchError(
            f"method '{method.name}' treats whole files, not faces. Run it on the files itself."
        )
    faces_alone: Method = method
    return faces_alone


def _identity(method: Any) -> list[Any]:
    """All of a method that changes its output."""
    return [
        method.name,
        method.version,
        method.strength,
        dict(getattr(method, "parameters", {})),
        getattr(method, "weights_sha256", None),
        getattr(method, "fingerprint", None),
    ]


def _decoded(content: bytes) -> Image:
    with Pillow.open(io.BytesIO(content)) as picture:
        return np.array(picture.convert("RGB"))


def _said(face: Face) -> dict[str, Any]:
    box = [round(float(v), 1) for v in face.box]
    return {"box": box, "score": round(face.score, 3), "detector": face.detector}


def _lost(photo: Photograph, task: Task) -> list[str]:
    suffix = task.target.suffix.lower()
    return [] if suffix == task.source.suffix.lower() else [f"written as {suffix[1:]}"]
