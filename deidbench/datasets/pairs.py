"""Comparisons of your own: a CSV file that lists pairs of images."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from deidbench.assets.folders import expanded
from deidbench.errors import DeidbenchError
from deidbench.types import Pair, Sample

from ._groups import unnamed_subjects

REQUIRED = ("reference", "probe", "same")
SIDES = ("reference", "probe")
ANSWERS = {
    "1": True, "true": True, "yes": True, "same": True,
    "0": False, "false": False, "no": False, "different": False,
}  # fmt: skip
COLUMNS = "reference, probe, same[, fold][, reference_subject, probe_subject]"


@dataclass
class _Image:
    """What the rows say of one image."""

    path: Path
    subject: str | None
    labels: Mapping[str, str]


@dataclass
class _List:
    """The whole file."""

    images: dict[str, _Image] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class PairsFile:
    """Samples and pairs of ``pairs:<file.csv>``.

    Columns: reference, probe, same (1 or 0) and, if you like, fold (a whole number),
    reference_subject and probe_subject, and labels: reference_X and probe_X for a label X. Paths
    are relative to the folder of the file and stay inside it.

    Without subjects nobody is named: images that "same" pairs join are one subject. Images of two
    subjects may then show one person, and only the listed pairs are honest.

    Raises:
        DeidbenchError: no file is given; ``samples`` and ``pairs`` raise, with the number of the
            line, when a row is malformed, contradicts another, or names a file that is not there.
    """

    name = "pairs"
    version = 1
    synthetic = False

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise DeidbenchError(f"pairs: which file? Write pairs:<file.csv> with {COLUMNS}.")
        self.path = expanded(argument, "the dataset")

    @classmethod
    def recognises(cls, path: Path) -> str | None:
        """Why the path looks like this dataset, or None."""
        is_csv = path.is_file() and path.suffix.lower() == ".csv"
        return "a .csv file is a list of pairs" if is_csv else None

    @property
    def root(self) -> Path:
        """The folder that paths start from."""
        return self.path.parent

    @property
    def official_only(self) -> bool:
        """Whether nobody is named."""
        return not self._is_named

    def samples(self) -> Sequence[Sample]:
        """The images of the list, sorted by id: the path below the folder of the file."""
        return self._samples

    def pairs(self) -> Sequence[Pair]:
        """The rows, in their order."""
        self._samples  # noqa: B018  # finds the pairs that contradict each other
        return tuple(self._list.pairs)

    @cached_property
    def _list(self) -> _List:
        found = _List()
        for line, row in _rows(self.path):
            _add(found, row, self.root, f"{self.path}, line {line}")
            found.lines.append(line)
        if not found.pairs:
            raise DeidbenchError(f"{self.path} lists no pairs. Give one row for each, {COLUMNS}.")
        return found

    @cached_property
    def _is_named(self) -> bool:
        return all(image.subject is not None for image in self._list.images.values())

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        images = self._list.images
        subjects = self._subjects(sorted(images))
        for line, pair in zip(self._list.lines, self._list.pairs, strict=True):
            if (subjects[pair.reference] == subjects[pair.probe]) != pair.same:
                raise DeidbenchError(
                    f"{self.path}, line {line}: same is {int(pair.same)}, but "
                    f"{'the subjects say' if self._is_named else 'other lines say'} otherwise. "
                    "Correct one."
                )
        return tuple(
            Sample(name, subjects[name], images[name].path, images[name].labels)
            for name in sorted(images)
        )

    def _subjects(self, ids: Sequence[str]) -> Mapping[str, str]:
        if self._is_named:
            return {name: str(self._list.images[name].subject) for name in ids}
        return unnamed_subjects(ids, ((p.reference, p.probe) for p in self._list.pairs if p.same))


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Each row with the number of its last line in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, strict=True)
            _check_columns(table.fieldnames or (), path)
            for row in table:
                # csv puts what has no column under None, and None where a column has no value.
                if None in row or None in row.values():
                    raise DeidbenchError(
                        f"{path}, line {table.line_num}: expected {len(table.fieldnames or ())} "
                        "values, one for each column. Add or remove some."
                    )
                yield table.line_num, {name: value.strip() for name, value in row.items()}
    except csv.Error as error:
        raise DeidbenchError(
            f"{path}, line {table.reader.line_num}: {error}. Correct it."
        ) from error
    except (OSError, UnicodeError) as error:
        raise DeidbenchError(f"cannot read {path}: {error}. Save it as UTF-8 text.") from error


def _check_columns(columns: Iterable[str], path: Path) -> None:
    columns = list(columns)
    paired = [name.partition("_")[2] for name in columns if name.startswith("reference_")]
    known = {*REQUIRED, "fold", *(f"{side}_{label}" for side in SIDES for label in paired)}
    for name in (*REQUIRED, *sorted(known)):
        if name != "fold" and name not in columns:
            raise DeidbenchError(f"{path}, line 1: no column '{name}'. Expected {COLUMNS}.")
    for name in columns:
        if name not in known or columns.count(name) > 1:
            raise DeidbenchError(
                f"{path}, line 1: the column '{name}' is unknown, or there twice. Expected "
                f"{COLUMNS}, and reference_X with probe_X for a label X."
            )


def _add(found: _List, row: Mapping[str, str], root: Path, where: str) -> None:
    sides = [_side(found, row, side, root, where) for side in SIDES]
    if sides[0] == sides[1]:
        raise DeidbenchError(f"{where}: {sides[0]} is compared with itself. Remove the line.")
    if row["same"].lower() not in ANSWERS:
        raise DeidbenchError(f"{where}: expected same to be 1 or 0, but got '{row['same']}'.")
    fold = row.get("fold") or "0"
    if not (fold.isascii() and fold.isdigit()):
        raise DeidbenchError(f"{where}: expected fold to be a whole number, but got '{fold}'.")
    found.pairs.append(Pair(sides[0], sides[1], ANSWERS[row["same"].lower()], int(fold)))


def _side(found: _List, row: Mapping[str, str], side: str, root: Path, where: str) -> str:
    """The id of one image of a row, whose facts are added to what is known."""
    subject = row.get(f"{side}_subject")
    if subject == "":
        raise DeidbenchError(f"{where}: {side}_subject is empty. Name all people, or nobody.")
    image = _Image(_inside(row[side], root, where), subject, _labels(row, side))
    name = unicodedata.normalize("NFC", PurePosixPath(row[side]).as_posix())
    known = found.images.setdefault(name, image)
    if known != image:
        raise DeidbenchError(
            f"{where}: an earlier line says something else of {name}: its subject or a label. "
            "Correct one."
        )
    return name


def _labels(row: Mapping[str, str], side: str) -> Mapping[str, str]:
    start = f"{side}_"
    labels = {name.removeprefix(start): row[name] for name in row if name.startswith(start)}
    return {name: value for name, value in labels.items() if name != "subject" and value}


def _inside(written: str, root: Path, where: str) -> Path:
    """The path of an image; a list from elsewhere must not reach what lies outside its folder."""
    path = PurePosixPath(written)
    if path.is_absolute() or PureWindowsPath(written).anchor or ".." in path.parts or not written:
        raise DeidbenchError(
            f"{where}: expected a path below the folder of the file, but got '{written}'."
        )
    try:
        top, real = root.resolve(), (root / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise DeidbenchError(f"{where}: no image {written} below {root}. Correct it.") from error
    if not real.is_relative_to(top):
        raise DeidbenchError(
            f"{where}: {written} is a link that leaves {root}. Copy the image there."
        )
    if not real.is_file():
        raise DeidbenchError(f"{where}: {written} is not a file. Name an image.")
    return root / path
