"""What a treatment leaves of the images' use: rows of image, landmark and set metrics, by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .errors import MetricUndefinedError
from .groups import SMALLEST_GROUP
from .measure import mean_row
from .results.schema import MetricRow
from .stages import BOTH
from .types import Sample

if TYPE_CHECKING:
    from .setup import Job
    from .stages import Stages
    from .types import BoolArray, FloatArray, IntArray

    Regions = Mapping[str, FloatArray]


def image_values(
    stages: Stages,
    metrics: Sequence[Any],
    landmarks: tuple[FloatArray, FloatArray],
    rows: BoolArray,
) -> dict[str, Regions]:
    """One value an image, (N,), by metric and region; NaN where an image has none.

    Args:
        rows: which samples are asked for, (N,).
        landmarks: (N, 5, 2) of the clean chips, and as a detector finds them on the treated ones.
    """
    values: dict[str, Regions] = {}
    for metric in metrics:
        if metric.kind == "image":
            values[metric.name] = stages.compare(metric, rows=rows)
        elif metric.kind == "landmarks":
            before, after = (torch.from_numpy(points) for points in landmarks)
            values[metric.name] = {"": metric(before, after).numpy()}
    return values


def set_rows(stages: Stages, metrics: Sequence[Any], chosen: IntArray) -> Iterator[MetricRow]:
    """One number for all measured images together (KID, FID)."""
    for metric in metrics:
        if metric.kind != "set":
            continue
        rows = np.isin(np.arange(len(stages.samples)), chosen)
        clean, treated = (stages.features(metric, side, rows) for side in BOTH)
        sides = clean[chosen], treated[chosen]
        both = np.isfinite(sides[0]).all(1) & np.isfinite(sides[1]).all(1)
        value, note = None, _set_note(metric, int(both.sum()))
        try:
            value = metric(*(side[both] for side in sides))
        except MetricUndefinedError as error:
            note = str(error)
        yield MetricRow(
            metric=metric.name, value=value, note=note, n=int(both.sum()), **_about(metric)
        )


def value_rows(job: Job, values: Mapping[str, Regions]) -> Iterator[MetricRow]:
    """Means over the measured images, and over each group of people that labels make."""
    known = {metric.name: metric for metric in job.ruler.metrics}
    for group, members in groups(job.samples, job.measured).items():
        for name, regions in values.items():
            for region, column in regions.items():
                params = {"region": region} if region else {}
                yield _mean(job, name, column, members, group, params, **_about(known[name]))


def detection_rows(job: Job, found: BoolArray, redetected: BoolArray) -> Iterator[MetricRow]:
    """How often MTCNN finds the face, in the photograph and on its treated chip."""
    rates = {
        "clean": np.where(found, 1.0, 0.0),
        "treated": np.where(found, redetected.astype(float), np.nan),
    }
    yield from side_rows(job, "detection-rate", rates, unit="fraction")


def side_rows(
    job: Job, name: str, columns: Mapping[str, FloatArray], **about: Any
) -> Iterator[MetricRow]:
    """Means of one value an image, (N,), before and after: all measured images and each group.

    Args:
        columns: the values of the images that each name stands for ("clean", "treated").
    """
    for group, members in groups(job.samples, job.measured).items():
        for images, column in columns.items():
            yield _mean(job, name, column, members, group, {"images": images}, **about)


def groups(samples: Sequence[Sample], measured: IntArray) -> dict[str | None, IntArray]:
    """Indices of the measured samples: all of them under None, and those of each 'label=value'.

    A label with one value makes no groups.
    """
    found: dict[str | None, IntArray] = {None: measured}
    labels = sorted({label for i in measured for label in samples[i].labels})
    for label in labels:
        values = sorted({samples[i].labels.get(label, "") for i in measured} - {""})
        for value in values if len(values) > 1 else ():
            members = [i for i in measured if samples[i].labels.get(label) == value]
            if len({samples[i].subject for i in members}) >= SMALLEST_GROUP:
                found[f"{label}={value}"] = np.array(members)
    return found


def _mean(
    job: Job,
    name: str,
    column: FloatArray,
    members: IntArray,
    group: str | None,
    params: Mapping[str, str],
    **about: Any,
) -> MetricRow:
    owner = job.ruler.subjects[members]
    shown = len(np.unique(owner[np.isfinite(column[members])]))
    if group is not None and shown < SMALLEST_GROUP:
        why = f"values of fewer than {SMALLEST_GROUP} people"
        return MetricRow(
            metric=name, value=None, note=why, n=0, params=dict(params), group=group, **about
        )
    return mean_row(
        name, column[members], owner, job.ruler.weights, params=params, group=group, **about
    )


def _set_note(metric: Any, n: int) -> str:
    """Why there is no interval, and what the metric has to say of a number of n images."""
    own = metric.note(n) if hasattr(metric, "note") else None
    return "; ".join(filter(None, [own, "no interval: it is a number of the whole set"]))


def _about(metric: Any) -> dict[str, Any]:
    return {
        "unit": metric.unit, "version": metric.version,
        "higher_is_better": metric.higher_is_better,
    }  # fmt: skip
