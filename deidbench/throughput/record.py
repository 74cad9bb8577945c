"""The record of ``deidbench bench``: the only definition of that format. Needs no torch.

Every number has its unit in its name. Numbers of a machine: compare ratios between machines, and
times only between methods that were measured on one.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, model_validator

from deidbench.errors import DeidbenchError
from deidbench.results.schema import Machine, MethodRecord, Record

SCHEMA_VERSION: Literal[1] = 1
BUSY = 0.05
"""Above this share of waiting, times say more about other programs than about the method."""
LARGEST_FILE = 1 << 20
"""Bytes; a record has a few thousand."""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class LatencyRecord(Record):
    """Milliseconds of a call with a single face. A percentile that too few calls tell is None."""

    n_calls: Count
    p50_ms: Positive
    p90_ms: Positive | None
    p99_ms: Positive | None
    note: str | None = None
    """Why a percentile is missing."""

    @model_validator(mode="after")
    def _percentiles_rise(self) -> LatencyRecord:
        known = [ms for ms in (self.p50_ms, self.p90_ms, self.p99_ms) if ms is not None]
        if known != sorted(known):
            raise ValueError("latency: expected p50 <= p90 <= p99")
        return self


class BatchRecord(Record):
    """Speed in one size of batch: medians of rounds; low and high are their quartiles."""

    batch: Count
    n_rounds: Count
    images_per_second: Positive
    images_per_second_low: Positive
    images_per_second_high: Positive
    time_ratio_to_blur: Positive
    """Time of the method over that of the reference, by turns on the same batch."""
    time_ratio_to_blur_low: Positive
    time_ratio_to_blur_high: Positive
    share_of_ceiling: Positive | None
    """Multiply-adds a second over those of the ceiling, by turns; None where none are counted."""

    @model_validator(mode="after")
    def _quartiles_enclose(self) -> BatchRecord:
        for name in ("images_per_second", "time_ratio_to_blur"):
            low, value, high = (getattr(self, name + end) for end in ("_low", "", "_high"))
            if not low <= value <= high:
                raise ValueError(f"{name}: {value} is not within its quartiles [{low}, {high}]")
        return self


class MemoryRecord(Record):
    """The most memory that a method added at one time, its weights included."""

    of: Literal["process", "gpu"]
    batch: Count
    peak_mib: Annotated[float, Field(ge=0)] | None
    note: str | None = None

    @model_validator(mode="after")
    def _unknown_says_why(self) -> MemoryRecord:
        if self.peak_mib is None and not self.note:
            raise ValueError("memory: a peak that is not known needs a note that says why")
        return self


class CeilingRecord(Record):
    """What the device does at best: the faster one of a matrix product and a convolution."""

    kernel: str
    dtype: Literal["float32"] = "float32"
    n_rounds: Count
    multiply_adds_per_second: Positive
    multiply_adds_per_second_low: Positive
    multiply_adds_per_second_high: Positive


class ThroughputRecord(Record):
    """Everything that ``deidbench bench`` found."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["throughput"] = "throughput"
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]
    """UTC, ISO 8601."""
    deidbench_version: str
    method: MethodRecord
    reference: MethodRecord
    """The method that ratios are taken to: gaussian-blur in its default strength."""
    dataset: str
    dataset_version: int
    n_faces: Count
    """Different faces; larger batches repeat them."""
    chip_size_px: Count
    dtype: Literal["float32"] = "float32"
    seconds_per_measurement: Positive
    latency: LatencyRecord
    batches: Annotated[list[BatchRecord], Field(min_length=1)]
    batches_ended: str
    """Why no larger batch was tried."""
    memory: list[MemoryRecord]
    multiply_adds_per_image: Count | None
    """Of matrix products and convolutions, gradients included."""
    multiply_adds_note: str | None = None
    ceiling: CeilingRecord
    waited_for_cpu_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the time that the process wanted a processor, how much it waited for one: what other
    programs spoiled. None where the system does not tell."""
    machine: Machine

    @property
    def best(self) -> BatchRecord:
        """The size of batch with the most images a second."""
        return max(self.batches, key=lambda one: one.images_per_second)

    @property
    def disturbed(self) -> bool:
        """Whether other programs took part of the machine meanwhile."""
        return (self.waited_for_cpu_share or 0) > BUSY

    @model_validator(mode="after")
    def _batches_rise(self) -> ThroughputRecord:
        sizes = [one.batch for one in self.batches]
        if sizes != sorted(set(sizes)):
            raise ValueError("batches: expected different sizes, the smallest first")
        return self

    @model_validator(mode="after")
    def _uncounted_says_why(self) -> ThroughputRecord:
        if self.multiply_adds_per_image is None and not self.multiply_adds_note:
            raise ValueError("multiply-adds that were not counted need a note that says why")
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the record."""
    schema = ThroughputRecord.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def read_throughput(path: Path) -> ThroughputRecord:
    """A record as it was written by ``deidbench bench --out``.

    Raises:
        DeidbenchError: it is missing, garbled, or of another schema version.
    """
    content = _json(path)
    if not isinstance(content, dict) or content.get("kind") != "throughput":
        raise DeidbenchError(f"{path} is no record of 'deidbench bench'. Name the file of --out.")
    found = content.get("schema_version")
    if found != SCHEMA_VERSION:
        raise DeidbenchError(
            f"{path} has schema {_line(found)}, but this version reads {SCHEMA_VERSION}. "
            "Measure again, or use the version that wrote it."
        )
    try:
        return ThroughputRecord.model_validate(content, strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise DeidbenchError(
            f"{path} is no record of speed: {_line(where)}: {_line(first['msg'])}. Measure again."
        ) from error


def write_throughput(path: Path, record: ThroughputRecord) -> None:
    """Write a new file: whole, or not at all.

    Raises:
        DeidbenchError: there is one already, or it cannot be written.
    """
    refuse_unwritable(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DeidbenchError(
            f"cannot write {path}: {error.strerror}. Choose another --out."
        ) from error


def refuse_unwritable(path: Path) -> None:
    """Find out before the work that a record cannot be written.

    Raises:
        DeidbenchError: there is such a file, or its folder takes none.
    """
    if path.exists():
        raise DeidbenchError(f"{path} exists and is not overwritten. Name another --out.")
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DeidbenchError(f"cannot write {path}: {there} refuses. Choose another --out.")


def _json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE} bytes")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DeidbenchError(f"{path} is not readable JSON: {_line(error)}.") from error


def _line(told: object) -> str:
    """In one line, and short: a file's words are not ours."""
    return " ".join(str(told).split())[:120]
