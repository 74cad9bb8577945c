"""An entry of the leaderboard: one JSON file about one run, its scores in a Parquet file beside it.

The JSON holds the record of the run, with its rows as columns, so that thousands of them stay small
in git. The Parquet file holds the comparisons of different images that the numbers follow from:
images by number, never by name, since names of files may tell of people.

Entries come from strangers: nothing outside an entry's own folder is read, and whatever does not
fit is one clear error.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pydantic_core
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from deidbench.errors import DeidbenchError

from .schema import SCHEMA_VERSION, MetricRow, PlainDict, Record, RunRecord, View

ENTRY_VERSION: Literal[1] = 1
DECIMALS = 5
"""Scores are rounded so when they are made, and stored as whole numbers of that unit."""
MOST_JSON, MOST_SCORES = 64 << 20, 1 << 30
"""Bytes that are read of the two files of an entry."""
MOST_DRAWN = 250_000_000
"""Bootstrap draws times people: 1 GB of weights."""
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.scores\.parquet")
_PAIR = ("reference", "probe")


def _file_name(name: str) -> str:
    if not _FILE.fullmatch(name):
        raise ValueError(f"expected a name like 'method.scores.parquet', but got {name!r}")
    return name


def _web_address(link: str) -> str:
    if not re.fullmatch(r"https?://[^\s<>\"']+", link):
        raise ValueError(f"expected an address that begins with https://, but got {link!r}")
    return link


Text = Annotated[str, Field(max_length=200)]
Link = Annotated[str, Field(max_length=500), AfterValidator(_web_address)]


class Claim(Record):
    """What the author of a method says about it: numbers of his own, and where they stand."""

    source: Text
    rows: Annotated[list[MetricRow], Field(min_length=1, max_length=1000)]


class AttackRecord(Record):
    """One column of the scores file."""

    threat: str
    recognizer: str
    view: View

    @property
    def column(self) -> str:
        """Its name in the Parquet file."""
        return f"{self.threat}/{self.recognizer}/{self.view}"


class ScoresRecord(Record):
    """The scores file beside the entry: a row a comparison, a column an attack.

    A whole number of a column is a score in units of 10^-5; a fraction is a score as it is; null is
    a lost face.
    """

    file: Annotated[str, AfterValidator(_file_name)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    comparisons: Annotated[int, Field(ge=1)]
    attacks: Annotated[list[AttackRecord], Field(min_length=1, max_length=2000)]


class Entry(Record):
    """One run on the board."""

    entry_version: Literal[1] = ENTRY_VERSION
    title: Text = ""
    author: Text = ""
    """Who answers for the entry."""
    link: Link | None = None
    external: bool = False
    """Measured by somebody who is not the author of the method."""
    unreliable: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    """Why the numbers must not be relied on; such an entry is shown and not ranked."""
    claim: Claim | None = None
    bench: PlainDict | None = None
    """What ``deidbench bench`` measured."""
    scores: ScoresRecord
    n_measured: Annotated[int, Field(ge=2)]
    """People who are measured; they have the numbers from 0."""
    subjects: list[Annotated[int, Field(ge=0)]]
    """The number of each compared image's person."""
    record: RunRecord
    """Without its examples: pictures stay with the run."""


@dataclass(frozen=True)
class Comparisons:
    """The scores file, read: (P,) image numbers, and float32 scores (P,) by attack, NaN = lost."""

    reference: NDArray[np.int32]
    probe: NDArray[np.int32]
    scores: Mapping[AttackRecord, NDArray[np.float32]]


@dataclass(frozen=True)
class Place:
    """An entry in its ranking."""

    entry: Entry
    path: str
    """Of its file, as the reader of the board may look for it."""
    sha256: str
    rank: int | None = None
    """From 1; those that cannot be told apart share one."""
    unranked: str = ""
    """Why it has none."""


@dataclass(frozen=True)
class Ranking:
    """Entries that may stand side by side: one set of faces, one protocol, the same recognizers."""

    places: Sequence[Place]
    """The best first, those without a rank last."""
    far: float | None
    """Of the accept rate that ranks; None where the AUC does."""

    @property
    def record(self) -> RunRecord:
        """Any of its records: faces, split, protocol and recognizers are the same in all."""
        return self.places[0].entry.record


