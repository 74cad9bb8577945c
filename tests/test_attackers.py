"""What attackers learn from, what they choose, and what they compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deidbench import plugins
from deidbench.attackers import Attacker, School, detect
from deidbench.config import RunConfig
from deidbench.errors import DeidbenchError
from deidbench.progress import Progress
from deidbench.protocols import Protocol
from deidbench.setup import Job, prepare
from deidbench.split import ATTACKER_TRAIN, CALIBRATION, EVAL
from deidbench.types import Embeddings


@pytest.fixture(scope="module")
def home(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEIDBENCH_HOME", str(folder))
        patch.setenv("DEIDBENCH_MIRROR", str(weights))
        patch.setenv("DEIDBENCH_OFFLINE", "1")
        yield folder


def job_of(method: str, **changes: Any) -> Job:
    config = RunConfig(
        method=method, protocol="standard-v1", recognizers=("lbp",), limit_subjects=14, draws=100,
        batch_size=8, **changes,
    )  # fmt: skip
    return prepare(config, Progress(quiet=True))


@pytest.fixture(scope="module")
def job(home: Path) -> Job:
    return job_of("pixelate")


def attacker(job: Job) -> Attacker:
    return Attacker(job, job.recognizers[0], School(job))


def lesson(job: Job) -> Any:
    one = attacker(job)
    sides = Embeddings(one.embedded("clean"), one.embedded("treated"))
    return one.school.lesson(sides, "cosine")


def test_nobody_is_learned_from_and_measured(job: Job) -> None:
    people = {
        part: {job.samples[i].subject for i in job.split.indices(job.samples, part)}
        for part in (ATTACKER_TRAIN, CALIBRATION, EVAL)
    }
    learned = {job.samples[i].subject for i in School(job).samples}
    assert learned == people[ATTACKER_TRAIN]
    assert not learned & (people[CALIBRATION] | people[EVAL])
    assert not people[CALIBRATION] & people[EVAL]


def test_a_lesson_is_finite_and_holds_some_people_out(job: Job) -> None:
    known = lesson(job)
    assert np.isfinite(known.embeddings.clean).all()
    assert np.isfinite(known.embeddings.treated).all()
    held, fitting = (set(known.subjects[known.held == x]) for x in (True, False))
    assert held and fitting
    assert not held & fitting


def test_a_face_that_is_lost_on_any_side_is_no_part_of_a_lesson(job: Job) -> None:
    one = attacker(job)
    clean, treated = one.embedded("clean"), one.embedded("treated")
    rekeyed = treated.copy()
    rekeyed[one.school.samples[3]] = np.nan
    whole = one.school.lesson(Embeddings(clean, treated), "cosine")
    known = one.school.lesson(Embeddings(clean, treated, rekeyed), "cosine")
    assert len(known.subjects) == len(whole.subjects) - 1
    assert known.embeddings.rekeyed is not None
    assert np.isfinite(known.embeddings.rekeyed).all()


def test_learned_faces_are_those_of_the_chips(job: Job) -> None:
    faces = School(job).faces()
    assert faces.clean.shape == faces.treated.shape
    method = plugins.build("methods", "pixelate")
    expected = (method.deidentify(faces.clean[:4] / 255, seed=0) * 255).round().byte()
    assert torch.equal(faces.treated[:4], expected)
    assert faces.landmarks.shape == (len(faces.clean), 5, 2)


class Spoiler:
    """A restorer that leaves nothing."""

    name = "spoiler"
    fingerprint = "1"

    def to(self, device: Any) -> Spoiler:
        return self

    def __call__(self, faces: Tensor) -> Tensor:
        return torch.zeros_like(faces)


class Helper(Spoiler):
    """One that changes nothing."""

    name = "helper"

    def __call__(self, faces: Tensor) -> Tensor:
        return faces


@pytest.mark.parametrize("order", [1, -1])
def test_the_restorer_that_serves_best_is_chosen(job: Job, order: int) -> None:
    one = attacker(job)
    chosen, note = one._best([Spoiler(), Helper()][::order], one.school.samples)
    assert chosen.name == "helper"
    assert "helper 0." in note
    assert "spoiler 0." in note


def test_thresholds_of_a_protocol_take_the_place_of_calibration(job: Job) -> None:
    table = {"0.1": -3.0, "0.01": -2.0, "0.001": -1.0}
    protocol = Protocol(name="p-v1", summary="", threats=("T0", "T1"), thresholds={"lbp": table})
    one = attacker(replace(job, protocol=protocol))
    assault = next(one.assaults(plugins.build("threats", "T1")))
    assert {str(t.far): t.value for t in assault.attack.thresholds} == table
    assert {t.n_impostor for t in assault.attack.thresholds} == {0}


def test_a_key_changes_what_has_one_and_nothing_else(job: Job, home: Path) -> None:
    assert job.stages.with_seed(5) is job.stages, "a mosaic has no key"
    noisy = job_of("noise")
    again = noisy.stages.with_seed(5)
    assert again is not noisy.stages
    batch = noisy.stages.batches[0]
    pair = (noisy.stages.treated_chips(batch)["chips"], again.treated_chips(batch)["chips"])
    assert not np.array_equal(*pair)


@pytest.mark.slow
def test_linkage_compares_two_keys(home: Path) -> None:
    noisy = job_of("noise")
    one = attacker(noisy)
    sides = next(one.assaults(plugins.build("threats", "T5"))).sides
    assert not np.array_equal(sides.enrolled[noisy.measured], sides.probe[noisy.measured])


def test_a_detector_judges_each_measured_image_once(job: Job) -> None:
    found = detect(School(job), plugins.build("threats", "T6"))
    assert len(found.owner) == len(found.clean) == len(found.treated) == len(job.measured)
    assert found.treated.mean() > found.clean.mean()


def test_unasked_rows_cost_nothing_and_are_empty(job: Job) -> None:
    only = job.rows(job.measured[-1:])
    before = job.stages.cache.misses
    fresh = job.stages.with_method(plugins.build("methods", "median"))
    embedded = fresh.embed(job.recognizers[0], "treated", rows=only)
    assert np.isfinite(embedded[job.measured[-1]]).all()
    assert np.isnan(embedded[job.learning]).all()
    assert job.stages.cache.misses <= before + 2, "one batch is treated and embedded"


def test_a_threat_must_learn_before_it_attacks() -> None:
    sides = Embeddings(np.zeros((2, 4)), np.zeros((2, 4)))
    with pytest.raises(DeidbenchError, match="learned nothing yet"):
        plugins.build("threats", "T3").attack(sides)


@pytest.mark.slow
def test_a_method_that_leaves_no_face_to_find_is_attacked_all_the_same(home: Path) -> None:
    job = job_of("blackout")
    one = attacker(job)
    assert np.isnan(one.embedded("detected")).all()
    threats = {threat.id: threat for threat in job.threats}
    for name in ("T1", "T2", "T3", "T5"):
        views = {assault.attack.view: assault.attack for assault in one.assaults(threats[name])
                 if assault.attack.pairs.kind == "cross"}  # fmt: skip
        assert np.isnan(views["system"].scores).all(), name
        assert not np.isnan(views["landmarks"].scores).any(), name
