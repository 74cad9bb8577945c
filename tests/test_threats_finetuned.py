from __future__ import annotations

import hashlib
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deidbench import plugins
from deidbench.alignment import to_float
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.geometry import align, chip_template
from deidbench.images import read_image
from deidbench.testing import check_recognizer
from deidbench.threats import _finetuning
from deidbench.threats._finetuning import Schedule, Tuned, margin_loss, mirrored
from deidbench.threats.finetuned import Finetuned
from deidbench.types import Embeddings, FaceLesson
from tests.lessons import attack_auc
from tests.random_networks import pictures, randomize

if TYPE_CHECKING:
    from deidbench.types import FloatArray, IntArray

SIDE = 48
PEOPLE, IMAGES = 40, 5
BRIEF = Schedule(epochs=20, steps=150, batch=24, rate=5e-3, looks=3, judges=64)


class Small(nn.Module):
    """A recognizer with few random weights, one of its layers a batch norm."""

    name, version = "small", 3
    similarity = "cosine"
    weights_sha256 = "0" * 64

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.BatchNorm2d(16), nn.PReLU(16),
            nn.Conv2d(16, 32, 3, stride=2), nn.PReLU(32), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(32 * 9, 24),
        )  # fmt: skip
        self.network = randomize(layers, pictures(32, 32, 32))
        self.requires_grad_(False).eval()

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        crops = align(chips, landmarks, chip_template(32), 32)
        embeddings: Tensor = self.network(crops)
        return embeddings


def faces(people: int = PEOPLE, images: int = IMAGES, seed: int = 0) -> tuple[Tensor, IntArray]:
    """Photographs of made-up people in various light, uint8 (N, 3, SIDE, SIDE)."""
    generator = torch.Generator().manual_seed(seed)
    each = pictures(people, SIDE, SIDE, seed=seed).repeat_interleave(images, 0)
    light = 0.6 + 0.4 * torch.rand(len(each), 1, 1, 1, generator=generator)
    noise = 0.25 * torch.randn(len(each), 3, 6, 6, generator=generator)
    seen = each * light + F.interpolate(noise, size=(SIDE, SIDE), mode="bilinear")
    return (seen.clamp(0, 1) * 255).byte(), np.repeat(np.arange(people), images)


def hidden(clean: Tensor, seed: int = 0) -> Tensor:
    """Red is a loud pattern that is another one each time; what is left of the face is faint."""
    generator = torch.Generator().manual_seed(seed)
    pattern = F.interpolate(torch.rand(len(clean), 1, 8, 8, generator=generator), size=(SIDE, SIDE))
    faint = to_float(clean)[:, 1:] * 0.5 + 0.25
    return (torch.cat([pattern, faint], 1) * 255).byte()


def lesson(clean: Tensor, treated: Tensor, subjects: IntArray) -> FaceLesson:
    """Every fourth person is held."""
    landmarks = chip_template(SIDE).expand(len(clean), 5, 2).clone()
    said: list[str] = []
    return FaceLesson(clean, treated, landmarks, subjects, subjects % 4 == 3, 0, "cpu", said.append)


def success(recognizer: Any, seed: int = 7) -> float:
    """AUC of the attack on people who are in no lesson."""
    clean, subjects = faces(seed=seed)
    asked = lesson(clean, hidden(clean, seed), subjects)
    there = Embeddings(*_finetuning._embedded(recognizer, asked, np.arange(len(subjects))))
    return attack_auc(*Finetuned().attack(there), subjects)


@pytest.fixture(scope="module")
def asked() -> FaceLesson:
    clean, subjects = faces()
    return lesson(clean, hidden(clean), subjects)


@pytest.fixture(scope="module")
def memory(asked: FaceLesson) -> dict[str, Any]:
    return Finetuned(BRIEF).learn(asked, Small())


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_who_trains_on_treated_faces_sees_through_the_treatment(memory: dict[str, Any]) -> None:
    before = success(Small())
    assert success(Finetuned().adapted(memory, Small())) > before + 0.1


