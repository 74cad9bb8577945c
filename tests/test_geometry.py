import pytest
import torch

from deidbench import geometry


def test_similarity_transform_recovers_a_known_one() -> None:
    angle, scale = torch.tensor(0.3), 1.7
    rotation = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
    )
    shift = torch.tensor([4.0, -9.0])
    source = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(0)) * 100
    target = source @ (scale * rotation).T + shift
    found = geometry.similarity_transform(source, target)
    expected = torch.cat([scale * rotation, shift[:, None]], 1).expand(3, 2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(geometry.apply(found, source), target, rtol=1e-4, atol=1e-2)


def test_similarity_transform_equals_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.transform")
    source = torch.rand(4, 5, 2, generator=torch.Generator().manual_seed(1)) * 100
    found = geometry.similarity_transform(source, geometry.ARC112)
    for points, ours in zip(source, found, strict=True):
        theirs = skimage.estimate_transform("similarity", points.numpy(), geometry.ARC112.numpy())
        torch.testing.assert_close(
            ours, torch.from_numpy(theirs.params[:2]).float(), rtol=1e-3, atol=2e-3
        )


def test_warp_with_the_identity_changes_nothing() -> None:
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    identity = torch.eye(2, 3).expand(2, 2, 3)
    torch.testing.assert_close(geometry.warp(images, identity, 20), images)


def test_warp_moves_a_pixel_where_the_transform_says() -> None:
    image = torch.zeros(1, 3, 20, 20)
    image[..., 5, 7] = 1  # y = 5, x = 7
    shift = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]]])
    assert geometry.warp(image, shift, 20)[0, 0, 3, 10] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("factor", [1, 4])
def test_a_shrinking_warp_agrees_with_plain_averaging(factor: int) -> None:
    """A smooth ramp keeps its values and its place, however much it is shrunk."""
    size = 32 * factor
    ramp = torch.linspace(0, 1, size).expand(1, 3, size, size).contiguous()
    transform = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]) / factor
    shrunk = geometry.warp(ramp, transform, 32)
    columns = torch.arange(4, 28) * factor / (size - 1)
    torch.testing.assert_close(shrunk[0, 0, 16, 4:28], columns, rtol=0, atol=1e-4)


def test_align_puts_the_landmarks_on_the_template() -> None:
    template = geometry.chip_template()
    image = torch.zeros(1, 3, 300, 300)
    landmarks = template * 1.5 + 20
    x, y = (round(float(v)) for v in landmarks[2])
    image[..., y - 2 : y + 3, x - 2 : x + 3] = 1
    chip = geometry.align(image, landmarks[None], template, 160)[0, 0]
    at = torch.nonzero(chip > 0.5).float().mean(0).flip(0)
    torch.testing.assert_close(at, template[2], rtol=0, atol=0.7)


@pytest.mark.parametrize("size", [160, 224, 256, 512])
def test_a_face_is_warped_alike_alone_and_in_company(size: int) -> None:
    """Landmarks a little off the template put scales on both sides of the natural ratios."""
    random = torch.Generator().manual_seed(0)
    chips = torch.rand(16, 3, size, size, generator=random)
    noise = torch.randn(16, 5, 2, generator=random) * size / 100
    landmarks = geometry.chip_template(size) + noise
    together = geometry.align(chips, landmarks, geometry.ARC112, 112)
    for row in range(16):
        one = slice(row, row + 1)
        alone = geometry.align(chips[one], landmarks[one], geometry.ARC112, 112)
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-5)


def test_no_images_are_warped_to_none() -> None:
    assert geometry.warp(torch.zeros(0, 3, 8, 8), torch.zeros(0, 2, 3), 4).shape == (0, 3, 4, 4)


def test_mixed_precision_around_it_moves_no_landmark() -> None:
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    points = geometry.chip_template(64).expand(2, 5, 2) + 1.3
    plain = geometry.align(faces, points, geometry.chip_template(48), 48)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = geometry.align(faces, points, geometry.chip_template(48), 48)
    assert torch.equal(mixed, plain)
