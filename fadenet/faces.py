"""The faces that FaDeNet is trained on: photographs aligned once, kept as 8-bit chips."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from deidbench import plugins
from deidbench.errors import DeidbenchError
from deidbench.images import read_image
from deidbench.types import Sample

ALIGN_BATCH = 32


class TrainingFacesError(DeidbenchError):
    """The training faces cannot be read or are too few."""


@dataclass(frozen=True)
class Faces:
    """Aligned training faces of many people."""

    chips: Tensor
    """(N, 3, 160, 160) uint8."""
    landmarks: Tensor
    """(N, 5, 2) float32, in chip pixels."""
    subjects: tuple[str, ...]
    """Who is on each chip."""

    def __len__(self) -> int:
        return len(self.subjects)

    def take(self, rows: Sequence[int]) -> Faces:
        """These rows, in this order."""
        index = torch.as_tensor(rows, dtype=torch.long)
        subjects = tuple(self.subjects[row] for row in rows)
        return Faces(self.chips[index], self.landmarks[index], subjects)

    def digest(self) -> str:
        """sha256 that tells one set of faces from another (of people and landmarks)."""
        known = hashlib.sha256("\n".join(self.subjects).encode())
        known.update(self.landmarks.numpy().tobytes())
        return known.hexdigest()

    def companions(self) -> Tensor:
        """For each face, another face of the same person, or itself: (N,) long."""
        rows: dict[str, list[int]] = {}
        for row, subject in enumerate(self.subjects):
            rows.setdefault(subject, []).append(row)
        return torch.tensor(
            [_next(rows[subject], row) for row, subject in enumerate(self.subjects)]
        )


def _next(rows: list[int], row: int) -> int:
    return rows[(rows.index(row) + 1) % len(rows)]


def load_faces(source: Path, cache: Path, progress: Callable[[int, int], None]) -> Faces:
    """Faces from a folder of <person>/<photograph> or from an .npz of an earlier run.

    Args:
        source: the folder or file. cache: where the chips of a folder are kept.
        progress: called with photographs done and in all.
    Raises:
        DeidbenchError: nothing there, or nothing usable.
    """
    if source.is_file():
        return _read(source)[0]
    samples = plugins.load("datasets", "folder")(str(source)).samples()
    listing = _listing(samples)
    if cache.is_file():
        faces, made_of = _read(cache)
        if made_of == listing:
            return faces
    faces = _align(samples, progress)
    _write(cache, faces, listing)
    return faces


def _listing(samples: Sequence[Sample]) -> str:
    """sha256 of the photographs' names, sizes and times: other photographs are aligned anew."""
    known = hashlib.sha256()
    for sample in samples:
        found = sample.path.stat()
        known.update(f"{sample.id} {found.st_size} {found.st_mtime_ns}\n".encode())
    return known.hexdigest()


def _align(samples: Sequence[Sample], progress: Callable[[int, int], None]) -> Faces:
    from deidbench.alignment import Aligner

    aligner = Aligner()
    chips, landmarks, subjects = [], [], []
    for start in range(0, len(samples), ALIGN_BATCH):
        batch = samples[start : start + ALIGN_BATCH]
        aligned = aligner([read_image(sample.path) for sample in batch])
        chips.append(aligned.chips[aligned.found])
        landmarks.append(aligned.landmarks[aligned.found])
        found = aligned.found.tolist()
        subjects += [sample.subject for sample, ok in zip(batch, found, strict=True) if ok]
        progress(start + len(batch), len(samples))
    if not subjects:
        raise TrainingFacesError(f"no face was found in {len(samples)} photographs. Use others.")
    return Faces(torch.cat(chips), torch.cat(landmarks).float(), tuple(subjects))


def _write(path: Path, faces: Faces, listing: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as file:
        np.savez(
            file,
            chips=faces.chips.numpy(),
            landmarks=faces.landmarks.numpy(),
            subjects=np.array(faces.subjects),
            listing=np.array(listing),
        )
    temporary.replace(path)


def _read(path: Path) -> tuple[Faces, str]:
    """The faces of a file, and the listing of the photographs that they were made of."""
    try:
        with np.load(path, allow_pickle=False) as file:
            chips, landmarks, subjects = (file[k] for k in ("chips", "landmarks", "subjects"))
            listing = str(file["listing"]) if "listing" in file else ""
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingFacesError(f"{path} does not hold face chips. Delete it.") from error
    if chips.dtype != np.uint8 or landmarks.shape != (len(chips), 5, 2):
        raise TrainingFacesError(f"{path} holds arrays of other shapes. Delete it.")
    faces = Faces(
        torch.from_numpy(chips),
        torch.from_numpy(landmarks.astype(np.float32)),
        tuple(str(subject) for subject in subjects),
    )
    return faces, listing


def split_people(faces: Faces, held_out: int, seed: int) -> tuple[Faces, Faces]:
    """Training and validation faces of different people; about ``held_out`` of the latter.

    People of two photographs or more are set aside first: validation compares them.
    """
    people = sorted(set(faces.subjects))
    order = torch.randperm(len(people), generator=Generator().manual_seed(seed)).tolist()
    counts = Counter(faces.subjects)
    order.sort(key=lambda position: counts[people[position]] < 2)
    kept: set[str] = set()
    total = 0
    for position in order:
        if total >= held_out:
            break
        kept.add(people[position])
        total += counts[people[position]]
    rows = range(len(faces))
    train = [row for row in rows if faces.subjects[row] not in kept]
    if not train:
        raise TrainingFacesError(
            f"{len(people)} people are too few to set aside {held_out} validation faces. "
            "Add people or lower validation_faces."
        )
    return faces.take(train), faces.take([row for row in rows if faces.subjects[row] in kept])


def batches(count: int, size: int, seed: int, first: int) -> Iterator[list[int]]:
    """Endless batches of row numbers; batch ``first`` onwards of a sequence that seed fixes."""
    size = min(size, count)
    per_epoch = count // size
    step = first
    while True:
        epoch, place = divmod(step, per_epoch)
        random = Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(count, generator=random).tolist()
        for start in range(place, per_epoch):
            yield order[start * size : (start + 1) * size]
            step += 1
