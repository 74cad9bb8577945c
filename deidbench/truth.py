"""What treated faces still tell, where a dataset knows the truth: landmarks and labels."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import plugins
from .geometry import apply
from .results.schema import MetricRow
from .split import ATTACKER_TRAIN, METHOD_TRAIN
from .stages import Stages, Timing
from .types import Sample
from .utility import groups, side_rows

if TYPE_CHECKING:
    from .cache import Arrays
    from .setup import Job
    from .types import FloatArray

SEER = "lpips"
"""The metric whose features a classifier of faces learns from: every run has it."""
PENALTY = 0.3
"""Inverse strength of the classifier's L2 penalty, chosen by cross-validation over synthid's
training people."""


def truth_rows(job: Job, clean: Arrays, treated: Arrays) -> Iterator[MetricRow]:
    """All rows of what the dataset knows to be true; none where it knows nothing.

    Args:
        clean: what ``Stages.align`` left. treated: what ``Stages.detect`` left.
    """
    if hasattr(job.dataset, "truth") and not job.config.aligned:
        yield from landmark_rows(job, clean, treated)
    for label in getattr(job.dataset, "truth_labels", ()):
        yield from label_rows(job, label)


def landmark_rows(job: Job, clean: Arrays, treated: Arrays) -> Iterator[MetricRow]:
    """Mean distance of MTCNN's landmarks from the true ones, before and after treatment."""
    known: Any = job.dataset
    nowhere = np.full((5, 2), np.nan, np.float32)
    truth = known.truth()
    points = torch.from_numpy(np.stack([truth.get(one.id, nowhere) for one in job.samples]))
    on_chips = apply(torch.from_numpy(clean["transforms"]), points)
    metric = plugins.build("metrics", "landmark-error")
    errors = {
        images: metric(on_chips, torch.from_numpy(places["landmarks"])).numpy()
        for images, places in (("clean", clean), ("treated", treated))
    }
    yield from side_rows(
        job, "landmark-error-to-truth", errors, unit=metric.unit, higher_is_better=False
    )


def label_rows(job: Job, label: str) -> Iterator[MetricRow]:
    """How often a classifier that learned from clean faces of other people reads the true label."""
    name = f"{label}-accuracy"
    learning = training_samples(job, label)
    seer: Any = next((one for one in job.ruler.metrics if one.name == SEER), None)
    why_not = _why_not(job, seer, learning)
    if why_not:
        yield MetricRow(metric=name, value=None, note=why_not, unit="fraction")
        return
    classifier = _learn(job, seer, learning, label)
    truth = np.array([sample.labels.get(label, "") for sample in job.samples])
    hits = {
        images: classifier.hits(job.stages.features(seer, images, job.published), truth)
        for images in ("clean", "treated")
    }
    members = groups(job.samples, job.measured)
    for row in side_rows(job, name, hits, unit="fraction", higher_is_better=True):
        chance = np.mean(truth[members[row.group]] == classifier.commonest)
        note = f"'{classifier.commonest}' for every face would be right in {chance:.3f}"
        yield row.model_copy(update={"note": "; ".join(filter(None, [row.note, note]))})


def training_samples(job: Job, label: str) -> list[Sample]:
    """Labelled samples of the people whom the dataset sets apart, none of whom is measured."""
    published = zip(job.samples, job.published, strict=True)
    measured = {sample.subject for sample, is_published in published if is_published}
    return [
        sample
        for sample in job.dataset.samples()
        if sample.split in (METHOD_TRAIN, ATTACKER_TRAIN)
        and sample.subject not in measured
        and label in sample.labels
    ]


def _why_not(job: Job, seer: Any, learning: Sequence[Sample]) -> str | None:
    if job.config.limit_subjects is not None:
        return "left out of a run that --limit-subjects cuts short"
    if seer is None:
        return f"its classifier needs the weights of {SEER}"
    return None if learning else "the dataset sets no labelled people apart for training"


class Classifier:
    """Multinomial logistic regression on features (N, D) that are centred and scaled as a whole."""

    def __init__(self, features: FloatArray, labels: Sequence[str]) -> None:
        from sklearn.linear_model import LogisticRegression

        self._mean = features.mean(0)
        self._scale = 10 / np.sqrt(features.var(0).sum())
        self._model = LogisticRegression(C=PENALTY, max_iter=1000)
        self._model.fit(self._scaled(features), labels)
        self.commonest = Counter(labels).most_common(1)[0][0]

    def hits(self, features: FloatArray, truth: Any) -> FloatArray:
        """1.0 where the label is right, 0.0 where it is not, NaN without features or label."""
        there = np.isfinite(features).all(1) & (truth != "")
        hits = np.full(len(truth), np.nan)
        if there.any():
            hits[there] = self._model.predict(self._scaled(features[there])) == truth[there]
        return hits

    def _scaled(self, features: FloatArray) -> FloatArray:
        return np.asarray((features - self._mean) * self._scale)


def _learn(job: Job, seer: Any, learning: Sequence[Sample], label: str) -> Classifier:
    """A classifier from clean faces, which go through the cache as all others do."""
    start = time.perf_counter()
    stages = Stages(
        samples=learning, method=job.method, cache=job.stages.cache, progress=job.progress,
        device=job.device, batch_size=job.config.batch_size, chip_size=job.config.chip_size,
        aligned_input=job.config.aligned, seed=job.config.seed,
    )  # fmt: skip
    features = stages.features(seer, "clean")
    found = np.flatnonzero(np.isfinite(features).all(1))
    classifier = Classifier(features[found], [learning[i].labels[label] for i in found.tolist()])
    cached = sum(timing.cached for timing in stages.timings.values())
    job.stages.timings[f"learn {label}"] = Timing(
        time.perf_counter() - start, len(learning), cached
    )
    return classifier
