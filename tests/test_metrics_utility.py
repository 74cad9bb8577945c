"""Utility beyond pixels: several scales, landmarks, head pose and a second detector."""

from __future__ import annotations

import csv
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from deidbench import assets
from deidbench.datasets import synthid
from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.geometry import chip_template
from deidbench.metrics.box_iou_yunet import BoxIoUYuNet
from deidbench.metrics.face_found_yunet import FaceFoundYuNet
from deidbench.metrics.head_pose import (
    FACE,
    HeadPosePitch,
    HeadPoseRoll,
    HeadPoseYaw,
    head_pose,
)
from deidbench.metrics.landmark_error import LandmarkError
from deidbench.metrics.lpips_vgg import LPIPSVGG
from deidbench.metrics.ms_ssim import SCALE_WEIGHTS, MultiScaleSSIM, scale_weights
from deidbench.testing import check_image_metric

FOLDER = Path(str(synthid.__file__)).parent
ROWS = list(csv.DictReader((FOLDER / "samples.csv").read_text(encoding="utf-8").splitlines()))
PARTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
TRUTH = torch.tensor([[[float(row[f"{p}_{a}"]) for a in "xy"] for p in PARTS] for row in ROWS])
ms_ssim, landmark_error = MultiScaleSSIM(), LandmarkError()
angles = st.floats(-60, 60)


