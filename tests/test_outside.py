"""The tool that makes recognizers from elsewhere readable, against torch."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import outside
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench.recognizers.onnx import Sidecar, tomllib

RANDOM = np.random.default_rng(0)
SHAPES = {
    "kernel": (3, 3, 3, 4), "deep": (3, 3, 4, 2), "slope": (8,), "bias": (8,), "six": (),
    "matrix": (8, 5), "zero": (),
}  # fmt: skip
CONSTANTS = {
    **{name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()},
    "six": np.float32(1.5), "zero": np.float32(0),
    "pads": np.array([[0, 0], [1, 0], [2, 1], [0, 0]], np.int32),
    "axes": np.array([1, 2], np.int32), "shape": np.array([-1, 8], np.int32),
}  # fmt: skip


def convolution(padding: str, stride: int) -> dict[str, Any]:
    return {
        "padding": {"s": base64.b64encode(padding.encode()).decode()},
        "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
    }


def document(**changes: str) -> dict[str, Any]:
    """A graph with every operation that is converted; ``changes`` of operations by name."""
    steps: list[tuple[str, str, list[str], dict[str, Any]]] = [
        ("image", "Placeholder", [], {}),
        ("padded", "Pad", ["image", "pads"], {}),
        ("wide", "Conv2D", ["padded", "kernel"], convolution("SAME", 2)),
        ("positive", "Relu", ["wide"], {}),
        ("own", "DepthwiseConv2dNative", ["positive", "deep"], convolution("VALID", 1)),
        ("low", "Minimum", ["own", "zero"], {}),
        ("high", "Maximum", ["own", "zero"], {}),
        ("leak", "Mul", ["low", "slope"], {}),
        ("both", "AddV2", ["high", "leak"], {}),
        ("less", "Sub", ["both", "bias"], {}),
        ("capped", "Minimum", ["less", "six"], {}),
        ("mean", "Mean", ["capped", "axes"], {"keep_dims": {"b": True}}),
        ("flat", "Reshape", ["mean:0", "shape", "^image"], {}),
        ("told", "MatMul", ["flat", "matrix"], {}),
        ("idle", "Softmax", ["told"], {}),
    ]
    constants = [(name, "Const", [], {}) for name in CONSTANTS]
    nodes = [
        {"name": name, "op": changes.get(name, kind), "input": inputs, "attr": settings}
        for name, kind, inputs, settings in [*reversed(steps), *constants]
    ]
    weights = [
        {"name": name, "shape": list(np.shape(value)), "dtype": str(np.asarray(value).dtype)}
        for name, value in CONSTANTS.items()
    ]
    return {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": weights}]}


WEIGHTS = b"".join(np.asarray(value).tobytes() for value in CONSTANTS.values())


def known(image: Tensor) -> Tensor:
    """The same graph in torch, (N, H, W, 3) -> (N, 5)."""
    given = {name: torch.from_numpy(np.asarray(value)) for name, value in CONSTANTS.items()}
    x = F.pad(image.permute(0, 3, 1, 2), (2, 1, 1, 0))
    # TensorFlow pads what is odd after the image, and so that side/2 places remain, rounded up.
    for_side = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in (x.shape[3], x.shape[2])]
    x = F.pad(x, [one for total in for_side for one in (total // 2, total - total // 2)])
    x = F.relu(F.conv2d(x, given["kernel"].permute(3, 2, 0, 1), stride=2))
    x = F.conv2d(x, given["deep"].permute(2, 3, 0, 1).reshape(8, 1, 3, 3), groups=4)
    x = F.prelu(x, given["slope"]) - given["bias"][:, None, None]
    return x.clamp(max=1.5).mean((2, 3)) @ given["matrix"]


@pytest.mark.parametrize("size", [10, 11, 12])
def test_a_converted_graph_computes_as_torch_does(size: int) -> None:
    model = outside.to_onnx(outside.Graph(document(), WEIGHTS), "told", size)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    image = torch.rand(3, size, size, 3, generator=torch.Generator().manual_seed(size))
    (found,) = session.run(None, {"image": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), known(image), rtol=1e-4, atol=1e-5)


def test_only_what_the_output_needs_is_converted() -> None:
    model = outside.to_onnx(outside.Graph(document(told="Softplus"), WEIGHTS), "flat", 10)
    assert "matrix" not in {one.name for one in model.graph.initializer}
    assert not {one.op_type for one in model.graph.node} & {"MatMul", "Softmax"}


def test_an_operation_that_is_not_known_is_named() -> None:
    graph = outside.Graph(document(positive="Erf"), WEIGHTS)
    with pytest.raises(outside.OutsideError, match=r"no conversion is known for Erf \(positive\)"):
        outside.to_onnx(graph, "told", 10)


@pytest.mark.parametrize("change", ["short", "quantised"])
def test_weights_that_are_not_as_they_were_are_refused(change: str) -> None:
    given, weights = document(), WEIGHTS
    if change == "short":
        weights = weights[:-1]
    else:
        given["weightsManifest"][0]["weights"][0]["quantization"] = {"dtype": "uint8"}
    with pytest.raises(outside.OutsideError, match="are not as they were"):
        outside.Graph(given, weights)


@pytest.mark.parametrize("content", [None, b"rubbish"])
def test_another_archive_is_refused_in_one_line(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "models.tgz"
    if content is not None:
        archive.write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        outside.main([str(archive), str(tmp_path / "out")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", outside.MODELS, ids=lambda model: model.name)
def test_the_descriptions_are_those_that_deidbench_reads(model: outside.Model) -> None:
    read = Sidecar.model_validate(tomllib.loads(model.sidecar()))
    assert (read.width, read.height, read.layout) == (model.size, model.size, "nhwc")
    eyes, mouth = read.points()[:2, 1].mean(), read.points()[3:, 1].mean()
    assert 0.3 * model.size < eyes < mouth < 0.85 * model.size
    assert json.dumps(list(model.mean)) in model.sidecar()
