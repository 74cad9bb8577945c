from __future__ import annotations

import numpy as np
import pytest
import torch

from deidbench.alignment import Aligner, to_float, to_uint8
from deidbench.datasets.synthid import SynthID
from deidbench.geometry import chip_template
from deidbench.images import read_image


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    return [read_image(sample.path) for sample in SynthID(None).samples()[:12:3]]


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner()


def test_faces_land_on_the_template(aligner: Aligner, photos: list[np.ndarray]) -> None:
    aligned = aligner(photos)
    assert aligned.chips.shape == (4, 3, 160, 160)
    assert aligned.chips.dtype == torch.uint8
    assert aligned.found.all()
    between_eyes = 44
    gap = (aligned.landmarks - chip_template()).norm(dim=-1).mean() / between_eyes
    assert gap < 0.15


def test_a_miss_is_recorded_and_the_others_keep_their_rows(
    aligner: Aligner, photos: list[np.ndarray]
) -> None:
    empty = np.full((200, 200, 3), 127, np.uint8)
    aligned = aligner([photos[0], empty, photos[1]])
    assert aligned.found.tolist() == [True, False, True]
    assert aligned.landmarks[1].isnan().all()
    assert not aligned.chips[1].any()
    alone = aligner([photos[1]]).chips[0].float()
    assert (aligned.chips[2].float() - alone).abs().mean() < 0.1  # of 255


def test_the_face_nearest_the_centre_counts(aligner: Aligner, photos: list[np.ndarray]) -> None:
    """Two faces side by side: the one in the middle of the canvas is taken."""
    size = photos[0].shape[0]
    canvas = np.full((size * 2, size * 4, 3), 127, np.uint8)
    middle = slice(size // 2, size // 2 + size)
    canvas[middle, size * 3 // 2 : size * 5 // 2] = photos[0]
    canvas[middle, :size] = photos[1]
    expected = aligner.detect([photos[0]])[0] + [size * 3 // 2, size // 2]
    assert np.abs(aligner.detect([canvas])[0] - expected).mean() < 3


def test_aligned_images_are_taken_as_they_are(photos: list[np.ndarray]) -> None:
    chips = Aligner()(photos).chips
    again = Aligner(aligned=True)([chip.permute(1, 2, 0).numpy() for chip in chips])
    assert torch.equal(again.chips, chips)
    assert again.found.all()


def test_landmarks_move_with_the_photograph(aligner: Aligner) -> None:
    """Up to MTCNN's own unrest: its search steps by 2 pixels at each scale."""
    photos = [read_image(sample.path) for sample in SynthID(None).samples()[:64:2]]
    moved = [np.pad(photo, ((30, 10), (5, 35), (0, 0)), mode="edge") for photo in photos]
    before, after = aligner.detect(photos), aligner.detect(moved)
    between_eyes = np.linalg.norm(before[:, 0] - before[:, 1], axis=1)
    error = np.linalg.norm(after - before - [5, 30], axis=2).mean(1) / between_eyes
    assert np.median(error) < 0.05
    assert error.max() < 0.25


def test_eight_bits_survive_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(levels)), levels)


@pytest.mark.parametrize("shape", [(19, 19), (10, 10), (5, 400), (11, 200)])
def test_a_photograph_too_small_for_a_face_is_a_miss(
    aligner: Aligner, shape: tuple[int, int]
) -> None:
    assert not aligner([np.zeros((*shape, 3), np.uint8)]).found.any()