def smooth(count: int = 2, height: int = 96, width: int = 100, seed: int = 0) -> Tensor:
    """Images with shapes in them, not only noise."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (height, width), mode="bilinear")


def noisy(images: Tensor, strength: float, seed: int = 1) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + strength * noise).clamp(0, 1)


def photographs(count: int) -> Tensor:
    """Rendered faces of different people, (count, 3, 160, 160)."""
    rows = ROWS[:: len(ROWS) // count][:count]
    images = [Image.open(FOLDER / "images" / row["path"]).resize((160, 160)) for row in rows]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255


# Every registered metric.


@pytest.mark.parametrize("point", entry_points(group="deidbench.metrics"), ids=lambda p: p.name)
def test_every_metric_says_what_it_is(point: Any) -> None:
    metric = point.load()
    assert metric.kind in ("verification", "paired", "image", "landmarks", "set")
    assert getattr(metric, "name", point.name) == point.name
    assert isinstance(metric.version, int)
    assert isinstance(metric.higher_is_better, bool)
    assert metric.unit
    assert isinstance(getattr(metric, "by_default", True), bool)
    assert set(getattr(metric, "needs", tuple)()) <= set(assets.registry())


# MS-SSIM.


def naive_ms_ssim(x: np.ndarray, y: np.ndarray, weights: list[float]) -> float:
    """Straight from the paper, one window after the other, in double precision."""
    signal = pytest.importorskip("scipy.signal")
    bell = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2

    def blur(image: np.ndarray) -> np.ndarray:
        return np.stack([signal.convolve2d(one, window, mode="valid") for one in image])

    value = 1.0
    for number, weight in enumerate(weights):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        structure = (2 * vxy + 0.03**2) / (vx + vy + 0.03**2)
        if number == len(weights) - 1:
            structure *= (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        value *= max(structure.mean(), 0) ** weight
        height, width = (side // 2 for side in x.shape[1:])
        x, y = (
            z[:, : 2 * height, : 2 * width].reshape(3, height, 2, width, 2).mean((2, 4))
            for z in (x, y)
        )
    return float(value)


@pytest.mark.parametrize(("height", "width"), [(176, 190), (96, 108), (45, 47), (11, 30)])
@pytest.mark.parametrize("strength", [0.02, 0.3])
def test_ms_ssim_equals_its_definition(height: int, width: int, strength: float) -> None:
    images = smooth(2, height, width)
    treated = noisy(images, strength)
    weights = scale_weights(min(height, width))
    for a, b, ours in zip(images, treated, ms_ssim(images, treated), strict=True):
        theirs = naive_ms_ssim(a.double().numpy(), b.double().numpy(), weights)
        assert float(ours) == pytest.approx(theirs, abs=1e-5)


def test_ms_ssim_is_near_torchmetrics_which_counts_a_mirrored_border_too() -> None:
    functional = pytest.importorskip("torchmetrics.functional.image")
    images = smooth(2, 200, 200)
    for strength in (0.05, 0.3):
        treated = noisy(images, strength)
        theirs = functional.multiscale_structural_similarity_index_measure(
            treated.double(), images.double(), data_range=1.0, betas=SCALE_WEIGHTS,
            normalize="relu", reduction="none",
        )  # fmt: skip
        torch.testing.assert_close(ms_ssim(images, treated).double(), theirs, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (21, 1), (22, 2), (96, 4), (160, 4), (175, 4), (176, 5), (999, 5)]
)
def test_an_image_has_as_many_scales_as_its_windows_fit_in(side: int, scales: int) -> None:
    weights = scale_weights(side)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1)
    assert weights[-1] / weights[0] == pytest.approx(SCALE_WEIGHTS[scales - 1] / SCALE_WEIGHTS[0])
    assert side // 2 ** (scales - 1) >= 11


def test_ms_ssim_of_a_negative_is_0_and_of_the_same_image_1() -> None:
    images = smooth()
    assert ms_ssim(images, 1 - images).tolist() == [0, 0]
    assert ms_ssim(images, images).tolist() == [1, 1]


def test_ms_ssim_keeps_the_contract() -> None:
    check_image_metric(ms_ssim)
    with pytest.raises(DeidbenchError, match="at least 11 x 11"):
        ms_ssim(torch.zeros(1, 3, 10, 64), torch.zeros(1, 3, 10, 64))


def test_ms_ssim_forgives_noise_that_ssim_does_not() -> None:
    """Fine noise is gone at coarser scales, which have most of the weight."""
    from deidbench.metrics.ssim import SSIM

    images = smooth()
    treated = noisy(images, 0.1)
    assert bool((ms_ssim(images, treated) > SSIM()(images, treated) + 0.1).all())


# LPIPS by VGG.


def test_lpips_vgg_equals_the_package_with_the_same_weights(home: Path) -> None:
    metric = LPIPSVGG()
    assert (metric.name, metric.by_default) == ("lpips-vgg", False)
    with pytest.warns(UserWarning, match="pretrained|weight"):
        theirs = lpips.LPIPS(net="vgg", pretrained=True, pnet_rand=True, verbose=False).eval()
    ours = metric._model.state_dict()
    theirs.net.load_state_dict({k[4:]: v for k, v in ours.items() if k.startswith("net.")})
    images = smooth(2, 32, 32)
    treated = noisy(images, 0.1)
    with torch.no_grad():
        expected = theirs(images, treated, normalize=True).flatten()
    torch.testing.assert_close(metric(images, treated), expected, rtol=1e-4, atol=1e-6)


# Landmarks.


def test_landmark_error_of_a_shift_is_its_length_in_distances_between_the_eyes() -> None:
    points = chip_template()[None].expand(2, 5, 2)
    between = float((points[0, 1] - points[0, 0]).norm())
    shift = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    found = landmark_error(points, points + shift)
    torch.testing.assert_close(found, torch.tensor([5 / between, 0]))


@given(st.floats(0.2, 5), st.floats(-180, 180))
@settings(max_examples=25, deadline=None)
def test_landmark_error_does_not_depend_on_size_or_turn_of_the_image(s: float, turn: float) -> None:
    before = TRUTH[:4]
    after = before + torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(0))
    c, d = s * np.cos(np.radians(turn)), s * np.sin(np.radians(turn))
    linear = torch.tensor([[c, -d], [d, c]], dtype=torch.float32)
    torch.testing.assert_close(
        landmark_error(before @ linear.T, after @ linear.T), landmark_error(before, after),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize(
    "metric", [landmark_error, HeadPoseYaw(), HeadPosePitch(), HeadPoseRoll()], ids=lambda m: m.name
)
def test_lost_faces_are_nan_and_change_no_other(metric: Any) -> None:
    before, after = TRUTH[:4].clone(), TRUTH[1:5].clone()
    whole = metric(before, after)
    before[1], after[2, 3] = torch.nan, torch.nan
    found = metric(before, after)
    assert found.isnan().tolist() == [False, True, True, False]
    assert (found.dtype, found.shape) == (torch.float32, (4,))
    assert torch.equal(found[[0, 3]], whole[[0, 3]])
    assert metric(before[:0], after[:0]).shape == (0,)
    nothing = metric(torch.zeros(1, 5, 2), torch.zeros(1, 5, 2))
    assert nothing.isnan().all()
    torch.testing.assert_close(metric(TRUTH, TRUTH), torch.zeros(len(TRUTH)))
    for wrong in (torch.zeros(4, 5, 3), torch.zeros(3, 5, 2), torch.zeros(4, 10)):
        with pytest.raises(DeidbenchError, match=r"\(N, 5, 2\)"):
            metric(TRUTH[:4], wrong)


# Head pose.


def rotated(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The generic face (5, 3), turned by yaw about y, then pitch about x, then roll about z."""
    a, b, c = np.radians([-yaw, pitch, roll])
    about_y = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    about_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    turn = np.array(about_z) @ np.array(about_x) @ np.array(about_y)
    return np.asarray(FACE.double().numpy() @ turn.T)