# Writing


def slug(text: str) -> str:
    """A name for a file: small letters, digits, '.', '-' and '_'."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return name[:80].rstrip("-._") or "unnamed"


def entry_place(record: RunRecord, *, external: bool) -> tuple[str, str, str]:
    """Folder of the dataset, folder of the protocol, and name of an entry's files.

    What was asked of the method besides its name is in the name: two strengths, two entries.
    """
    asked = record.config
    parts = [record.method.name]
    if asked.get("strength") is not None:
        parts.append(f"strength-{asked['strength']:g}")
    parts += [f"{key}-{value}" for key, value in sorted(dict(asked.get("settings") or {}).items())]
    if asked.get("weights") is not None:
        parts.append(f"weights-{(record.method.weights_sha256 or '')[:8]}")
    if external:
        parts.append("external")
    return slug(record.dataset.label), slug(record.protocol), slug("-".join(parts))


def write_comparisons(path: Path, found: Comparisons) -> tuple[str, int]:
    """Write a scores file, small and always the same for the same scores.

    Returns its SHA-256 and its size in bytes.
    """
    columns: dict[str, pa.Array] = {
        name: pa.array(getattr(found, name), pa.int32()) for name in _PAIR
    }
    encodings = dict.fromkeys(columns, "DELTA_BINARY_PACKED")
    for attack, scores in found.scores.items():
        columns[attack.column] = _packed_scores(scores)
        whole = pa.types.is_integer(columns[attack.column].type)
        encodings[attack.column] = "DELTA_BINARY_PACKED" if whole else "BYTE_STREAM_SPLIT"
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(columns), buffer, compression="zstd", compression_level=19,
        use_dictionary=False, column_encoding=encodings, store_schema=False,
    )  # fmt: skip
    data = buffer.getvalue()
    _replace(path, data)
    return hashlib.sha256(data).hexdigest(), len(data)


def _packed_scores(scores: NDArray[np.float32]) -> pa.Array:
    """Whole numbers of 10^-5 where that loses nothing: half the size."""
    lost = np.isnan(scores)
    units = np.round(np.where(lost, 0, scores).astype(np.float64) * 10**DECIMALS)
    if np.abs(units).max(initial=0) < 2**31:
        again = (units / 10**DECIMALS).astype(np.float32)
        if np.array_equal(again[~lost], scores[~lost]):
            return pa.array(units.astype(np.int32), mask=lost)
    return pa.array(scores, pa.float32(), mask=lost)


def write_entry(path: Path, entry: Entry) -> int:
    """Write the JSON of an entry: the same bytes for the same entry. Returns its size in bytes."""
    data = dump(entry)
    _replace(path, data)
    return len(data)


def dump(entry: Entry) -> bytes:
    """An entry as it stands in its file: a line a field, defaults left out, rows as columns.

    Plain ASCII: what is reviewed in git must not hide characters that turn the text round.
    """
    content = entry.model_dump(mode="json", exclude_defaults=True)
    record = content.pop("record")
    rows = pack(record.pop("rows"))
    record = {"schema_version": SCHEMA_VERSION, **record}
    content = {"entry_version": ENTRY_VERSION, **content, "record": record, "rows": rows}
    fields = [f"{_text(name)}:{_text(value)}" for name, value in content.items()]
    return ("{\n" + ",\n".join(fields) + "\n}\n").encode("ascii")


def pack(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as columns: a list of values, or distinct values (``of``) and which one (``at``).

    null stands for a field that a row has not got.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    return {"count": len(rows), "columns": columns}


def unpack(packed: Any) -> list[dict[str, Any]]:
    """The rows of ``pack``. Raises ``ValueError`` where columns do not fit together."""
    if not isinstance(packed, dict) or set(packed) != {"count", "columns"}:
        raise ValueError("rows: expected 'count' and 'columns'")
    count, columns = packed["count"], packed["columns"]
    if type(count) is not int or not isinstance(columns, dict):
        raise ValueError("rows: 'count' must be a number and 'columns' named lists")
    if count and not columns:
        raise ValueError(f"rows: {count} rows without a column")
    lists = {name: _values(name, column) for name, column in columns.items()}
    for name, values in lists.items():
        if len(values) != count:
            raise ValueError(f"rows: {name} has {len(values)} values, but there are {count} rows")
    return [  # the value of a row is never left out: null says that there is none
        {n: v for n, v in zip(lists, row, strict=True) if v is not None or n == "value"}
        for row in zip(*lists.values(), strict=True)
    ]


def _column(values: list[Any]) -> Any:
    texts = [_text(value) for value in values]  # 1, 1.0 and true are three values
    first = dict(zip(texts, values, strict=True))
    if 2 * len(first) > len(values):
        return values
    number = {text: i for i, text in enumerate(first)}
    return {"of": list(first.values()), "at": [number[text] for text in texts]}


def _values(name: str, column: Any) -> list[Any]:
    if isinstance(column, list):
        return column
    if not isinstance(column, dict) or set(column) != {"of", "at"}:
        raise ValueError(f"rows: {name} is neither a list nor 'of' and 'at'")
    of, at = column["of"], column["at"]
    if not isinstance(of, list) or not isinstance(at, list):
        raise ValueError(f"rows: 'of' and 'at' of {name} must be lists")
    if any(type(i) is not int or not 0 <= i < len(of) for i in at):
        raise ValueError(f"rows: {name} points at a value that is not there")
    return [of[i] for i in at]


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _replace(path: Path, data: bytes) -> None:
    """Write beside the target, then take its place at once."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


