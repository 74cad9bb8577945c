"""FaDeNet: network, losses, training run, weights file, method."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.geometry import align, chip_template
from deidbench.testing import check_method
from deidbench.types import subject_digest
from fadenet import checkpoint
from fadenet.checkpoint import (
    CheckpointError,
    Provenance,
    load_weights,
    save_weights,
)
from fadenet.config import TrainConfig, TrainConfigError, read_config
from fadenet.faces import Faces, TrainingFacesError, batches, load_faces, split_people
from fadenet.losses import (
    LossConfig,
    charbonnier,
    diversify,
    identity_hinge,
    perceptual_cost,
    roughness,
    unevenness,
)
from fadenet.method import FaDeNetMethod
from fadenet.model import Change, FaDeNet, FaDeNetConfig, move
from fadenet.train import LOG, STATE, WEIGHTS, Perceptual, Trainer, mirror, train

SMALL = FaDeNetConfig(widths=(8, 16, 16), working_size=48)
GENTLE = LossConfig(pixel=0.1, smooth=0.1)


def faces_of(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random images in [0, 1]."""
    coarse = torch.rand(shape[0], 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False)


def woken(config: FaDeNetConfig = SMALL, seed: int = 0) -> FaDeNet:
    """A network whose heads are no longer zero, so that it changes something."""
    network = FaDeNet(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in (network.head, network.shift_head):
            head.weight.copy_(0.3 * torch.randn(head.weight.shape, generator=random))
    return network.requires_grad_(False).eval()


def provenance() -> Provenance:
    return Provenance(
        training={"steps": 3}, critics={"sface": "0" * 64}, data="four images of two people",
        subjects=("abc", "def"), steps=3, seed=1, deidbench="0.1.0",
    )  # fmt: skip


class Eye(nn.Module):
    """A small frozen recognizer of random weights that keeps the contract of ``Recognizer``."""

    version = 1
    similarity = "cosine"

    def __init__(self, name: str = "eye", seed: int = 0) -> None:
        super().__init__()
        self.name = name
        self.weights_sha256 = f"{seed:064d}"
        random = torch.Generator().manual_seed(seed)
        self.register_buffer("kernel", torch.randn(16, 3, 8, 8, generator=random) / 10)

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        crops = align(chips, landmarks, chip_template(32), 32)
        return torch.conv2d(crops - 0.5, self.get_buffer("kernel"), stride=8).flatten(1)


class Gap:
    """Mean squared difference: an image metric without weights."""

    name, version, higher_is_better, unit = "gap", 1, False, "1"

    def to(self, device: Any) -> Gap:
        return self

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        return (original - treated).square().mean((1, 2, 3))


def people(count: int = 6, each: int = 2, size: int = 48) -> Faces:
    chips = (faces_of(count * each, size, size) * 255).to(torch.uint8)
    landmarks = chip_template(size).expand(count * each, 5, 2).clone()
    return Faces(chips, landmarks, tuple(f"person{i // each}" for i in range(count * each)))


def config(**changes: Any) -> TrainConfig:
    base = TrainConfig(
        critics=("eye",), steps=6, batch=4, reproduce_steps=1, ramp_steps=2, log_every=1,
        checkpoint_every=100, validation_faces=2, model=SMALL, ema=0.5, loss=GENTLE,
    )  # fmt: skip
    return replace(base, **changes)


def trainer(out: Path, settings: TrainConfig | None = None) -> Trainer:
    return Trainer(
        settings or config(), people(), out=out, say=lambda line: None,
        critics={"eye": Eye()}, perceptual=Gap(),
    )  # fmt: skip


# --- network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(112, 112), (160, 160), (113, 117), (256, 256), (120, 200)])
def test_any_size_comes_back_as_it_went_in(size: tuple[int, int]) -> None:
    faces = faces_of(2, *size)
    treated = woken(FaDeNetConfig())(faces)
    assert treated.shape == faces.shape
    assert treated.dtype == faces.dtype
    assert bool(((treated >= 0) & (treated <= 1)).all())
    assert float((treated - faces).abs().mean()) > 1e-3


@pytest.mark.parametrize("size", [48, 53, 112])
def test_an_untrained_network_reproduces_its_input(size: int) -> None:
    faces = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(FaDeNet(SMALL)(faces), faces, atol=5e-5, rtol=0)


def test_strength_zero_is_the_input_itself_bit_for_bit() -> None:
    faces = faces_of(2, 50, 48)
    treated = woken()(faces, 0.0)
    assert torch.equal(treated, faces)
    assert treated.data_ptr() != faces.data_ptr()


def test_more_strength_never_changes_a_face_less() -> None:
    faces = faces_of(4, 48, 48)
    network = woken()
    change = [float((network(faces, s / 4) - faces).abs().mean()) for s in range(5)]
    assert change == sorted(change)
    assert change[4] > 2 * change[1] > 0


def test_a_face_is_treated_alike_alone_and_in_a_batch() -> None:
    faces = faces_of(3, 48, 48)
    network = woken()
    alone = torch.cat([network(face[None]) for face in faces])
    torch.testing.assert_close(alone, network(faces), atol=1e-5, rtol=0)


def test_the_change_stays_within_its_bounds() -> None:
    network = woken()
    with torch.no_grad():
        network.head.weight.mul_(1e4)
        network.shift_head.weight.mul_(1e4)
    change = network.change(faces_of(2, 48, 48))
    assert float(change.colour.abs().max()) <= SMALL.colour + 1e-6
    assert float(change.shift.abs().max()) <= SMALL.shift + 1e-6


def test_enlarging_a_face_enlarges_its_change() -> None:
    small = faces_of(1, 48, 48)
    large = nn.functional.interpolate(small, (96, 96), mode="bilinear", align_corners=False)
    network = woken()
    shrunk = nn.functional.interpolate(network(large), (48, 48), mode="area")
    assert float((shrunk - network(small)).abs().mean()) < 0.1 * float(
        (network(small) - small).abs().mean()
    )


def test_a_shift_of_one_pixel_moves_the_picture_by_one_pixel() -> None:
    image = faces_of(1, 9, 11)
    shift = torch.zeros(1, 2, 9, 11)
    shift[:, 0] = 1 / 10  # 11 pixels wide: 10 steps from first to last
    moved = move(image, shift)
    torch.testing.assert_close(moved[..., :-1], image[..., 1:], atol=1e-5, rtol=0)


def test_the_network_is_small_enough_to_ship() -> None:
    assert sum(p.numel() for p in FaDeNet().parameters()) < 2_500_000


def test_the_configuration_survives_json() -> None:
    fields = json.loads(json.dumps(SMALL.to_dict()))
    assert FaDeNetConfig.from_dict(fields) == SMALL


# --- losses ----------------------------------------------------------------------------------


def test_the_identity_hinge_costs_nothing_below_its_margin() -> None:
    reference = torch.tensor([[[1.0, 0.0]]])
    stranger = torch.tensor([[-0.5, 1.0]])
    assert float(identity_hinge(stranger, reference, 0.0)) == 0
    assert float(identity_hinge(stranger, reference, -0.6)) > 0


def test_the_identity_hinge_is_cosine_less_margin_above_it() -> None:
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(5, 8, generator=random)
    references = embeddings[:, None] * 3 + 0.1 * torch.randn(5, 2, 8, generator=random)
    naive = [
        float(e @ r / (e.norm() * r.norm())) - 0.2
        for e, both in zip(embeddings, references, strict=True)
        for r in both
    ]
    assert float(identity_hinge(embeddings, references, 0.2)) == pytest.approx(np.mean(naive))


def test_charbonnier_is_zero_for_equal_images_and_near_l1_for_far_ones() -> None:
    faces = faces_of(2, 16, 16)
    assert float(charbonnier(faces, faces)) == pytest.approx(0, abs=1e-9)
    assert float(charbonnier(faces + 0.5, faces)) == pytest.approx(0.5, abs=0.02)


def test_perceptual_cost_bends_at_the_budget() -> None:
    loss = LossConfig(perceptual=1.0, budget=0.1, over_budget=10.0)
    assert float(perceptual_cost(torch.tensor([0.05]), loss)) == pytest.approx(0.05)
    assert float(perceptual_cost(torch.tensor([0.2]), loss)) == pytest.approx(0.2 + 1.0)


def test_unevenness_of_a_ramp_is_its_slope_squared() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 4, 6) * 0.3
    assert float(unevenness(ramp)) == pytest.approx(0.09)


