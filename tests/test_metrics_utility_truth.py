"""Landmarks and labels that a dataset knows: what treated faces still tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from deidbench.config import RunConfig
from deidbench.datasets.synthid import SynthID
from deidbench.errors import MetricUndefinedError
from deidbench.harness import evaluate
from deidbench.progress import Progress
from deidbench.results.schema import MetricRow
from deidbench.setup import Job, prepare
from deidbench.split import ATTACKER_TRAIN, METHOD_TRAIN
from deidbench.truth import Classifier, label_rows, landmark_rows, training_samples, truth_rows
from deidbench.types import Sample
from deidbench.utility import set_rows

QUIET = Progress(quiet=True)
TEACHERS = 12  # people of the training parts whom the classifier learns from here


class FewTeachers(SynthID):
    """synthid with fewer people to learn from, so that a test is quick."""

    def samples(self) -> Sequence[Sample]:
        apart = [one for one in super().samples() if one.split in (METHOD_TRAIN, ATTACKER_TRAIN)]
        people = sorted({one.subject for one in apart})[:TEACHERS]
        return [one for one in super().samples() if one not in apart or one.subject in people]


@pytest.fixture(scope="module")
def shared(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def home(shared: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One home for all tests here: clean chips are aligned once."""
    monkeypatch.setenv("DEIDBENCH_HOME", str(shared))
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(weights))
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")


def job_of(method: str, **changes: Any) -> Job:
    """An evaluation of 6 people that is ready to run, with people to learn from."""
    config = RunConfig(
        method=method,
        recognizers=("sface",),
        limit_subjects=6,
        draws=100,
        protocol="quick-v1",
        **changes,
    )
    job = prepare(config, QUIET)
    whole = replace(config, limit_subjects=None)
    return replace(job, config=whole, dataset=FewTeachers())


def only(rows: Sequence[MetricRow], images: str, group: str | None = None) -> MetricRow:
    (row,) = (r for r in rows if (r.params, r.group) == ({"images": images}, group))
    return row


def test_the_true_landmarks_of_synthid_lie_in_order_in_every_photograph() -> None:
    dataset = SynthID()
    truth = dataset.truth()
    assert truth.keys() == {sample.id for sample in dataset.samples()}
    points = np.stack(list(truth.values()))
    assert points.shape == (768, 5, 2)
    assert points.dtype == np.float32
    assert points.min() > 0
    assert points.max() < 223
    assert (points[:, 0, 0] < points[:, 1, 0]).all()
    assert (points[:, :2, 1].mean(1) < points[:, 3:, 1].mean(1)).all()


def test_landmark_accuracy_is_measured_in_the_photographs(home: None) -> None:
    """Against the same error without any chip: MTCNN's points carried back to the photograph."""
    job = job_of("identity")
    clean, treated = job.stages.align(), job.stages.treat() and job.stages.detect()
    rows = list(landmark_rows(job, clean, treated))
    truth = job.dataset.truth()
    errors = []
    for i in job.measured:
        linear, shift = clean["transforms"][i][:, :2], clean["transforms"][i][:, 2]
        points = (clean["landmarks"][i] - shift) @ np.linalg.inv(linear).T
        known = truth[job.samples[i].id]
        eyes = np.linalg.norm(known[0] - known[1])
        errors.append(np.linalg.norm(points - known, axis=1).mean() / eyes)
    row = only(rows, "clean")
    assert row.metric == "landmark-error-to-truth"
    assert row.value == pytest.approx(np.mean(errors), rel=1e-3)
    assert row.low <= row.value <= row.high
    assert row.value < 0.09
    assert only(rows, "treated").value == pytest.approx(row.value, abs=0.02)
    assert {r.group for r in rows} > {None, "pose=frontal", "pose=turned"}


def test_landmarks_are_worse_on_what_hides_them_and_missing_faces_are_left_out(home: None) -> None:
    job = job_of("pixelate")
    clean, treated = job.stages.align(), job.stages.treat() and job.stages.detect()
    rows = list(landmark_rows(job, clean, treated))
    before, after = only(rows, "clean"), only(rows, "treated")
    assert after.value > 1.5 * before.value
    assert after.n == np.isfinite(treated["landmarks"][job.measured, 0, 0]).sum()
    lost = dict(treated, landmarks=np.full_like(treated["landmarks"], np.nan))
    row = only(list(landmark_rows(job, clean, lost)), "treated")
    assert (row.value, row.n) == (None, 0)


@pytest.mark.slow
def test_a_label_is_read_as_before_where_nothing_was_treated(home: None) -> None:
    job = job_of("identity")
    job.stages.align(), job.stages.treat()
    rows = list(label_rows(job, "expression"))
    before, after = only(rows, "clean"), only(rows, "treated")
    assert before.metric == "expression-accuracy"
    assert before.value == after.value
    labels = [job.samples[i].labels["expression"] for i in job.measured]
    chance = labels.count("neutral") / len(labels)
    assert before.note == f"'neutral' for every face would be right in {chance:.3f}"
    assert before.value > chance + 0.05
    # Groups by the label itself are the rates at which each of its values is read.
    neutral = only(rows, "clean", "expression=neutral")
    assert neutral.note == "'neutral' for every face would be right in 1.000"
    assert neutral.n == labels.count("neutral")
    assert job.stages.timings["learn expression"].images == TEACHERS * 8
    again = list(label_rows(job, "expression"))
    assert again == rows
    assert job.stages.timings["learn expression"].cached >= TEACHERS * 8


