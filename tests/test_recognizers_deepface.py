"""The models of deepface, with weights made here, against ``DeepFace.represent``."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from deidbench import assets, plugins
from deidbench.assets import Asset, Source
from deidbench.errors import AssetUnavailableError, DeidbenchError
from deidbench.geometry import CHIP_SIZE, align, chip_template
from deidbench.recognizers._weights import WeightsError
from deidbench.recognizers.deepface import BOX, MODELS, DeepFace
from deidbench.testing import check_recognizer
from tests.random_networks import pictures, randomize, served

pytest.importorskip("deepface", reason="needs the extra 'deepface'")

LARGE = {"VGG-Face": 145, "DeepFace": 102}  # million parameters
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in sorted(MODELS)
]
SMALL = [name for name in sorted(MODELS) if name in ("DeepID", "OpenFace", "SFace")]


@pytest.fixture(scope="module")
def represent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """deepface as it documents itself, which sets variables and silences all warnings."""
    home = tmp_path_factory.mktemp("deepface")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("DEEPFACE_HOME", str(home))
        patch.setenv("DEEPFACE_BACKEND_ENGINE", "pytorch")
        patch.setenv("TF_USE_LEGACY_KERAS", "1")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        module = importlib.import_module("deepface.DeepFace")

        def oracle(name: str, file: Path, crops: Tensor) -> Tensor:
            """Embeddings of RGB crops (N, 3, H, W) in [0, 1], one after the other."""
            place = home / ".deepface" / "weights" / file.name
            place.hardlink_to(file)
            module.modeling.cached_models = {task: {} for task in module.modeling.AVAILABLE_MODELS}
            rows = [
                module.represent(
                    crop.permute(1, 2, 0).flip(2).contiguous().numpy(),  # BGR
                    model_name=name,
                    detector_backend="skip",
                )[0]["embedding"]
                for crop in crops
            ]
            module.modeling.cached_models["facial_recognition"].clear()
            place.unlink()
            return torch.tensor(rows)

        yield oracle


def published(name: str) -> str:
    """The file name under which deepface looks for the weights of a model."""
    return assets.registry()[MODELS[name].asset].sources[0].filename


def make_weights(name: str, folder: Path) -> Path:
    path = folder / published(name)
    model = MODELS[name]
    if not model.network:
        save_sface(path)
        return path
    module = importlib.import_module(f"deepface.models.facial_recognition.pytorch.{model.module}")
    network = getattr(module, model.network)(**model.settings)
    torch.save(randomize(network, inputs(name, 6, seed=9)).state_dict(), path)
    return path


def save_sface(path: Path) -> None:
    """A small network with the inputs and outputs of SFace: one image, 128 numbers."""
    rng = np.random.default_rng(0)
    kernel, matrix = rng.normal(0, 0.01, (8, 3, 16, 16)), rng.normal(0, 0.1, (392, 128))
    nodes = [
        helper.make_node("Conv", ["data", "kernel"], ["maps"], strides=[16, 16]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("Flatten", ["positive"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["fc1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sface",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 128])],
        [
            numpy_helper.from_array(kernel.astype(np.float32), "kernel"),
            numpy_helper.from_array(matrix.astype(np.float32), "matrix"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def crops_of(name: str, count: int, seed: int = 0) -> Tensor:
    return pictures(count, MODELS[name].size, MODELS[name].size, seed)


def inputs(name: str, count: int, seed: int = 0) -> Tensor:
    margin = MODELS[name].padding
    return F.pad(crops_of(name, count, seed), (0, 0, margin, margin))


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and a way to servers of this machine."""
    for variable in ("DEIDBENCH_MIRROR", "DEIDBENCH_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DEIDBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def offer(name: str, file: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a server of ours in the place of those that publish the weights of a model."""
    official = assets.registry()[MODELS[name].asset]
    known = official.sources[0].sha256 and assets.sha256_of(file)
    source = Source(f"{url}/{file.name}", file.name, known)
    asset = Asset(official.name, (source,), official.licence, official.citation, "random")
    monkeypatch.setattr(
        sys.modules["deidbench.assets.registry"], "_REGISTRY", {official.name: asset}
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_fetched_and_equals_represent(
    name: str, represent: Any, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_weights(name, network)
    with served(network) as url:
        offer(name, file, url, monkeypatch)
        recognizer = plugins.build("recognizers", f"deepface:{name}")
    assert recognizer.name == f"deepface:{name}"
    assert recognizer.weights_sha256 == assets.sha256_of(file)
    check_recognizer(recognizer)
    crops = crops_of(name, 2 if name in LARGE else 5)
    with torch.inference_mode():
        together = recognizer(crops)
        alone = torch.cat([recognizer(crop[None]) for crop in crops])
    theirs = represent(name, file, crops)
    assert float((theirs - theirs.roll(1, 0)).abs().max(1).values.min()) > 1e-2  # they differ
    torch.testing.assert_close(together, theirs.float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_a_photograph_in_whole_numbers_gives_what_represent_gives(
    name: str, represent: Any, network: Path
) -> None:
    """deepface scales 8-bit pixels to [0, 1] itself."""
    file = make_weights(name, network)
    pixels = (crops_of(name, 3, seed=2) * 255).round()
    theirs = represent(name, file, pixels)
    ours = DeepFace(name, file)(pixels / 255)
    torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_crop_of_a_chip_is_the_box_of_the_detector(name: str) -> None:
    """It lies inside the chip, and the landmarks fall in it as in the box."""
    size = MODELS[name].size
    landmarks = chip_template()[None]
    ramps = torch.stack(torch.meshgrid(*[torch.arange(CHIP_SIZE) / CHIP_SIZE] * 2, indexing="xy"))
    chip = torch.cat([ramps, torch.ones(1, CHIP_SIZE, CHIP_SIZE)])[None]
    x, y, inside = align(chip, landmarks, BOX * size - 0.5, size)[0]
    assert float(inside.min()) > 1 - 1e-5
    middle = (BOX[2] * size - 0.5).round().long()
    assert float(x[middle[1], middle[0]] * CHIP_SIZE) == pytest.approx(80, abs=2)
    assert float(y[middle[1], middle[0]] * CHIP_SIZE) == pytest.approx(95.7, abs=3)


def test_the_box_is_symmetric() -> None:
    mirrored = torch.stack([1 - BOX[:, 0], BOX[:, 1]], 1)[[1, 0, 2, 4, 3]]
    torch.testing.assert_close(BOX, mirrored)


def test_every_model_of_the_package_is_offered_or_explained() -> None:
    from deepface.modules import modeling

    theirs = modeling.AVAILABLE_MODELS["facial_recognition"]
    assert theirs.keys() - MODELS.keys() == {"Dlib", "Buffalo_L"}
    for name, model in MODELS.items():
        place = theirs[name].get("pytorch", theirs[name].get("any"))
        expected = f"pytorch.{model.module}." if model.network else "onnx.SFace."
        assert f"facial_recognition.{expected}" in place


@pytest.mark.parametrize("name", sorted(MODELS))
def test_weights_come_from_where_deepface_has_them(name: str) -> None:
    kind = "pytorch" if MODELS[name].network else "onnx"
    module = importlib.import_module(
        f"deepface.models.facial_recognition.{kind}.{MODELS[name].module or name}"
    )
    found = [value for key, value in vars(module).items() if re.fullmatch(r"[A-Z0-9_]+", key)]
    addresses = {url for value in found for url in (value if isinstance(value, list) else [value])}
    ours = {source.location for source in assets.registry()[MODELS[name].asset].sources}
    if MODELS[name].network:
        assert ours <= addresses
    else:
        assert ours & addresses  # and the same file at a fixed commit


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("Arcface", "no deepface model called 'Arcface'. Did you mean 'deepface:ArcFace'? "),
        ("nonsense", "no deepface model called 'nonsense'. Models: VGG-Face, Facenet, "),
        (None, "deepface needs a model. Write deepface:MODEL. Models: VGG-Face, "),
        ("Dlib", "deepface:Dlib is not offered: it is the recognizer 'dlib' here."),
        ("Buffalo_L", "use onnx:FILE"),
    ],
)  # fmt: skip
def test_an_unknown_model_is_answered_with_the_list(argument: str | None, message: str) -> None:
    with pytest.raises(DeidbenchError, match=re.escape(message)) as caught:
        DeepFace(argument)
    assert "\n" not in str(caught.value)


def test_the_files_of_another_model_are_refused(network: Path) -> None:
    file = make_weights("DeepID", network)
    with pytest.raises(WeightsError, match="no tensor"):
        DeepFace("OpenFace", file)
    with pytest.raises(DeidbenchError, match="not a whole ONNX file"):
        DeepFace("SFace", file)


def test_it_attacks_only_when_named_and_says_what_it_is() -> None:
    assert not DeepFace.by_default and DeepFace.needs_argument


def test_without_the_package_the_extra_is_named(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_weights("DeepID", network)
    for module in [name for name in sys.modules if name.split(".")[0] == "deepface"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "deepface", None)
    with pytest.raises(AssetUnavailableError, match=r"pip install 'deidbench\[deepface\]'"):
        DeepFace("DeepID", file)


_ALONE = """
import json, os, sys, warnings
from pathlib import Path
import torch
before = dict(os.environ), list(warnings.filters)
from deidbench.recognizers.deepface import DeepFace
imported = "deepface" in sys.modules
DeepFace("DeepID", Path(sys.argv[1]))
from deepface.commons import backend_utils
after = dict(os.environ), list(warnings.filters)
changed = {k for k in after[0] if after[0][k] != before[0].get(k)} - {"LD_LIBRARY_PATH"}
json.dump([imported, sorted(changed), after[1] == before[1], backend_utils._backend_engine,
           "tensorflow" in sys.modules, sorted(p.name for p in Path.home().iterdir())], sys.stdout)
"""


def test_the_package_is_imported_late_and_leaves_no_trace(network: Path) -> None:
    """No variable, warning filter, chosen backend, folder at home, or word on stdout."""
    file = make_weights("DeepID", network)
    home = network / "user"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _ALONE, str(file)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent,
        env={"HOME": str(home), "OMP_NUM_THREADS": "1", "DEEPFACE_LOG_LEVEL": "10"},
    )  # fmt: skip
    assert json.loads(done.stdout) == [False, [], True, None, False, []]
