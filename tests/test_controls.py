"""Controls: sound attacks pass them, and each attack that is broken on purpose fails one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deidbench import controls, statistics
from deidbench.attackers import School
from deidbench.config import RunConfig
from deidbench.controls import Trial
from deidbench.controls.stand_ins import Grey, MildBlur, Unchanged
from deidbench.errors import ControlError
from deidbench.progress import Progress
from deidbench.setup import Job, prepare
from deidbench.threats import _maps, _purifiers, _refine, _unet
from deidbench.threats._unet import Schedule
from deidbench.threats.adapted import Adapted
from deidbench.threats.detection import Detection
from deidbench.threats.linkage import Linkage
from deidbench.threats.naive import Naive
from deidbench.threats.parrot import Parrot
from deidbench.threats.purified import Purified
from deidbench.threats.reconstruction import Reconstruction

pytestmark = pytest.mark.slow

QUICK = Schedule(steps=120, batch=8, rate=4e-3, width=8, looks=2)


@pytest.fixture(scope="module")
def home(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEIDBENCH_HOME", str(folder))
        patch.setenv("DEIDBENCH_MIRROR", str(weights))
        patch.setenv("DEIDBENCH_OFFLINE", "1")
        yield folder


@pytest.fixture(scope="module")
def job(home: Path) -> Job:
    """The embedded faces before dlib, cut to what controls look at."""
    config = RunConfig(method="identity", protocol="standard-v1", recognizers=("dlib",), draws=400)
    whole = prepare(config, Progress(quiet=True))
    return controls._fewer_people(whole)


def trial(job: Job, *threats: Any) -> Trial:
    """Controls of some threats alone, with T0 beside them."""
    chosen = [one for one in job.threats if one.id == "T0"] + list(threats)
    job = replace(job, threats=chosen)
    blur = controls.mild_blur(job)
    lesson = School(controls._with(job, blur)).faces()
    restorers = {
        controls._title(part): part.restorers(part.learn(lesson))
        for threat in threats
        if threat.kind == "images"
        for part in controls._alone(threat)
    }
    return Trial(job, job.recognizers[0], blur, restorers, taught=True)


def failed(job: Job, *threats: Any) -> str:
    """What the controls say of an attack that is broken."""
    with pytest.raises(ControlError) as error:
        list(trial(job, *threats).records())
    return str(error.value)


def shuffle(rows: Any, seed: int = 0) -> Any:
    return rows[np.random.default_rng(seed).permutation(len(rows))]


# Sound attacks


@pytest.mark.parametrize(
    "threat",
    [Naive(), Parrot(), Adapted(), Linkage(), Purified(), Reconstruction(schedule=QUICK)],
    ids=lambda threat: str(threat.id),
)
def test_a_sound_attack_passes(job: Job, threat: Any) -> None:
    records = list(trial(job, threat).records())
    told = " ".join(record.name for record in records)
    assert f"{threat.id}" in told
    assert "grey faces" in told
    assert all(record.recognizer == "dlib" for record in records)


def test_a_sound_detector_passes(job: Job) -> None:
    records = list(controls._detectors(replace(job, threats=[Detection()])))
    assert [record.name for record in records] == ["T6 on unchanged faces", "T6 on grey faces"]


# Attacks that are broken on purpose


@pytest.mark.parametrize("broken", [Naive, Parrot, Adapted, Linkage])
def test_an_attack_on_the_wrong_people_fails(
    job: Job, broken: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = broken.attack

    def mixed(self: Any, embeddings: Any) -> Any:
        enrolled, probe = whole(self, embeddings)
        return enrolled, shuffle(probe)

    monkeypatch.setattr(broken, "attack", mixed)
    assert f"{broken.id} on unchanged faces" in failed(job, broken())


@pytest.mark.parametrize("broken", [Naive, Parrot, Adapted, Linkage])
def test_an_attack_that_is_fed_the_clean_side_fails(
    job: Job, broken: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, "attack", lambda _, faces: (faces.clean, faces.clean))
    assert f"{broken.id} on grey faces" in failed(job, broken())


def test_a_ridge_map_that_learns_from_shuffled_faces_fails(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _maps._ridges
    monkeypatch.setattr(
        _maps, "_ridges",
        lambda faces, penalties: whole(replace(faces, clean=shuffle(faces.clean)), penalties),
    )  # fmt: skip
    assert "T3 (ridge)" in failed(job, Adapted())


def test_a_network_without_a_gradient_fails(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _refine.contrast
    monkeypatch.setattr(_refine, "contrast", lambda *sides: 0 * whole(*sides))
    assert "T3 (network) on turned embeddings" in failed(job, Adapted())


def test_a_network_that_learns_from_shuffled_people_fails(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _refine.contrast
    monkeypatch.setattr(
        _refine, "contrast", lambda enrolled, probe, owner: whole(enrolled, probe.roll(9, 0), owner)
    )
    assert "T3 (network) on turned embeddings" in failed(job, Adapted())


def test_a_restorer_that_learns_from_shuffled_faces_fails(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _unet._faces

    def mixed(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        treated, guess, clean = whole(*arguments)
        return treated, guess, clean.roll(1, 0)

    monkeypatch.setattr(_unet, "_faces", mixed)
    threat = Reconstruction("unet", QUICK)
    monkeypatch.setattr(threat, "alone", lambda: [threat])
    assert "T4 (unet) on a mild blur" in failed(job, threat)


def test_a_restorer_without_a_gradient_fails(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _unet.loss_of
    monkeypatch.setattr(_unet, "loss_of", lambda restored, clean: 0 * whole(restored, clean))
    threat = Reconstruction("unet", QUICK)
    monkeypatch.setattr(threat, "alone", lambda: [threat])
    assert "T4 (unet) on a mild blur" in failed(job, threat)


@pytest.mark.parametrize(
    "spoil",
    [torch.zeros_like, lambda faces: faces.roll(1, 0), lambda faces: torch.rand_like(faces)],
    ids=["black", "of the neighbour", "noise"],
)
def test_a_filter_that_spoils_faces_fails(
    job: Job, spoil: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    threat = Purified()
    filters = _purifiers.purifiers()
    broken = type("Broken", (), {
        "name": "median", "fingerprint": "broken", "to": lambda self, _: self,
        "__call__": lambda self, faces: spoil(faces), "__module__": __name__,
    })()  # fmt: skip
    monkeypatch.setattr(threat, "restorers", lambda _: [filters[0], broken])
    assert "P (median) on unchanged faces" in failed(job, threat)


@pytest.mark.parametrize("how", ["labels", "side"])
def test_a_detector_that_learns_nothing_fails(
    job: Job, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Detection.learn

    def broken(self: Detection, lesson: Any) -> Any:
        if how == "side":
            return whole(self, replace(lesson, treated=lesson.clean))
        turned = (torch.arange(len(lesson.clean)) % 2 == 0)[:, None, None, None]
        one = torch.where(turned, lesson.treated, lesson.clean)
        return whole(self, replace(lesson, clean=one, treated=torch.where(
            turned, lesson.clean, lesson.treated)))  # fmt: skip

    monkeypatch.setattr(Detection, "learn", broken)
    job = replace(job, threats=[Detection()], config=replace(job.config, seed=7))
    with pytest.raises(ControlError, match="T6 on grey faces"):
        list(controls._detectors(job))


def test_an_auc_that_is_not_mirrored_fails(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        statistics, "auc", lambda g, i: float(np.mean(g[:, None][:50] >= np.sort(i)[None]) ** 2)
    )
    assert "swapped labels" in failed(job, Naive())


# What a user sees


def test_a_failed_control_ends_with_exit_code_3_and_writes_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deidbench import cli

    monkeypatch.setattr(Parrot, "attack", lambda _, faces: (faces.clean, faces.clean))
    monkeypatch.chdir(tmp_path)
    protocol = tmp_path / "few.toml"
    protocol.write_text(
        'name = "few-v1"\nsummary = "s"\nthreats = ["T0", "T2"]\ncontrols = true\n', "utf-8"
    )
    arguments = ["evaluate", "--method", "identity", "--recognizers", "dlib", "--quiet"]
    monkeypatch.setattr("sys.argv", ["deidbench", *arguments, "--protocol", str(protocol)])
    said: list[str] = []
    monkeypatch.setattr(cli.click, "echo", lambda text="", **_: said.append(str(text)))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 3
    assert len(said) == 1
    assert "control failed: T2 on grey faces by dlib: expected AUC 0.5, but got" in said[0]
    assert not (tmp_path / "runs").exists()


def test_stand_ins_are_what_they_say() -> None:
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Unchanged().deidentify(faces, seed=0), faces)
    assert torch.equal(Grey().deidentify(faces, seed=0), torch.full_like(faces, 0.5))
    from scipy.ndimage import gaussian_filter

    sigma = 0.03 * 64
    expected = gaussian_filter(faces.numpy(), (0, 0, sigma, sigma), mode="mirror")
    np.testing.assert_allclose(
        MildBlur(0.03).deidentify(faces, seed=0).numpy(), expected, atol=1e-5
    )


def test_the_mild_blur_leaves_room_and_no_more(job: Job) -> None:
    blur = controls.mild_blur(job)
    tried = controls.stand_ins.BLURS[: controls.stand_ins.BLURS.index(blur.share) + 1]
    areas = [
        Trial(job, job.recognizers[0], blur, {}, False).naive(MildBlur(share)).auc
        for share in tried
    ]
    assert areas[-1] <= controls.ROOM
    assert all(area > controls.ROOM for area in areas[:-1])


def test_a_rotation_keeps_lengths_and_angles() -> None:
    turn = controls.rotation(64)
    np.testing.assert_allclose(turn @ turn.T, np.eye(64), atol=1e-12)


def test_too_few_people_are_said_not_judged(job: Job) -> None:
    few = replace(job, measured=job.measured[:8])
    records, gaps = controls.check(few)
    assert records == []
    assert [gap.what for gap in gaps] == ["controls"]
