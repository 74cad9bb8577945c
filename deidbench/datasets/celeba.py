"""CelebA, from a folder that you downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._scan import is_image, require_comparable

IDENTITIES, PARTS, ATTRIBUTES = (
    "identity_CelebA.txt", "list_eval_partition.txt", "list_attr_celeba.txt",
)  # fmt: skip
# The aligned images come first: a photograph as it was may show several people, and the one whom
# the list names is not always the one nearest its centre.
IMAGES = ("img_align_celeba", "img_align_celeba_png", "img_celeba")
FOLDERS = ("", "Anno", "Eval", "Img")  # of the published archives
LAYOUT = f"<dir>/{IMAGES[0]}/000001.jpg and <dir>/{IDENTITIES}"
PART_NAMES = {"0": "method-train", "1": "calibration", "2": "eval"}
LABELS = {
    "Male": ("gender", "male", "female"),
    "Young": ("age_band", "young", "not young"),
    "Pale_Skin": ("skin", "pale", "not pale"),
    "Smiling": ("expression", "smiling", "not smiling"),
    "Eyeglasses": ("glasses", "yes", "no"),
    "Wearing_Hat": ("hat", "yes", "no"),
}
"""Attribute -> our label, its value for 1 and for -1. Others describe looks, not groups."""


class CelebA:
    """Samples of ``celeba:<dir>``: 202,599 images of 10,177 people.

    Wants ``identity_CelebA.txt`` and a folder of images, ``img_align_celeba`` or else
    ``img_celeba``. ``list_eval_partition.txt``, when it is there, fixes the parts: train is for
    methods to learn from, val makes thresholds, test makes numbers. ``list_attr_celeba.txt`` gives
    the labels gender, age_band, skin, expression, glasses and hat, as annotators saw them. The
    lists may lie in ``Anno`` and ``Eval``, the images in ``Img``, as published.

    Raises:
        DeidbenchError: no folder is given; ``samples`` raises when a list or an image is missing,
            or a line is malformed.

    Source: Liu et al. 2015, Deep learning face attributes in the wild, ICCV.
    """

    name = "celeba"
    version = 1
    synthetic = False

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise DeidbenchError(f"celeba: where is it? Write celeba:<dir>, with {LAYOUT}.")
        self.root = expanded(argument, "the dataset")

    @classmethod
    def recognises(cls, path: Path) -> str | None:
        """Why the path looks like this dataset, or None."""
        found = any((path / folder / IDENTITIES).is_file() for folder in FOLDERS)
        return f"it holds {IDENTITIES}" if found else None

    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by id: ``000001.jpg``; subjects as ``celeba-2880``."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """Empty: all images are compared."""
        return ()

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        people = self._column(IDENTITIES)
        if not people:
            raise DeidbenchError(
                f"{self.root}: no {IDENTITIES} with people. Lay it out as {LAYOUT}."
            )
        parts, labels = self._column(PARTS, PART_NAMES), self._labels()
        files = self._files(people)
        found = (
            Sample(files[key].name, f"celeba-{person}", files[key], labels.get(key, {}),
                   _part(parts, key))
            for key, person in people.items()
        )  # fmt: skip
        samples = tuple(sorted(found, key=lambda sample: sample.id))
        require_comparable(samples, self.root)
        return samples

    def _files(self, people: Mapping[str, str]) -> Mapping[str, Path]:
        """The image of each name in the list."""
        folder = self._place(IMAGES)
        if folder is None:
            raise DeidbenchError(f"{self.root}: no folder of images. Lay it out as {LAYOUT}.")
        try:
            with os.scandir(folder) as entries:  # a Path sorts slowly, and here are 200,000
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            raise DeidbenchError(f"cannot read {folder}: {error.strerror}.") from error
        files = {_stem(name): folder / name for name in names if is_image(name)}
        missing = sorted(people.keys() - files.keys())
        if missing:
            raise DeidbenchError(
                f"{folder}: {len(missing):,} of the {len(people):,} images in {IDENTITIES} are "
                f"missing, the first is {missing[0]}. Unpack them all, or shorten the list."
            )
        return files

    def _labels(self) -> Mapping[str, Mapping[str, str]]:
        path = self._place((ATTRIBUTES,))
        if path is None:
            return {}
        lines = _fields(path)
        next(lines, None)  # the number of images
        _, header = next(lines, (0, []))
        chosen = {header.index(name): LABELS[name] for name in LABELS if name in header}
        shared: dict[tuple[str, ...], Mapping[str, str]] = {}  # 200,000 images, few combinations
        labels = {}
        for number, fields in lines:
            if len(fields) != len(header) + 1 or set(fields[1:]) - {"1", "-1"}:
                raise DeidbenchError(
                    f"{path}, line {number}: expected a name and {len(header)} times 1 or -1. "
                    "Download it again."
                )
            values = tuple(fields[1 + column] for column in chosen)
            if values not in shared:
                shared[values] = {
                    label: yes if value == "1" else no
                    for (label, yes, no), value in zip(chosen.values(), values, strict=True)
                }
            labels[_stem(fields[0])] = shared[values]
        return labels

    def _column(self, name: str, known: Mapping[str, str] | None = None) -> dict[str, str]:
        """Image name -> value of a list with two columns; empty when there is no such list."""
        path = self._place((name,))
        found: dict[str, str] = {}
        for number, fields in _fields(path) if path else ():
            if len(fields) != 2 or not fields[1].isdigit() or (known and fields[1] not in known):
                raise DeidbenchError(
                    f"{path}, line {number}: expected '000001.jpg' and a number, but got "
                    f"{' '.join(fields)!r}. Download it again."
                )
            found[_stem(fields[0])] = known[fields[1]] if known else fields[1]
        return found

    def _place(self, names: Sequence[str]) -> Path | None:
        """The first of these that is there."""
        places = (self.root / folder / name for name in names for folder in FOLDERS)
        return next((place for place in places if place.exists()), None)


def _stem(name: str) -> str:
    """Without its ending: the lists say .jpg of PNG files too."""
    return name.rpartition(".")[0] or name


def _part(parts: Mapping[str, str], key: str) -> str | None:
    if parts and key not in parts:
        raise DeidbenchError(f"{PARTS} does not name the image {key}. Download it again.")
    return parts.get(key)


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line, with its number."""
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.split()
    except (OSError, UnicodeError) as error:
        raise DeidbenchError(f"cannot read {path}: {error}. Download it again.") from error
