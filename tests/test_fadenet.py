"""FaDeNet: network, losses, weights file, methods."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from deidbench.errors import DeidbenchError
from deidbench.geometry import chip_template
from deidbench.metrics.ssim import SSIM
from deidbench.testing import check_method
from fadenet.checkpoint import CheckpointError, load_weights, save_weights
from fadenet.losses import (
    LossConfig,
    charbonnier,
    identity_hinge,
    perceptual_cost,
    roughness,
    structural_cost,
    unevenness,
)
from fadenet.method import FaDeNetMethod, FastFaDeNetMethod, KeyedFaDeNetMethod
from fadenet.model import Change, FaDeNet, FaDeNetConfig, move
from fadenet.train import WEIGHTS
from tests.small_fadenet import SMALL, Eye, faces_of, provenance, taught, woken

# --- network -------------------------------------------------------------------------------------


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


def test_an_untaught_network_changes_more_with_more_strength() -> None:
    faces = faces_of(4, 48, 48)
    network = woken()
    change = [float((network(faces, s / 4) - faces).abs().mean()) for s in range(5)]
    assert change == sorted(change)
    assert change[4] > 2 * change[1] > 0


def test_each_face_may_have_its_own_strength() -> None:
    faces, network = faces_of(3, 48, 48), taught()
    each = network(faces, torch.tensor([0.0, 0.4, 1.0]))
    for row, strength in enumerate((0.0, 0.4, 1.0)):
        alone = network(faces[row : row + 1], strength)
        torch.testing.assert_close(each[row : row + 1], alone, atol=2e-5, rtol=0)


def test_strength_steers_and_does_not_merely_scale() -> None:
    faces, network = faces_of(2, 48, 48), taught()
    half, whole = (network.change(faces, strength).colour for strength in (0.5, 1.0))
    assert float((2 * half - whole).abs().max()) > 1e-3


def test_keys_steer_the_change() -> None:
    faces, network = faces_of(2, 48, 48), taught(replace(SMALL, key=4))
    keys = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0))
    one, other = (network(faces, 1.0, key) for key in keys)
    assert float((one - other).abs().mean()) > 1e-3
    torch.testing.assert_close(network(faces, 1.0, keys[0]), one)
    assert torch.equal(network(faces, 0.0, keys[0]), faces)


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


# --- losses --------------------------------------------------------------------------------------


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


def test_structural_cost_is_ssim_beyond_its_budget() -> None:
    first, second = faces_of(4, 48, 48), faces_of(4, 48, 48, seed=1)
    lost = 1 - SSIM()(first, second)
    strength = torch.tensor([1.0, 0.5, 1.0, 0.25])
    for budget in (0.0, 0.3):
        loss = LossConfig(structure_budget=budget, over_structure=2.0)
        wanted = 2.0 * (lost - budget * strength).clamp(min=0).mean()
        torch.testing.assert_close(structural_cost(second, first, strength, loss), wanted)
    assert float(structural_cost(first, first, strength, LossConfig(over_structure=2.0))) == 0


def test_perceptual_cost_bends_at_the_budget() -> None:
    loss = LossConfig(perceptual=1.0, budget=0.1, over_budget=10.0)
    whole, half = torch.tensor([1.0]), torch.tensor([0.5])
    assert float(perceptual_cost(torch.tensor([0.05]), whole, loss)) == pytest.approx(0.05)
    assert float(perceptual_cost(torch.tensor([0.2]), whole, loss)) == pytest.approx(0.2 + 1.0)
    assert float(perceptual_cost(torch.tensor([0.2]), half, loss)) == pytest.approx(0.2 + 1.5)


def test_unevenness_of_a_ramp_is_its_slope_squared() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 4, 6) * 0.3
    assert float(unevenness(ramp)) == pytest.approx(0.09)


def test_moving_the_whole_face_is_paid_for() -> None:
    still = Change(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8))
    moved = replace(still, shift=torch.full((1, 2, 8, 8), 0.02))
    assert float(roughness(still, LossConfig())) == 0
    assert float(roughness(moved, LossConfig(steady=10.0))) == pytest.approx(4e-3)


def test_every_weight_of_a_woken_network_gets_a_gradient() -> None:
    network = taught(replace(SMALL, key=4)).requires_grad_(True)
    key = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    faces, points = faces_of(2, 48, 48), chip_template(48).expand(2, 5, 2)
    eye = Eye()
    embeddings = eye.embed(network(faces, torch.tensor([0.4, 1.0]), key), points)
    loss = identity_hinge(embeddings, eye.embed(faces, points)[:, None], -1.0)
    torch.autograd.backward(loss)
    bare = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert bare == []


# --- weights and methods -------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "about",
    [
        [], None, "x", {"format": "fadenet-2"},
        {"config": {"widths": []}}, {"config": {"widths": [8]}}, {"config": {"widths": [8, 10**7]}},
        {"config": {"colour": "x"}}, {"config": {"colour": float("nan")}},
        {"config": {"working_size": 10**9}}, {"config": {"key": -1}}, {"config": {"new": 1}},
        {"provenance": {"critics": 5}}, {"provenance": {"critics": [["a"]]}},
        {"provenance": {"subjects": "abc"}}, {"provenance": {"subjects": [{}]}},
        {"provenance": {"steps": "x"}},
    ],
)  # fmt: skip
def test_metadata_of_a_stranger_is_refused_in_one_line(tmp_path: Path, about: Any) -> None:
    network = woken()
    good: dict[str, Any] = {
        "format": "fadenet-2", "config": SMALL.to_dict(), "provenance": provenance().to_dict(),
    }  # fmt: skip
    if isinstance(about, dict) and "format" not in about:
        about = good | {part: {**good[part], **fields} for part, fields in about.items()}
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(dict(network.state_dict()), {"fadenet": json.dumps(about)}))
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
    save_weights(tmp_path / WEIGHTS, taught(), provenance())
    return FaDeNetMethod(strength, weights=tmp_path / WEIGHTS)


def keyed_method(tmp_path: Path, strength: float | None = None) -> KeyedFaDeNetMethod:
    save_weights(tmp_path / WEIGHTS, taught(replace(SMALL, key=4)), provenance())
    return KeyedFaDeNetMethod(strength, weights=tmp_path / WEIGHTS)


@pytest.mark.parametrize("strength", [None, 0.0, 0.4, 1.0])
def test_the_keyed_method_keeps_its_contract(tmp_path: Path, strength: float | None) -> None:
    check_method(keyed_method(tmp_path, strength))


def test_another_seed_is_another_key_and_so_is_another_face(tmp_path: Path) -> None:
    built = keyed_method(tmp_path)
    twice = faces_of(1, 48, 48).repeat(2, 1, 1, 1)
    one, other = (built.deidentify(twice, seed=seed) for seed in (0, 1))
    assert float((one - other).abs().mean()) > 1e-3
    assert float((one[0] - one[1]).abs().mean()) > 1e-3


def test_weights_with_a_key_are_not_those_of_the_plain_method(tmp_path: Path) -> None:
    plain, keyed = tmp_path / "plain.safetensors", tmp_path / "keyed.safetensors"
    save_weights(plain, woken(), provenance())
    save_weights(keyed, woken(replace(SMALL, key=4)), provenance())
    with pytest.raises(DeidbenchError, match="take a key"):
        FaDeNetMethod(weights=keyed)
    with pytest.raises(DeidbenchError, match="take no key"):
        KeyedFaDeNetMethod(weights=plain)


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


@pytest.mark.parametrize("kind", [FaDeNetMethod, FastFaDeNetMethod, KeyedFaDeNetMethod])
def test_the_shipped_weights_keep_the_contract_and_change_faces(kind: type[FaDeNetMethod]) -> None:
    built = kind()
    check_method(built)
    assert set(built.trained_against) == {"sface", "mobilefacenet-ms1m", "mobilefacenet-casia"}
    faces = faces_of(1, 160, 160)
    change = [
        float((kind(strength).deidentify(faces, seed=0) - faces).abs().mean())
        for strength in (0.0, 0.25, 0.5, 1.0)
    ]
    assert change[0] == 0
    assert change == sorted(change)
    assert change[-1] > 1e-3
