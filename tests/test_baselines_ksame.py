from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from deidbench_baselines._eigenspace import LARGEST_SAMPLE, Eigenspace
from deidbench_baselines._k_same import KSame
from deidbench_baselines.eigenface import Eigenface
from deidbench_baselines.k_same_eigen import KSameEigen
from deidbench_baselines.k_same_pixel import KSamePixel
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import Tensor

from deidbench import plugins
from deidbench.alignment import Aligner
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.geometry import chip_template
from deidbench.images import read_image
from deidbench.testing import check_method

K_SAME: list[type[KSame]] = [KSamePixel, KSameEigen]
NAMES = ["k-same-pixel", "k-same-eigen", "eigenface"]
relaxed = settings(deadline=None, max_examples=25)  # a first call of torch is slow


def random_faces(count: int, size: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def names(counts: Sequence[int]) -> list[str]:
    """Subjects with so many images each, their rows mixed."""
    rows = [f"person {i:03}" for i, count in enumerate(counts) for _ in range(count)]
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def treated_people(method: KSame, faces: Tensor, subjects: Sequence[str]) -> dict[bytes, set[str]]:
    """The people behind each different image that is published."""
    method.fit(faces, subjects)
    people = defaultdict(set)
    for image, name in zip(method.deidentify(faces, seed=0), subjects, strict=True):
        people[image.numpy().tobytes()].add(name)
    return people


@pytest.mark.parametrize("strength", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_each_method_keeps_the_contract_by_its_name(name: str, strength: float | None) -> None:
    method = plugins.build("methods", name, strength=strength)
    assert method.name == name
    assert method.strength == (0.5 if strength is None else strength)
    check_method(method, size=40)


@pytest.mark.parametrize("cls", K_SAME)
def test_a_small_set_can_be_treated_with_a_small_k(cls: type[KSame]) -> None:
    method = cls(k=3)
    method.fit(random_faces(3, 40), ["a", "b", "c"])
    assert len(method.deidentify(random_faces(3, 40), seed=0)) == 3


@pytest.mark.parametrize("cls", K_SAME)
@relaxed
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=20),
    k=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_each_published_image_stands_for_at_least_k_people(
    cls: type[KSame], counts: list[int], k: int, seed: int
) -> None:
    subjects = names(counts)
    faces = random_faces(len(subjects), seed=seed)
    if len(counts) < k:
        with pytest.raises(DeidbenchError, match=f"at least k = {k} people"):
            cls(k=k).fit(faces, subjects)
        return
    people = treated_people(cls(k=k), faces, subjects)
    assert all(k <= len(group) < 2 * k for group in people.values())
    assert sum(map(len, people.values())) == len(counts)  # each person has a single image


@pytest.mark.parametrize("cls", K_SAME)
@relaxed
@given(people=st.integers(2, 24), k=st.integers(1, 6), seed=st.integers(0, 99))
def test_no_matcher_names_more_than_one_in_k(
    cls: type[KSame], people: int, k: int, seed: int
) -> None:
    """Any matcher: one that draws a score for each pair of images, and the best there can be."""
    faces, subjects = random_faces(people, seed=seed), [f"{i:02}" for i in range(people)]
    k = min(k, people)
    method = cls(k=k)
    method.fit(faces, subjects)
    treated = method.deidentify(faces, seed=0)
    projection = torch.randn(3 * 12 * 12, 5, generator=torch.Generator().manual_seed(seed))
    gallery, probes = ((images.flatten(1) - 0.5) @ projection for images in (faces, treated))
    named = torch.cdist(probes, gallery).argmin(1)
    assert float((named == torch.arange(people)).double().mean()) <= 1 / k
    best = len({image.numpy().tobytes() for image in treated})  # he names one person an image
    assert best / people <= 1 / k


@pytest.fixture
def rendered(home: Path) -> tuple[Tensor, list[str]]:
    """Aligned chips of 20 rendered people, two images each."""
    by_person = defaultdict(list)
    for sample in SynthID().samples():
        by_person[sample.subject].append(sample)
    samples = [sample for person in sorted(by_person)[:20] for sample in by_person[person][:2]]
    aligned = Aligner(160)([read_image(sample.path) for sample in samples])
    assert bool(aligned.found.all())
    return aligned.chips.float() / 255, [sample.subject for sample in samples]


@pytest.mark.slow
def test_a_real_recognizer_names_no_more_than_one_in_k(rendered: tuple[Tensor, list[str]]) -> None:
    faces, subjects = rendered
    sface = plugins.build("recognizers", "sface")

    @torch.inference_mode()
    def embedded(images: Tensor) -> Tensor:
        embeddings: Tensor = sface.embed(images, chip_template().expand(len(images), 5, 2))
        return torch.nn.functional.normalize(embeddings)

    gallery = embedded(faces)

    def rank_1(probes: Tensor) -> float:
        named = (embedded(probes) @ gallery.T).argmax(1)
        right = [subjects[row] == name for row, name in zip(named, subjects, strict=True)]
        return float(np.mean(right))

    assert rank_1(faces) == 1
    for method in (KSamePixel(k=2), KSameEigen(k=4)):
        method.fit(faces, subjects)
        rate = rank_1(method.deidentify(faces, seed=0))
        assert 1 / 20 < rate <= 1 / method.k  # better than chance: it is the bound that holds


def naive_k_same(faces: Tensor, k: int) -> Tensor:
    """The independent count, from the paper's text: loops over faces, one image a person."""
    left, treated = list(range(len(faces))), faces.clone()
    while left:
        nearest = sorted(left, key=lambda i: float((faces[i] - faces[left[0]]).norm()))
        group = nearest[:k] if len(left) >= 2 * k else list(left)
        treated[group] = faces[group].mean(0)
        left = [i for i in left if i not in group]
    return treated


@relaxed
@given(people=st.integers(1, 30), k=st.integers(1, 5), seed=st.integers(0, 9))
def test_k_same_pixel_equals_a_loop_over_faces(people: int, k: int, seed: int) -> None:
    faces, k = random_faces(people, seed=seed), min(k, people)
    method = KSamePixel(k=k)
    method.fit(faces, [f"{i:02}" for i in range(people)])
    torch.testing.assert_close(method.deidentify(faces, seed=0), naive_k_same(faces, k))


def test_several_images_of_a_person_count_as_their_mean() -> None:
    faces, subjects = random_faces(12), [f"person {i}" for i in range(4) for _ in range(3)]
    means = faces.reshape(4, 3, *faces.shape[1:]).mean(1)
    method = KSamePixel(k=2)
    method.fit(faces, subjects)
    expected = naive_k_same(means, 2).repeat_interleave(3, 0)
    torch.testing.assert_close(method.deidentify(faces, seed=0), expected)


def test_k_same_eigen_with_all_components_is_k_same_pixel() -> None:
    faces, subjects = random_faces(20), [f"{i:02}" for i in range(20)]
    pixel, eigen = KSamePixel(k=4), KSameEigen(k=4, variance=1.0)
    for method in (pixel, eigen):
        method.fit(faces, subjects)
    torch.testing.assert_close(
        eigen.deidentify(faces, seed=0), pixel.deidentify(faces, seed=0), atol=1e-5, rtol=0
    )


def test_k_same_eigen_averages_what_few_components_show() -> None:
    faces, subjects = random_faces(20), [f"{i:02}" for i in range(20)]
    pca = PCA(svd_solver="full").fit(faces.flatten(1).numpy())
    count = int(np.searchsorted(pca.explained_variance_ratio_.cumsum(), 0.5)) + 1
    pca = PCA(count, svd_solver="full").fit(faces.flatten(1).numpy())
    shown = torch.from_numpy(pca.inverse_transform(pca.transform(faces.flatten(1).numpy())))
    expected = naive_k_same(shown.float().reshape(faces.shape), 4).clamp(0, 1)
    method = KSameEigen(k=4, variance=0.5)
    method.fit(faces, subjects)
    torch.testing.assert_close(method.deidentify(faces, seed=0), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cls", K_SAME)
def test_the_order_of_the_images_and_the_batches_change_nothing(cls: type[KSame]) -> None:
    subjects = names([2, 1, 3, 2, 1, 2, 3, 1])
    faces = random_faces(len(subjects))
    one, other = cls(k=3), cls(k=3)
    one.fit(faces, subjects)
    other.fit(faces.flip(0), subjects[::-1])
    together = one.deidentify(faces, seed=0)
    batches = torch.cat([other.deidentify(face, seed=1) for face in faces[:, None]])
    torch.testing.assert_close(together, batches, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cls", K_SAME)
def test_near_duplicates_are_told_apart(cls: type[KSame]) -> None:
    """One grey level in one pixel is enough to find the right person."""
    faces = random_faces(1, size=40).repeat(4, 1, 1, 1)
    faces[1:, 0, 0, 0] = faces[0, 0, 0, 0] + torch.tensor([1, 2, 3]) / 255
    method = cls(k=1)
    method.fit(faces, ["a", "b", "c", "d"])
    torch.testing.assert_close(method.deidentify(faces, seed=0), faces, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cls", K_SAME)
def test_a_stranger_is_shown_as_the_nearest_of_the_set(cls: type[KSame]) -> None:
    faces = random_faces(10)
    method = cls(k=2)
    method.fit(faces, [str(i) for i in range(10)])
    near = (faces + 0.01).clamp(0, 1)
    assert torch.equal(method.deidentify(near, seed=0), method.deidentify(faces, seed=0))


@pytest.mark.parametrize("cls", [*K_SAME, Eigenface])
def test_a_set_has_to_come_first(cls: type[KSame]) -> None:
    method = cls()
    with pytest.raises(DeidbenchError, match="call fit first"):
        method.deidentify(random_faces(2), seed=0)
    method.fit(random_faces(30), [str(i) for i in range(30)])
    with pytest.raises(DeidbenchError, match="with faces of the same size"):
        method.deidentify(random_faces(2, size=13), seed=0)


@pytest.mark.parametrize("cls", [*K_SAME, Eigenface])
def test_an_empty_batch_stays_empty(cls: type[KSame]) -> None:
    method = cls()
    method.fit(random_faces(30), [str(i) for i in range(30)])
    assert method.deidentify(random_faces(2)[:0], seed=0).shape == (0, 3, 12, 12)


@pytest.mark.parametrize("cls", K_SAME)
@pytest.mark.parametrize(("strength", "k"), [(0.0, 1), (None, 5), (0.5, 5), (0.75, 11), (1.0, 25)])
def test_the_strength_moves_k(cls: type[KSame], strength: float | None, k: int) -> None:
    assert cls(strength).k == k
    assert cls(strength).parameters["k"] == k
    assert cls(k=k).strength is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, but got 0"),
        ({"k": 2.5}, "k must be a whole number of at least 1, but got 2.5"),
        ({"k": 3, "strength": 0.5}, "give one of them"),
        ({"strength": 1.5}, r"strength must be in \[0, 1\]"),
        ({"variance": 0.0}, r"variance must be in \(0, 1\]"),
        ({"variance": float("nan")}, r"variance must be in \(0, 1\]"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(DeidbenchError, match=message):
        KSameEigen(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("variance", [0.3, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("count", [2, 9, 40])
def test_the_components_equal_those_of_scikit_learn(variance: float, count: int) -> None:
    faces = random_faces(count, seed=count).flatten(1)
    space = Eigenspace(faces, variance)
    pca = PCA(svd_solver="full").fit(faces.numpy())
    explained = pca.explained_variance_ratio_.cumsum()
    wanted = min(int((explained < variance - 1e-9).sum()) + 1, count - 1)
    assert len(space.axes) == wanted
    rest = PCA(wanted, svd_solver="full").fit(faces.numpy())
    expected = rest.inverse_transform(rest.transform(faces.numpy()))
    np.testing.assert_allclose(space.restore(space.project(faces)), expected, atol=2e-5)


def test_a_large_set_is_sampled_evenly() -> None:
    faces = random_faces(2 * LARGEST_SAMPLE, size=3).flatten(1)
    torch.testing.assert_close(Eigenspace(faces, 1.0).axes, Eigenspace(faces[::2], 1.0).axes)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_equal_faces_have_no_components(strength: float) -> None:
    faces = random_faces(1).repeat(5, 1, 1, 1)
    method = Eigenface(strength)
    method.fit(faces, list("abcde"))
    torch.testing.assert_close(method.deidentify(faces, seed=0), faces)


def test_eigenfaces_go_from_the_face_to_the_mean_face() -> None:
    faces = random_faces(30)
    distances = []
    for step in range(6):
        method = Eigenface(step / 5)
        method.fit(faces, [""] * 30)
        treated = method.deidentify(faces, seed=0)
        distances.append(float((treated - faces).square().mean()))
    assert distances == sorted(distances)
    assert distances[0] < 1e-9
    torch.testing.assert_close(treated, faces.mean(0).expand_as(faces))


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8])
def test_eigenfaces_keep_the_variance_that_the_strength_names(strength: float) -> None:
    faces = 0.3 + 0.4 * random_faces(60)  # away from 0 and 1, where values would be clipped
    method = Eigenface(strength)
    method.fit(faces, [""] * 60)
    kept = method.deidentify(faces, seed=0).var(0).sum() / faces.var(0).sum()
    assert 1 - strength**2 <= float(kept) <= 1 - strength**2 + 0.05


def test_eigenfaces_of_nobody_are_refused() -> None:
    with pytest.raises(DeidbenchError, match="no faces to fit"):
        Eigenface().fit(random_faces(1)[:0], [])
