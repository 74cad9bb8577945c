"""The verification sets of InsightFace: lfw.bin, cfp_fp.bin, agedb_30.bin and their like."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deidbench.assets import home, load_numpy_pickle, sha256_of
from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._groups import unnamed_subjects

FOLDS = 10
SIGNATURES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"BM": ".bmp"}
ADVICE = "Download it again, or write folder:<dir> for a folder of images."


class InsightFace:
    """Samples and pairs of ``insightface:<file.bin>``: 10 folds of consecutive pairs.

    The file is a pickle of 2P encoded images and P booleans: images 2i and 2i + 1 are pair i, and
    the boolean says whether they show one person. It is read without running anything in it. Byte
    for byte equal images are one sample. They are unpacked once, below ``DEIDBENCH_HOME``.

    Nobody is named: images that "same" pairs join are one subject. Images of two subjects may show
    one person, so only the official pairs are honest.

    Raises:
        DeidbenchError: no file is given; ``samples`` and ``pairs`` raise when it is not such a
            file, or contradicts itself.

    Source: Deng et al. 2019, ArcFace, CVPR (its evaluation code and files).
    """

    name = "insightface"
    version = 1
    synthetic = False
    official_only = True

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise DeidbenchError("insightface: which file? Write insightface:<file.bin>.")
        self.path = expanded(argument, "the dataset")

    @classmethod
    def recognises(cls, path: Path) -> str | None:
        """Why the path looks like this dataset, or None."""
        is_bin = path.is_file() and path.suffix.lower() == ".bin"
        return "a .bin file is a verification set of InsightFace" if is_bin else None

    def samples(self) -> Sequence[Sample]:
        """One sample for each different image, sorted by id: ``00000.jpg`` is the file's first."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """All pairs in the order of the file, folds 1 to 10."""
        return self._pairs

    @cached_property
    def _content(self) -> tuple[list[bytes], list[bool]]:
        if not self.path.is_file():
            raise DeidbenchError(f"no file {self.path}. Write insightface:<file.bin>.")
        try:
            return _content_of(load_numpy_pickle(self.path, encoding="bytes"), self.path.name)
        except OSError as error:
            raise DeidbenchError(f"cannot read {self.path}: {error.strerror}. {ADVICE}") from error

    @cached_property
    def _ids(self) -> list[str]:
        """The id of each of the 2P images; equal images share that of the first."""
        images, _ = self._content
        first: dict[bytes, str] = {}
        for index, image in enumerate(images):
            name = f"{index:05d}{_suffix(image, index, self.path.name)}"
            first.setdefault(hashlib.sha256(image).digest(), name)
        return [first[hashlib.sha256(image).digest()] for image in images]

    @cached_property
    def _pairs(self) -> tuple[Pair, ...]:
        _, flags = self._content
        folds = np.array_split(range(len(flags)), FOLDS)  # the first ones take what is left over
        fold_of = np.repeat(np.arange(1, FOLDS + 1), [len(fold) for fold in folds])
        sides = zip(self._ids[::2], self._ids[1::2], flags, fold_of.tolist(), strict=True)
        return tuple(Pair(one, other, same, fold) for one, other, same, fold in sides)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        images = dict(zip(self._ids, self._content[0], strict=True))
        subjects = self._subjects(sorted(images))
        folder = _unpacked(images, home() / "datasets" / sha256_of(self.path))
        return tuple(Sample(name, subjects[name], folder / name) for name in sorted(images))

    def _subjects(self, ids: Sequence[str]) -> Mapping[str, str]:
        same = [(pair.reference, pair.probe) for pair in self._pairs if pair.same]
        subjects = unnamed_subjects(ids, same)
        for index, pair in enumerate(self._pairs):
            if not pair.same and subjects[pair.reference] == subjects[pair.probe]:
                raise DeidbenchError(
                    f"{self.path.name} contradicts itself: pair {index} is of two people, but "
                    "other pairs say that both images show one. Use another file."
                )
        return subjects


def _content_of(loaded: object, name: str) -> tuple[list[bytes], list[bool]]:
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise DeidbenchError(f"{name} holds no pair of images and answers. {ADVICE}")
    images, flags = (_items(part, name) for part in loaded)
    if not flags or len(images) != 2 * len(flags):
        raise DeidbenchError(
            f"{name}: expected two images for each answer, but got {len(images)} images and "
            f"{len(flags)} answers. {ADVICE}"
        )
    return [_bytes(one, i, name) for i, one in enumerate(images)], [_flag(x, name) for x in flags]


def _items(part: Any, name: str) -> list[Any]:
    if isinstance(part, (list, tuple, np.ndarray)):
        return list(part)
    raise DeidbenchError(f"{name}: expected a list, but got {type(part).__name__}. {ADVICE}")


def _bytes(image: Any, index: int, name: str) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image.tobytes()
    raise DeidbenchError(
        f"{name}: image {index} is {type(image).__name__}, not the bytes of a file. {ADVICE}"
    )


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, (bool, int, np.bool_, np.integer)) and int(value) in (0, 1):
        return bool(value)
    raise DeidbenchError(f"{name}: expected True or False, but got {value!r}. {ADVICE}")


def _suffix(image: bytes, index: int, name: str) -> str:
    for signature, suffix in SIGNATURES.items():
        if image.startswith(signature):
            return suffix
    raise DeidbenchError(f"{name}: image {index} is no JPEG, PNG or BMP file. {ADVICE}")


def _unpacked(images: Mapping[str, bytes], folder: Path) -> Path:
    """The folder that holds these files; what is there already is compared, not trusted."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in images.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        part = folder / f".{name}.{os.getpid()}"  # another process may unpack the same file
        part.write_bytes(content)
        part.replace(path)
    return folder
