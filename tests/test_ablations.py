"""The tool that trains runs which differ in one thing each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ablations
import pytest

from fadenet.config import TrainConfig, read_config
from fadenet.train import Eyes
from fadenet.validation import Validation
from tests.small_fadenet import Eye, Gap, config, people, woken


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
    base = replace(config(), critics=("sface",), held_out=("dlib",), validation_faces=8, steps=8)
    wanted = ["as shipped", "no filters"]
    first = list(ablations.runs(base, people(12), tmp_path, wanted))
    assert first[0]["lpips"] != first[1]["lpips"]
    monkeypatch.setattr(ablations, "load_eyes", None)  # a second training would fall over it
    assert list(ablations.runs(base, people(12), tmp_path, wanted)) == first
    lines = ablations.as_markdown(first).splitlines()
    assert lines[2].startswith(f"| as shipped | {first[0]['lpips']:.3f} | ")
    assert len(lines) == 4
