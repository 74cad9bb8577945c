"""A run as a folder: ``run.json``, ``scores.parquet``, ``images.parquet`` and ``examples/``.

A folder appears whole or not at all, and is never overwritten. A folder that came from elsewhere
is not trusted: nothing outside it is ever read, and whatever does not fit is one clear error.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydantic
import pydantic_core
from numpy.typing import NDArray
from PIL import Image

from deidbench.errors import DeidbenchError

from .schema import SCHEMA_VERSION, RunRecord, View

if TYPE_CHECKING:
    import pandas as pd

RUN, SCORES, IMAGES, EXAMPLES = "run.json", "scores.parquet", "images.parquet", "examples"
SCORE_SCHEMA = pa.schema(
    [
        *(pa.field(n, pa.dictionary(pa.int32(), pa.string())) for n in ("threat", "recognizer")),
        pa.field("view", pa.dictionary(pa.int32(), pa.string())),
        pa.field("reference", pa.int32()),
        pa.field("probe", pa.int32()),
        pa.field("score", pa.float32()),
    ]
)
ROW_GROUP = 1 << 20
_UNFINISHED = re.compile(r"\..+\.writing-[0-9a-f]{32}")
_RUN_ID = b"deidbench.run_id"


@dataclass(frozen=True)
class ScoreBlock:
    """Scores of one attack: (M,) each. A score of NaN means that a face was lost.

    ``reference`` and ``probe`` are int32 row numbers of the image table, ``score`` is a float32
    similarity.
    """

    threat: str
    recognizer: str
    view: View
    reference: NDArray[np.int32]
    probe: NDArray[np.int32]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A face before and after treatment: uint8 RGB (H, W, 3). Name it by ``example_name``."""

    name: str
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]