@given(angles, angles, st.floats(-179, 179), st.floats(5, 200))
@settings(max_examples=50, deadline=None)
def test_the_angles_of_a_projected_face_are_recovered(
    yaw: float, pitch: float, roll: float, size: float
) -> None:
    points = torch.from_numpy(rotated(yaw, pitch, roll)[None, :, :2] * size + [80, 70])
    found = head_pose(points.float())[0].tolist()
    assert found == pytest.approx([yaw, pitch, roll], abs=0.05)


def test_head_pose_agrees_with_solvepnp_of_a_camera_far_away() -> None:
    cv2 = pytest.importorskip("cv2")
    focal, face = 2000.0, FACE.double().numpy()
    camera = np.array([[focal, 0, 80], [0, focal, 80], [0, 0, 1]])
    for yaw, pitch in [(0, 0), (30, 0), (-25, 10), (10, -20), (-45, -15)]:
        points = rotated(yaw, pitch, 5) + np.array([0.1, -0.1, 40])
        flat = focal * points[:, :2] / points[:, 2:] + 80
        done, vector, _ = cv2.solvePnP(face, flat, camera, None, flags=cv2.SOLVEPNP_EPNP)
        away = cv2.Rodrigues(vector)[0][2]
        theirs = [np.degrees(np.arctan2(away[0], away[2])), np.degrees(np.arcsin(away[1]))]
        ours = head_pose(torch.from_numpy(flat)[None].float())[0, :2].tolist()
        assert done
        assert theirs == pytest.approx([yaw, pitch], abs=0.01)
        assert ours == pytest.approx(theirs, abs=1.5)


def test_head_pose_change_is_the_smaller_way_round() -> None:
    first = torch.from_numpy(rotated(20, 5, 175)[None, :, :2]).float()
    second = torch.from_numpy(rotated(-10, 25, -175)[None, :, :2]).float()
    found = [float(m()(first, second)) for m in (HeadPoseYaw, HeadPosePitch, HeadPoseRoll)]
    assert found == pytest.approx([30, 20, 10], abs=0.05)


def test_head_pose_from_rendered_landmarks_agrees_with_the_rendered_yaw() -> None:
    """Of people whom the generic face was not fitted to; MTCNN's numbers are in the docstring."""
    measured = [i for i, row in enumerate(ROWS) if row["split"] == "eval"]
    found = head_pose(TRUTH[measured]).numpy()
    for column, name, correlation, error in ((0, "yaw", 0.97, 2.0), (1, "pitch", 0.3, 9.0)):
        truth = np.array([float(ROWS[i][name]) for i in measured])
        assert np.corrcoef(found[:, column], truth)[0, 1] > correlation
        assert np.abs(found[:, column] - truth).mean() < error


# YuNet.


@pytest.fixture(scope="module")
def found() -> FaceFoundYuNet:
    try:
        return FaceFoundYuNet()
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")


def test_faces_stay_found_until_nothing_is_left_of_them(found: FaceFoundYuNet) -> None:
    faces = photographs(4)
    grey = torch.full_like(faces, 0.5)
    assert found(faces, faces).tolist() == [1] * 4
    assert found(faces, grey).tolist() == [0] * 4
    assert found(grey, faces).isnan().all()
    mixed = torch.stack([faces[0], grey[1]])
    assert found(faces[:2], mixed).tolist() == [1, 0]
    assert found.to("cpu") is found
    with pytest.raises(DeidbenchError, match="face-found-yunet: expected"):
        found(faces, faces * 255)


def test_a_box_that_moves_overlaps_as_much_as_it_should(found: FaceFoundYuNet) -> None:
    iou, faces = BoxIoUYuNet(), photographs(12)
    torch.testing.assert_close(iou(faces, faces), torch.ones(12))
    moved = faces.roll(8, -1)
    before, after = found.boxes(faces, moved)
    shift = (after - before).mean(0)
    torch.testing.assert_close(shift, torch.tensor([8.0, 0, 8, 0]), atol=2, rtol=0)
    width = before[:, 2] - before[:, 0]
    expected = ((width - 8) / (width + 8)).mean()
    torch.testing.assert_close(iou(faces, moved).mean(), expected, atol=0.04, rtol=0)
    assert iou(faces, torch.full_like(faces, 0.5)).isnan().all()


def test_boxes_that_do_not_meet_have_no_overlap(found: FaceFoundYuNet) -> None:
    small = F.interpolate(photographs(1), (72, 72), mode="bilinear", antialias=True).clamp(0, 1)
    left, right = torch.full((1, 3, 160, 160), 0.5), torch.full((1, 3, 160, 160), 0.5)
    left[..., :72, :72], right[..., -72:, -72:] = small, small
    assert found(left, right).tolist() == [1]
    assert BoxIoUYuNet()(left, right).tolist() == [0]
