"""The record of a run, as it stands in ``run.json``. The only definition of that format.

A number is one flat ``MetricRow``. Rows of verification name a threat, a recognizer, the pairs and
the view; ``metric`` is the registered name (``auc``, ``eer``, ``tar``, ``dprime``, ...) and
``params`` its settings (``far``). Rows of utility and speed have no threat. Their names, beside the
image metrics ``lpips``, ``ssim`` and ``psnr`` (params ``region``: ``chip`` or ``face``; ``net`` for
LPIPS): ``detection-rate`` (params ``images``: ``clean`` or ``treated``), ``images-per-second``
(params ``batch``), ``latency`` (unit ``ms``, params ``quantile``), ``peak-memory`` (unit ``MiB``,
params ``of``: ``process`` or ``gpu``).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[1] = 1

PairKind = Literal["cross", "same", "official"]
View = Literal["landmarks", "system", "conditional"]

_EXAMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def example_name(sample_id: str) -> str:
    """A sample id as a name that is safe in a file path: letters, digits, '-' and '_'."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", sample_id).strip("-_")
    return name[-64:].lstrip("-_") or "example"


def _safe_name(name: str) -> str:
    if not _EXAMPLE.fullmatch(name):
        raise ValueError(f"an example is named by letters, digits, '-' and '_', but got {name!r}")
    return name


def _plain_json(value: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists; NaN, infinity and objects are refused."""
    plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    return plain


def _all_different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("two examples have the same name")
    return names


ExampleName = Annotated[str, AfterValidator(_safe_name)]
Far = Annotated[float, Field(gt=0, lt=1)]
"""A false accept rate that can be asked for."""
PlainDict = Annotated[dict[str, Any], AfterValidator(_plain_json)]


class Record(BaseModel):
    """Base of all records: frozen, no unknown keys, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MetricRow(Record):
    """One number with its interval, or the reason why there is none."""

    threat: str | None = None
    recognizer: str | None = None
    pairs: PairKind | None = None
    view: View | None = None
    group: str | None = None
    metric: str
    params: dict[str, float | int | str] = {}
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    higher_is_better: bool | None = None
    """As the defender sees it."""
    n_genuine: int | None = None
    n_impostor: int | None = None
    n_failed: int | None = None
    n: int | None = None
    version: int = 1
    """Of the metric: numbers of different versions are never compared."""
    note: str | None = None

    @model_validator(mode="after")
    def _undefined_says_why(self) -> MetricRow:
        if self.value is None and not self.note:
            raise ValueError(f"{self.metric}: a row without a value needs a note that says why")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self.metric}: interval [{self.low}, {self.high}] is upside down")
        return self

    @model_validator(mode="after")
    def _far_is_a_rate(self) -> MetricRow:
        far = self.params.get("far", 0.5)
        if isinstance(far, str) or not 0 < far < 1:
            raise ValueError(f"{self.metric}: far must lie between 0 and 1, but got {far!r}")
        return self


class Curve(Record):
    """ROC (true accept rate over false match rate) and score histograms of one attack."""

    threat: str
    recognizer: str
    pairs: PairKind
    view: View
    fmr: list[float]
    tar: list[float]
    histogram_edges: list[float]
    genuine_histogram: list[int]
    impostor_histogram: list[int]

    @model_validator(mode="after")
    def _lengths_agree(self) -> Curve:
        bins = len(self.histogram_edges) - 1
        if len(self.fmr) != len(self.tar):
            raise ValueError(f"curve: {len(self.fmr)} fmr but {len(self.tar)} tar values")
        if bins < 1:
            raise ValueError(f"curve: histograms need 2 edges or more, but got {bins + 1}")
        if not len(self.genuine_histogram) == len(self.impostor_histogram) == bins:
            raise ValueError(f"curve: histograms must have {bins} bins, one less than the edges")
        return self


