"""FaDeNet's training: runs, faces, configuration, several processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deidbench import plugins
from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.geometry import chip_template
from deidbench.types import Recognizer, subject_digest
from fadenet import checkpoint
from fadenet.checkpoint import CheckpointError, load_state
from fadenet.config import TrainConfigError, read_config
from fadenet.faces import Faces, TrainingFacesError, batches, load_faces, split_people
from fadenet.log import LOG
from fadenet.method import FaDeNetMethod
from fadenet.model import FaDeNet, FaDeNetConfig
from fadenet.train import STATE, WEIGHTS, Eyes, Perceptual, Trainer, mirror, train
from tests.small_fadenet import GENTLE, SMALL, Eye, Gap, config, faces_of, people, trainer

CONFIGS = Path(checkpoint.__file__).parent / "configs"

# --- runs ----------------------------------------------------------------------------------------


EVERYTHING = {
    "loss": replace(
        GENTLE, features=0.1, linked=1.0, adapted=1.0, steered=0.1, restored=0.5, collapsed=0.1
    ),
    "model": replace(SMALL, key=4),
    "precision": "bfloat16",
    "accumulate": 2,
    "memory": 2,
}


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = trainer(tmp_path / "whole", config(**changes))
    whole.run()
    first = trainer(tmp_path / "broken", config(max_minutes=1e-9, **changes))
    for _ in range(3):
        first.run()  # one step, then the time limit
    assert first.step == 3
    second = trainer(tmp_path / "broken", config(**changes))
    second.load()
    second.run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    for name, value in whole.average.items():
        assert torch.equal(value, second.average[name]), name


def test_two_seeds_train_differently(tmp_path: Path) -> None:
    one, two = trainer(tmp_path / "1"), trainer(tmp_path / "2", config(seed=5))
    one.run()
    two.run()
    assert not torch.equal(one.average["stem.weight"], two.average["stem.weight"])


def likeness(run: Trainer, eye: Recognizer) -> float:
    """Mean cosine of faces and their treated versions."""
    chips, points = run.faces.chips.float() / 255, run.faces.landmarks
    with torch.no_grad():
        treated = run.averaged()(chips)
        cosines = nn.functional.cosine_similarity(
            eye.embed(chips, points), eye.embed(treated, points)
        )
    return float(cosines.mean())


def test_training_lowers_the_similarity_that_the_critic_sees(tmp_path: Path) -> None:
    run = trainer(tmp_path, config(steps=40, batch=8, learning_rate=3e-3))
    before = likeness(run, Eye())
    run.run()
    assert before > 0.99
    assert likeness(run, Eye()) < before - 0.2


def test_a_signal_saves_the_state_and_exports(tmp_path: Path) -> None:
    run = trainer(tmp_path, config(steps=100_000))
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    weights = run.run()
    assert 0 < run.step < 100_000
    assert weights.is_file()
    again = trainer(tmp_path, config(steps=100_000))
    again.load()
    assert again.step == run.step


def test_the_log_is_one_json_object_a_line(tmp_path: Path) -> None:
    trainer(tmp_path, config(checkpoint_every=3)).run()
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation" in row] == [3, 6]
    assert "identity" not in rows[0]
    assert "identity" in rows[2]


def test_the_log_goes_to_tensorboard_too(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer(tmp_path, config(checkpoint_every=3)).run()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("validation/1 lpips")] == [3, 6]


def test_mixed_precision_trains_alike(tmp_path: Path) -> None:
    mixed = config(precision="bfloat16")
    whole, other = trainer(tmp_path / "whole"), trainer(tmp_path / "other", mixed)
    for run in (whole, other):
        run.run()
    one, two = (run.network.state_dict()["head.weight"] for run in (whole, other))
    start = FaDeNet(SMALL).state_dict()["head.weight"]
    likeness = nn.functional.cosine_similarity((one - start).flatten(), (two - start).flatten(), 0)
    assert float(likeness) > 0.5


@pytest.mark.slow
def test_synthetic_people_are_drawn_at_each_look(tmp_path: Path) -> None:
    trainer(tmp_path, config(steps=2, checkpoint_every=2, samples=True)).run()
    (picture,) = (tmp_path / "samples").iterdir()
    with Image.open(picture) as grid:
        assert grid.size == (6 * 160, 4 * 160)


def test_resuming_another_configuration_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    with pytest.raises(CheckpointError, match=r"^the saved run has batch = 4, this one 2\. "):
        trainer(tmp_path, config(batch=2)).load()


def test_resuming_nothing_or_rubbish_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with pytest.raises(CheckpointError, match="no training state"):
        run.load()
    (tmp_path / STATE).write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="not a training state"):
        run.load()
    run.save()
    whole = load_state(tmp_path / STATE)
    for damaged in ([1], {"format": 2}, whole | {"critics": {}}, whole | {"network": {}}):
        torch.save(damaged, tmp_path / STATE)
        with pytest.raises(CheckpointError) as caught:
            run.load()
        assert "\n" not in str(caught.value)


def test_lines_of_a_killed_run_are_written_once(tmp_path: Path) -> None:
    trainer(tmp_path, config(steps=2)).run()
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 3, "seconds": 9.0, "loss": 1.0}\nrubbish\n[1]\n{}\n{"step": 4, "sec')
    again = trainer(tmp_path, config(steps=4))
    again.load()
    again.run()
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[2]["seconds"] != 9.0


def test_validation_people_are_not_trained_on() -> None:
    train, held = split_people(people(), 3, seed=0)
    assert not set(train.subjects) & set(held.subjects)
    assert len(train) + len(held) == 12
    assert len(held) == 4


def test_too_few_people_are_refused() -> None:
    with pytest.raises(TrainingFacesError, match="too few"):
        split_people(people(2), 100, seed=0)


def test_a_key_names_as_many_faces(tmp_path: Path) -> None:
    many = config(model=replace(SMALL, key=16), loss=replace(GENTLE, steered=1.0))
    with pytest.raises(TrainingFacesError, match="10 training faces are too few for a key of 16"):
        trainer(tmp_path, many)


def test_a_companion_is_another_photograph_of_the_same_person() -> None:
    faces = Faces(torch.zeros(4), torch.zeros(4), ("a", "b", "a", "c"))
    assert faces.companions().tolist() == [2, 1, 0, 3]


def test_batches_visit_every_face_once_an_epoch_and_can_start_anywhere() -> None:
    order = batches(12, 4, 0, 0)
    seen = [next(order) for _ in range(6)]
    assert sorted(row for rows in seen[:3] for row in rows) == list(range(12))
    later = batches(12, 4, 0, 4)
    assert [next(later), next(later)] == seen[4:]


def test_mirroring_twice_gives_the_landmarks_back() -> None:
    points = chip_template(48)[None] + torch.arange(10.0).reshape(1, 5, 2)
    torch.testing.assert_close(mirror(mirror(points, 48), 48), points)
    assert float(mirror(points, 48)[0, 0, 0]) == pytest.approx(47 - float(points[0, 1, 0]))


def test_faces_of_a_folder_are_required(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="no image"):
        load_faces(tmp_path, tmp_path / "chips.npz", lambda done, total: None)


def album(folder: Path) -> Path:
    """Three pictures of two people, without a face."""
    for name in ("ada/1.png", "ada/2.png", "bob/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (120, 120), "grey").save(folder / name)
    return folder


@pytest.mark.parametrize("content", [b"", b"PK rubbish", b"\x93NUMPY"])
def test_a_damaged_chip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "chips.npz"
    path.write_bytes(content)
    with pytest.raises(TrainingFacesError, match="face chips"):
        load_faces(path, tmp_path / "cache.npz", lambda done, total: None)


@pytest.mark.slow
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (album(tmp_path) / "ada" / "1.png").write_bytes(b"rubbish")
    with pytest.raises(DeidbenchError, match=r"cannot read the image .*1\.png"):
        load_faces(tmp_path, tmp_path / "chips.npz", lambda done, total: None)


@pytest.mark.slow
def test_no_face_in_any_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingFacesError, match="no face was found in 3 photographs"):
        load_faces(album(tmp_path), tmp_path / "chips.npz", lambda done, total: None)


@pytest.mark.slow
def test_the_perceptual_distance_is_that_of_the_metric_and_passes_gradients() -> None:
    from deidbench import plugins

    try:
        metric = plugins.load("metrics", "lpips")()
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    original, treated = faces_of(2, 64, 64), faces_of(2, 64, 64, seed=1).requires_grad_(True)
    distances = Perceptual()(original, treated)
    torch.testing.assert_close(distances, metric(original, treated))
    (gradient,) = torch.autograd.grad(distances.sum(), treated)
    assert float(gradient.abs().sum()) > 0


def kept(path: Path, faces: Faces) -> Path:
    """Faces in a file that ``deidbench train`` reads."""
    np.savez(
        path, chips=faces.chips.numpy(), landmarks=faces.landmarks.numpy(),
        subjects=np.array(faces.subjects),
    )  # fmt: skip
    return path


@pytest.mark.slow
def test_a_whole_run_goes_from_a_configuration_file_to_a_method(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[train]\ncritics = ["sface"]\nbatch = 2\nvalidation_faces = 2\n[model]\nwidths = [8, 8]\n',
    )
    faces = people(3, size=160)
    kept(tmp_path / "chips.npz", faces)
    out, data = tmp_path / "out", tmp_path / "chips.npz"
    try:
        weights = train(path, out=out, data=data, steps=1, seed=3, quiet=True)
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    built = FaDeNetMethod(weights=weights)
    assert tuple(built.trained_against) == ("sface",)
    assert (built.provenance.seed, built.provenance.steps) == (3, 1)
    assert set(built.training_subjects) == {subject_digest(f"person{i}") for i in range(3)}
    assert str(tmp_path) not in json.dumps(built.provenance.to_dict())
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(path, out=out, data=data, quiet=True)
    assert train(path, out=out, data=data, steps=2, seed=3, resume=True, quiet=True) == weights
    assert FaDeNetMethod(weights=weights).provenance.steps == 2


def test_training_without_faces_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '[train]\ncritics = ["sface"]\n')
    with pytest.raises(TrainingFacesError, match="no training faces were named"):
        train(path, out=tmp_path)


def test_a_critic_without_a_gradient_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, '[train]\ncritics = ["lbp"]\n')
    with pytest.raises(TrainConfigError, match="critics cannot hold 'lbp'"):
        train(path, out=tmp_path / "out", data=tmp_path, quiet=True)


def synthetic_people(tmp_path: Path, count: int = 3, each: int = 2) -> Faces:
    """Aligned faces of the set that ships with deidbench."""
    images = Path(str(files("deidbench.datasets.synthid"))) / "images"
    for person in sorted(images.iterdir())[:count]:
        (tmp_path / "photos" / person.name).mkdir(parents=True)
        for photo in sorted(person.iterdir())[:each]:
            shutil.copy(photo, tmp_path / "photos" / person.name)
    said: list[tuple[int, int]] = []
    faces = load_faces(
        tmp_path / "photos", tmp_path / "chips.npz", lambda done, total: said.append((done, total))
    )
    assert said[-1] == (count * each, count * each)
    return faces


@pytest.mark.slow
def test_photographs_are_aligned_once_and_then_read(tmp_path: Path) -> None:
    faces = synthetic_people(tmp_path)
    assert sorted(set(faces.subjects)) == ["id000", "id001", "id002"]
    error = (faces.landmarks - chip_template()).norm(dim=-1).median()
    assert float(error) < 8  # px of 160; the template is a mean face seen from the front
    again = load_faces(tmp_path / "photos", tmp_path / "chips.npz", pytest.fail)
    assert torch.equal(again.chips, faces.chips)
    assert again.digest() == faces.digest()
    shutil.rmtree(tmp_path / "photos" / "id000")
    fewer = load_faces(tmp_path / "photos", tmp_path / "chips.npz", lambda done, total: None)
    assert set(fewer.subjects) == {"id001", "id002"}, "other photographs are aligned anew"


@pytest.mark.slow
def test_a_few_steps_lower_the_similarity_for_a_real_recognizer(tmp_path: Path) -> None:
    from deidbench import plugins

    try:
        critic = plugins.load("recognizers", "sface")()
    except AssetUnavailableError as error:
        pytest.skip(str(error))
    run = Trainer(
        config(
            critics=("sface",), steps=30, batch=4, learning_rate=3e-3, model=FaDeNetConfig(),
            full_share=1.0,
        ),
        synthetic_people(tmp_path), Eyes({"sface": critic}, Gap()), out=tmp_path,
        say=lambda line: None,
    )  # fmt: skip
    before = likeness(run, critic)
    run.run()
    assert likeness(run, critic) < before - 0.1


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(checkpoint.SHIPPED))
def test_the_shipped_configuration_trains_the_same_twice(
    name: str, all_weights: Path, tmp_path: Path
) -> None:
    faces = synthetic_people(tmp_path, count=10)
    kept(tmp_path / "few.npz", faces)
    text = (CONFIGS / f"{name}.toml").read_text()
    fewer = re.sub("validation_faces = .*", "validation_faces = 2", text)
    path = write(tmp_path, re.sub("memory = .*", "memory = 4", fewer))
    first, second = (
        train(path, out=tmp_path / run, data=tmp_path / "few.npz", steps=3, quiet=True)
        for run in ("first", "second")
    )
    assert first.read_bytes() == second.read_bytes()


# --- going on from other weights -----------------------------------------------------------------


def other_run(out: Path, **changes: Any) -> Trainer:
    """A run against another recognizer on other people."""
    faces = replace(people(), subjects=tuple(f"other{i // 2}" for i in range(12)))
    settings = config(**{"critics": ("other",), **changes})
    return Trainer(
        settings, faces, Eyes({"other": Eye("other", 1)}, Gap()), out=out, say=lambda line: None
    )


def test_a_run_goes_on_from_the_weights_it_is_given(tmp_path: Path) -> None:
    known = trainer(tmp_path / "first").run()
    run = other_run(tmp_path / "second", start=str(known))
    faces = faces_of(2, 48, 48)
    before = FaDeNetMethod(weights=known).deidentify(faces, seed=0)
    torch.testing.assert_close(run.averaged()(faces), before)
    assert float((before - faces).abs().max()) > 1e-4
    assert run.step == 0


def test_what_the_first_weights_saw_is_said_of_the_second(tmp_path: Path) -> None:
    known = trainer(tmp_path / "first").run()
    second = FaDeNetMethod(weights=other_run(tmp_path / "second", start=str(known)).run())
    first = FaDeNetMethod(weights=known)
    assert set(second.trained_against) == {"eye", "other"}
    assert set(second.training_subjects) > set(first.training_subjects)
    assert len(second.training_subjects) == 12
    assert second.provenance.training["start"] == first.weights_sha256
    assert first.weights_sha256 in second.provenance.note
    third = other_run(tmp_path / "third", start=str(tmp_path / "second" / WEIGHTS)).run()
    known = FaDeNetMethod(weights=third)
    assert first.weights_sha256 in known.provenance.note
    assert second.weights_sha256 in known.provenance.note
    assert str(tmp_path) not in json.dumps(second.provenance.to_dict())


def test_image_metrics_that_any_run_had_in_its_loss_are_said(tmp_path: Path) -> None:
    plain = replace(GENTLE, perceptual=0.0, over_budget=0.0)
    first = trainer(tmp_path / "first", config(loss=replace(plain, over_structure=1.0))).run()
    second = other_run(tmp_path / "second", start=str(first), loss=replace(plain, perceptual=0.3))
    third = trainer(tmp_path / "third", config(loss=plain)).run()
    told = [FaDeNetMethod(weights=path) for path in (first, second.run(), third)]
    assert [one.trained_on_metrics for one in told] == [("ssim",), ("lpips", "ssim"), ()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": replace(SMALL, widths=(8, 8))}, "start cannot be .* widths, blocks and key"),
        ({"model": replace(SMALL, key=2)}, "start cannot be"),
        ({"held_out": ("eye",)}, "held_out cannot be .*'eye'"),
    ],
)
def test_weights_that_do_not_suit_a_run_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    known = trainer(tmp_path / "first").run()
    with pytest.raises(TrainConfigError, match=f"(?i){message}"):
        other_run(tmp_path / "second", start=str(known), **changes)


def test_weights_to_start_from_are_missed_before_faces_are_aligned(tmp_path: Path) -> None:
    text = '[train]\ncritics = ["sface"]\nstart = "nowhere.safetensors"\n'
    try:
        with pytest.raises(CheckpointError, match="no FaDeNet weights at nowhere"):
            train(write(tmp_path, text), out=tmp_path / "out", data=tmp_path, quiet=True)
    except AssetUnavailableError as error:
        pytest.skip(str(error))


# --- configuration -------------------------------------------------------------------------------


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_a_configuration_is_read_with_its_overrides(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[train]\ncritics = ["sface"]\nsteps = 9\n[model]\nwidths = [8, 16]\n[loss]\nmargin = 0\n',
    )
    read = read_config(path, seed=4, steps=None)
    assert (read.critics, read.steps, read.seed) == (("sface",), 9, 4)
    assert read.model.widths == (8, 16)
    assert read.loss.margin == 0


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_configurations_can_be_read(path: Path) -> None:
    read = read_config(path)
    assert read.held_out == ("dlib",)
    assert bool(read.model.key) == path.stem.startswith("fadenet-keyed")


def test_the_last_configuration_of_each_method_is_that_of_its_weights() -> None:
    last = {"fadenet": "fadenet-third", "fadenet-fast": "fadenet-fast",
            "fadenet-keyed": "fadenet-keyed-second"}  # fmt: skip
    assert set(last) == set(checkpoint.SHIPPED)
    for method, name in last.items():
        with checkpoint.weights_at(method) as path:
            made = checkpoint.load_weights(path)[1].training
        told = json.loads(json.dumps(read_config(CONFIGS / f"{name}.toml").to_dict()))
        assert {**told, "start": made["start"]} == {**made, "data": None}
        assert plugins.build("methods", method).trained_on_metrics == ("lpips", "ssim")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train", "not TOML"),
        ("[trian]\n", "Did you mean 'train'"),
        ('[train]\ncritics = ["a"]\nstep = 3\n', "Did you mean 'steps'"),
        ('[train]\ncritics = ["a"]\nsteps = "three"\n', "steps must be int, got 'three'"),
        ('[train]\ncritics = ["a"]\nsteps = true\n', "steps must be int, got True"),
        ('[train]\ncritics = ["a"]\nsteps = 0\n', "steps cannot be 0"),
        ('[train]\ncritics = ["a"]\ncritics_per_face = 2\n', "critics_per_face cannot be 2"),
        ('[train]\ncritics = ["a"]\nbatch = 3\n', "batch cannot be 3"),
        ('[train]\ncritics = ["a"]\nheld_out = ["a"]\n', "a critic is not held out"),
        ('[train]\ncritics = ["a"]\nprecision = "half"\n', "choose float32 or bfloat16"),
        ('[train]\ncritics = ["a"]\ncompile = 1\n', "compile must be bool, got 1"),
        ('[train]\ncritics = ["a"]\nbatch = 4\naccumulate = 3\n', "accumulate cannot be 3"),
        ('[train]\ncritics = ["a"]\nvalidation_faces = 0\n', "validation_faces cannot be 0"),
        ('[train]\ncritics = ["a", "a"]\n', "name each once"),
        ('[train]\ncritics = ["a"]\n[loss]\nfar = 2\n', "far cannot be 2.0"),
        ('[train]\ncritics = ["a"]\n[loss]\npixel = nan\n', "pixel cannot be nan"),
        ('[train]\ncritics = ["a"]\n[model]\nwidths = [8]\n', "widths must be whole"),
        ("[train]\nsteps = 3\n", "name at least one recognizer"),
        ("train = 3\n", "must be a table"),
    ],
)
def test_configuration_errors_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrainConfigError) as caught:
        read_config(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainConfigError, match=r"no training configuration at .*none\.toml"):
        read_config(tmp_path / "none.toml")


# --- several processes -----------------------------------------------------------------------


FEW_STEPS = (
    '[train]\ncritics = ["sface", "dlib"]\nbatch = 4\nsteps = 4\nvalidation_faces = 2\n'
    "samples = false\nlearning_rate = 1e-3\nreproduce_steps = 0\nramp_steps = 1\n"
    "[model]\nwidths = [8, 8]\n"
)


def require_alike(one: Path, two: Path) -> None:
    """Two runs moved the weights the same way, but for rounding."""
    start = FaDeNet(FaDeNetConfig(widths=(8, 8))).state_dict()
    zeros = [name for name in start if not start[name].any()]  # the others start from a draw
    states = [load_state(out / STATE) for out in (one, two)]
    moved = [torch.cat([run["network"][name].flatten() for name in zeros]) for run in states]
    assert float(moved[0].norm()) > 1e-4
    assert float((moved[0] - moved[1]).norm()) < 0.05 * float(moved[0].norm())


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(tmp_path: Path, weights: Path) -> None:
    data, path = kept(tmp_path / "chips.npz", people(4, size=160)), write(tmp_path, FEW_STEPS)
    subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            "-m", "deidbench", "train", "--config", str(path), "--device", "cpu", "--quiet",
            "--data", str(data), "--out", str(tmp_path / "two"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(FEW_STEPS.replace("batch = 4", "batch = 4\naccumulate = 2"))
    train(path, out=tmp_path / "one", data=data, quiet=True)
    assert load_state(tmp_path / "two" / STATE)["team"] == 2
    assert (tmp_path / "two" / "state-1.pt").is_file()
    require_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.skipif(which("c++") is None, reason="torch.compile needs a compiler of C++")
def test_a_compiled_network_trains_as_a_plain_one(tmp_path: Path, weights: Path) -> None:
    data, path = kept(tmp_path / "chips.npz", people(4, size=160)), write(tmp_path, FEW_STEPS)
    train(path, out=tmp_path / "plain", data=data, quiet=True)
    path.write_text(FEW_STEPS.replace("[model]", "compile = true\n[model]"))
    # A process of its own: the compiler minds what others have imported before it.
    subprocess.run(
        [
            sys.executable, "-m", "deidbench", "train", "--config", str(path), "--device", "cpu",
            "--data", str(data), "--out", str(tmp_path / "compiled"), "--quiet",
        ],
        check=True, capture_output=True,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiler")},
    )  # fmt: skip
    assert any((tmp_path / "compiler").iterdir())
    require_alike(tmp_path / "plain", tmp_path / "compiled")
