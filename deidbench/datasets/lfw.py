"""Labeled Faces in the Wild, from a folder of yours or downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from deidbench.assets import fetch, home
from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._faults import mark_faults
from ._scan import EXTENSIONS, scan
from ._unpack import unpack

LAYOUT = "<dir>/<Name>/<Name>_0001.jpg"
IMAGES, PAIRS = "lfw-funneled", "lfw-pairs"  # assets


class LFW:
    """Samples of ``lfw:<dir>``, and the 10 folds of View 2 when ``pairs.txt`` is at hand.

    The original, funneled and deep-funneled images all have this layout. ``pairs.txt`` is looked
    for in the folder and beside it. ``lfw`` alone downloads the funneled images and the list, and
    unpacks them below ``DEIDBENCH_HOME``.

    Raises:
        DeidbenchError: the folder is empty or that of no user; ``samples`` and ``pairs`` raise when
            it or the pair list is not as published, or cannot be downloaded.

    Source: Huang et al. 2007, UM-CS TR 07-49; deep funneling: Huang et al. 2012.
    """

    name = "lfw"
    version = 2  # 2: images with known label faults are marked
    synthetic = False

    def __init__(self, argument: str | None = None) -> None:
        if argument == "":
            raise DeidbenchError(
                f"lfw: where is it? Write lfw:<dir>, laid out as {LAYOUT}, or lfw to download it."
            )
        self._folder = None if argument is None else expanded(argument, "the dataset")

    @classmethod
    def recognises(cls, path: Path) -> str | None:
        """Why the path looks like this dataset, or None."""
        try:
            people = [one for one in sorted(path.iterdir()) if one.is_dir()]
            images = [image for one in people[:5] for image in one.iterdir()]
        except OSError:
            return None
        if not images or not all(map(_is_named, images)):
            return None
        return f"images are named as in LFW, {LAYOUT}"

    @property
    def root(self) -> Path:
        """The folder of the images, which are downloaded if none is given."""
        return self._folder or self._downloaded

    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by id: ``<Name>/<Name>_0001.jpg``."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """View 2 in its published order, folds 1 to 10; empty without ``pairs.txt``.

        Raises:
            DeidbenchError: a line is malformed, or images that it names are not in the folder.
        """
        return self._pairs

    @cached_property
    def _downloaded(self) -> Path:
        target = home() / "datasets" / IMAGES
        if target.is_dir():  # it appears only when it is whole
            return target
        return unpack(fetch(IMAGES), target, EXTENSIONS, also=(fetch(PAIRS),))

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        samples = mark_faults(scan(self.root, LAYOUT))
        for sample in samples:
            if not _is_named(sample.path):
                raise DeidbenchError(
                    f"{sample.path} is not named as in LFW, {LAYOUT}. For other folders write "
                    "folder:<dir>."
                )
        return samples

    @cached_property
    def _pairs(self) -> tuple[Pair, ...]:
        for folder in (self.root, self.root.resolve().parent):
            if (folder / "pairs.txt").is_file():
                ids = {PurePosixPath(s.id).with_suffix("").as_posix(): s.id for s in self._samples}
                return _read_pairs(folder / "pairs.txt", ids)
        return ()


def _is_named(image: Path) -> bool:
    name, _, number = image.stem.rpartition("_")
    return name == image.parent.name and _is_number(number)


def _read_pairs(path: Path, ids: Mapping[str, str]) -> tuple[Pair, ...]:
    fold_size, lines = _lines(path)
    pairs, missing = [], []
    for index, line in enumerate(lines):
        keys = _keys(line, f"{path}, line {index + 2}")
        missing += [(index + 2, key) for key in keys if key not in ids]
        if not missing:
            same = len(line.split()) == 3
            pairs.append(Pair(ids[keys[0]], ids[keys[1]], same, fold=index // fold_size + 1))
    if missing:
        number, key = missing[0]
        raise DeidbenchError(
            f"{path}, line {number}: no image {key} in the folder; {len({k for _, k in missing})} "
            "images that the list names are missing. Get the whole set, or compare all "
            "images that there are with --pairs cross."
        )
    return tuple(pairs)


def _lines(path: Path) -> tuple[int, list[str]]:
    """Pairs in a fold, and one line for each pair."""
    try:
        header, *lines = path.read_text("utf-8").rstrip().split("\n")
    except (OSError, ValueError) as error:
        raise DeidbenchError(f"cannot read {path}: {error}. Download it again.") from error
    counts = header.split()
    if len(counts) != 2 or not all(map(_is_number, counts)) or "0" in counts:
        raise DeidbenchError(
            f"{path}, line 1: expected '<folds> <pairs>' as in '10 300', but got {header!r}. "
            "Download pairs.txt of View 2."
        )
    folds, fold_size = int(counts[0]), 2 * int(counts[1])
    if len(lines) != folds * fold_size:
        raise DeidbenchError(
            f"{path}, line 1 promises {folds} folds of {fold_size} pairs, but {len(lines)} lines "
            "follow. Download it again."
        )
    return fold_size, lines


def _keys(line: str, where: str) -> tuple[str, str]:
    """The two images of 'Name 1 2' (same person) or 'Name 1 Other 2', as ids without '.jpg'."""
    fields = line.split()
    if len(fields) == 3:
        fields.insert(2, fields[0])
    if len(fields) != 4 or not (_is_number(fields[1]) and _is_number(fields[3])):
        raise DeidbenchError(
            f"{where}: expected 'Name 1 2' or 'Name 1 Other 2', but got {line!r}. Download "
            "pairs.txt again."
        )
    return _key(fields[0], fields[1]), _key(fields[2], fields[3])


def _key(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