# Reading


def read_entry(path: Path, *, groups: bool = True) -> Entry:
    """The entry of a JSON file; without ``groups`` the rows of groups of people stay unread.

    Raises ``DeidbenchError`` when it is missing, garbled, or of another version.
    """
    return parse_entry(path, read_bytes(path, MOST_JSON), groups=groups)


def parse_entry(path: Path, data: bytes, *, groups: bool = True) -> Entry:
    """The same of the file's bytes."""
    content = _json(path, data)
    _check_versions(path, content)
    try:
        rows = unpack(content.pop("rows", None))
    except ValueError as error:
        raise DeidbenchError(f"{path} is no entry: {_line(error)}; submit the run again.") from None
    if not groups:
        rows = [row for row in rows if row.get("group") is None]
    content["record"] = {**content["record"], "rows": rows}
    try:
        entry = Entry.model_validate(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the entry"
        raise DeidbenchError(
            f"{path} is no entry: {where}: {_line(first['msg'])}; submit the run again."
        ) from error
    _check_sense(path, entry)
    return entry


def read_comparisons(
    path: Path, entry: Entry, attacks: Iterable[AttackRecord] | None = None
) -> Comparisons:
    """The scores of the entry in ``path``: all of them, or those of some attacks.

    Raises ``DeidbenchError`` when the file is not beside the entry, not the one that was hashed,
    or does not hold what the entry says.
    """
    told = entry.scores
    file = path.parent / told.file
    data = read_bytes(file, MOST_SCORES)
    if hashlib.sha256(data).hexdigest() != told.sha256:
        raise DeidbenchError(
            f"{file} is not the file that {path.name} was made with: its SHA-256 differs; "
            "restore both files or submit the run again."
        )
    try:
        with pq.ParquetFile(io.BytesIO(data)) as parquet:
            _check_columns(file, parquet, told)
            wanted = list(told.attacks if attacks is None else attacks)
            table = parquet.read(columns=[*_PAIR, *(attack.column for attack in wanted)])
    except (OSError, pa.ArrowException) as error:
        raise DeidbenchError(f"{file} is not readable Parquet: {_line(error)}.") from error
    reference, probe = (_numbers(file, table[name], len(entry.subjects)) for name in _PAIR)
    scores = {attack: _scores(file, table[attack.column]) for attack in wanted}
    return Comparisons(reference, probe, scores)


def read_bytes(path: Path, most: int) -> bytes:
    """A file as it is, unless it is missing, huge, no file, or a link out of its folder."""
    try:
        if not path.resolve(strict=True).is_relative_to(path.parent.resolve()):
            raise DeidbenchError(f"{path} leads out of its folder; such an entry is not read.")
        if not path.is_file():
            raise DeidbenchError(f"{path} is no file; name the JSON file of an entry.")
        if path.stat().st_size > most:
            raise DeidbenchError(f"{path} has more than {most >> 20} MiB; it is not read.")
        return path.read_bytes()
    except OSError as error:
        raise DeidbenchError(f"cannot read {path}: {error.strerror or error}.") from error


def _json(path: Path, data: bytes) -> dict[str, Any]:
    try:
        content = pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise DeidbenchError(f"{path} is not readable JSON: {_line(error)}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("record"), dict):
        raise DeidbenchError(f"{path} is no entry of a leaderboard: it holds no record of a run.")
    return content


def _check_versions(path: Path, content: dict[str, Any]) -> None:
    known = {"entry_version": (content, ENTRY_VERSION),
             "schema_version": (content["record"], SCHEMA_VERSION)}  # fmt: skip
    for name, (where, ours) in known.items():
        version = where.get(name)
        if type(version) is not int:
            raise DeidbenchError(f"{path} is no entry of a leaderboard: it has no {name}.")
        if version < ours:
            raise DeidbenchError(
                f"{path} has {name} {version}, older than {ours}; submit the run again."
            )
        if version > ours:
            raise DeidbenchError(
                f"{path} has {name} {version}, newer than {ours}; upgrade deidbench."
            )


def _check_sense(path: Path, entry: Entry) -> None:
    """What later arithmetic relies on."""
    config = entry.record.config
    draws, seed = config.get("draws"), config.get("seed")
    if type(draws) is not int or type(seed) is not int or not (draws >= 100 and 0 <= seed < 2**31):
        raise DeidbenchError(f"{path} is no entry: its configuration has no draws or no seed.")
    if draws * entry.n_measured > MOST_DRAWN:
        raise DeidbenchError(
            f"{path} asks for {draws} draws of {entry.n_measured} people, which is too much work."
        )
    if max(entry.subjects, default=0) >= entry.n_measured:
        raise DeidbenchError(f"{path} is no entry: it compares people who are not measured.")
    columns = [attack.column for attack in entry.scores.attacks]
    if len(set(columns)) < len(columns):
        raise DeidbenchError(f"{path} is no entry: it names the scores of one attack twice.")


def _check_columns(file: Path, parquet: pq.ParquetFile, told: ScoresRecord) -> None:
    wanted = [*_PAIR, *(attack.column for attack in told.attacks)]
    found = parquet.schema_arrow.names
    if found != wanted:
        raise DeidbenchError(
            f"{file}: expected the columns reference, probe and {len(wanted) - 2} attacks as the "
            f"entry names them, but got {len(found)} others."
        )
    if parquet.metadata.num_rows != told.comparisons:
        raise DeidbenchError(
            f"{file}: expected {told.comparisons} comparisons, but got {parquet.metadata.num_rows}."
        )
    if told.comparisons * len(wanted) * 4 > MOST_SCORES:
        raise DeidbenchError(f"{file} holds more than {MOST_SCORES >> 20} MiB; it is not read.")


def _numbers(file: Path, column: pa.ChunkedArray, n_images: int) -> NDArray[np.int32]:
    if column.type != pa.int32() or column.null_count:
        raise DeidbenchError(f"{file}: images are numbered by int32, but got {column.type}.")
    numbers: NDArray[np.int32] = column.to_numpy()
    if numbers.min() < 0 or numbers.max() >= n_images:
        raise DeidbenchError(f"{file}: a comparison is of none of the {n_images} images.")
    return numbers


def _scores(file: Path, column: pa.ChunkedArray) -> NDArray[np.float32]:
    if column.type not in (pa.int32(), pa.float32()):
        raise DeidbenchError(f"{file}: scores are int32 or float32, but got {column.type}.")
    lost = column.is_null().to_numpy()
    values = column.fill_null(0).to_numpy()
    unit = 10**DECIMALS if column.type == pa.int32() else 1
    scores = np.where(lost, np.nan, values / np.float64(unit)).astype(np.float32)
    if not np.isfinite(scores[~lost]).all():
        raise DeidbenchError(f"{file}: a score is not finite; a lost face is null.")
    return scores


def _line(error: object) -> str:
    """The first line of a message, without a full stop."""
    return (str(error).splitlines() or ["?"])[0].rstrip(".")
