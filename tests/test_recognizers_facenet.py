"""FaceNet of facenet-pytorch, with weights made here, against that package."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1, fixed_image_standardization
from facenet_pytorch.models.utils.detect_face import extract_face
from torch import Tensor

from deidbench import assets, plugins
from deidbench.assets import Asset, Source
from deidbench.errors import AssetUnavailableError
from deidbench.geometry import chip_template
from deidbench.recognizers._weights import WeightsError
from deidbench.recognizers.facenet import ASPECT, TEMPLATE, FacenetCasia, FacenetVGGFace2
from deidbench.testing import check_recognizer
from tests.random_networks import pictures, randomize, served

KINDS = {"facenet-vggface2": FacenetVGGFace2, "facenet-casia": FacenetCasia}


@pytest.fixture(scope="module")
def theirs() -> InceptionResnetV1:
    """Random weights and statistics, in the package's own class; with a classifier, as released."""
    network = InceptionResnetV1(classify=True, num_classes=7)
    randomize(network, pictures(6, 160, 160, seed=9) * 2 - 1)
    network.classify = False
    return network.eval()


@pytest.fixture(scope="module", params=[True, False], ids=["zip", "legacy"])
def file(request: pytest.FixtureRequest, theirs: InceptionResnetV1, tmp_path_factory: Any) -> Path:
    """In the format of today's torch and in that of 2019."""
    path: Path = tmp_path_factory.mktemp("weights") / "facenet.pt"
    state = theirs.state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=request.param)
    return path


@pytest.fixture(scope="module")
def recognizer(file: Path) -> FacenetVGGFace2:
    return FacenetVGGFace2(file)


def test_the_contract_is_kept(recognizer: FacenetVGGFace2, file: Path) -> None:
    check_recognizer(recognizer)
    assert recognizer.weights_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_is_registered_with_its_asset(name: str) -> None:
    kind = plugins.load("recognizers", name)
    assert kind is KINDS[name]
    assert (kind.name, kind.asset, kind.by_default) == (name, name, False)
    (source,) = assets.registry()[name].sources
    assert source.location.startswith("https://github.com/timesler/facenet-pytorch/releases/")


def test_embeddings_equal_those_of_the_package(
    recognizer: FacenetVGGFace2, theirs: InceptionResnetV1
) -> None:
    crops = pictures(5, 160, 160)
    with torch.inference_mode():
        expected = theirs(fixed_image_standardization(crops * 255))
        ours = recognizer(crops)
    assert float((ours @ ours.T).fill_diagonal_(0).max()) < 0.9  # the pictures differ
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_the_crop_is_the_box_of_the_detector_stretched_to_a_square(
    recognizer: FacenetVGGFace2, theirs: InceptionResnetV1
) -> None:
    """A face whose landmarks lie in its box as the template says."""
    left, top, height = 40, 30, 250
    width = round(height * ASPECT)
    scale = torch.tensor([width, height]) / 160
    landmarks = (TEMPLATE + 0.5) * scale - 0.5 + torch.tensor([left, top])
    photographs = (pictures(6, 300, 300) * 255).round().to(torch.uint8)
    box = np.array([left, top, left + width, top + height])
    crops = [extract_face(one.permute(1, 2, 0).numpy(), box) for one in photographs]
    with torch.inference_mode():
        expected = theirs(fixed_image_standardization(torch.stack(crops)))
        ours = recognizer.embed(photographs / 255, landmarks.expand(6, 5, 2))
    # The package averages the pixels of a box that it shrinks; a warp interpolates.
    torch.testing.assert_close(ours @ expected.T, expected @ expected.T, rtol=0, atol=0.02)


def test_the_crop_lies_inside_a_chip(recognizer: FacenetVGGFace2) -> None:
    """A white chip leaves no black at the border."""
    seen: list[Tensor] = []
    hook = recognizer.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    recognizer.embed(torch.ones(1, 3, 160, 160), chip_template()[None])
    hook.remove()
    torch.testing.assert_close(seen[0], torch.full((1, 3, 160, 160), 127.5 / 128))


def test_the_template_is_symmetric() -> None:
    mirrored = torch.stack([159 - TEMPLATE[:, 0], TEMPLATE[:, 1]], 1)[[1, 0, 2, 4, 3]]
    torch.testing.assert_close(TEMPLATE, mirrored)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_released_file_is_downloaded_and_held_to_its_hash(
    name: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DEIDBENCH_MIRROR", "DEIDBENCH_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(file.parent) as url:
        (official,) = assets.registry()[name].sources
        # As it is: a published hash refuses any other file, and none accepts the first.
        source = Source(f"{url}/{file.name}", official.filename, official.sha256)
        asset = Asset(name, (source,), "MIT", "nobody 2024", "random")
        monkeypatch.setattr(sys.modules["deidbench.assets.registry"], "_REGISTRY", {name: asset})
        if official.sha256:
            with pytest.raises(AssetUnavailableError, match=f"expected sha256 {official.sha256}"):
                KINDS[name]()
        else:
            assert KINDS[name]().weights_sha256 == assets.sha256_of(file)
            assert "first seen" in str(assets.hash_note(name))


def changed(state: dict[str, Tensor]) -> Iterator[tuple[dict[str, Any], str]]:
    yield {k: v for k, v in state.items() if k != "last_bn.bias"}, "no tensor 'last_bn.bias'"
    yield state | {"more": torch.zeros(1)}, "unexpected tensor 'more'"
    yield state | {"last_bn.bias": torch.zeros(3)}, "has the shape \\(3,\\), not \\(512,\\)"
    yield state | {"last_bn.bias": torch.full((512,), torch.nan)}, "holds NaN or infinity"
    yield state | {"last_bn.bias": "text"}, "it is not a torch state dict"


def test_another_file_is_refused(theirs: InceptionResnetV1, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    for state, message in changed(theirs.state_dict()):
        torch.save(state, path)
        with pytest.raises(WeightsError, match=f"other\\.pt cannot be used: .*{message}"):
            FacenetVGGFace2(path)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (tmp_path.joinpath("trace").touch, ())

    for zipped in (True, False):
        path = tmp_path / "bomb.pt"
        torch.save({"last_bn.bias": Bomb()}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="not a torch state dict"):
            FacenetVGGFace2(path)
        assert not (tmp_path / "trace").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetUnavailableError, match="no weights at"):
        FacenetCasia(tmp_path / "nowhere.pt")
