"""Finding faces: views that lead back to the photograph, the union of finds, and real searches."""

from __future__ import annotations

import composites
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deidbench.errors import AssetUnavailableError
from deidbench.photos import tiles
from deidbench.photos.detect import SAME_FACE, Face, Finder, distinct, overlap
from deidbench.photos.tiles import views


def finder(**options: bool) -> Finder:
    try:
        return Finder(**options)
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")


def face(left: float, top: float, width: float, score: float) -> Face:
    box = np.array([left, top, left + width, top + width], np.float32)
    return Face(box, np.zeros((5, 2), np.float32), score, "made")


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    turns=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_a_point_of_a_view_leads_back_to_its_pixel(
    height: int, width: int, turns: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", 40)
        patch.setattr(tiles, "OVERLAP", 10)
        seen = np.zeros((height, width), bool)
        for view in views(image, turns=turns, coarsest=10_000):
            rows, columns = np.indices(view.pixels.shape[:2])
            # The middle of a pixel is half a pixel from its corner.
            x, y = np.moveaxis(view.back(np.stack([columns, rows], -1) + np.float32(0.5)), -1, 0)
            x, y = np.floor(x).astype(int), np.floor(y).astype(int)
            np.testing.assert_array_equal(image[y, x], view.pixels)
            seen[y, x] = True
        assert seen.all()


def test_levels_shrink_until_a_large_face_is_small() -> None:
    image = np.zeros((600, 1000, 3), np.uint8)
    sides = [max(view.pixels.shape) for view in views(image, finest=2.0)]
    assert sides == [2000, 1000, 500]
    np.testing.assert_allclose(
        list(views(image, finest=2.0))[-1].back(np.array([500, 300], np.float32)), [1000, 600]
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(5, 40), st.floats(0.1, 1)),
        max_size=12,
        unique_by=lambda row: row[3],
    ),
    st.randoms(),
)
def test_each_find_is_kept_or_lies_on_a_surer_one(rows: list[tuple], shuffle: object) -> None:
    faces = [face(*row) for row in rows]
    kept = distinct(faces)
    assert [one.score for one in kept] == sorted((one.score for one in kept), reverse=True)
    for one in faces:
        surer = [other for other in kept if other.score >= one.score]
        assert one in kept or any(
            overlap(one.box, other.box[None])[0] > SAME_FACE for other in surer
        )
    shuffle.shuffle(faces)  # type: ignore[attr-defined]
    assert distinct(faces) == kept


@pytest.mark.parametrize("fast", [False, True])
def test_all_faces_of_a_photograph_are_found(fast: bool) -> None:
    search = finder(fast=fast)
    faces = composites.Faces()
    for seed in (11, 12):
        image, placed = composites.photograph(faces, np.random.default_rng(seed), count=5)
        boxes = np.stack([one.box for one in search(image)])
        assert len(placed) >= 4
        for truth in placed:
            assert overlap(np.array(truth.box, np.float32), boxes).max() > 0.3


def test_a_face_that_lies_on_its_side_is_found_where_it_is() -> None:
    search = finder()
    rng = np.random.default_rng(4)
    canvas = np.full((400, 500, 3), 120, np.float32)
    truth = composites.lay(
        canvas, *composites.Faces().draw(rng), width=90, roll=0, centre=(180, 200)
    )
    for turns in range(4):
        image = np.ascontiguousarray(np.rot90(canvas.astype(np.uint8), turns))
        found = search(image)[0]
        [view] = list(views(np.zeros_like(canvas, np.uint8), turns=turns, coarsest=500))
        back = view.back(found.box.reshape(2, 2))
        box = np.concatenate([back.min(0), back.max(0)])
        assert overlap(np.array(truth.box, np.float32), box[None])[0] > 0.3
        eyes = view.back(found.landmarks)[:2]
        assert np.abs(eyes - np.array(truth.landmarks)[:2]).max() < 20


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (60, 60, 3)])
def test_tiny_and_empty_photographs_hold_no_face(shape: tuple[int, ...]) -> None:
    assert finder()(np.full(shape, 90, np.uint8)) == []