def test_moving_the_whole_face_is_paid_for() -> None:
    still = Change(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8))
    moved = replace(still, shift=torch.full((1, 2, 8, 8), 0.02))
    assert float(roughness(still, LossConfig())) == 0
    assert float(roughness(moved, LossConfig(steady=10.0))) == pytest.approx(4e-3)


def test_diversity_keeps_the_landmarks_on_the_face() -> None:
    size = 96
    template = chip_template(size)
    faces = torch.zeros(1, 3, size, size)
    x, y = template[2].round().int().tolist()
    faces[:, :, y - 4 : y + 5, x - 4 : x + 5] = 1.0  # a white nose
    hits = []
    for seed in range(12):
        out, points = diversify(faces, template[None], torch.Generator().manual_seed(seed))
        column, row = points[0, 2].round().int().tolist()
        hits.append(float(out[0, :, row, column].mean()))
    assert np.mean(np.array(hits) > 0.7) > 0.7


def test_diversity_is_a_function_of_its_generator_and_passes_gradients() -> None:
    faces = faces_of(2, 48, 48).requires_grad_(True)
    points = chip_template(48).expand(2, 5, 2)
    first, _ = diversify(faces, points, torch.Generator().manual_seed(3))
    second, _ = diversify(faces, points, torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), faces)
    assert float(gradient.abs().sum()) > 0


def test_every_weight_of_a_woken_network_gets_a_gradient() -> None:
    network = woken().requires_grad_(True)
    faces, points = faces_of(2, 48, 48), chip_template(48).expand(2, 5, 2)
    eye = Eye()
    embeddings = eye.embed(network(faces), points)
    loss = identity_hinge(embeddings, eye.embed(faces, points)[:, None], -1.0)
    torch.autograd.backward(loss)
    bare = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    # The first convolution of a block waits for its zero-initialised second one.
    assert [name for name in bare if ".first." not in name] == []


