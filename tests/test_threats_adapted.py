from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import inv, sqrtm
from sklearn.linear_model import Ridge

from deidbench.errors import DeidbenchError
from deidbench.threats import _maps
from deidbench.threats._maps import Faces
from deidbench.threats._refine import contrast
from deidbench.threats.adapted import Adapted
from deidbench.types import Embeddings, Lesson
from tests.lessons import attack_auc, lesson, people, rotation

if TYPE_CHECKING:
    from deidbench.types import FloatArray, IntArray

LEARNED = ("whitened", "ridge", "fused", "mlp", "fused mlp")
quick = settings(deadline=None, max_examples=15)


def strangers(treatment: FloatArray | None = None) -> tuple[Embeddings, IntArray]:
    """Clean and treated embeddings of people who are in no lesson."""
    clean, subjects = people(20, seed=77)
    return Embeddings(clean, clean if treatment is None else clean @ treatment), subjects


def success(threat: Adapted, embeddings: Embeddings, subjects: IntArray) -> float:
    return attack_auc(*threat.attack(embeddings), subjects, threat.similarity)


def rotated_lesson() -> Lesson:
    clean, subjects = people()
    return lesson(clean, clean @ rotation(), subjects)


# --- laws: what must come out


@pytest.mark.parametrize("way", [*LEARNED, None])
def test_a_rotation_is_undone(way: str | None) -> None:
    there, subjects = strangers(rotation())
    known, _ = strangers()
    clean = attack_auc(known.clean, known.clean, subjects)
    assert attack_auc(there.clean, there.treated, subjects) < 0.65  # T1
    taught = Adapted(way).learn(rotated_lesson())
    assert success(taught, there, subjects) > clean - 0.03


@pytest.mark.parametrize("way", ["naive", "parrot", *LEARNED, None])
def test_who_treats_nothing_gains_nothing(way: str | None) -> None:
    clean, own = people()
    there, subjects = strangers()
    floor = attack_auc(there.clean, there.clean, subjects)
    taught = Adapted(way).learn(lesson(clean, clean, own))
    assert success(taught, there, subjects) > floor - 0.02


def test_noise_beside_a_rotation_is_survived() -> None:
    clean, own = people(40)
    noise = np.random.default_rng(5).normal(size=clean.shape).astype(np.float32)
    there, subjects = strangers(rotation())
    taught = Adapted().learn(lesson(clean, clean @ rotation() + 0.5 * noise, own))
    assert success(taught, there, subjects) > 0.9


def test_directions_that_only_noise_is_in_are_left_out() -> None:
    """Where a few coordinates hold the person and many hold large noise, T2 is near chance."""
    draw = np.random.default_rng(3)

    def drowned(seed: int) -> tuple[FloatArray, FloatArray, IntArray]:
        clean, own = people(40, size=6, spread=0.2, seed=seed)
        noise = 3 * draw.normal(size=(len(own), 10)).astype(np.float32)
        empty = np.zeros_like(noise)
        return np.hstack([clean, empty]), np.hstack([clean, noise]), own

    clean, treated, own = drowned(0)
    taught = Adapted("whitened").learn(lesson(clean, treated, own))
    clean, treated, subjects = drowned(1)
    plain = attack_auc(treated, treated, subjects)
    assert success(taught, Embeddings(clean, treated), subjects) > plain + 0.15


def test_the_scale_of_either_side_changes_nothing() -> None:
    there, subjects = strangers(rotation())
    asked = rotated_lesson()
    plain = Adapted().learn(asked)
    scaled = Adapted().learn(
        replace(asked, embeddings=Embeddings(asked.embeddings.clean * 64, asked.embeddings.treated))
    )
    larger = Embeddings(there.clean * 64, there.treated)
    assert success(scaled, larger, subjects) == pytest.approx(success(plain, there, subjects))