def write_run(
    folder: Path,
    record: RunRecord,
    scores: Iterable[ScoreBlock],
    images: pa.Table | pd.DataFrame,
    examples: Sequence[Example] = (),
) -> RunRecord:
    """Write a run folder at once: whole, or not at all. Returns the record as written.

    Blocks of scores are written as they come, so that one block at a time is in memory. The
    record's ``examples`` and ``stored_rows`` are set to what was stored.

    Raises ``DeidbenchError`` when the folder exists or cannot be written.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 -- a link is kept: it is the user's
    _refuse_existing(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with _unfinished(folder) as temporary:
            record = _fill(temporary, record, scores, images, examples)
            _publish(temporary, folder)
    except (OSError, pa.ArrowException) as error:
        raise DeidbenchError(f"cannot write the run to {folder}: {_line(error)}") from error
    return record


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder.

    Raises ``DeidbenchError`` when it is missing, garbled, or of another schema version.
    """
    path = inside(folder, RUN)
    try:
        content = _json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DeidbenchError(f"{path} is not readable JSON: {_line(error)}") from error
    _check_version(path, content)
    try:
        # Strict: a number written as text is an error. Lists and dicts are what JSON has.
        return RunRecord.model_validate(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise DeidbenchError(
            f"{path} is not a run record: {where}: {_line(first['msg'])}; "
            "restore the file or evaluate again."
        ) from error


def read_scores(
    folder: Path,
    *,
    threat: str | None = None,
    recognizer: str | None = None,
    view: str | None = None,
) -> pa.Table:
    """Raw scores (columns of ``SCORE_SCHEMA``), all of them or those of one attack.

    Row groups of other attacks are skipped without being read.
    """
    wanted = {"threat": threat, "recognizer": recognizer, "view": view}
    given = {name: value for name, value in wanted.items() if value is not None}
    with _parquet(folder, SCORES) as file:
        _check_columns(file, SCORES, SCORE_SCHEMA)
        groups = [
            _select(file.read_row_group(i), given)
            for i in range(file.num_row_groups)
            if _may_hold(file.metadata.row_group(i), given)
        ]
        empty = file.schema_arrow.empty_table()
    return pa.concat_tables([empty, *groups]).unify_dictionaries()


def read_images(folder: Path) -> pd.DataFrame:
    """The image table: one row an image, in the order that the scores number them by."""
    with _parquet(folder, IMAGES) as file:
        frame: pd.DataFrame = file.read().to_pandas()
    return frame


def read_example(folder: Path, name: str, moment: str) -> Image.Image:
    """The RGB face of an example, ``moment`` being 'before' or 'after'."""
    path = inside(folder, f"{EXAMPLES}/{name}-{moment}.png")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if max(image.size) > 4096:
                raise DeidbenchError(f"{path} is no face chip: {image.size} pixels are too many.")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DeidbenchError(f"{path} is not a readable PNG: {_line(error)}") from error


def validate(folder: Path) -> RunRecord:
    """Check a run folder in full: the record, both tables, their sizes, the examples."""
    record = read_run(folder)
    rows = {}
    for name in (SCORES, IMAGES):
        with _parquet(folder, name) as file:
            rows[name] = file.metadata.num_rows
            _check_owner(file, name, record.run_id)
            if name == SCORES:
                _check_columns(file, name, SCORE_SCHEMA)
                _check_numbers(file, _image_count(folder))
    if rows != record.stored_rows:
        raise DeidbenchError(
            f"{folder}: run.json tells of {record.stored_rows} rows, but the files hold {rows}; "
            "copy the folder again or evaluate again."
        )
    for example in record.examples:
        for moment in ("before", "after"):
            read_example(folder, example, moment)
    return record


def _image_count(folder: Path) -> int:
    """How many images the image table has."""
    with _parquet(folder, IMAGES) as file:
        return int(file.metadata.num_rows)


def _json(data: bytes) -> Any:
    """Parse JSON without NaN and infinity; raises ``ValueError``, also for endless nesting."""
    return pydantic_core.from_json(data, allow_inf_nan=False)


# Writing


def _fill(
    folder: Path,
    record: RunRecord,
    scores: Iterable[ScoreBlock],
    images: pa.Table | pd.DataFrame,
    examples: Sequence[Example],
) -> RunRecord:
    tag = {_RUN_ID: record.run_id.encode()}
    table = images if isinstance(images, pa.Table) else pa.Table.from_pandas(images)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **tag})
    pq.write_table(table, folder / IMAGES, compression="zstd")
    stored = {SCORES: _write_scores(folder / SCORES, scores, tag), IMAGES: table.num_rows}
    changes = {"examples": [example.name for example in examples], "stored_rows": stored}
    try:
        record = RunRecord.model_validate({**record.model_dump(), **changes})
    except pydantic.ValidationError as error:
        raise DeidbenchError(f"cannot store the run: {error.errors()[0]['msg']}") from error
    _write_examples(folder / EXAMPLES, examples)
    (folder / RUN).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)
    return record


def _write_scores(path: Path, blocks: Iterable[ScoreBlock], tag: dict[bytes, bytes]) -> int:
    rows = 0
    with pq.ParquetWriter(path, SCORE_SCHEMA.with_metadata(tag), compression="zstd") as writer:
        for block in blocks:
            size = len(block.score)
            for start in range(0, size, ROW_GROUP):
                writer.write_table(_table(block, start, min(start + ROW_GROUP, size), tag))
            rows += size
    return rows


def _table(block: ScoreBlock, start: int, stop: int, tag: dict[bytes, bytes]) -> pa.Table:
    score = np.asarray(block.score[start:stop], dtype=np.float32)
    if np.isinf(score).any():
        raise DeidbenchError(
            f"{block.recognizer} gave an infinite score under {block.threat}; a lost face is NaN."
        )
    code = pa.array(np.zeros(stop - start, dtype=np.int32))
    names = (block.threat, block.recognizer, block.view)
    columns = [
        *(pa.DictionaryArray.from_arrays(code, pa.array([name])) for name in names),
        pa.array(block.reference[start:stop], pa.int32()),
        pa.array(block.probe[start:stop], pa.int32()),
        pa.array(score, pa.float32(), from_pandas=True),  # NaN becomes null
    ]
    return pa.Table.from_arrays(columns, schema=SCORE_SCHEMA.with_metadata(tag))


