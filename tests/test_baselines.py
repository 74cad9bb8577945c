from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from deidbench_baselines.blackout import Blackout
from deidbench_baselines.gaussian_blur import GaussianBlur
from deidbench_baselines.identity import Identity
from deidbench_baselines.pixelate import Pixelate
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.images import read_image
from deidbench.testing import check_method
from deidbench.types import Method

GRADED: list[type[Method]] = [GaussianBlur, Pixelate]
SINGLE: list[type[Method]] = [Identity, Blackout]
METHODS: list[Method] = [Identity(), Blackout(), GaussianBlur(), Pixelate()]
strengths = st.floats(0, 1)
sides = st.integers(1, 40)
relaxed = settings(deadline=None, max_examples=50)  # a first call of torch is slow


def random_faces(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.rand(count, 3, height, width, generator=generator)


def real_like_faces() -> Tensor:
    images = [read_image(sample.path) for sample in SynthID().samples()[::20]]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[..., ::2, ::2] / 255


def naive_blur(faces: Tensor, sigma: float) -> NDArray[np.float64]:
    """The independent count: scipy's filter, image by image, with the same end of the kernel."""
    return np.stack(
        [
            ndimage.gaussian_filter(plane, sigma, mode="reflect", truncate=4.0)
            for plane in faces.double().numpy().reshape(-1, *faces.shape[-2:])
        ]
    ).reshape(faces.shape)


def naive_mosaic(faces: Tensor, blocks: int) -> NDArray[np.float64]:
    """The independent count: one slice and one mean for each block."""
    mosaic = faces.double().numpy().copy()
    height, width = mosaic.shape[-2:]

    def edges(side: int) -> list[int]:
        return [-(-side * i // min(blocks, side)) for i in range(min(blocks, side) + 1)]

    for top, bottom in zip(edges(height), edges(height)[1:], strict=False):
        for left, right in zip(edges(width), edges(width)[1:], strict=False):
            block = mosaic[..., top:bottom, left:right]
            block[...] = block.mean((-2, -1), keepdims=True)
    return mosaic


@pytest.mark.parametrize("size", [112, 160])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_baseline_keeps_the_contract(method: Method, size: int) -> None:
    check_method(method, size=size)


@pytest.mark.parametrize("cls", GRADED)
@pytest.mark.parametrize("strength", [0.0, 1e-9, 0.3, 1.0])
def test_every_strength_keeps_the_contract(cls: type[Method], strength: float) -> None:
    method = cls(strength)  # type: ignore[call-arg]
    assert method.strength == strength
    check_method(method, size=33)


@pytest.mark.parametrize("cls", GRADED)
@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_strength_outside_0_to_1_is_refused(cls: type[Method], strength: float) -> None:
    with pytest.raises(DeidbenchError, match=r"must be in \[0, 1\], but got"):
        cls(strength)  # type: ignore[call-arg]


@pytest.mark.parametrize("cls", SINGLE)
@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_a_strength_is_refused_where_there_is_none(cls: type[Method], strength: float) -> None:
    assert cls().strength is None
    with pytest.raises(DeidbenchError, match="single setting"):
        cls(strength)  # type: ignore[call-arg]


def test_identity_returns_a_copy() -> None:
    faces = random_faces(9, 9)
    treated = Identity().deidentify(faces, seed=0)
    assert torch.equal(treated, faces)
    assert treated.data_ptr() != faces.data_ptr()


def test_blackout_says_nothing_about_the_face() -> None:
    faces = random_faces(16, 16)
    treated = Blackout().deidentify(faces, seed=0)
    assert torch.equal(treated, Blackout().deidentify(1 - faces, seed=1))
    assert treated.min() == treated.max()


@pytest.mark.parametrize("cls", GRADED)
def test_strength_0_changes_nothing(cls: type[Method]) -> None:
    faces = random_faces(21, 34)
    treated = cls(0.0).deidentify(faces, seed=0)  # type: ignore[call-arg]
    assert torch.equal(treated, faces)


@pytest.mark.parametrize("cls", GRADED)
def test_a_stronger_treatment_moves_real_structure_further(cls: type[Method]) -> None:
    faces = real_like_faces()
    distances = [
        float((cls(s / 10).deidentify(faces, seed=0) - faces).abs().mean())  # type: ignore[call-arg]
        for s in range(11)
    ]
    assert distances == sorted(distances)
    assert distances[10] > 2 * distances[3] > 0


@pytest.mark.parametrize("cls", GRADED)
def test_the_default_strength_is_a_half(cls: type[Method]) -> None:
    faces = random_faces(32, 32)
    assert cls().strength == 0.5
    halves = cls(0.5).deidentify(faces, seed=0)  # type: ignore[call-arg]
    assert torch.equal(cls().deidentify(faces, seed=0), halves)


@pytest.mark.parametrize("cls", GRADED)
@relaxed
@given(strength=strengths, height=sides, width=sides)
def test_a_flat_face_is_left_flat(
    cls: type[Method], strength: float, height: int, width: int
) -> None:
    faces = torch.full((1, 3, height, width), 0.7)
    treated = cls(strength).deidentify(faces, seed=0)  # type: ignore[call-arg]
    torch.testing.assert_close(treated, faces)


@pytest.mark.parametrize("cls", GRADED)
@relaxed
@given(strength=strengths, height=sides, width=sides)
def test_no_colour_lies_beyond_those_of_the_face(
    cls: type[Method], strength: float, height: int, width: int
) -> None:
    faces = random_faces(height, width)
    treated = cls(strength).deidentify(faces, seed=0)  # type: ignore[call-arg]
    assert float(treated.min()) >= float(faces.min()) - 1e-5
    assert float(treated.max()) <= float(faces.max()) + 1e-5


@pytest.mark.parametrize("cls", GRADED)
def test_a_strength_means_the_same_at_every_resolution(cls: type[Method]) -> None:
    small = real_like_faces()[..., :112, :112]
    large = small.repeat_interleave(4, -1).repeat_interleave(4, -2)
    method = cls(0.5)  # type: ignore[call-arg]
    shrunk = torch.nn.functional.avg_pool2d(method.deidentify(large, seed=0), 4)
    assert float((shrunk - method.deidentify(small, seed=0)).abs().max()) < 0.02


@pytest.mark.parametrize("cls", [*GRADED, *SINGLE])
def test_a_face_is_treated_alike_alone_and_in_a_batch(cls: type[Method]) -> None:
    faces = random_faces(24, 24, count=4)
    together = cls().deidentify(faces, seed=0)
    alone = torch.cat([cls().deidentify(face, seed=0) for face in faces[:, None]])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("cls", [*GRADED, *SINGLE])
def test_an_empty_batch_stays_empty(cls: type[Method]) -> None:
    assert cls().deidentify(torch.empty(0, 3, 16, 16), seed=0).shape == (0, 3, 16, 16)


@relaxed
@given(strength=strengths, height=sides, width=sides)
def test_blur_equals_scipy(strength: float, height: int, width: int) -> None:
    faces = random_faces(height, width)
    sigma = strength * (1 + strength) / 16 * min(height, width)
    treated = GaussianBlur(strength).deidentify(faces, seed=0)
    np.testing.assert_allclose(treated, naive_blur(faces, sigma), atol=1e-5)


@relaxed
@given(strength=strengths, height=sides, width=sides)
def test_blur_keeps_the_mean_of_each_face(strength: float, height: int, width: int) -> None:
    faces = random_faces(height, width)
    treated = GaussianBlur(strength).deidentify(faces, seed=0)
    torch.testing.assert_close(treated.mean((-2, -1)), faces.mean((-2, -1)))


def test_blur_reaches_further_than_the_side_of_a_narrow_image() -> None:
    faces = random_faces(8, 3)
    method = GaussianBlur(1.0)
    method._sigma_per_side = 5.0  # 15 px, so that the kernel covers the image many times
    np.testing.assert_allclose(method.deidentify(faces, seed=0), naive_blur(faces, 15), atol=1e-5)


@pytest.mark.parametrize(("strength", "blocks"), [(1.0, 4), (0.5, 16), (0.4, 25), (0.9, 5)])
@pytest.mark.parametrize(("height", "width"), [(160, 160), (112, 112), (37, 61), (3, 5)])
def test_mosaic_equals_a_loop_over_blocks(
    strength: float, blocks: int, height: int, width: int
) -> None:
    faces = random_faces(height, width)
    treated = Pixelate(strength).deidentify(faces, seed=0)
    np.testing.assert_allclose(treated, naive_mosaic(faces, blocks), atol=1e-5)


def test_default_mosaic_of_a_chip_has_blocks_of_10_pixels() -> None:
    treated = Pixelate().deidentify(random_faces(160, 160, count=1), seed=0)
    tiles = treated.unfold(2, 10, 10).unfold(3, 10, 10).flatten(-2)
    assert tiles.shape[2:4] == (16, 16)
    assert torch.equal(tiles.amin(-1), tiles.amax(-1))
    assert len(set(tiles[0, 0].amin(-1).flatten().tolist())) == 256


@relaxed
@given(strength=strengths, height=sides, width=sides)
def test_a_mosaic_of_a_mosaic_is_itself(strength: float, height: int, width: int) -> None:
    method = Pixelate(strength)
    once = method.deidentify(random_faces(height, width), seed=0)
    torch.testing.assert_close(method.deidentify(once, seed=0), once)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cls", [*GRADED, *SINGLE])
def test_a_gpu_gives_what_the_cpu_gives(cls: type[Method]) -> None:
    check_method(cls(), device="cuda")
    faces = random_faces(160, 160)
    treated = cls().deidentify(faces.cuda(), seed=0).cpu()
    torch.testing.assert_close(treated, cls().deidentify(faces, seed=0), atol=1e-5, rtol=0)


def test_the_guide_for_plugins_shows_pixelate_as_it_is() -> None:
    guide = Path(__file__).parents[1] / "docs" / "plugins.md"
    module = Path(__file__).parents[1] / "baselines" / "deidbench_baselines" / "pixelate.py"
    assert module.read_text("utf-8") in guide.read_text("utf-8")