@pytest.mark.slow
def test_a_black_picture_has_one_expression(home: None) -> None:
    job = job_of("blackout")
    job.stages.align(), job.stages.treat()
    rows = list(label_rows(job, "expression"))
    labels = [job.samples[i].labels["expression"] for i in job.measured]
    shares = {labels.count(label) / len(labels) for label in set(labels)} | {0.0}
    assert min(abs(only(rows, "treated").value - share) for share in shares) < 1e-9
    assert only(rows, "clean").value > only(rows, "treated").value


def test_nobody_is_learned_from_and_measured(home: None) -> None:
    job = job_of("identity")
    learning = training_samples(job, "expression")
    assert {one.subject for one in learning}.isdisjoint({one.subject for one in job.samples})
    assert len(learning) == TEACHERS * 8
    also_measured = replace(
        job,
        samples=[*job.samples, *learning[:8]],
        published=np.append(job.published, np.ones(8, bool)),
    )
    assert len(training_samples(also_measured, "expression")) == TEACHERS * 8 - 8
    assert training_samples(job, "shoe size") == []


def test_a_number_that_cannot_be_had_says_why(home: None) -> None:
    job = job_of("identity")
    short = replace(job, config=replace(job.config, limit_subjects=6))
    blind = replace(job, ruler=replace(job.ruler, metrics=[]))
    for other, label, why in (
        (short, "expression", "--limit-subjects"),
        (blind, "expression", "weights of lpips"),
        (job, "shoe size", "no labelled people apart"),
    ):
        (row,) = label_rows(other, label)
        assert row.value is None
        assert why in str(row.note)


def test_a_dataset_that_knows_nothing_has_no_such_rows(home: None) -> None:
    class Ignorant:
        name = "ignorant"

    job: Any = replace(job_of("identity"), dataset=Ignorant())
    assert list(truth_rows(job, {}, {})) == []
    cut: Any = replace(job_of("identity"), dataset=FewTeachers(), config=None)
    cut = replace(cut, config=RunConfig(method="identity", aligned=True, limit_subjects=6))
    assert [row.metric for row in truth_rows(cut, {}, {})] == ["expression-accuracy"]


@pytest.mark.slow
def test_a_run_records_what_the_dataset_knows(home: None, tmp_path: Path) -> None:
    config = RunConfig(
        method="pixelate",
        recognizers=("sface",),
        limit_subjects=6,
        draws=100,
        out=tmp_path / "run",
        protocol="quick-v1",
    )
    _, record = evaluate(config, QUIET)
    rows = [row for row in record.rows if row.metric == "landmark-error-to-truth"]
    assert only(rows, "treated").value > only(rows, "clean").value > 0
    (reason,) = (row.note for row in record.rows if row.metric == "expression-accuracy")
    assert "--limit-subjects" in str(reason)
    named = {row.metric for row in record.rows if row.threat is None}
    assert named >= {"ms-ssim", "landmark-error", "head-pose-yaw", "face-found-yunet"}
    assert not named & {"kid", "fid", "lpips-vgg", "gender-agreement"}


class MeanColour:
    """A guest's set metric: how far the mean colours of two sets are apart."""

    name, version, unit, kind = "mean-colour", 1, "colour", "set"
    higher_is_better = False

    def to(self, device: Any) -> MeanColour:
        return self

    def features(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def __call__(self, original: np.ndarray, treated: np.ndarray) -> float:
        if len(original) < 2:
            raise MetricUndefinedError("mean-colour: needs 2 images")
        return float(np.linalg.norm(original.mean(0) - treated.mean(0)))

    def note(self, n: int) -> str | None:
        return f"made of {n} images"


def test_a_set_metric_says_what_its_number_is_made_of(home: None) -> None:
    job = job_of("blackout")
    found = job.stages.align()["found"], job.stages.treat()["treated"]
    (row,) = set_rows(job.stages, [MeanColour()], job.measured)
    assert row.n == int((found[0] & found[1])[job.measured].sum())
    assert row.note == f"made of {row.n} images; no interval: it is a number of the whole set"
    assert row.value > 0.05
    (row,) = set_rows(job.stages, [MeanColour()], job.measured[:1])
    assert (row.value, row.note) == (None, "mean-colour: needs 2 images")


def blobs(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Features (count, 5) of two labels, well apart; three of four are 'a'."""
    random = np.random.default_rng(seed)
    labels = ["b" if k % 4 == 0 else "a" for k in range(count)]
    centres = np.array([[2.0 * (label == "b")] * 5 for label in labels])
    return (centres + random.normal(scale=0.2, size=(count, 5))).astype(np.float32), labels


def test_the_classifier_learns_what_is_apart_and_keeps_gaps() -> None:
    features, labels = blobs(80, 0)
    classifier = Classifier(features, labels)
    others, known = blobs(40, 1)
    truth = np.array(known)
    assert classifier.commonest == "a"
    assert classifier.hits(others, truth).tolist() == [1.0] * 40
    assert classifier.hits(others, np.array(known[1:] + known[:1])).mean() < 0.6
    others[3], truth[5] = np.nan, ""
    hits = classifier.hits(others, truth)
    assert np.flatnonzero(np.isnan(hits)).tolist() == [3, 5]
    assert np.isnan(classifier.hits(np.full((2, 1), np.nan), truth[:2])).all()


def test_the_classifier_does_not_mind_the_scale_of_features() -> None:
    features, labels = blobs(60, 2)
    noise = np.random.default_rng(0).normal(scale=3, size=features.shape)
    truth = np.array(labels)
    plain = Classifier(features, labels).hits(features + noise, truth)
    scaled = Classifier(1e-3 * features + 5, labels).hits(1e-3 * (features + noise) + 5, truth)
    assert plain.mean() == pytest.approx(scaled.mean(), abs=0.05)
