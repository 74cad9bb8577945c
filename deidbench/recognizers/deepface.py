"""The recognition models of the package deepface (github serengil/deepface, MIT).

The package builds the networks, in torch or, where there is nothing else, for onnxruntime. Their
weights come through our own assets. Colours and their scale are those of ``DeepFace.represent``
as it is by default: BGR in [0, 1].
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deidbench.errors import AssetUnavailableError, DeidbenchError

from ._base import FrozenRecognizer
from ._onnxruntime import OnnxNetwork
from ._weights import fill, read_state_dict

# deepface crops the square box of its default detector, OpenCV's frontal Haar cascade, from a face
# that it turned until the eyes are level. MTCNN's landmarks fall here in that box, whose side is 1:
# median over 392 photographs of LFW outside the test people, made symmetric.
BOX = torch.tensor(
    [[0.3169, 0.4022], [0.6831, 0.4022], [0.5, 0.6112], [0.3392, 0.7969], [0.6608, 0.7969]]
)


class Model(NamedTuple):
    """What deepface does with a model."""

    asset: str
    size: int
    """Side of the square crop."""
    module: str = ""
    network: str = ""
    """Its class in that module of deepface; none for an ONNX file."""
    settings: Mapping[str, int] = MappingProxyType({})
    descriptor: str = ""
    """The class around it whose output, scaled to length 1, is the embedding."""
    padding: int = 0
    """Black rows above and below the crop."""


MODELS: Mapping[str, Model] = {
    "VGG-Face": Model(
        "deepface-vgg-face", 224, "VGGFace", "VggFaceBaseModel", descriptor="VggFaceDescriptor"
    ),
    "Facenet": Model(
        "deepface-facenet", 160, "Facenet", "InceptionResNetV1", settings={"dimension": 128}
    ),
    "Facenet512": Model(
        "deepface-facenet512", 160, "Facenet", "InceptionResNetV1", settings={"dimension": 512}
    ),
    "OpenFace": Model("deepface-openface", 96, "OpenFace", "OpenFaceNet"),
    "DeepFace": Model("deepface-deepface", 152, "FbDeepFace", "DeepFaceNet"),
    "DeepID": Model("deepface-deepid", 47, "DeepID", "DeepIdNet", padding=4),
    "ArcFace": Model("deepface-arcface", 112, "ArcFace", "ArcFaceModel"),
    "GhostFaceNet": Model("deepface-ghostfacenet", 112, "GhostFaceNet", "GhostFaceNetV1"),
    "SFace": Model("deepface-sface", 112),
}
# deepface has two more, for other packages.
_ELSEWHERE = {
    "Dlib": "it is the recognizer 'dlib' here",
    "Buffalo_L": "it needs the package insightface; use onnx:FILE with its ONNX file",
}


class DeepFace(FrozenRecognizer):
    """``deepface:MODEL``: a model of deepface, compared by the cosine, as deepface does by default.

    Args:
        argument: its name in deepface.
        weights: the file, where it is already at hand; otherwise the asset is fetched.
    Raises:
        DeidbenchError: there is no such model.
        AssetUnavailableError: deepface is not installed, or the weights cannot be had.
    """

    name = "deepface"
    mean = (0.0, 0.0, 0.0)
    scale = (255.0, 255.0, 255.0)
    by_default = False
    needs_argument = True
    chunk = 8

    def __init__(self, argument: str | None = None, weights: Path | None = None) -> None:
        self.model = _model(argument)
        self.name = f"deepface:{argument}"
        self.asset = self.model.asset
        self.size = self.model.size
        self.template = BOX * self.size - 0.5
        self.differentiable = bool(self.model.network)
        super().__init__(weights)

    def read(self, path: Path) -> nn.Module:
        """The network in deepface's file of weights: RGB crops in [0, 1] to embeddings."""
        if not self.model.network:
            return nn.Sequential(_Bytes(), OnnxNetwork(path, path.read_bytes()))
        module = _import(f"deepface.models.facial_recognition.pytorch.{self.model.module}")
        network = fill(
            getattr(module, self.model.network)(**self.model.settings), read_state_dict(path)
        )
        if self.model.descriptor:
            network = nn.Sequential(getattr(module, self.model.descriptor)(network), _Unit())
        return nn.Sequential(_Input(self.model.padding), network)


class _Input(nn.Module):
    """Blue first, and black above and below a crop that is not as high as the input."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, crops: Tensor) -> Tensor:
        return F.pad(crops.flip(1), (0, 0, self.padding, self.padding))


class _Unit(nn.Module):
    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings)


class _Bytes(nn.Module):
    """Pixels as the SFace of deepface takes them: RGB in whole numbers, cut off."""

    def forward(self, crops: Tensor) -> Tensor:
        return (crops * 255).to(torch.uint8).float()


def _model(name: str | None) -> Model:
    known = f"Models: {', '.join(MODELS)}."
    if not name:
        raise DeidbenchError(f"deepface needs a model. Write deepface:MODEL. {known}")
    if name in MODELS:
        return MODELS[name]
    if name in _ELSEWHERE:
        raise DeidbenchError(f"deepface:{name} is not offered: {_ELSEWHERE[name]}.")
    near = difflib.get_close_matches(name, MODELS, 1)
    hint = f" Did you mean 'deepface:{near[0]}'?" if near else ""
    raise DeidbenchError(f"no deepface model called '{name}'.{hint} {known}")


def _import(name: str) -> Any:
    """A module of deepface, whose torch half needs no choice of a backend."""
    try:
        with _left_alone():
            return importlib.import_module(name)
    except ImportError as error:
        raise AssetUnavailableError(
            f"deepface cannot be imported ({error}). Run: pip install 'deidbench[deepface]'."
        ) from error


@contextlib.contextmanager
def _left_alone() -> Iterator[None]:
    """Nothing that an import says or sets stays behind, and stdout is left to us."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        yield
