from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.metrics.lpips import LPIPS, SMALLEST, _features
from deidbench.metrics.psnr import PSNR
from deidbench.metrics.ssim import SSIM
from deidbench.testing import BrokenPromiseError, check_image_metric

psnr, ssim = PSNR(), SSIM()


def smooth(count: int = 3, height: int = 48, width: int = 40, seed: int = 0) -> Tensor:
    """Images with shapes in them, not only noise."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def noisy(images: Tensor, strength: float, seed: int = 1) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + strength * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def alex() -> LPIPS:
    try:
        return LPIPS()
    except AssetUnavailableError as error:
        pytest.skip(f"LPIPS weights cannot be had: {error}")


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory: pytest.TempPathFactory) -> LPIPS:
    """LPIPS of other weights than by default, from a file in torchvision's format."""
    folder = Path(os.environ.get("DEIDBENCH_TEST_ASSETS", "")) / "weights" / "lpips_squeeze"
    if not (folder / "lpips_squeeze.safetensors").is_file():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder with weights/lpips_squeeze")
    safetensors = pytest.importorskip("safetensors.torch")
    stored = safetensors.load_file(folder / "lpips_squeeze.safetensors")
    features = {
        "features." + key.split(".", 2)[2]: value
        for key, value in stored.items()
        if key.startswith("net.")
    }
    path = tmp_path_factory.mktemp("lpips") / "squeezenet.pth"
    torch.save(features, path)
    return LPIPS("squeeze", weights=path)


@pytest.fixture(params=["psnr", "ssim", "lpips"])
def metric(request: pytest.FixtureRequest) -> Any:
    if request.param == "lpips":
        return request.getfixturevalue("alex")
    return {"psnr": psnr, "ssim": ssim}[request.param]


def test_every_image_metric_keeps_its_promises(metric: Any) -> None:
    check_image_metric(metric)


def test_the_check_finds_a_metric_without_a_best_value() -> None:
    class Endless(PSNR):
        def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
            return -super().__call__(original, treated)

    broken = Endless()
    broken.higher_is_better = False
    with pytest.raises(BrokenPromiseError, match="best value"):
        check_image_metric(broken)


def test_identical_images_have_the_best_value(metric: Any) -> None:
    expected = {"psnr": float("inf"), "ssim": 1.0, "lpips": 0.0}[metric.name]
    images = smooth(height=64, width=64)
    assert metric(images, images).tolist() == [expected] * 3


def test_the_order_of_the_two_images_is_free(metric: Any) -> None:
    first, second = smooth(height=64, width=64), noisy(smooth(height=64, width=64), 0.1)
    torch.testing.assert_close(metric(first, second), metric(second, first), rtol=1e-6, atol=1e-7)


def test_more_noise_is_worse(metric: Any) -> None:
    images = smooth(height=64, width=64)
    values = torch.stack([metric(images, noisy(images, s)) for s in (0.02, 0.05, 0.1, 0.2, 0.4)])
    steps = values.diff(dim=0) * (1 if metric.higher_is_better else -1)
    assert bool((steps < 0).all())


