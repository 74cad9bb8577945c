from __future__ import annotations

from pathlib import Path

import pytest
import torch
from deidbench_baselines._adversarial import Attack, _levels_within, _recorded_name, projected
from deidbench_baselines.mi_fgsm import MIFGSM
from deidbench_baselines.pgd import PGD
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deidbench import plugins
from deidbench.alignment import Aligner
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError, PluginError
from deidbench.geometry import chip_template
from deidbench.images import read_image
from deidbench.recognizers._base import FrozenRecognizer
from deidbench.testing import check_method

ATTACKS: list[type[Attack]] = [PGD, MIFGSM]
relaxed = settings(deadline=None, max_examples=50)  # a first call of torch is slow

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """Aligned chips of three rendered people."""
    images = [read_image(sample.path) for sample in SynthID().samples()[:24:8]]
    aligned = Aligner(160)(images)
    assert bool(aligned.found.all())
    return aligned.chips.float() / 255


def recognizer(name: str) -> FrozenRecognizer:
    built: FrozenRecognizer = plugins.build("recognizers", name)
    return built


def embedded(network: FrozenRecognizer, images: Tensor) -> Tensor:
    return network.embed(images, chip_template(images.shape[-1]).expand(len(images), 5, 2))


@torch.inference_mode()
def similarity(one: Tensor, other: Tensor) -> Tensor:
    sface = recognizer("sface")
    return torch.nn.functional.cosine_similarity(embedded(sface, one), embedded(sface, other))


@pytest.mark.parametrize("strength", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["pgd", "mi-fgsm"])
def test_each_attack_keeps_the_contract_by_its_name(name: str, strength: float | None) -> None:
    method = plugins.build("methods", name, strength=strength, steps=1, against="dlib")
    assert method.name == name
    assert method.strength == (0.5 if strength is None else strength)
    check_method(method, size=64)


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "bound"), [(PGD, "linf"), (MIFGSM, "lpips")])
def test_the_defaults_keep_the_contract(cls: type[Attack], bound: str) -> None:
    check_method(cls(bound=bound))


@pytest.mark.parametrize("cls", ATTACKS)
def test_strength_0_changes_nothing(cls: type[Attack]) -> None:
    faces = torch.rand(2, 3, 40, 40)
    assert torch.equal(cls(0.0).deidentify(faces, seed=0), faces)
    assert cls().deidentify(faces[:0], seed=0).shape == (0, 3, 40, 40)


@pytest.mark.slow
@pytest.mark.parametrize("cls", ATTACKS)
def test_the_attacked_recognizer_no_longer_finds_the_person(
    cls: type[Attack], faces: Tensor
) -> None:
    near, far = (cls(s, steps=4).deidentify(faces, seed=0) for s in (0.1, 1.0))
    assert float(similarity(far, faces).max()) < 0.3
    assert bool((similarity(far, faces) < similarity(near, faces)).all())


@pytest.mark.slow
def test_within_an_lpips_budget_too(faces: Tensor) -> None:
    treated = PGD(bound="lpips", steps=6).deidentify(faces, seed=0)
    assert float(similarity(treated, faces).max()) < 0.3


def test_an_attack_on_a_recognizer_with_a_distance_drives_it_away(faces: Tensor) -> None:
    dlib = recognizer("dlib")
    treated = PGD(1.0, against="dlib", steps=5).deidentify(faces, seed=0)
    with torch.inference_mode():
        distance = (embedded(dlib, treated) - embedded(dlib, faces)).norm(dim=1)
    assert float(distance.min()) > 0.6  # its author's threshold


@pytest.mark.parametrize("cls", ATTACKS)
@pytest.mark.parametrize(("strength", "levels"), [(0.3, 4), (0.5, 8), (0.05, 0)])
def test_no_published_value_moves_beyond_epsilon(
    cls: type[Attack], strength: float, levels: int, faces: Tensor
) -> None:
    treated = cls(strength, "dlib", steps=2).deidentify(faces[:2], seed=0)
    before, after = ((images * 255).round().int() for images in (faces[:2], treated))
    assert int((after - before).abs().max()) == levels
    torch.testing.assert_close(treated, after / 255)