class CmcCurve(Record):
    """Rank-k rates of one attack: ``rate`` of its n searches have their person among ``rank``.

    The chance line is rank / n_enrolled.
    """

    threat: str
    recognizer: str
    pairs: PairKind
    view: View
    n: int
    """Mated searches."""
    n_enrolled: Annotated[int, Field(ge=1)]
    """People in the gallery."""
    rank: list[int]
    rate: list[float]

    @model_validator(mode="after")
    def _ranks_rise_to_the_last(self) -> CmcCurve:
        if len(self.rank) != len(self.rate):
            raise ValueError(f"cmc: {len(self.rank)} ranks but {len(self.rate)} rates")
        if not self.rank or self.rank[0] != 1 or self.rank[-1] != self.n_enrolled:
            raise ValueError(f"cmc: expected ranks from 1 to {self.n_enrolled}")
        if any(later <= rank for rank, later in zip(self.rank, self.rank[1:], strict=False)):
            raise ValueError("cmc: expected each rank to be larger than the one before")
        return self


class ThresholdRecord(Record):
    """A decision threshold at a false accept rate, fixed on the threat's CALIBRATION scores."""

    threat: str
    recognizer: str
    view: View
    far: Far
    value: float | None
    n_impostor: int
    note: str | None = None


class RecognizerRecord(Record):
    """An attacker's eyes, or the reason why they were not available."""

    name: str
    version: int
    status: Literal["run", "unavailable"]
    reason: str | None = None
    similarity: str | None = None
    weights_sha256: str | None = None


class MethodRecord(Record):
    """What was measured. Recognizers in ``trained_against`` attack as T1w, never as T1."""

    name: str
    version: int
    strength: float | None = None
    parameters: PlainDict = {}
    """Its settings besides the strength."""
    trained_against: list[str] = []
    trained_on_metrics: list[str] = []
    """Image metrics in its loss, which flatter it."""
    weights_sha256: str | None = None


class DatasetRecord(Record):
    """The faces. ``label`` is how the user named the set, never a path of a machine."""

    name: str
    version: int
    label: str
    synthetic: bool
    n_samples: int
    n_subjects: int
    sha256: str


class SplitRecord(Record):
    """The subject-disjoint parts: how many subjects and images each has."""

    seed: int
    sha256: str
    subjects: dict[str, int]
    images: dict[str, int]


class ThreatRecord(Record):
    """A threat that was carried out."""

    id: str
    version: int
    title: str
    summary: str


class LearnedRecord(Record):
    """What an attacker who learns has chosen, for one recognizer."""

    threat: str
    recognizer: str
    note: str
    restorer: str | None = None
    """What he does to treated faces before the recognizer sees them."""


class ControlRecord(Record):
    """An attack on faces where its outcome is known: what was expected, and what came out."""

    name: str
    recognizer: str | None = None
    expected: str
    found: str


class NotMeasured(Record):
    """What a reader may expect and will not find, and why."""

    what: str
    why: str


class StageTiming(Record):
    """Wall-clock seconds of a stage; ``cached`` of its ``images`` came from the cache."""

    stage: str
    seconds: float
    images: int
    cached: int


class Machine(Record):
    """Where it ran."""

    platform: str
    python: str
    torch: str
    cpu: str
    threads: int
    device: str
    gpu: str | None = None


class RunRecord(Record):
    """Everything that ``run.json`` holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]
    """UTC, ISO 8601."""
    deidbench_version: str
    protocol: str
    protocol_settings: PlainDict = {}
    """All that the protocol says, so that one of a user's own can be repeated."""
    seed: int
    chip_size: int
    """Side of the face chips, pixels."""
    config: PlainDict
    dataset: DatasetRecord
    split: SplitRecord
    method: MethodRecord
    recognizers: list[RecognizerRecord]
    threats: list[ThreatRecord]
    thresholds: list[ThresholdRecord] = []
    rows: list[MetricRow]
    curves: list[Curve] = []
    identification: list[CmcCurve] = []
    """Rank-k rates for all k, where the protocol asks for identification."""
    failures: dict[str, int] = {}
    """Faces lost, by stage."""
    learned: list[LearnedRecord] = []
    controls: list[ControlRecord] = []
    """All of them held; a run with one that did not leaves no record."""
    not_measured: list[NotMeasured] = []
    machine: Machine
    timings: list[StageTiming] = []
    examples: Annotated[
        list[ExampleName],
        AfterValidator(_all_different),
        Field(json_schema_extra={"uniqueItems": True}),
    ] = []
    stored_rows: dict[str, int] = {}
    """Rows of the Parquet files beside this record, by file name; filled in by ``write_run``."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``run.json``."""
    schema = RunRecord.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