def test_the_same_seed_learns_the_same() -> None:
    there, _ = strangers(rotation())
    first, second = (Adapted("fused mlp").learn(rotated_lesson()).attack(there) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


def test_what_learns_leaves_torch_s_own_randomness_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Adapted("mlp").learn(rotated_lesson())
    assert torch.equal(torch.rand(2), expected)


def test_learning_returns_another_threat_and_says_how_it_went() -> None:
    untaught = Adapted()
    taught = untaught.learn(rotated_lesson())
    assert untaught.note is None
    assert not hasattr(untaught, "similarity")
    assert taught.similarity == "cosine"
    assert taught.note is not None
    assert all(way in taught.note for way in Adapted.WAYS)


def test_thresholds_come_from_the_attack_itself() -> None:
    there, _ = strangers(rotation())
    taught = Adapted().learn(rotated_lesson())
    for one, other in zip(taught.attack(there), taught.calibrate(there), strict=True):
        assert np.array_equal(one, other)


def test_a_recognizer_keeps_its_similarity_where_nothing_is_adapted() -> None:
    clean, own = people()
    asked = lesson(clean, clean, own, similarity="negative-euclidean")
    assert Adapted("as T2").learn(asked).similarity == "negative-euclidean"
    assert Adapted("ridge").learn(asked).similarity == "cosine"


# --- mutations: an attack that is broken on purpose is seen to fail


@pytest.mark.parametrize("way", ["ridge", "mlp"])
def test_shuffled_pairs_teach_nothing(way: str) -> None:
    asked = rotated_lesson()
    order = np.random.default_rng(1).permutation(len(asked.subjects))
    mixed = Embeddings(asked.embeddings.clean, asked.embeddings.treated[order])
    there, subjects = strangers(rotation())
    taught = Adapted(way).learn(replace(asked, embeddings=mixed))
    assert abs(success(taught, there, subjects) - 0.5) < 0.1


def test_shuffled_names_find_nobody_at_all() -> None:
    """The held people's names are shuffled too: whatever was chosen, it measured as chance."""
    asked = rotated_lesson()
    order = np.random.default_rng(1).permutation(len(asked.subjects))
    taught = Adapted().learn(replace(asked, subjects=asked.subjects[order], held=asked.held[order]))
    assert taught.note is not None
    told = [float(part.split()[-1]) for part in taught.note.split(": ")[1].split(", ")]
    assert max(told) < 0.62


def test_a_network_that_never_moves_is_the_map_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    there, _ = strangers(rotation())
    monkeypatch.setattr("deidbench.threats._refine.RATE", 0.0)
    still = Adapted("mlp").learn(rotated_lesson()).attack(there)
    plain = Adapted("ridge").learn(rotated_lesson()).attack(there)
    assert np.array_equal(still[1], plain[1])


# --- oracles


def test_the_map_is_ridge_regression_towards_a_multiple_of_the_input() -> None:
    clean, own = people(12, 4)
    treated = (clean @ rotation()).astype(np.float64)
    faces = Faces(clean.astype(np.float64), treated, own)
    ours = _maps.ridge(faces, 3.0).channels[0].probe
    x, y = (_maps.unit(side - side.mean(0)) for side in (treated, faces.clean))
    scale = (x * y).sum() / (x * x).sum()
    alpha = 3.0 * (x * x).sum() / x.shape[1]
    theirs = Ridge(alpha, fit_intercept=False).fit(x, y - scale * x)
    assert ours(treated) == pytest.approx(scale * x + theirs.predict(x), abs=1e-9)


@pytest.mark.parametrize("images", [3, 8])
def test_whitening_is_the_root_of_the_inverse_scatter(images: int) -> None:
    """By a loop over people; few images leave directions without scatter."""
    treated, own = people(5, images)
    faces = Faces(treated.astype(float), treated.astype(float), own)
    ours = _maps.whitened(faces, 0.4).channels[0].probe
    x = _maps.unit(faces.treated - faces.treated.mean(0))
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for person in np.unique(own):
        mine = x[own == person]
        for row in mine - mine.mean(0):
            scatter += np.outer(row, row) / len(x)
    mean = np.trace(scatter) / len(scatter)
    root = sqrtm(inv(0.6 * scatter + 0.4 * mean * np.eye(len(scatter)))) * np.sqrt(0.4 * mean)
    assert ours(faces.treated) == pytest.approx(x @ np.real(root), abs=1e-8)


def test_a_fused_cosine_is_the_weighted_sum_of_cosines() -> None:
    clean, own = people(8)
    faces = Faces(clean.astype(float), (clean @ rotation()).astype(float), own)
    parts = [_maps.naive(faces), _maps.ridge(faces, 1.0), _maps.whitened(faces, 0.3)]
    weights = (0.2, 0.3, 0.5)

    def cosines(gaze: _maps.Gaze) -> FloatArray:
        enrolled, probe = (_maps.unit(side) for side in gaze.sides(faces))
        return np.asarray(enrolled @ probe.T)

    expected = sum(w * cosines(one) for w, one in zip(weights, parts, strict=True))
    assert cosines(_maps.fused(parts, weights)) == pytest.approx(expected)


def test_the_loss_is_that_of_a_naive_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 4, generator=draw) for _ in range(2))
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    scores = torch.cosine_similarity(a[:, None], b[None], dim=2) / 0.1
    total = 0.0
    for table in (scores, scores.T):
        for i in range(6):
            others = [j for j in range(6) if j != i]
            mine = [j for j in others if owner[j] == owner[i]]
            below = torch.logsumexp(table[i, others], 0)
            total -= sum(float(table[i, j] - below) for j in mine) / max(len(mine), 1)
    assert float(contrast(a, b, owner)) == pytest.approx(total / 6, rel=1e-5)


