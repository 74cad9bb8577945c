"""The tool that trains runs which differ in one thing each."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import ablations
import numpy as np
import pytest
import torch

from deidbench.threats._unet import Schedule
from deidbench.threats.reconstruction import Reconstruction
from fadenet.config import TrainConfig, read_config
from fadenet.train import Eyes
from fadenet.validation import Validation
from tests.small_fadenet import Eye, Gap, config, people, trainer, woken


@pytest.fixture
def base() -> TrainConfig:
    return read_config(ablations.CONFIG)


@pytest.mark.parametrize("name", list(ablations.VARIANTS))
def test_a_variant_changes_what_it_names_and_nothing_else(name: str, base: TrainConfig) -> None:
    changes = ablations.VARIANTS[name]
    before, after = base.to_dict(), ablations.variant(base, changes).to_dict()
    for key in before:
        if key in ("loss", "model"):
            wanted = {**before[key], **changes.get(key, {})}
        elif key == "held_out":
            everyone = {*before["critics"], *before["held_out"]}
            wanted = sorted(everyone - set(after["critics"]))
            after[key] = list(after[key])
        else:
            wanted = changes.get(key, before[key])
        found = list(after[key]) if isinstance(wanted, tuple) else after[key]
        assert found == (list(wanted) if isinstance(wanted, tuple) else wanted), key
    assert (before != after) == bool(changes)


def test_the_naive_area_is_that_of_validation() -> None:
    aside, eye = people(12), Eye()
    look = Validation(aside, {"eye": eye}, Gap(), "cpu")
    network = woken()
    treated, _ = look.treated(network, 1.0)
    area = ablations.naive_area(look, "eye", treated.float() / 255)
    assert area == pytest.approx(look(network)["1 T1 eye"])


def test_runs_are_tabled_and_not_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyes = {"dlib": Eye("dlib", 1), "sface": Eye("sface", 2)}

    def load(settings: TrainConfig, device: str) -> Eyes:
        held = {name: eyes[name] for name in settings.held_out}
        return Eyes({name: eyes[name] for name in settings.critics}, Gap(), held)

    monkeypatch.setattr(ablations, "load_eyes", load)
    quick = Schedule(steps=4, looks=1, width=8)
    monkeypatch.setattr(ablations, "Reconstruction", partial(Reconstruction, schedule=quick))
    base = replace(config(), critics=("sface",), held_out=("dlib",), validation_faces=8, steps=8)
    wanted = ["as shipped", "no filters"]
    first = list(ablations.runs(base, people(12), tmp_path, wanted))
    assert first[0]["lpips"] != first[1]["lpips"]
    monkeypatch.setattr(ablations.Trainer, "run", None)  # a second training would fall over it
    (tmp_path / "no-filters.json").unlink()  # measured again, without training
    assert list(ablations.runs(base, people(12), tmp_path, wanted)) == first
    monkeypatch.setattr(ablations, "load_eyes", None)
    assert list(ablations.runs(base, people(12), tmp_path, wanted)) == first
    lines = ablations.as_markdown(first).splitlines()
    assert lines[2].startswith(f"| as shipped | {first[0]['lpips']:.3f} | ")
    assert len(lines) == 4


def test_a_run_that_was_stopped_is_not_whole(tmp_path: Path) -> None:
    path = trainer(tmp_path, config(max_minutes=1e-9)).run()
    assert ablations.whole(path, 1)
    assert not ablations.whole(path, 6)
    assert not ablations.whole(tmp_path / "none", 6)


def test_a_run_that_is_stopped_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eyes = Eyes({"sface": Eye("sface", 2)}, Gap(), {"dlib": Eye("dlib", 1)})
    monkeypatch.setattr(ablations, "load_eyes", lambda settings, device: eyes)
    base = replace(config(max_minutes=1e-9), critics=("sface",), held_out=("dlib",))
    assert list(ablations.runs(base, people(12), tmp_path, ["as shipped"])) == []
    assert not list(tmp_path.glob("*.json"))


def test_restorers_learn_on_half_of_the_people_and_are_judged_by_the_others() -> None:
    aside, eye = people(12), Eye()
    mine = ablations.taught(aside)
    assert mine.sum() == 12
    assert not set(np.array(aside.subjects)[mine]) & set(np.array(aside.subjects)[~mine])
    look = Validation(aside, {"eye": eye}, Gap(), "cpu")
    part = Validation(aside.take(np.flatnonzero(~mine).tolist()), {"eye": eye}, Gap(), "cpu")
    faces = aside.chips.float() / 255
    assert ablations.naive_area(look, "eye", faces, ~mine) == pytest.approx(
        ablations.naive_area(part, "eye", faces[torch.from_numpy(~mine)])
    )