@relaxed
@given(
    epsilon=st.floats(0, 0.2),
    whole=st.booleans(),
    seed=st.integers(0, 999),
)
def test_8_bit_values_keep_the_bound_whatever_the_face(
    epsilon: float, whole: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    face, noise = torch.rand(2, 1, 3, 9, 9, generator=generator)
    face = (face * 255).round() / 255 if whole else face
    moved = projected(face + noise - 0.5, face, epsilon)
    published = _levels_within(face, moved, epsilon)
    assert float((published - face).abs().max()) <= epsilon + 1e-6
    assert 0 <= float(published.min()) <= float(published.max()) <= 1
    kept = published == face  # where no 8-bit value is near enough
    levels = published * 255
    assert bool((kept | ((levels - levels.round()).abs() < 1e-4)).all())
    if whole or epsilon > 0.5 / 255:
        assert float((published - moved).abs().max()) <= 1 / 255 + 1e-6


@pytest.mark.parametrize("cls", ATTACKS)
def test_each_published_face_keeps_its_lpips_budget(cls: type[Attack], faces: Tensor) -> None:
    treated = cls(0.3, "dlib", steps=4, bound="lpips").deidentify(faces, seed=0)
    published = (treated * 255).round() / 255
    distances = plugins.build("metrics", "lpips")(faces, published)
    assert float(distances.max()) <= 0.12
    assert float(distances.min()) > 0.06  # each face by itself uses most of its budget


def test_a_change_below_the_budget_is_left_as_it_is() -> None:
    faces = torch.full((2, 3, 64, 64), 128 / 255)
    change = torch.zeros_like(faces)
    change[0, :, 5, 5] = 3 / 255
    share, kept = PGD(bound="lpips")._within_budget(faces, change, budget=10.0)
    assert share.flatten().tolist() == [1, 1]
    torch.testing.assert_close(kept, faces + change)


@pytest.mark.parametrize("cls", ATTACKS)
def test_the_neighbours_in_a_batch_change_nothing(cls: type[Attack], faces: Tensor) -> None:
    method = cls(steps=2)
    one = method.deidentify(faces, seed=0)[0]
    other = method.deidentify(torch.cat([faces[:1], 1 - faces[1:]]), seed=0)[0]
    assert torch.equal(one, other)


@pytest.mark.parametrize(("cls", "bound"), [(PGD, "linf"), (MIFGSM, "linf"), (PGD, "lpips")])
def test_a_face_is_treated_alike_alone_and_in_a_batch(
    cls: type[Attack], bound: str, faces: Tensor
) -> None:
    """Rounding errors differ, and turn the sign of gradients that are almost 0.

    Such a sign is a whole step; how many there are is the machine's.
    """
    method = cls(against="dlib", bound=bound, steps=2)
    together = method.deidentify(faces, seed=0)
    alone = torch.cat([method.deidentify(face, seed=0) for face in faces[:, None]])
    assert float((together != alone).double().mean()) < 0.05
    assert float((together - alone).abs().mean()) < 1e-3


@pytest.mark.parametrize("cls", ATTACKS)
def test_more_faces_than_are_attacked_at_once(
    cls: type[Attack], faces: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = cls(against="dlib", steps=1)
    at_once = method.deidentify(faces, seed=0)
    monkeypatch.setattr("deidbench_baselines._adversarial.BATCH", 2)
    parts = method.deidentify(faces, seed=0)
    assert float((at_once != parts).double().mean()) < 0.01


def test_a_seed_sets_the_result(faces: Tensor) -> None:
    torch.manual_seed(0)
    one = PGD(against="dlib", steps=1).deidentify(faces[:1], seed=1)
    torch.manual_seed(5)
    assert torch.equal(PGD(against="dlib", steps=1).deidentify(faces[:1], seed=1), one)
    assert not torch.equal(PGD(against="dlib", steps=1).deidentify(faces[:1], seed=2), one)


def naive_attack(method: str, face: Tensor, names: list[str], steps: int, seed: int) -> Tensor:
    """The papers' loops for one face, written plainly, with epsilon = 8/255."""
    epsilon = 8 / 255
    networks = [recognizer(name) for name in names]
    wanted = [embedded(network, face).detach() for network in networks]
    noise = 2 * torch.rand(face.shape[1:], generator=torch.Generator().manual_seed(seed)) - 1
    step = 2.5 * epsilon / steps if method == "pgd" else epsilon / steps
    image = face + noise * (epsilon if method == "pgd" else step)
    momentum = torch.zeros_like(face)
    for _ in range(steps):
        image = torch.minimum(torch.maximum(image, face - epsilon), face + epsilon).clamp(0, 1)
        image = image.detach().requires_grad_()
        loss = image.new_zeros(())
        for network, original in zip(networks, wanted, strict=True):
            seen = embedded(network, image)
            if network.similarity == "cosine":
                loss = loss - torch.nn.functional.cosine_similarity(seen, original).sum()
            else:
                loss = loss + ((seen - original) ** 2).sum()
        loss.backward()
        assert image.grad is not None
        if method == "pgd":
            image = image + step * image.grad.sign()
        else:
            momentum = momentum + image.grad / image.grad.abs().sum()
            image = image + step * momentum.sign()
    image = torch.minimum(torch.maximum(image, face - epsilon), face + epsilon).clamp(0, 1)
    return (image.detach() * 255).round() / 255


@pytest.mark.parametrize("names", [["dlib"], ["sface", "dlib"]])
@pytest.mark.parametrize("cls", ATTACKS)
def test_an_attack_equals_the_loop_of_its_paper(
    cls: type[Attack], names: list[str], faces: Tensor
) -> None:
    treated = cls(against=", ".join(names), steps=2).deidentify(faces[:1], seed=7)
    expected = naive_attack(cls.name, faces[:1], names, steps=2, seed=7)
    assert float((treated - expected).abs().gt(1e-6).double().mean()) < 0.01


def test_nothing_is_loaded_before_the_first_face() -> None:
    method = PGD(against="sface,dlib", steps=7, bound="lpips")
    assert method.trained_against == ("sface", "dlib")
    assert method.parameters == {"against": "sface,dlib", "steps": 7, "bound": "lpips"}
    assert not {"_recognizers", "_lpips"} & vars(method).keys()


def test_the_fingerprint_is_that_of_the_attacked_weights() -> None:
    sface, dlib = recognizer("sface"), recognizer("dlib")
    expected = f"{sface.weights_sha256},{dlib.weights_sha256}"
    assert PGD(against="sface,dlib").fingerprint == expected


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(tmp_path))
    with pytest.raises(DeidbenchError, match="sface-int8"):
        PGD().deidentify(torch.rand(1, 3, 64, 64), seed=0)


@pytest.mark.parametrize("cls", ATTACKS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strength": 1.5}, r"strength must be in \[0, 1\]"),
        ({"steps": 0}, "steps must be a whole number of at least 1, but got 0"),
        ({"bound": "l2"}, "bound must be linf or lpips, but got 'l2'"),
        ({"against": ""}, "name each recognizer once"),
        ({"against": "sface,"}, "name each recognizer once"),
        ({"against": "sface, sface"}, "name each recognizer once"),
    ],
)
def test_settings_out_of_range_are_refused(
    cls: type[Attack], wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(DeidbenchError, match=message):
        cls(**wrong)  # type: ignore[arg-type]


def test_an_unknown_recognizer_is_refused_at_once() -> None:
    with pytest.raises(PluginError, match="Did you mean 'sface'"):
        PGD(against="dlib,sfaec")


def test_a_recognizer_without_gradients_is_refused() -> None:
    with pytest.raises(DeidbenchError, match="'lbp' gives no gradients"):
        PGD(against="lbp").deidentify(torch.rand(1, 3, 64, 64), seed=0)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("sface", "sface"),
        ("deepface:ArcFace", "deepface:ArcFace"),
        ("onnx:/home/me/nets/mine.v2.onnx", "onnx:mine.v2"),
    ],
)
def test_a_recognizer_is_recorded_by_name_and_never_by_path(spec: str, name: str) -> None:
    assert _recorded_name(spec) == name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cls", ATTACKS)
def test_a_gpu_keeps_the_contract(cls: type[Attack]) -> None:
    check_method(cls(steps=2), device="cuda")
