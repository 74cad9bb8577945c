"""Putting treated faces back: nothing outside changes, nothing inside is left, no seam."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deidbench.errors import DeidbenchError
from deidbench.geometry import chip_template, inner_face_box
from deidbench.photos import blend
from deidbench.photos.blend import covered_by, place, treat, uncovered
from deidbench.photos.detect import Face


class Made:
    """A method made of a function, which remembers what it was given."""

    name, version, strength, trained_against = "made", 1, None, ()

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.calls: list[tuple[tuple[int, ...], int]] = []

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        self.calls.append((tuple(faces.shape), seed))
        return self.function(faces)


def face(x: float, y: float, width: float, *, roll: float = 0.0) -> Face:
    """A face whose middle is at (x, y), with its landmarks where the template has them."""
    left, top, right, bottom = inner_face_box()
    scale = width / (right - left)
    angle = np.radians(roll)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    points = (chip_template().numpy() - middle) @ turn.T * scale + [x, y]
    half = np.array([width / 2, (bottom - top) / 2 * scale])
    box = np.array([x - half[0], y - half[1], x + half[0], y + half[1]], np.float32)
    return Face(box, points.astype(np.float32), 0.9, "made")


def photograph(seed: int = 0, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """Smooth, so that resampling changes little, and never black."""
    coarse = np.random.default_rng(seed).uniform(40, 255, (1, 3, 6, 8))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size, mode="bicubic")
    return smooth[0].permute(1, 2, 0).numpy().clip(40, 255).astype(np.uint8)


def apply(method: Made, image: np.ndarray, *faces: Face) -> tuple[np.ndarray, np.ndarray]:
    return treat(image, faces, [0] * len(faces), method, "cpu")


faces_anywhere = st.builds(
    face,
    x=st.floats(-30, 350),
    y=st.floats(-30, 270),
    width=st.floats(8, 150),
    roll=st.floats(-180, 180),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(faces_anywhere, max_size=3))
def test_pixels_outside_the_masks_stay_bit_for_bit(faces: list[Face]) -> None:
    image = photograph()
    before = image.copy()
    treated, covered = apply(Made(torch.zeros_like), image, *faces)
    np.testing.assert_array_equal(image, before)
    touched = np.zeros(image.shape[:2], bool)
    for one in faces:
        patch = place(one)
        here, inner = blend._within(patch, image.shape)
        touched[here] |= patch.mask()[inner] > 0
    np.testing.assert_array_equal(treated[~touched], image[~touched])
    assert (treated[covered] == 0).all()
    np.testing.assert_array_equal(covered, covered_by(faces, image.shape[:2]))


@settings(max_examples=40, deadline=None)
@given(width=st.floats(12, 140), roll=st.floats(-60, 60))
def test_brows_to_chin_and_cheek_to_cheek_are_replaced_whole(width: float, roll: float) -> None:
    one = face(160, 120, width, roll=roll)
    _, covered = apply(Made(torch.zeros_like), photograph(), one)
    left, top, right, bottom = inner_face_box()
    half = (
        np.array([(right - left) / 2, (bottom - top) / 2]) * width / (right - left) - 0.5
    )  # of a pixel
    angles = np.linspace(0, 2 * np.pi, 90)
    turn = np.radians(roll)
    oval = np.stack([np.cos(angles), np.sin(angles)], -1) * half
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    spots = np.round(oval @ matrix.T + [160, 120]).astype(int)
    inside = ((spots >= 0) & (spots < [320, 240])).all(1)
    assert covered[spots[inside, 1], spots[inside, 0]].all()
    assert uncovered([one], covered) == []


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), np.nan),
        np.zeros((5, 2)),
        np.full((5, 2), 300.0),
        np.linspace([0, 0], [300, 200], 5),
    ],
    ids=["none", "one point", "elsewhere", "a line"],
)
def test_landmarks_that_do_not_fit_the_box_give_way_to_it(landmarks: np.ndarray) -> None:
    one = face(100, 110, 60)
    wrong = Face(one.box, landmarks.astype(np.float32), 0.9, "made")
    treated, covered = apply(Made(torch.zeros_like), photograph(), wrong)
    assert uncovered([one], covered) == []
    assert (treated[85:140, 80:120] == 0).all()


@pytest.mark.parametrize("width", [20.0, 64.0, 150.0])
def test_a_method_that_changes_nothing_leaves_no_seam(width: float) -> None:
    image = photograph()
    treated, covered = apply(Made(torch.clone), image, face(160, 120, width, roll=20))
    assert covered.any()
    assert np.abs(treated.astype(int) - image).max() <= 6


def test_the_mask_falls_off_smoothly() -> None:
    mask = place(face(160, 120, 90)).mask()
    assert mask.max() == 1 and mask.min() == 0
    assert np.abs(np.diff(mask, axis=0)).max() < 0.35
    assert np.abs(np.diff(mask, axis=1)).max() < 0.2
    assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()


def test_no_original_pixel_comes_back_where_faces_overlap() -> None:
    def blacken_the_face(chips: Tensor) -> Tensor:
        left, top, right, bottom = inner_face_box(chips.shape[-1])
        chips = chips.clone()
        chips[:, :, top:bottom, left:right] = 0
        return chips

    image = photograph()
    far, near = face(130, 110, 40), face(180, 120, 90)
    for order in ((far, near), (near, far)):
        treated, _ = apply(Made(blacken_the_face), image, *order)
        for one in order:
            left, top, right, bottom = np.round(one.box).astype(int).tolist()
            assert treated[top + 3 : bottom - 3, left + 3 : right - 3].max() <= 60
    near_first, _ = apply(Made(blacken_the_face), image, near, far)
    far_first, _ = apply(Made(blacken_the_face), image, far, near)
    np.testing.assert_array_equal(near_first, far_first)


def test_chips_have_fitting_sizes_and_go_to_the_method_together() -> None:
    method = Made(torch.clone)
    faces = [face(60 + 130 * i, 100, 30) for i in range(4)]
    treat(photograph(size=(900, 1200)), [*faces, face(600, 500, 420)], [7] * 5, method, "cpu")
    assert {shape[0] for shape, _ in method.calls} == {1, 4}
    for shape, seed in method.calls:
        assert shape[1] == 3 and shape[2] == shape[3]
        assert shape[2] % 8 == 0 and 112 <= shape[2] <= 512
        assert seed == 7
    assert [place(face(0, 0, w)).size for w in (10, 90, 900)] == [112, 152, 512]


def test_faces_of_different_seeds_are_treated_apart() -> None:
    method = Made(torch.clone)
    treat(photograph(), [face(80, 120, 40), face(240, 120, 40)], [3, 4], method, "cpu")
    assert sorted(seed for _, seed in method.calls) == [3, 4]


def test_a_face_counts_as_left_when_it_is_sure_and_not_covered() -> None:
    covered = np.zeros((240, 320), bool)
    covered[:, :160] = True
    inside, outside, half = face(80, 120, 40), face(240, 120, 40), face(160, 120, 40)
    assert uncovered([inside, outside, half], covered) == [outside, half]
    unsure = Face(outside.box, outside.landmarks, 0.45, "made")
    assert uncovered([unsure], covered) == []


def test_no_faces_no_change() -> None:
    image = photograph()
    treated, covered = apply(Made(torch.zeros_like), image)
    np.testing.assert_array_equal(treated, image)
    assert not covered.any()


def raises(faces: Tensor) -> Tensor:
    raise ArithmeticError("no nose")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (raises, "raised ArithmeticError: no nose"),
        (lambda faces: faces * torch.nan, "broke its contract"),
        (lambda faces: faces * 9, "broke its contract"),
        (lambda faces: faces[..., :8], "broke its contract"),
    ],
)
def test_a_method_that_fails_on_a_face_fails_the_file(
    function: Callable[[Tensor], Tensor], words: str
) -> None:
    """A photograph with one face untreated must never be published as treated."""
    with pytest.raises(DeidbenchError, match=words):
        apply(Made(function), photograph(), face(100, 120, 60), face(220, 120, 60))