# --- training --------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run()
    first = trainer(tmp_path / "broken", config(max_minutes=1e-9))
    for _ in range(3):
        first.run()  # one step, then the time limit
    assert first.step == 3
    second = trainer(tmp_path / "broken")
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


def test_training_lowers_the_similarity_that_the_critic_sees(tmp_path: Path) -> None:
    run = trainer(tmp_path, config(steps=40, batch=8, learning_rate=3e-3))
    before = run.validate()["cosine eye"]
    run.run()
    assert before > 0.99
    assert run.validate()["cosine eye"] < before - 0.2


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


def test_validation_people_are_not_trained_on() -> None:
    train, held = split_people(people(), 3, seed=0)
    assert not set(train.subjects) & set(held.subjects)
    assert len(train) + len(held) == 12
    assert len(held) == 4


def test_too_few_people_are_refused() -> None:
    with pytest.raises(TrainingFacesError, match="too few"):
        split_people(people(2), 100, seed=0)


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


@pytest.mark.slow
def test_a_whole_run_goes_from_a_configuration_file_to_a_method(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[train]\ncritics = ["sface"]\nbatch = 2\nvalidation_faces = 2\n[model]\nwidths = [8, 8]\n',
    )
    faces = people(3, size=160)
    np.savez(
        tmp_path / "chips.npz", chips=faces.chips.numpy(), landmarks=faces.landmarks.numpy(),
        subjects=np.array(faces.subjects),
    )  # fmt: skip
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
        ),
        synthetic_people(tmp_path), out=tmp_path, say=lambda line: None,
        critics={"sface": critic}, perceptual=Gap(),
    )  # fmt: skip
    before = run.validate()["cosine sface"]
    run.run()
    assert run.validate()["cosine sface"] < before - 0.1


# --- configuration ---------------------------------------------------------------------------


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


def test_the_shipped_configuration_can_be_read() -> None:
    path = Path(checkpoint.__file__).parent / "configs" / "fadenet.toml"
    assert "dlib" not in read_config(path).critics


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


# --- weights and method ----------------------------------------------------------------------


def test_weights_come_back_as_they_were_written(tmp_path: Path) -> None:
    network = woken()
    save_weights(tmp_path / "w.safetensors", network, provenance())
    loaded, origin = load_weights(tmp_path / "w.safetensors")
    assert origin == provenance()
    assert loaded.config == SMALL
    faces = faces_of(2, 48, 48)
    # float16 storage moves colours by less than half an 8-bit step.
    torch.testing.assert_close(loaded(faces), network(faces), atol=0.5 / 255, rtol=0)


@pytest.mark.parametrize("keep", [0, 7, 100, -5])
def test_damaged_weights_are_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, woken(), provenance())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"w\.safetensors is not a file of FaDeNet") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"stem.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="format is None"):
        load_weights(tmp_path / "w.safetensors")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match=r"no FaDeNet weights at .*none"):
        FaDeNetMethod(weights=tmp_path / "none")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = woken()
    with torch.no_grad():
        network.stem.weight[0, 0, 0, 0] = float("nan")
    save_weights(tmp_path / "w.safetensors", network, provenance())
    with pytest.raises(CheckpointError, match="not finite"):
        load_weights(tmp_path / "w.safetensors")


def method(tmp_path: Path, strength: float | None = None) -> FaDeNetMethod:
    save_weights(tmp_path / WEIGHTS, woken(), provenance())
    return FaDeNetMethod(strength, weights=tmp_path / WEIGHTS)


@pytest.mark.parametrize("strength", [None, 0.0, 0.4, 1.0])
def test_the_method_keeps_its_contract(tmp_path: Path, strength: float | None) -> None:
    check_method(method(tmp_path, strength))


def test_the_method_names_its_critics_and_its_weights(tmp_path: Path) -> None:
    built = method(tmp_path)
    assert tuple(built.trained_against) == ("sface",)
    assert built.training_subjects == ("abc", "def")
    assert len(built.weights_sha256) == 64


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(DeidbenchError, match=r"strength must be in \[0, 1\]"):
        FaDeNetMethod(strength)


def test_faces_too_small_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    built = method(tmp_path)
    for shape in [(1, 3, 16, 16), (1, 1, 64, 64), (3, 64, 64)]:
        with pytest.raises(DeidbenchError, match="expected faces"):
            built.deidentify(torch.zeros(shape), seed=0)


def test_no_faces_give_no_faces(tmp_path: Path) -> None:
    assert method(tmp_path).deidentify(torch.zeros(0, 3, 64, 64), seed=0).shape == (0, 3, 64, 64)


def test_the_shipped_weights_keep_the_contract_and_change_faces() -> None:
    built = FaDeNetMethod()
    check_method(built)
    assert set(built.trained_against) == {"sface", "mobilefacenet-ms1m", "mobilefacenet-casia"}
    faces = faces_of(1, 160, 160)
    assert float((built.deidentify(faces, seed=0) - faces).abs().mean()) > 1e-3