# --- the choice


def test_folds_share_no_person() -> None:
    clean, own = people(11, 3)
    folds = _maps.people_folds(Faces(clean, clean, own), seed=4)
    assert len(folds) == _maps.FOLDS
    for fitting, test in folds:
        assert not set(fitting.subjects) & set(test.subjects)
        assert set(fitting.subjects) | set(test.subjects) == set(own)


def test_nothing_of_the_held_people_is_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other embeddings of the held people leave every number chosen in folds as it was."""
    seen: list[frozenset[int]] = []
    fold_areas = _maps.fold_areas

    def watched(faces: Faces, path: _maps.Path, seed: int) -> FloatArray | None:
        seen.append(frozenset(faces.subjects.tolist()))
        return fold_areas(faces, path, seed)

    monkeypatch.setattr(_maps, "fold_areas", watched)
    asked = rotated_lesson()
    Adapted().learn(asked)
    held = set(asked.subjects[asked.held].tolist())
    assert seen
    assert not any(held & people for people in seen)


def test_a_crowd_is_whole_people() -> None:
    own = np.repeat(np.arange(300), 4)
    kept = _maps.crowd(own % 2 == 0, own)
    assert kept.sum() <= _maps.CROWD
    assert set(np.bincount(own[kept])) == {0, 4}


# --- edges


@quick
@given(
    count=st.integers(2, 7), images=st.integers(1, 4), size=st.integers(1, 40),
    constant=st.integers(0, 3), seed=st.integers(0, 99),
    way=st.sampled_from([None, *Adapted.WAYS]),
)  # fmt: skip
def test_whatever_the_lesson_numbers_stay_finite(
    count: int, images: int, size: int, constant: int, seed: int, way: str | None
) -> None:
    clean, own = people(count, images, size=size, seed=seed)
    treated = clean @ rotation(size)
    treated[:, :constant] = 0.25
    taught = Adapted(way).learn(lesson(clean, treated, own, seed=seed))
    for side in taught.attack(Embeddings(clean, treated)):
        assert side.dtype == np.float32
        assert np.isfinite(side).all()


@pytest.mark.parametrize("jitter", [0.0, 1e-7])
def test_one_face_for_all_is_chance(jitter: float) -> None:
    """Rounding errors that depend on the batch are no identity, not even when they are paired."""
    clean, own = people()
    grey = np.ones_like(clean) + jitter * clean @ rotation()
    taught = Adapted().learn(lesson(clean, grey.astype(np.float32), own))
    there, subjects = strangers(rotation())
    grey = np.ones_like(there.clean) + jitter * there.treated
    found = success(taught, Embeddings(there.clean, grey.astype(np.float32)), subjects)
    assert found == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("way", [*Adapted.WAYS])
def test_lost_faces_stay_lost_and_change_no_other(way: str) -> None:
    there, _ = strangers(rotation())
    treated = there.treated.copy()
    treated[3] = np.nan
    taught = Adapted(way).learn(rotated_lesson())
    whole, broken = taught.attack(there), taught.attack(Embeddings(there.clean, treated))
    assert np.isnan(broken[1][3]).all()
    for one, other in zip(whole, broken, strict=True):
        there_still = np.arange(len(one)) != 3
        assert np.allclose(one[there_still], other[there_still], atol=1e-6)


def test_where_nobody_can_judge_nothing_is_adapted() -> None:
    clean, own = people(2)
    asked = replace(lesson(clean, clean, own), held=own == 1)
    taught = Adapted().learn(asked)
    assert taught.note is not None
    assert "ridge" not in taught.note
    assert all(np.isfinite(side).all() for side in taught.attack(Embeddings(clean, clean)))


def test_who_has_not_learned_cannot_attack() -> None:
    there, _ = strangers()
    with pytest.raises(DeidbenchError, match="learn"):
        Adapted().attack(there)


def test_an_unknown_way_is_refused_by_name() -> None:
    with pytest.raises(DeidbenchError, match=r"lasso.*ridge"):
        Adapted("lasso")


def test_naming_the_threat_needs_no_torch() -> None:
    code = "import sys, deidbench.threats.adapted, deidbench.threats.linkage; "
    done = subprocess.run([sys.executable, "-c", f"{code}sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0
