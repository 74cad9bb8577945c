"""What happens to a face on its way to a recognizer: every step against an independent one."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from deidbench.geometry import chip_template
from fadenet.diversity import diversify, jpeg, median
from tests.small_fadenet import faces_of


def pillow(face: Tensor) -> Image.Image:
    """(3, H, W) in [0, 1] as a picture."""
    return Image.fromarray((face * 255).round().byte().permute(1, 2, 0).numpy())


def back(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def noisy(size: tuple[int, int]) -> Tensor:
    """Faces (2, 3, H, W) with some grain, in steps of 1/255."""
    grain = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    return ((faces_of(2, *size) + 0.04 * grain).clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("quality", [30, 50, 75, 95])
@pytest.mark.parametrize("size", [(64, 64), (70, 53)])
def test_jpeg_is_that_of_libjpeg_within_a_few_steps(quality: int, size: tuple[int, int]) -> None:
    faces = noisy(size)
    ours = jpeg(faces, quality)
    for face, mine in zip(faces, ours, strict=True):
        file = io.BytesIO()
        pillow(face).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        theirs = back(Image.open(file))
        lost = float((theirs - face).abs().mean())
        assert float((mine - theirs).abs().mean()) < max(0.15 * lost, 2 / 255)


def test_more_quality_loses_less() -> None:
    faces = noisy((64, 64))
    lost = [float((jpeg(faces, quality) - faces).square().mean()) for quality in (20, 50, 75, 95)]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 2 * lost[-1]


def test_jpeg_passes_gradients_of_smooth_changes() -> None:
    faces = faces_of(1, 32, 32).mul(0.8).add(0.1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(jpeg(faces, 75).mean(), faces)
    # Brightening everything brightens the result alike.
    assert float(gradient.sum()) == pytest.approx(1.0, abs=0.02)


def test_the_median_is_that_of_pillow() -> None:
    faces = noisy((24, 31))
    for face, mine in zip(faces, median(faces), strict=True):
        theirs = back(pillow(face).filter(ImageFilter.MedianFilter(3)))
        inner = (slice(None), slice(1, -1), slice(1, -1))
        torch.testing.assert_close(mine[inner], theirs[inner], atol=1e-6, rtol=0)


def test_diversity_keeps_the_landmarks_on_the_face() -> None:
    size = 96
    template = chip_template(size)
    faces = torch.zeros(1, 3, size, size)
    x, y = template[2].round().int().tolist()
    faces[:, :, y - 4 : y + 5, x - 4 : x + 5] = 1.0  # a white nose
    hits = []
    for seed in range(24):
        out, points = diversify(faces, template[None], torch.Generator().manual_seed(seed))
        column, row = points[0, 2].round().int().tolist()
        hits.append(float(out[0, :, row, column].mean()))
    assert np.mean(np.array(hits) > 0.7) > 0.7


def test_without_views_and_filters_a_critic_sees_the_face_itself() -> None:
    faces, points = faces_of(2, 48, 48), chip_template(48).expand(2, 5, 2)
    changed = set()
    for seed in range(12):
        random = torch.Generator().manual_seed(seed)
        out, kept = diversify(faces, points, random, views=False, filters=False)
        assert torch.equal(out, faces) and torch.equal(kept, points)
        out, kept = diversify(faces, points, random, views=False)
        assert torch.equal(kept, points)  # a filter moves nothing
        changed.add(torch.equal(out, faces))
    assert changed == {True, False}


def test_diversity_is_a_function_of_its_generator_and_passes_gradients() -> None:
    faces = faces_of(2, 48, 48).requires_grad_(True)
    points = chip_template(48).expand(2, 5, 2)
    first, _ = diversify(faces, points, torch.Generator().manual_seed(3))
    second, _ = diversify(faces, points, torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(first.sum(), faces)
    assert float(gradient.abs().sum()) > 0
