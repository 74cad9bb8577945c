"""Differences of what is no attack: utility, speed, memory, detection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deidbench import statistics
from deidbench.measure import Ruler
from deidbench.results.schema import MetricRow, RunRecord
from deidbench.split import EVAL

from .matching import Run
from .rows import Drawn, Kind, Row, Value, dotted, judged, numbers, words

if TYPE_CHECKING:
    import pandas as pd

    from deidbench.types import BoolArray, FloatArray, IntArray

SPEED = "images-per-second"
DETECTION = "detection-rate"


def value_rows(base: Run, head: Run, index: IntArray, ruler: Ruler) -> Iterator[Row]:
    """Means of one value an image, over the images that have it in both runs."""
    measured = (base.images["part"] == EVAL).to_numpy()
    moved = head.images.set_axis(index, axis=0).sort_index()
    for row in base.record.rows:
        if row.threat is not None or row.group is not None or row.value is None:
            continue
        columns = [_column(frame, row) for frame in (base.images, moved)]
        if columns[0] is None or columns[1] is None:
            continue
        yield _value_row(row, columns[0], columns[1], measured, ruler)


def _column(images: pd.DataFrame, row: MetricRow) -> FloatArray | None:
    """One value an image, (N,), of a row of the record; None where they were not kept."""
    if row.metric == DETECTION:
        if row.params.get("images") != "treated":
            return None
        found = images["found"].to_numpy(bool)
        return np.where(found, images["found_treated"].to_numpy(np.float64), np.nan)
    if row.params.keys() - {"region"}:
        return None
    name = f"{row.metric}_{row.params.get('region', '')}".rstrip("_")
    if name not in images.columns:
        return None
    return images[name].to_numpy(np.float64, na_value=np.nan)


def _value_row(
    row: MetricRow, base: FloatArray, head: FloatArray, measured: BoolArray, ruler: Ruler
) -> Row:
    chosen = measured & np.isfinite(base) & np.isfinite(head)
    owner = ruler.subjects[chosen]
    people = len(np.unique(owner))
    if people < 2:
        return _plain_row(row, "utility", None, None, "no two people have a value in both runs")
    counted = np.bincount(owner, minlength=ruler.weights.shape[1]).astype(np.float64)
    found = []
    for values in (base[chosen], head[chosen]):
        sums = np.bincount(owner, values, len(counted)).astype(np.float64)
        draws = statistics.ratio_bootstrap(sums, counted, ruler.weights)
        found.append(Value(float(values.mean()), draws))
    note = _left_out(row, base[measured], head[measured])
    made = _plain_row(row, "utility", found[0].value, found[1].value, note)
    made = replace(made, people=people)
    return judged(Drawn(made, *found), people).row


def _left_out(row: MetricRow, base: FloatArray, head: FloatArray) -> str | None:
    unchanged = int((np.isinf(base) | np.isinf(head)).sum())
    if not unchanged:
        return None
    return f"{unchanged} images without a finite {row.metric} in one of the runs are left out"


def other_rows(base: RunRecord, head: RunRecord) -> Iterator[Row]:
    """Numbers of the records alone: speed, memory, sets of images, detection. No interval."""
    theirs = {_key(row): row for row in head.rows}
    for row in base.rows:
        other = theirs.get(_key(row))
        alone = row.recognizer is None and row.group is None and row.threat in (None, "T6")
        if not alone or other is None or _by_image(row):
            continue
        kind: Kind = "speed" if row.metric == SPEED else "other"
        yield _plain_row(row, kind, row.value, other.value, None)


def _by_image(row: MetricRow) -> bool:
    """Whether the row is a mean of values that ``value_rows`` takes from the image table."""
    return row.metric == DETECTION or "region" in row.params or (
        row.threat is None and not row.params and row.low is not None
    )  # fmt: skip


def _key(row: MetricRow) -> tuple[object, ...]:
    return (row.threat, row.recognizer, row.group, row.pairs, row.view, row.metric,
            tuple(sorted((key, str(value)) for key, value in row.params.items())))  # fmt: skip


def _plain_row(
    row: MetricRow, kind: Kind, base: float | None, head: float | None, note: str | None
) -> Row:
    better = True if row.metric in (SPEED, DETECTION) else row.higher_is_better
    known = base is not None and head is not None
    return Row(
        name=dotted(row.threat, row.metric, *words(row.params)) + numbers(row.params),
        kind=kind, metric=row.metric, params=row.params, base=base, head=head, unit=row.unit,
        higher_is_better=better, threat=row.threat, note=note,
        difference=head - base if known and base is not None and head is not None else None,
    )  # fmt: skip
