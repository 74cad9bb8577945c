from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import pytest
import torch
from deidbench_baselines.downscale import Downscale
from deidbench_baselines.dp_pix import DPPix
from deidbench_baselines.jpeg import Jpeg
from deidbench_baselines.median import Median
from deidbench_baselines.noise import Noise
from deidbench_baselines.pixelate import Pixelate
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from deidbench import plugins
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.images import read_image
from deidbench.testing import check_method
from deidbench.types import Method

CLASSES: list[type[Method]] = [Downscale, Noise, Median, Jpeg, DPPix]
SEEDED: list[type[Method]] = [Noise, DPPix]
NAMES = ["downscale", "noise", "median", "jpeg", "dp-pix"]
strengths = st.floats(0, 1)
sides = st.integers(1, 40)
relaxed = settings(deadline=None, max_examples=25)  # a first call of torch is slow


def built(cls: type[Method], strength: float | None = None) -> Method:
    return cls(strength)  # type: ignore[call-arg]


def random_faces(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(256, (count, 3, height, width), generator=generator) / 255


def rendered_faces() -> Tensor:
    images = [read_image(sample.path) for sample in SynthID().samples()[::96]]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[..., ::4, ::4] / 255


@pytest.mark.parametrize("strength", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_each_method_keeps_the_contract_by_its_name(name: str, strength: float | None) -> None:
    method = plugins.build("methods", name, strength=strength)
    assert method.name == name
    assert method.strength == (0.5 if strength is None else strength)
    check_method(method, size=40)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_strength_outside_0_to_1_is_refused(cls: type[Method], strength: float) -> None:
    with pytest.raises(DeidbenchError, match=r"must be in \[0, 1\], but got"):
        built(cls, strength)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_empty_batch_stays_empty(cls: type[Method]) -> None:
    assert built(cls).deidentify(torch.empty(0, 3, 16, 16), seed=0).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("cls", [Downscale, Noise, Median])
def test_strength_0_changes_nothing(cls: type[Method]) -> None:
    faces = random_faces(21, 34)
    torch.testing.assert_close(built(cls, 0.0).deidentify(faces, seed=0), faces)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_stronger_treatment_moves_a_face_further(cls: type[Method]) -> None:
    faces = rendered_faces()
    treated = [built(cls, s / 5).deidentify(faces, seed=0) for s in range(6)]
    distances = [float((t - faces).abs().mean()) for t in treated]
    assert distances == sorted(distances)
    assert distances[5] > distances[1]


@pytest.mark.parametrize("cls", [Downscale, Median, Jpeg])
def test_a_face_is_treated_alike_alone_and_in_a_batch(cls: type[Method]) -> None:
    faces = random_faces(24, 24, count=4)
    alone = torch.cat([built(cls).deidentify(face, seed=0) for face in faces[:, None]])
    torch.testing.assert_close(built(cls).deidentify(faces, seed=0), alone)


@pytest.mark.parametrize("method", [Noise(), DPPix(b=1, m=1)], ids=lambda method: method.name)
def test_each_face_and_channel_has_its_own_noise_and_each_seed_another(method: Method) -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    treated = torch.cat([method.deidentify(grey, seed=seed) for seed in (1, 2)])
    closeness = torch.corrcoef(treated.reshape(12, -1)).fill_diagonal_(0)
    assert float(closeness.abs().max()) < 5 / 64  # 5 standard errors


@pytest.mark.parametrize("cls", SEEDED)
def test_the_noise_is_not_that_of_the_programs_own_generator(cls: type[Method]) -> None:
    faces = random_faces(32, 32)
    torch.manual_seed(1)
    one, state = built(cls).deidentify(faces, seed=3), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(built(cls).deidentify(faces, seed=3), one)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def pillow_thumbnail(plane: NDArray[np.float32], pixels: tuple[int, int]) -> NDArray[np.float32]:
    height, width = plane.shape
    small = Image.fromarray(plane).resize(pixels[::-1], Image.Resampling.BICUBIC)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)


@pytest.mark.parametrize(("strength", "pixels"), [(1.0, 4), (0.5, 16), (0.4, 25), (0.2, 100)])
@pytest.mark.parametrize(("height", "width"), [(160, 160), (37, 61), (3, 5)])
def test_downscaling_equals_pillow(strength: float, pixels: int, height: int, width: int) -> None:
    faces = random_faces(height, width)
    treated = Downscale(strength).deidentify(faces, seed=0)
    size = (min(pixels, height), min(pixels, width))
    planes = [pillow_thumbnail(plane, size) for plane in faces.flatten(0, 1).numpy()]
    np.testing.assert_allclose(treated.flatten(0, 1), np.stack(planes), atol=2e-5)


@pytest.mark.parametrize("strength", [0.2, 0.35])
def test_noise_has_the_distribution_that_it_names(strength: float) -> None:
    grey = torch.full((2, 3, 160, 160), 0.5)
    noise = (Noise(strength).deidentify(grey, seed=5) - 0.5).flatten().double().numpy()
    inside = noise[abs(noise) < 0.5]
    assert stats.kstest(inside, stats.norm(scale=strength**2).cdf).pvalue > 1e-3


def test_noise_means_the_same_at_every_resolution() -> None:
    means = []
    for scale in (1, 4):
        grey = torch.full((1, 3, 80 * scale, 80 * scale), 0.5)
        noisy = Noise(0.3).deidentify(grey, seed=5)
        means.append(torch.nn.functional.avg_pool2d(noisy, 4 * scale).std())
    torch.testing.assert_close(means[0], means[1], rtol=0.1, atol=0)


@relaxed
@given(strength=strengths, height=sides, width=sides)
def test_the_median_equals_scipy(strength: float, height: int, width: int) -> None:
    faces = random_faces(height, width, count=1)
    radius = round(strength * (1 + strength) / 10 * min(height, width))
    treated = Median(strength).deidentify(faces, seed=0)
    expected = [ndimage.median_filter(p, 2 * radius + 1, mode="reflect") for p in faces[0].numpy()]
    np.testing.assert_allclose(treated[0], np.stack(expected), atol=1e-6)


def test_the_median_equals_scipy_on_a_face_with_the_widest_window() -> None:
    face = rendered_faces()[:1]
    treated = Median(1.0).deidentify(face, seed=0)
    width = 2 * round(0.2 * face.shape[-1]) + 1
    expected = [ndimage.median_filter(plane, width, mode="reflect") for plane in face[0].numpy()]
    np.testing.assert_allclose(treated[0], np.stack(expected), atol=1e-6)


@pytest.mark.parametrize(("strength", "quality"), [(0.0, 100), (0.5, 25), (0.8, 4), (1.0, 1)])
def test_jpeg_gives_what_a_jpeg_file_holds(strength: float, quality: int) -> None:
    faces = rendered_faces()[:2]
    treated = Jpeg(strength).deidentify(faces, seed=0)
    for face, got in zip(faces, treated, strict=True):
        file = BytesIO()
        pixels = (face.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(file, "jpeg", quality=quality, subsampling="4:4:4")
        expected = np.asarray(Image.open(file)).transpose(2, 0, 1)
        assert np.array_equal((got * 255).round().byte(), expected)


def test_the_best_jpeg_is_almost_the_face() -> None:
    faces = rendered_faces()
    assert float((Jpeg(0.0).deidentify(faces, seed=0) - faces).abs().max()) < 6 / 255


def test_dp_pix_without_noise_is_pixelation() -> None:
    faces = random_faces(160, 160)
    mosaic = Pixelate(math.sqrt(4 / 10)).deidentify(faces, seed=0)  # 10 blocks of 16 pixels
    torch.testing.assert_close(DPPix(0.0).deidentify(faces, seed=0), mosaic)


@pytest.mark.parametrize(("m", "b", "epsilon"), [(16, 16, 2.0), (4, 8, 1.0), (1, 4, 3.0)])
def test_dp_pix_adds_the_laplace_noise_of_the_paper(m: int, b: int, epsilon: float) -> None:
    grey = torch.full((16, 3, 160, 160), 0.5)
    treated = DPPix(epsilon=epsilon, m=m, b=b).deidentify(grey, seed=4)
    cells = treated[..., ::b, ::b]
    noise = 255 * (cells - 0.5).flatten().double().numpy()
    scale = 255 * m / (b**2 * epsilon)
    assert stats.kstest(noise, _clipped(scale)).pvalue > 1e-3
    assert stats.kstest(noise, _clipped(1.2 * scale)).pvalue < 1e-3  # so the test can tell


def _clipped(scale: float) -> object:
    """The distribution function of Laplace noise around mid-grey, clipped to 0 and 255."""
    return lambda x: np.where(x >= 127.5, 1.0, stats.laplace(scale=scale).cdf(x))


def test_dp_pix_shows_one_colour_in_each_cell() -> None:
    cells = (
        DPPix(b=16).deidentify(random_faces(160, 160), seed=0).unfold(2, 16, 16).unfold(3, 16, 16)
    )
    assert torch.equal(cells.amin((-2, -1)), cells.amax((-2, -1)))


@relaxed
@given(data=st.data(), height=sides, width=sides, m=st.integers(1, 40), b=st.integers(1, 20))
def test_no_output_of_dp_pix_tells_neighbours_apart_beyond_epsilon(
    data: st.DataObject, height: int, width: int, m: int, b: int
) -> None:
    """The definition: P(output | face) <= exp(epsilon) P(output | neighbour), for every output."""
    epsilon = data.draw(st.floats(0.01, 10))
    method = DPPix(epsilon=epsilon, m=m, b=b)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    face = torch.from_numpy(rng.random((1, 3, height, width)))
    neighbour = face.clone()
    together = data.draw(st.booleans())  # in one corner they meet in one cell
    changed = np.arange(height * width) if together else rng.permutation(height * width)
    changed = torch.from_numpy(changed[:m])
    neighbour.flatten(2)[..., changed] = data.draw(st.sampled_from([0.0, 1.0]))
    scales = method.scales(height, width)
    output = torch.from_numpy(rng.normal(0.5, 3, (1, 3, *scales.shape)))
    losses = (output - method.means(neighbour)).abs() - (output - method.means(face)).abs()
    each_channel = (losses / scales).sum((-2, -1))
    assert float(each_channel.abs().max()) <= epsilon * (1 + 1e-6)
    assert float(each_channel.sum().abs()) <= 3 * epsilon * (1 + 1e-6)


def test_the_bound_of_dp_pix_is_reached() -> None:
    """m pixels that turn white within one cell spend the whole budget: less noise would not do."""
    method = DPPix(epsilon=0.7, m=16, b=16)
    black = torch.zeros(1, 3, 32, 32)
    white = black.clone()
    white[..., :4, :4] = 1
    output = torch.full((1, 3, 2, 2), 5.0)
    losses = (output - method.means(black)).abs() - (output - method.means(white)).abs()
    loss = (losses / method.scales(32, 32)).sum((-2, -1))
    torch.testing.assert_close(loss, torch.full((1, 3), 0.7, dtype=torch.float64))


@pytest.mark.parametrize(("strength", "epsilon"), [(None, 0.5), (0.25, 2.0), (1.0, 0.125)])
def test_the_strength_of_dp_pix_moves_epsilon(strength: float | None, epsilon: float) -> None:
    method = DPPix(strength)
    assert method.parameters == {"m": 16, "b": 16, "epsilon": epsilon}
    own = DPPix(epsilon=epsilon)
    assert own.strength is None
    faces = random_faces(40, 40)
    assert torch.equal(method.deidentify(faces, seed=0), own.deidentify(faces, seed=0))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"epsilon": float("nan")}, "epsilon must be above 0"),
        ({"epsilon": math.inf}, "epsilon must be above 0"),
        ({"m": 0}, "m must be a whole number of at least 1, but got 0"),
        ({"b": 1.5}, "b must be a whole number of at least 1, but got 1.5"),
        ({"strength": 0.5, "epsilon": 1.0}, "give one of them"),
    ],
)
def test_settings_of_dp_pix_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(DeidbenchError, match=message):
        DPPix(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", [0.0, 1e-200])
def test_dp_pix_promises_no_epsilon_where_there_is_no_noise(strength: float) -> None:
    method = DPPix(strength)
    assert method.parameters == {"m": 16, "b": 16}
    assert torch.isfinite(method.deidentify(random_faces(32, 32), seed=0)).all()
