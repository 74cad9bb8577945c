"""The YuNet detector: against the exact landmarks of rendered faces, and on odd images."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deidbench import assets
from deidbench.datasets import synthid
from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.yunet import ASSET, YuNet

FOLDER = Path(str(synthid.__file__)).parent


@pytest.fixture(scope="module")
def detector() -> YuNet:
    try:
        return YuNet()
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")


def rendered(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Photographs of different people and the true places of their landmarks."""
    with (FOLDER / "samples.csv").open() as table:
        rows = list(csv.DictReader(table))[:: 768 // count][:count]
    images = [np.array(Image.open(FOLDER / "images" / row["path"])) for row in rows]
    return list(zip(images, map(true_landmarks, rows), strict=True))


def true_landmarks(row: dict[str, str]) -> np.ndarray:
    parts = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
    return np.array([[float(row[f"{part}_{axis}"]) for axis in "xy"] for part in parts])


def test_each_rendered_face_is_found_where_it_is(detector: YuNet) -> None:
    people = rendered(24)
    found = detector.detect([image for image, _ in people])
    errors = []
    for faces, (_, truth) in zip(found, people, strict=True):
        assert len(faces) >= 1
        between_eyes = np.linalg.norm(truth[1] - truth[0])
        errors.append(np.linalg.norm(faces.landmarks[0] - truth, axis=1).mean() / between_eyes)
        left, top, right, bottom = faces.boxes[0]
        inside = (truth > [left, top]) & (truth < [right, bottom])
        assert inside.all()
    assert np.mean(errors) < 0.15
    assert max(errors) < 0.3


def test_a_mirrored_photograph_has_mirrored_faces(detector: YuNet) -> None:
    image, _ = rendered(1)[0]
    [plain, mirrored] = detector.detect([image, image[:, ::-1]])
    width = image.shape[1]
    swapped = mirrored.landmarks[0][[1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
    assert np.abs(swapped - plain.landmarks[0]).max() < 0.05 * width


def test_the_surest_face_comes_first(detector: YuNet) -> None:
    many = np.concatenate([image for image, _ in rendered(4)], 1)
    [faces] = detector.detect([many])
    assert len(faces) >= 4
    assert (np.diff(faces.scores) <= 0).all()
    assert faces.boxes.dtype == faces.landmarks.dtype == faces.scores.dtype == np.float32


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 700, 3), (33, 31, 3), (240, 320, 3)])
def test_images_without_faces_have_none(detector: YuNet, shape: tuple[int, ...]) -> None:
    [faces] = detector.detect([np.full(shape, 127, np.uint8)])
    assert len(faces) == 0
    assert faces.boxes.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


def test_images_of_different_sizes_do_not_disturb_one_another(detector: YuNet) -> None:
    image, _ = rendered(1)[0]
    small = np.ascontiguousarray(image[40:200, 20:210])
    together = detector.detect([image, small, image])
    alone = [detector.detect([one])[0] for one in (image, small, image)]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.landmarks, other.landmarks)
    assert detector.detect([]) == []


def test_a_file_that_opencv_cannot_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no network")
    monkeypatch.setattr(assets, "fetch", lambda name: damaged)
    with pytest.raises(DeidbenchError, match=r"cannot read damaged.onnx") as caught:
        YuNet()
    assert "\n" not in str(caught.value)


def test_its_weights_are_an_asset() -> None:
    assert ASSET in assets.registry()
