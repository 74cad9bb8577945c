from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from torch import Tensor

from deidbench import plugins
from deidbench.datasets.synthid import SynthID
from deidbench.images import read_image
from deidbench.threats import _purifiers
from deidbench.threats._restorers import filtered, fingerprint, gaussian, on_pixels, reflected
from deidbench.threats.purified import Purified
from deidbench.types import Embeddings, Restorer

NAMES = ["jpeg-75", "blur", "resize", "median", "denoise"]
relaxed = settings(deadline=None, max_examples=20)  # a first call of torch is slow


def restorer(name: str) -> Restorer:
    return next(one for one in Purified().restorers({}) if one.name == name)


def random_faces(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(256, (count, 3, height, width), generator=generator) / 255


def rendered_faces() -> Tensor:
    images = [read_image(sample.path) for sample in SynthID().samples()[::96]]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[..., ::2, ::2] / 255


def test_the_five_of_the_protocol_are_found_by_name() -> None:
    threat = plugins.build("threats", "P")
    assert [one.name for one in threat.restorers({})] == NAMES
    assert (threat.kind, threat.enrolled, threat.probe) == ("images", "clean", "treated")
    assert threat.views == ("landmarks",)


def test_thresholds_come_from_clean_pairs() -> None:
    embeddings = Embeddings(clean=np.eye(3), treated=np.ones((3, 3)))
    assert all((side == np.eye(3)).all() for side in Purified().calibrate(embeddings))
    assert (Purified().attack(embeddings)[1] == 1).all()


@pytest.mark.parametrize("name", NAMES)
@given(height=st.integers(2, 40), width=st.integers(2, 40))
@relaxed
def test_every_filter_keeps_the_contract(name: str, height: int, width: int) -> None:
    faces = random_faces(height, width)
    before = faces.clone()
    done = restorer(name)(faces)
    assert done.shape == faces.shape
    assert done.dtype == torch.float32
    assert bool(((done >= 0) & (done <= 1)).all())
    assert torch.equal(done, restorer(name).to("cpu")(faces))
    assert torch.equal(faces, before)


@pytest.mark.parametrize("name", NAMES)
@given(level=st.integers(0, 255), side=st.integers(1, 40))
@relaxed
def test_a_constant_face_stays_as_it_is(name: str, level: int, side: int) -> None:
    faces = torch.full((1, 3, side, side), level / 255)
    torch.testing.assert_close(restorer(name)(faces), faces, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_faces_are_filtered_one_by_one(name: str) -> None:
    faces = random_faces(24, 31, count=3)
    alone = torch.cat([restorer(name)(face[None]) for face in faces])
    torch.testing.assert_close(restorer(name)(faces), alone)
    assert restorer(name)(faces[:0]).shape == (0, 3, 24, 31)


@pytest.mark.parametrize("name", NAMES)
def test_every_filter_takes_noise_away(name: str) -> None:
    faces = rendered_faces()
    noise = 0.05 * torch.randn(faces.shape, generator=torch.Generator().manual_seed(0))
    noisy = (faces + noise).clamp(0, 1)
    cleaned = restorer(name)(noisy)
    assert (cleaned - faces).square().mean() < 0.95 * (noisy - faces).square().mean()


def test_a_denoiser_keeps_an_edge_that_a_blur_washes_out() -> None:
    faces = torch.zeros(1, 3, 160, 160)
    faces[..., 80:] = 0.8
    torch.testing.assert_close(restorer("denoise")(faces), faces, rtol=0, atol=1 / 255)
    assert (restorer("blur")(faces) - faces).abs().max() > 0.05


def test_the_jpeg_is_a_file_of_quality_75() -> None:
    pixels = (rendered_faces()[0] * 255).byte().permute(1, 2, 0).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    assert (_purifiers.compressed(pixels) == np.asarray(Image.open(file))).all()


def test_the_median_is_that_of_scipy() -> None:
    pixels = (random_faces(20, 23)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    window = (_purifiers.WINDOW, _purifiers.WINDOW, 1)
    assert (
        _purifiers.median(pixels) == ndimage.median_filter(pixels, window, mode="nearest")
    ).all()


@given(sigma=st.floats(0.3, 6), side=st.integers(2, 30))
@relaxed
def test_the_gaussian_is_that_of_scipy(sigma: float, side: int) -> None:
    face = random_faces(side, side + 5, count=1)
    radius = len(gaussian(sigma)) // 2
    oracle = ndimage.gaussian_filter(
        face.double().numpy(), (0, 0, sigma, sigma), mode="reflect", radius=radius
    )
    np.testing.assert_allclose(filtered(face, gaussian(sigma)).numpy(), oracle, atol=2e-6)


@given(side=st.integers(1, 12), radius=st.integers(0, 40))
@relaxed
def test_images_go_on_beyond_their_edge_as_numpy_mirrors_them(side: int, radius: int) -> None:
    face = random_faces(side, side + 1, count=1)
    pad = [(0, 0), (0, 0), (radius, radius), (radius, radius)]
    assert (reflected(face, radius).numpy() == np.pad(face.numpy(), pad, mode="symmetric")).all()


@pytest.mark.parametrize("sigma", [0.0, 2.0, 10.0, 30.0])
def test_the_noise_of_a_flat_picture_is_found(sigma: float) -> None:
    noise = np.random.default_rng(0).normal(128, sigma, (160, 160, 3)).clip(0, 255)
    assert _purifiers.noise_level(noise.round().astype(np.uint8)) == pytest.approx(
        sigma,
        rel=0.05,
        abs=0.4,  # the median of whole levels is itself a step
    )


def test_pixels_come_back_as_they_went() -> None:
    faces = random_faces(7, 9)
    assert torch.equal(on_pixels(faces, lambda pixels: pixels), faces)


def test_each_filter_has_a_fingerprint_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [one.fingerprint for one in Purified().restorers({})]
    assert len(set(first)) == 5
    assert first == [one.fingerprint for one in Purified().restorers({})]
    monkeypatch.setattr(_purifiers, "VERSION", _purifiers.VERSION + 1)
    assert not set(first) & {one.fingerprint for one in Purified().restorers({})}


def test_a_fingerprint_changes_with_all_that_it_is_made_of() -> None:
    known = [
        fingerprint("a", 1, {"x": np.zeros(3, np.float32)}),
        fingerprint("b", 1, {"x": np.zeros(3, np.float32)}),
        fingerprint("a", 2, {"x": np.zeros(3, np.float32)}),
        fingerprint("a", 1, {"y": np.zeros(3, np.float32)}),
        fingerprint("a", 1, {"x": np.array([0, 0, 1e-7], np.float32)}),
        fingerprint("a", 1, {"x": np.zeros((3, 1), np.float32)}),
        fingerprint("a", 1, {}),
    ]
    assert len(set(known)) == len(known)
    both = {"x": np.ones(2), "y": np.zeros(2)}
    assert fingerprint("a", 1, both) == fingerprint("a", 1, dict(reversed(both.items())))