def test_an_image_has_the_same_value_alone_and_in_a_batch(metric: Any) -> None:
    images = smooth(5, 64, 64)
    treated = noisy(images, 0.1)
    alone = [metric(images[i : i + 1], treated[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(metric(images, treated), torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_mirroring_both_images_changes_psnr_and_ssim_by_nothing() -> None:
    images = smooth()
    treated = noisy(images, 0.1)
    for metric in (psnr, ssim):
        mirrored = metric(images.flip(-1).mT, treated.flip(-1).mT)
        torch.testing.assert_close(metric(images, treated), mirrored)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((1, 3, 64, 64), float("nan")), r"\[nan, nan\]"),
        (torch.full((1, 3, 64, 64), 1.001), r"\[1.001, 1.001\]"),
        (torch.full((1, 3, 64, 64), -0.5), r"in \[0, 1\], but got"),
        (torch.full((1, 3, 64, 64), 255, dtype=torch.uint8), "divide 0-255 images by 255"),
        (torch.ones(1, 3, 64, 64, dtype=torch.int64), "as floats"),
        (torch.ones(1, 3, 64, 63), r"\(1, 3, 64, 64\) and \(1, 3, 64, 63\)"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_no_image_in_0_1_is_refused(
    metric: Any, bad: Tensor, message: str, swapped: bool
) -> None:
    good = torch.full((1, 3, 64, 64), 0.5)
    if swapped and bad.shape == good.shape:
        good, bad = bad, good
    with pytest.raises(DeidbenchError, match=f"{metric.name}: expected .*{message}"):
        metric(good, bad)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)])
def test_other_shapes_are_refused(metric: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(DeidbenchError, match=r"\(N, 3, H, W\)"):
        metric(torch.zeros(shape), torch.zeros(shape))


def test_an_empty_batch_is_refused(metric: Any) -> None:
    with pytest.raises(DeidbenchError, match="no original images"):
        metric(torch.zeros(0, 3, 64, 64), torch.zeros(0, 3, 64, 64))


def test_half_and_double_precision_give_float32(metric: Any) -> None:
    images = smooth(2, 64, 64)
    treated = noisy(images, 0.2)
    for dtype in (torch.float16, torch.float64):
        values = metric(images.to(dtype), treated.to(dtype))
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, metric(images, treated), rtol=5e-3, atol=5e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_changes_nothing(metric: Any) -> None:
    images = smooth(4, 64, 64)
    treated = noisy(images, 0.1)
    expected = metric(images, treated)
    found = metric.to("cuda")(images.cuda(), treated.cuda()).cpu()
    metric.to("cpu")
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4)


@given(st.floats(1e-4, 1), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_psnr_of_a_constant_shift_is_its_closed_form(shift: float, size: int) -> None:
    dark = torch.zeros(1, 3, size, size)
    found = float(psnr(dark, dark + shift))
    assert found == pytest.approx(-20 * np.log10(shift), abs=1e-3)


def test_psnr_equals_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    images = smooth(4)
    for strength in (0.001, 0.05, 0.5):
        treated = noisy(images, strength)
        for a, b, ours in zip(images, treated, psnr(images, treated), strict=True):
            theirs = skimage.peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1)
            assert float(ours) == pytest.approx(theirs, abs=1e-4)


def cases() -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs that differ in kind: texture, flat areas, black and white, tiny changes."""
    shapes = smooth(2, 40, 57)
    checks = (torch.arange(40)[:, None] // 4 + torch.arange(57) // 4).remainder(2).float()
    checks = checks.expand(2, 3, 40, 57)
    white = torch.ones(2, 3, 40, 57)
    return {
        "noise": (shapes, noisy(shapes, 0.1)),
        "strong noise": (shapes, noisy(shapes, 1.0)),
        "tiny change": (shapes, noisy(shapes, 1e-3)),
        "negative": (shapes, 1 - shapes),
        "checks": (checks, noisy(checks, 0.05)),
        "checks and their negative": (checks, 1 - checks),
        "white and almost white": (white, noisy(white, 1e-3)),
        "white and grey": (white, white * 0.6),
        "flat grey and texture": (white * 0.5, shapes),
        "smallest": (shapes[..., :11, :11], noisy(shapes, 0.1)[..., :11, :11]),
    }


@pytest.mark.parametrize("case", cases())
def test_ssim_equals_scikit_image(case: str) -> None:
    skimage = pytest.importorskip("skimage.metrics")
    original, treated = cases()[case]
    for a, b, ours in zip(original, treated, ssim(original, treated), strict=True):
        theirs = skimage.structural_similarity(
            a.double().numpy(), b.double().numpy(), gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1, channel_axis=0,
        )  # fmt: skip
        assert float(ours) == pytest.approx(theirs, abs=1e-5)


def test_ssim_equals_torchmetrics_inside_the_border() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    original, treated = cases()["noise"]
    _, full = functional.structural_similarity_index_measure(
        original.double(), treated.double(), data_range=1.0, return_full_image=True
    )
    # Its mean includes a border where the window hangs over mirrored pixels; ours does not.
    inside = full[..., 5:-5, 5:-5].mean((1, 2, 3))
    torch.testing.assert_close(ssim(original, treated).double(), inside, rtol=0, atol=1e-5)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(DeidbenchError, match="at least 11 x 11 pixels, but got 64 x 10"):
        ssim(torch.zeros(1, 3, 64, 10), torch.zeros(1, 3, 64, 10))


def test_importing_the_lpips_metric_imports_no_network() -> None:
    code = (
        "import sys, deidbench.metrics.lpips\n"
        "sys.exit(bool({'lpips', 'torchvision', 'skimage'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lpips_maps_images_to_the_range_it_was_fitted_to(alex: LPIPS) -> None:
    """The network itself, given [-1, 1], agrees; given [0, 1] it says something else."""
    images = smooth(2, 64, 64)
    treated = noisy(images, 0.1)
    found = alex(images, treated)
    theirs = alex._model(images, treated, normalize=True).flatten()
    torch.testing.assert_close(found, theirs)
    unscaled = alex._model(images, treated).flatten()
    assert not torch.allclose(found, unscaled, rtol=0.02)


def test_lpips_equals_torchmetrics_with_the_same_weights(alex: LPIPS) -> None:
    pytest.importorskip("torchmetrics")
    from torchmetrics.functional.image.lpips import _LPIPS

    ours = alex._model.state_dict()
    theirs = _LPIPS(pretrained=False, net="alex", pnet_rand=True)
    kept = {key: value for key, value in ours.items() if key in theirs.state_dict()}
    theirs.load_state_dict(kept)
    theirs.eval()
    images = smooth(2, 64, 64)
    treated = noisy(images, 0.1)
    with torch.no_grad():
        expected = theirs(images, treated, normalize=True).flatten()
    torch.testing.assert_close(alex(images, treated), expected, rtol=1e-5, atol=1e-6)


def test_lpips_is_frozen_complete_and_silent(
    alex: LPIPS, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.random.get_rng_state()
    again = LPIPS()
    assert torch.equal(state, torch.random.get_rng_state())
    assert capsys.readouterr().out == ""
    assert (again.name, LPIPS.kind) == ("lpips", "image")
    assert not any(parameter.requires_grad for parameter in again._model.parameters())
    assert not any(parameter.is_meta for parameter in again._model.state_dict().values())
    assert not again._model.training
    assert again.to("cpu") is again
    images = smooth(1, 64, 64)
    assert torch.equal(again(images, noisy(images, 0.1)), alex(images, noisy(images, 0.1)))


def test_lpips_accepts_the_smallest_image_and_refuses_a_smaller_one(alex: LPIPS) -> None:
    size = SMALLEST["alex"]
    assert float(alex(torch.zeros(1, 3, size, size), torch.ones(1, 3, size, size))) > 0
    with pytest.raises(DeidbenchError, match="at least 31 x 31"):
        alex(torch.zeros(1, 3, size - 1, size), torch.ones(1, 3, size - 1, size))


def test_lpips_reads_kernels_of_a_pickle_as_height_width_in_out(tmp_path: Path) -> None:
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    layers = {"Conv_0": {"bias": np.ones(5, np.float32), "kernel": kernel}}
    path = tmp_path / "net.ckpt"
    path.write_bytes(pickle.dumps({"NetLinLayer_0": {}, "AnyNet_0": layers}))
    found = _features(path, ["net.slice1.0.weight", "net.slice1.0.bias"])
    weight = found["net.slice1.0.weight"]
    assert weight.shape == (5, 4, 2, 3)
    for (y, x, i, o), value in np.ndenumerate(kernel):
        assert weight[o, i, y, x] == value
    assert found["net.slice1.0.bias"].tolist() == [1] * 5


def test_lpips_refuses_the_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    for wrong in ({"features.0.weight": torch.zeros(1)}, {"conv.weight": torch.zeros(1)}):
        torch.save(wrong, path)
        with pytest.raises(DeidbenchError, match=r"other\.pth holds other weights than 'alex'"):
            LPIPS(weights=path)


@pytest.mark.real
def test_lpips_of_squeezenet_has_the_documented_value(squeeze: LPIPS) -> None:
    """0.1005: what torchmetrics documents for seed 42."""
    generator = torch.Generator().manual_seed(42)
    drawn = [torch.rand(10, 3, 100, 100, generator=generator) * 2 - 1 for _ in range(2)]
    values = squeeze(*((images + 1) / 2 for images in drawn))
    assert float(values.mean()) == pytest.approx(0.1005, abs=1e-4)
    assert squeeze.name == "lpips-squeeze"
    size = SMALLEST["squeeze"]
    assert float(squeeze(torch.zeros(1, 3, size, size), torch.ones(1, 3, size, size))) > 0


@pytest.mark.real
def test_lpips_of_its_authors_examples_has_the_published_values(alex: LPIPS) -> None:
    folder = Path(os.environ.get("DEIDBENCH_TEST_LPIPS_IMAGES", ""))
    if not (folder / "ex_ref.png").is_file():
        pytest.skip("DEIDBENCH_TEST_LPIPS_IMAGES names no folder with ex_ref.png")
    reference, *others = (
        torch.from_numpy(np.array(Image.open(folder / f"{name}.png").convert("RGB")))
        .permute(2, 0, 1)[None].float() / 255
        for name in ("ex_ref", "ex_p0", "ex_p1")
    )  # fmt: skip
    values = [float(alex(reference, other)) for other in others]
    assert values == pytest.approx([0.722, 0.138], abs=1e-3)
