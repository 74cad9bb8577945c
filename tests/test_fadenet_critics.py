"""Critics, and the attacker who learns while FaDeNet does: tried where the outcome is known."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import cosine_similarity

from fadenet.adversary import Adversary
from fadenet.config import TrainConfigError
from fadenet.critics import Critic, Critics, Scene
from fadenet.losses import LossConfig
from fadenet.restorer import Restorer
from fadenet.validation import Validation
from tests.small_fadenet import SMALL, Eye, Gap, faces_of, people, taught, woken

SIZE = 12


def embeddings(count: int = 300, seed: int = 0, spread: float = 0.3) -> Tensor:
    """Pairs (count, 2, SIZE) around one point a person."""
    random = Generator().manual_seed(seed)
    centre = torch.randn(count, 1, SIZE, generator=random) + 0.5
    return centre + spread * torch.randn(count, 2, SIZE, generator=random)


def turned(clean: Tensor) -> Tensor:
    """What a treatment that only turns and moves embeddings leaves."""
    matrix = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=Generator().manual_seed(9)))[0]
    return clean @ matrix + 3.0


def taught_by(treated: Tensor, clean: Tensor, penalty: float = 1e-3) -> Adversary:
    adversary = Adversary(len(treated))
    adversary.remember(treated, clean)
    return adversary


def test_a_turned_embedding_is_turned_back() -> None:
    known, new = embeddings(), embeddings(50, seed=1)
    maps = taught_by(turned(known), known).learn(1e-4, "cpu")
    before = cosine_similarity(turned(new), new, dim=-1).mean()
    after = cosine_similarity(maps.mapped(turned(new)), maps.centred(new), dim=-1).mean()
    assert float(after) > 0.99 > float(before) + 0.2


def test_an_attacker_with_shuffled_lessons_learns_nothing() -> None:
    known, new = embeddings(), embeddings(50, seed=1)
    order = torch.randperm(len(known), generator=Generator().manual_seed(0))
    maps = taught_by(turned(known), known[order]).learn(1e-4, "cpu")
    after = cosine_similarity(maps.mapped(turned(new)), maps.centred(new), dim=-1).mean()
    assert abs(float(after)) < 0.2


def test_the_ridge_map_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    known = embeddings()
    treated = turned(known)
    maps = taught_by(treated, known).learn(0.1, "cpu")
    rows = (treated.flatten(0, 1) - treated.flatten(0, 1).mean(0)).numpy()
    alpha = 0.1 * float(np.trace(rows.T @ rows)) / SIZE
    oracle = Ridge(alpha=alpha).fit(treated.flatten(0, 1).numpy(), known.flatten(0, 1).numpy())
    new = turned(embeddings(20, seed=2)).flatten(0, 1)
    theirs = torch.from_numpy(oracle.predict(new.numpy())).float() - maps.clean_mean
    torch.testing.assert_close(maps.mapped(new), theirs, atol=1e-3, rtol=1e-3)


def test_whitening_makes_what_varies_within_a_person_count_less() -> None:
    loud = embeddings(spread=0.05)
    loud[..., 0] += 20 * torch.randn(loud.shape[:2], generator=Generator().manual_seed(3))
    maps = taught_by(loud, loud).learn(1e-4, "cpu")
    before = cosine_similarity(loud[:, 0], loud[:, 1], dim=-1).mean()
    after = cosine_similarity(maps.whitened(loud[:, 0]), maps.whitened(loud[:, 1]), dim=-1).mean()
    assert float(before) < 0.3
    assert float(after) > 0.9


def bent(clean: Tensor) -> Tensor:
    """A treatment that no linear map undoes: the sign of each number depends on another one."""
    return clean * torch.sign(clean.roll(1, -1))


def taught_student(known: Tensor, new: Tensor, lessons: Tensor) -> tuple[float, float]:
    """Mean cosine of true and guessed clean embeddings of new people: by student, by map."""
    adversary = taught_by(bent(known), lessons)
    maps, random = adversary.learn(1e-3, "cpu"), Generator().manual_seed(0)
    for _ in range(600):
        student = adversary.teach(maps, random)
    clean = maps.centred(new)
    with torch.no_grad():
        learned = cosine_similarity(student(maps.scaled(bent(new))), clean, dim=-1).mean()
        linear = cosine_similarity(maps.mapped(bent(new)), clean, dim=-1).mean()
    return float(learned), float(linear)


def test_the_student_undoes_what_no_linear_map_does() -> None:
    known, new = embeddings(2000, spread=0.05), embeddings(200, seed=1, spread=0.05)
    learned, linear = taught_student(known, new, lessons=known)
    assert learned > linear + 0.05
    shuffled = known[torch.randperm(len(known), generator=Generator().manual_seed(0))]
    fooled, _ = taught_student(known, new, lessons=shuffled)
    assert fooled < learned - 0.2


def test_older_pairs_are_forgotten() -> None:
    adversary, rows = Adversary(4), embeddings(6)
    for row in rows:
        adversary.remember(row[None], row[None])
    assert adversary.ready()
    assert torch.equal(adversary.pairs[:, :2], rows[[4, 5, 2, 3]])
    again = Adversary(4)
    again.load(adversary.state(), "cpu")
    assert torch.equal(again.learn(0.1, "cpu").back, adversary.learn(0.1, "cpu").back)


def scene(count: int = 2) -> Scene:
    faces = people()
    index = torch.tensor([*range(0, 2 * count, 2), *range(1, 2 * count, 2)])
    chips = faces.chips[index].float() / 255
    treated = woken()(chips).requires_grad_(True)
    key = torch.randn(2 * count, 4, generator=Generator().manual_seed(7))
    return Scene(treated, chips, faces.landmarks[index], index, key)


def critic(memory: int = 4, **loss: float) -> Critic:
    return Critic(Eye(), people(), "cpu", LossConfig(**loss), memory=memory)


def test_pairs_stay_pairs() -> None:
    part = scene(3).pairs(torch.tensor([2, 0]))
    assert part.index.tolist() == [4, 0, 5, 1]


def test_a_critic_accepts_strangers_as_often_as_was_asked() -> None:
    judge = critic(far=0.2)
    found = judge.clean(torch.arange(12))
    cosines = cosine_similarity(found[:, None], found[None], dim=-1).numpy()
    names = np.array(judge.faces.subjects)
    strangers = cosines[names[:, None] != names[None]]
    assert np.mean(strangers > judge.threshold()) == pytest.approx(0.2, abs=0.02)


def test_the_attacker_speaks_once_he_has_seen_enough() -> None:
    judge, random = critic(memory=8, linked=1.0), Generator().manual_seed(0)
    assert set(judge.terms(scene(), random)) == {"identity"}
    assert set(judge.terms(scene(), random)) == {"identity"}
    assert set(judge.terms(scene(), random)) == {"identity", "linked", "adapted"}


@pytest.mark.parametrize("term", ["identity", "features", "steered", "linked", "adapted"])
def test_each_term_reaches_the_face(term: str) -> None:
    others = dict.fromkeys(("identity", "linked", "adapted"), 0.0) | {"margin": -1.0}
    judge, random, shown = critic(memory=2, **(others | {term: 1.0})), Generator(), scene()
    judge.terms(shown, random)
    found = judge.terms(shown, random)
    (gradient,) = torch.autograd.grad(found[term], shown.treated)
    assert float(gradient.abs().sum()) > 0


def test_features_of_the_clean_face_itself_are_alike() -> None:
    judge, shown = critic(features=1.0), scene()
    same = replace(shown, treated=shown.clean.clone().requires_grad_(True))
    random = [Generator().manual_seed(1) for _ in range(2)]
    alike = judge.terms(same, random[0])["features"].detach()
    assert float(alike) > 0.95
    assert float(judge.terms(shown, random[1])["features"].detach()) < float(alike)


def test_a_critic_without_convolutions_has_no_features() -> None:
    eye = Eye("flat")
    eye.layer = torch.nn.Flatten()
    with pytest.raises(TrainConfigError, match=r"^features cannot be compared: flat has no conv"):
        Critic(eye, people(), "cpu", LossConfig(features=0.5), memory=4)


def test_a_face_is_astray_unless_it_looks_as_its_key_says() -> None:
    judge = critic(steered=1.0)
    known = judge.clean(torch.arange(12))
    key = torch.eye(4)
    assert float(judge._astray(known[:4], key)) < 1e-5
    assert float(judge._astray(known[[1, 0, 3, 2]], key)) > 0.5


def test_whoever_is_harder_to_fool_counts_more() -> None:
    easy, hard = critic(), critic()
    for _ in range(200):
        easy.weigh(0.0)
        hard.weigh(0.5)
    assert hard.share > 10 * easy.share > 0


class Constant(Critic):
    """Asks the same of every face, and counts them."""

    def __init__(self, cost: float, share: float = 1.0) -> None:
        self.cost, self.share, self.asked = cost, share, 0

    def terms(self, scene: Scene, random: Generator) -> dict[str, Tensor]:
        self.asked += len(scene.index) // 2
        return {"identity": torch.tensor(self.cost)}


def test_critics_are_weighed_by_their_shares() -> None:
    both = Critics({"easy": Constant(1.0, 0.5), "hard": Constant(3.0, 1.5)}, per_face=2)
    mean = both.terms(scene(), Generator().manual_seed(0))["identity"]
    assert float(mean) == pytest.approx((1.0 * 0.5 + 3.0 * 1.5) / 2)
    alike = Critics(both.critics, per_face=2, weighed=False)
    assert float(alike.terms(scene(), Generator().manual_seed(0))["identity"]) == 2.0


def test_only_the_own_photograph_counts_where_that_is_asked() -> None:
    shown = scene()
    own = critic(identity=1.0, margin=-2.0, views=False, filters=False, other_photo=False)
    cosine = cosine_similarity(own._look(shown.treated, shown.landmarks)[0], own.clean(shown.index))
    cost = own.terms(shown, Generator().manual_seed(0))["identity"].detach()
    cosine = cosine.detach()
    assert float(cost) == pytest.approx(float((cosine - own.threshold() + 2.0).mean()), abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_critic_is_asked_as_often(count: int) -> None:
    judges = {name: Constant(1.0) for name in "abc"}
    shown = scene(count)
    for seed in range(300):
        Critics(judges, per_face=1).terms(shown, Generator().manual_seed(seed))
    for judge in judges.values():
        assert judge.asked == pytest.approx(100 * count, rel=0.25)


def test_a_critic_goes_on_where_it_was() -> None:
    judge = critic(memory=2, adapted=1.0)
    for seed in range(3):
        judge.terms(scene(), Generator().manual_seed(seed))
    judge.weigh(0.3)
    assert judge.adversary.student is not None
    again = critic(memory=2, adapted=1.0)
    again.load(deepcopy(judge.state()))
    one, other = (each.terms(scene(), Generator().manual_seed(5)) for each in (judge, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_validation_sees_a_treatment_that_hides_and_one_that_does_not() -> None:
    known = people(12, 3)
    first = known.chips[::3].repeat_interleave(3, 0)
    alike = replace(known, chips=(0.8 * first + 0.2 * known.chips).to(torch.uint8))
    look = Validation(alike, {"eye": Eye()}, Gap(), "cpu")
    idle = woken()
    with torch.no_grad():
        idle.head.weight.zero_()
        idle.shift_head.weight.zero_()
    nothing, something = look(idle), look(taught(replace(SMALL, colour=1.0, key=4)))
    assert set(nothing) == {
        f"{strength} {what}"
        for strength in ("0.5", "1")
        for what in ("lpips", "T1 eye", "T2 eye", "T3 eye")
    }
    assert nothing["1 lpips"] < 1e-6 < something["1 lpips"]
    assert nothing["1 T1 eye"] > max(0.95, something["1 T1 eye"] + 0.02)


def test_people_of_one_photograph_leave_only_the_distance() -> None:
    look = Validation(people(6, 1), {"eye": Eye()}, Gap(), "cpu")
    assert set(look(woken())) == {"0.5 lpips", "1 lpips"}


# --- faces that become alike ---------------------------------------------------------------------


def test_faces_are_pulled_to_the_prototype_that_they_are_most_like() -> None:
    one = critic(collapsed=1.0, prototypes=2)
    shared = one.clean(torch.arange(2))
    clean = torch.cat([shared + 0.01, -shared])  # the last two are as far as can be from theirs
    nearest = cosine_similarity(clean[:, None], shared, dim=-1).max(1).values
    assert float(one._unlike(clean, clean)) == pytest.approx(float((1 - nearest).mean()), abs=1e-6)
    assert float(one._unlike(shared, shared)) == pytest.approx(0, abs=1e-6)


def test_with_one_prototype_the_person_does_not_matter() -> None:
    one = critic(collapsed=2.0)
    seen, clean = embeddings_of(one, 6), embeddings_of(one, 6)
    assert torch.equal(one._unlike(seen, clean), one._unlike(seen, clean.flip(0)))
    assert float(one.terms(scene(), Generator())["collapsed"].detach()) > 0
    assert "collapsed" not in critic().terms(scene(), Generator())


def embeddings_of(one: Critic, count: int) -> Tensor:
    return one.clean(torch.arange(count))


# --- the restorer --------------------------------------------------------------------------------


def darkened(faces: Tensor) -> Tensor:
    """A treatment that is easy to undo."""
    return 0.8 * faces


def error(restorer: Restorer, treated: Tensor, clean: Tensor) -> float:
    with torch.no_grad():
        return float((restorer(treated) - clean).abs().mean())


@pytest.mark.slow
def test_the_restorer_undoes_what_can_be_undone_and_only_that() -> None:
    known, new = faces_of(32, 48, 48), faces_of(8, 48, 48, seed=1)
    honest, fooled = (Restorer(SMALL, 32, "cpu", seed=0) for _ in range(2))
    honest.remember(darkened(known), known)
    fooled.remember(darkened(known), known.roll(1, 0))
    random = Generator().manual_seed(0)
    before = error(honest, darkened(new), new)
    for _ in range(150):
        honest.learn(random)
        fooled.learn(random)
    assert before == pytest.approx(float((darkened(new) - new).abs().mean()), abs=0.01)
    assert error(honest, darkened(new), new) < before / 2
    assert error(honest, darkened(new), new) < error(fooled, darkened(new), new) / 2


def test_the_restorer_forgets_and_remembers_through_a_state() -> None:
    faces = faces_of(6, 48, 48)
    first = Restorer(SMALL, 4, "cpu", seed=0)
    for face in faces:
        first.remember(face[None], face[None])
    kept = (faces[[4, 5, 2, 3]] * 255).round().to(torch.uint8)
    assert torch.equal(first.faces[:, 0], kept)
    second = Restorer(SMALL, 4, "cpu", seed=1)
    first.learn(Generator().manual_seed(0))
    second.load(deepcopy(first.state()))
    errors = {one.learn(Generator().manual_seed(1)) for one in (first, second)}
    assert len(errors) == 1


def test_the_restorer_passes_gradients_to_the_faces_and_learns_none_from_them() -> None:
    restorer, faces = Restorer(SMALL, 4, "cpu", seed=0), faces_of(4, 48, 48)
    restorer.remember(darkened(faces), faces)
    restorer.learn(Generator().manual_seed(0))
    before = deepcopy(restorer.network.state_dict())
    treated = darkened(faces).requires_grad_(True)
    restorer(treated).sum().backward()
    assert treated.grad is not None
    assert float(treated.grad.abs().sum()) > 0
    assert all(torch.equal(before[k], v) for k, v in restorer.network.state_dict().items())
    assert all(one.grad is None or not one.requires_grad for one in restorer.network.parameters())