def _write_examples(folder: Path, examples: Sequence[Example]) -> None:
    folder.mkdir()
    for example in examples:
        Image.fromarray(example.before).save(folder / f"{example.name}-before.png")
        Image.fromarray(example.after).save(folder / f"{example.name}-after.png")


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder):
        raise DeidbenchError(f"{folder} exists; runs are never overwritten, so name another one.")


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A new folder beside the target; its lock tells other writers that it is alive."""
    temporary = folder.parent / f".{folder.name}.writing-{uuid.uuid4().hex}"
    lock = _lock(temporary)
    with lock:  # locked before the folder exists, so that nobody ever sees it unlocked
        try:
            temporary.mkdir()
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def _publish(temporary: Path, folder: Path) -> None:
    _refuse_existing(folder)
    temporary.rename(folder)  # fails, too, when another run took the name meanwhile
    _sync(folder.parent)


def _sweep(parent: Path) -> None:
    """Remove what killed writers left: folders of our name whose lock nobody holds."""
    for path in parent.glob(".*.writing-*"):
        ours = _UNFINISHED.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
        lock = _lock(path)
        if not ours or not Path(lock.lock_file).is_file():
            continue
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        except (filelock.Timeout, OSError):
            continue


def _lock(temporary: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(f"{temporary}.lock")


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk (folders cannot be opened on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# Reading


def inside(folder: Path, name: str) -> Path:
    """A file of the folder; raises when it is missing or lies elsewhere through a link."""
    path = Path(folder) / name
    if not path.is_file():
        hint = "" if Path(folder).is_dir() else " (there is no such folder)"
        raise DeidbenchError(f"{folder} is not a whole run: {name} is missing{hint}.")
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise DeidbenchError(f"{path} leads out of the run folder; such a run is not read.")
    return path


@contextmanager
def _parquet(folder: Path, name: str) -> Iterator[pq.ParquetFile]:
    path = inside(folder, name)
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise DeidbenchError(f"{path} is not readable Parquet: {_line(error)}") from error


def _check_version(path: Path, content: Any) -> None:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise DeidbenchError(f"{path} is not a run record: it has no schema_version.")
    if version < SCHEMA_VERSION:
        raise DeidbenchError(
            f"{path} has schema version {version}, older than {SCHEMA_VERSION}; evaluate again."
        )
    if version > SCHEMA_VERSION:
        raise DeidbenchError(
            f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; upgrade deidbench."
        )


def _check_columns(file: pq.ParquetFile, name: str, expected: pa.Schema) -> None:
    wanted, found = _columns(expected), _columns(file.schema_arrow)
    if found != wanted:
        raise DeidbenchError(
            f"{name}: expected columns {', '.join(wanted)}, but got {', '.join(found)}."
        )


def _columns(schema: pa.Schema) -> list[str]:
    """Name and type of each column."""
    return [f"{field.name} ({field.type})" for field in schema]


def _check_owner(file: pq.ParquetFile, name: str, run_id: str) -> None:
    owner = (file.schema_arrow.metadata or {}).get(_RUN_ID, b"?").decode(errors="replace")
    if owner != run_id:
        raise DeidbenchError(f"{name} belongs to run {owner}, but run.json to {run_id}.")


def _check_numbers(file: pq.ParquetFile, n_images: int) -> None:
    """References and probes are rows of the image table; the statistics of the groups say so."""
    for name in ("reference", "probe"):
        column = file.schema_arrow.get_field_index(name)
        for i in range(file.num_row_groups):
            found = file.metadata.row_group(i).column(column).statistics
            if found is None or (found.has_min_max and not 0 <= found.min <= found.max < n_images):
                raise DeidbenchError(f"{SCORES}: a {name} is none of the {n_images} images.")


def _may_hold(group: Any, wanted: dict[str, str]) -> bool:
    """False when the statistics of a row group rule out the wanted names."""
    for i in range(group.num_columns):
        column = group.column(i)
        name, found = column.path_in_schema, column.statistics
        known = name in wanted and found is not None and found.has_min_max
        if known and not found.min <= wanted[name] <= found.max:
            return False
    return True


def _select(table: pa.Table, wanted: dict[str, str]) -> pa.Table:
    for name, value in wanted.items():
        table = table.filter(pc.equal(table[name].cast(pa.string()), value))
    return table


def _line(error: object) -> str:
    """The first line of a message, without a full stop."""
    return (str(error).splitlines() or ["?"])[0].rstrip(".")