@pytest.mark.parametrize("broken", ["no gradient", "shuffled people"])
def test_a_training_that_is_broken_gains_nothing(
    broken: str, asked: FaceLesson, memory: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "no gradient":
        monkeypatch.setattr(_finetuning, "margin_loss", lambda e, c, _: 0 * (e.sum() + c.sum()))
    else:
        order = np.random.default_rng(0).permutation(len(asked.subjects))
        asked = replace(asked, subjects=asked.subjects[order], held=asked.held[order])
    spoilt = Finetuned(BRIEF).adapted(Finetuned(BRIEF).learn(asked, Small()), Small())
    good = Finetuned().adapted(memory, Small())
    assert success(spoilt) < success(good) - 0.05
    assert success(spoilt) < success(Small()) + 0.05


def test_the_best_state_of_the_held_people_is_kept(
    asked: FaceLesson, memory: dict[str, Any]
) -> None:
    curve = memory["held AUC"]
    assert len(curve) == BRIEF.looks + 2
    tuned = Tuned(Small(), memory)
    judges = np.flatnonzero(asked.held)
    assert _finetuning._judged(tuned, asked, judges) == pytest.approx(curve.max(), abs=1e-6)


def test_where_every_step_harms_the_recognizer_stays_as_it_is(
    asked: FaceLesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    areas = iter([0.9, 0.8, 0.7, 0.6, 0.5])
    monkeypatch.setattr(_finetuning, "_judged", lambda *_: next(areas))
    threat = Finetuned(BRIEF)
    memory = threat.learn(asked, Small())
    assert not [name for name in memory if name.startswith("base.")]
    chips, landmarks = to_float(asked.clean[:5]), asked.landmarks[:5]
    tuned = threat.adapted(memory, Small())
    assert torch.allclose(tuned.embed(chips, landmarks), Small().embed(chips, landmarks))
    assert threat.note is not None
    assert threat.note.startswith("as it is")


def test_the_recognizer_itself_is_left_alone(asked: FaceLesson) -> None:
    recognizer = Small()
    before = state(recognizer)
    memory = Finetuned(BRIEF).learn(asked, recognizer)
    Finetuned().adapted(memory, recognizer)
    assert all(torch.equal(before[name], value) for name, value in state(recognizer).items())
    assert not any(parameter.requires_grad for parameter in recognizer.parameters())


def test_normalisation_stays_as_it_was(memory: dict[str, Any]) -> None:
    changed = {
        name.removeprefix("base.network.").split(".")[0] for name in memory if "base" in name
    }
    assert changed == {"0", "2", "3", "4", "8"}  # 1 is the batch norm
    tuned = Tuned(Small(), memory)
    plain = Small().network[1].state_dict()
    for name, value in tuned.base.network[1].state_dict().items():
        assert torch.equal(value, plain[name])


def test_an_adapted_recognizer_keeps_the_contract(memory: dict[str, Any]) -> None:
    check_recognizer(Finetuned().adapted(memory, Small()))


def test_other_weights_have_another_digest(memory: dict[str, Any]) -> None:
    threat = Finetuned()
    first = threat.adapted(memory, Small())
    name = next(name for name in memory if name.startswith("base."))
    second = threat.adapted({**memory, name: memory[name] + 1e-3}, Small())
    again = threat.adapted(memory, Small())
    assert first.name == Small().name
    assert first.weights_sha256 == again.weights_sha256
    assert len({Small().weights_sha256, first.weights_sha256, second.weights_sha256}) == 3
    assert len(first.weights_sha256) == hashlib.sha256().digest_size * 2


def test_the_same_seed_learns_the_same(asked: FaceLesson, memory: dict[str, Any]) -> None:
    again = Finetuned(BRIEF).learn(asked, Small())
    assert memory.keys() == again.keys()
    for name, values in memory.items():
        assert np.allclose(values, again[name], atol=1e-5), name


def test_how_it_goes_is_shown(asked: FaceLesson) -> None:
    said: list[str] = []
    Finetuned(BRIEF).learn(replace(asked, progress=said.append), Small())
    assert len(said) == BRIEF.looks + 1
    assert all("small" in line and "\n" not in line for line in said)


def test_held_people_are_not_trained_on(asked: FaceLesson) -> None:
    """Other faces of theirs leave every state of the training as it was."""
    other = asked.clean.clone()
    other[torch.from_numpy(asked.held)] = 128
    states = []
    for given in (asked, replace(asked, clean=other, treated=hidden(other))):
        training = _finetuning.Training(Small(), given, BRIEF)
        for _ in training.looks():
            pass
        states.append(state(training.tuned))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_without_people_to_judge_nothing_is_learned(asked: FaceLesson) -> None:
    one = replace(asked, held=asked.subjects == 0)
    threat = Finetuned(BRIEF)
    memory = threat.learn(one, Small())
    threat.adapted(memory, Small())
    assert threat.note is not None
    assert threat.note.startswith("not trained")


def test_the_loss_is_cosface_s() -> None:
    """By a loop over equation 4."""
    draw = torch.Generator().manual_seed(0)
    embeddings, centres = torch.randn(5, 4, generator=draw), torch.randn(3, 4, generator=draw)
    owner = torch.tensor([0, 1, 2, 2, 0])
    total = 0.0
    for x, mine in zip(embeddings, owner.tolist(), strict=True):
        cosines = [float(torch.cosine_similarity(x, centre, dim=0)) for centre in centres]
        own = np.exp(_finetuning.SCALE * (cosines[mine] - _finetuning.MARGIN))
        others = sum(np.exp(_finetuning.SCALE * c) for j, c in enumerate(cosines) if j != mine)
        total -= np.log(own / (own + others)) / 5
    assert float(margin_loss(embeddings, centres, owner)) == pytest.approx(total, rel=1e-5)


def test_a_flipped_face_is_seen_as_the_mirror_shows_it() -> None:
    """Twice is as before, and what is marked left in the image is marked left in the mirror."""
    landmarks = chip_template(SIDE)[None] + torch.rand(1, 5, 2)
    assert torch.allclose(mirrored(mirrored(landmarks, SIDE), SIDE), landmarks, atol=1e-5)
    image = torch.zeros(1, 1, SIDE, SIDE)
    x, y = landmarks[0, 0].round().int().tolist()
    image[0, 0, y, x] = 1
    there = mirrored(landmarks.round(), SIDE)[0, 1].int().tolist()  # now the right eye
    assert image.flip(-1)[0, 0, there[1], there[0]] == 1


def test_a_cosine_of_both_sides_is_the_mean_of_two() -> None:
    draw = np.random.default_rng(0)
    clean, treated = draw.normal(size=(2, 6, 4))
    enrolled, probe = Finetuned().attack(Embeddings(clean, treated))

    def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        return np.asarray(a @ b.T)

    mean = (cosines(clean, treated) + cosines(treated, treated)) / 2
    assert cosines(enrolled, probe) == pytest.approx(mean, abs=1e-6)


def test_lost_faces_stay_lost() -> None:
    clean = np.random.default_rng(0).normal(size=(5, 4))
    treated = clean.copy()
    treated[2] = np.nan
    enrolled, probe = Finetuned().attack(Embeddings(clean, treated))
    assert np.isnan(enrolled[2]).all()
    assert np.isnan(probe[2]).all()
    assert np.isfinite(np.delete(enrolled, 2, axis=0)).all()


def test_a_recognizer_without_gradients_is_refused_by_name(asked: FaceLesson) -> None:
    stiff = deepcopy(Small())
    stiff.differentiable = False  # type: ignore[assignment]
    stiff.name = "stiff"
    with pytest.raises(DeidbenchError, match="stiff"):
        Finetuned(BRIEF).learn(asked, stiff)


def test_naming_the_threat_needs_no_torch() -> None:
    code = "import sys, deidbench.threats.finetuned; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_sface_learns_to_see_through_pixels(weights: object) -> None:
    """A few steps on a few people; the faces are as the dataset crops them."""
    samples = [one for one in SynthID().samples() if one.split in ("attacker-train", "eval")]
    people = sorted({(one.split or "", one.subject) for one in samples})
    chosen = people[:10] + people[-6:]
    samples = [one for one in samples if (one.split or "", one.subject) in chosen]
    images = torch.stack(
        [torch.from_numpy(read_image(one.path).copy()).permute(2, 0, 1) for one in samples]
    )
    clean = (F.interpolate(to_float(images), size=(160, 160), mode="area") * 255).byte()
    pixelate = plugins.build("methods", "pixelate")
    treated = (pixelate.deidentify(to_float(clean), seed=0) * 255).round().byte()
    truth = SynthID().truth()
    scale = 160 / images.shape[-1]
    landmarks = torch.from_numpy(np.stack([truth[one.id] for one in samples])).float() * scale
    subjects = np.unique([one.subject for one in samples], return_inverse=True)[1]
    learns = np.array([one.split == "attacker-train" for one in samples])
    known = FaceLesson(
        clean[learns], treated[learns], landmarks[learns], subjects[learns],
        subjects[learns] % 4 == 3, 0, "cpu", lambda _: None,
    )  # fmt: skip
    sface = plugins.build("recognizers", "sface")
    threat = Finetuned(Schedule(epochs=2, steps=8, batch=20, rate=1e-4, looks=1, judges=24))
    tuned = threat.adapted(threat.learn(known, sface), sface)
    every = FaceLesson(clean, treated, landmarks, subjects, ~learns, 0, "cpu", lambda _: None)
    strangers = np.flatnonzero(~learns)
    naive = attack_auc(*_finetuning._embedded(sface, every, strangers), subjects[strangers])
    sides = threat.attack(Embeddings(*_finetuning._embedded(tuned, every, strangers)))
    assert attack_auc(*sides, subjects[strangers]) > naive + 0.15
