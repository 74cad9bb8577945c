"""Anybody's own network: an ONNX file and a few lines of TOML that say what it wants."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from torch import Tensor, nn

from deidbench.errors import DeidbenchError
from deidbench.geometry import ARC112, align
from deidbench.types import Similarity

from ._base import FrozenRecognizer
from ._onnxruntime import OnnxError, OnnxNetwork

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Side = Annotated[int, Field(ge=8, le=2048)]
_Point = tuple[FiniteFloat, FiniteFloat]
_Scale = Annotated[FiniteFloat, Field(gt=0)]


class Sidecar(BaseModel):
    """What an ONNX file wants. Values of colours are of pixels in [0, 255], in its own order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: _Side
    height: _Side
    colour: Literal["rgb", "bgr"]
    mean: FiniteFloat | tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    """Taken from each pixel, which is then divided by ``scale``."""
    scale: _Scale | tuple[_Scale, _Scale, _Scale]
    layout: Literal["nchw", "nhwc"] = "nchw"
    template: Literal["arc112"] | tuple[_Point, _Point, _Point, _Point, _Point]
    """Where the landmarks belong, in pixels of the crop; 'arc112' is that of ArcFace."""
    similarity: Similarity = "cosine"
    input: str | None = None
    output: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Sidecar:
        if self.template == "arc112" and self.width != self.height:
            raise ValueError(
                f"template arc112 is square, but the crop is {self.width} x {self.height}; "
                "write five points"
            )
        return self

    def points(self) -> Tensor:
        """The template in pixels of the crop, (5, 2)."""
        if isinstance(self.template, str):
            return (ARC112 + 0.5) * (self.width / 112) - 0.5
        return torch.tensor(self.template, dtype=torch.float32)

    def rgb(self, value: float | tuple[float, float, float]) -> tuple[float, float, float]:
        """A mean or scale for each of red, green and blue."""
        given = value if isinstance(value, tuple) else (value, value, value)
        return given if self.colour == "rgb" else (given[2], given[1], given[0])


class Onnx(FrozenRecognizer):
    """``onnx:FILE``: a network in an ONNX file, described by FILE.toml (docs/plugins.md).

    Its name in records is ``onnx:`` and the stem of the file; its hash is of both files. It
    computes on the CPU and has no gradients.

    Raises:
        DeidbenchError: no file is named, one of the two is missing or damaged, or they do not fit.
    """

    name = "onnx"
    differentiable = False
    by_default = False
    needs_argument = True

    def __init__(self, argument: str | None = None) -> None:
        if not argument:
            raise DeidbenchError("onnx needs a file. Write onnx:FILE, with FILE.toml beside it.")
        path = _existing(argument)
        beside = _beside(path)
        self.sidecar = read_sidecar(beside)
        self.size = max(self.sidecar.width, self.sidecar.height)
        self.template = self.sidecar.points()
        self.similarity = self.sidecar.similarity
        self.mean, self.scale = (
            self.sidecar.rgb(value) for value in (self.sidecar.mean, self.sidecar.scale)
        )
        super().__init__(path)
        self.name = f"onnx:{path.stem}"
        both = f"{self.weights_sha256} {hashlib.sha256(beside.read_bytes()).hexdigest()}"
        self.weights_sha256 = hashlib.sha256(both.encode()).hexdigest()

    def read(self, path: Path) -> nn.Module:
        """The network behind its order of colours and axes."""
        chosen = {"input": self.sidecar.input, "output": self.sidecar.output}
        network = OnnxNetwork(path, path.read_bytes(), **chosen)
        _require_shape(path, network.input.shape, self.sidecar)
        return nn.Sequential(_Arrange(self.sidecar), network)

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] and (N, 5, 2) in chip pixels -> (N, D) float32."""
        square = align(chips, landmarks, self.template, self.size)
        return self.forward(square[..., : self.sidecar.height, : self.sidecar.width])


class _Arrange(nn.Module):
    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__()
        self.flips = sidecar.colour == "bgr"
        self.last = sidecar.layout == "nhwc"

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(1) if self.flips else x
        return x.permute(0, 2, 3, 1) if self.last else x


def read_sidecar(path: Path) -> Sidecar:
    """The description of a network.

    Raises:
        DeidbenchError: it is no TOML, or an entry is missing, unknown or of the wrong kind.
    """
    try:
        entries = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DeidbenchError(f"{path.name} cannot be read as TOML: {error}. Mend it.") from error
    try:
        return Sidecar.model_validate(entries)
    except ValidationError as error:
        # Each branch of a choice makes an error of its own: one line an entry is enough.
        faults = "; ".join(dict.fromkeys(_fault(one, entries) for one in error.errors()))
        raise DeidbenchError(f"{path.name}: {faults}. See docs/plugins.md.") from error


def _fault(error: Any, entries: dict[str, Any]) -> str:
    if not error["loc"]:  # of the whole
        return str(error["ctx"]["error"])
    name = str(error["loc"][0])
    if name not in entries:
        return f"{name} is missing"
    if name not in _EXPECTED:
        return f"{name} is not known; there are {', '.join(_EXPECTED)}"
    return f"{name}: expected {_EXPECTED[name]}, but got {entries[name]!r}"


_EXPECTED = {
    "width": "pixels from 8 to 2048",
    "height": "pixels from 8 to 2048",
    "colour": "rgb or bgr",
    "mean": "a number or three",
    "scale": "a number above 0 or three",
    "layout": "nchw or nhwc",
    "template": "arc112 or five points [x, y]",
    "similarity": " or ".join(get_args(Similarity)),
    "input": "a name",
    "output": "a name",
}


def _existing(argument: str) -> Path:
    path = Path(argument)
    if not path.is_file():
        raise DeidbenchError(f"onnx: there is no file {path}. Name an ONNX file.")
    return path


def _beside(path: Path) -> Path:
    candidates = [path.with_name(f"{path.name}.toml"), path.with_suffix(".toml")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DeidbenchError(
        f"onnx: {path.name} is not described. Write {candidates[0].name} beside it "
        "(docs/plugins.md)."
    )


def _require_shape(path: Path, shape: list[Any], sidecar: Sidecar) -> None:
    sides = [sidecar.height, sidecar.width]
    wanted = [3, *sides] if sidecar.layout == "nchw" else [*sides, 3]
    pairs = zip(shape[1:], wanted, strict=True)
    if any(isinstance(got, int) and got != want for got, want in pairs):
        raise OnnxError(
            path, f"its input is {shape}, but the description says {sidecar.layout} of {wanted}"
        )
