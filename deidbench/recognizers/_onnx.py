"""The constants of an ONNX file, block-quantised ones included, as float tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._weights import Weights, WeightsError


def read_onnx(path: Path, rename: Callable[[str], str]) -> Weights:
    """Initialisers by name; quantised ones dequantised, under the name that the graph computes.

    ``rename`` turns the graph's names into ours.

    Raises:
        WeightsError: the file is damaged or its quantisation is of another kind.
    """
    import onnx

    try:
        graph = onnx.load(str(path)).graph
        read = {name for node in graph.node for name in node.input}  # files may hold leftovers
        constants = (i for i in graph.initializer if i.name in read)
        tensors = {i.name: _tensor(onnx.numpy_helper.to_array(i)) for i in constants}
        for node in graph.node:
            if node.op_type == "DequantizeLinear":
                tensors[node.output[0]] = _dequantised(node, tensors)
            elif node.op_type == "Reshape":
                _reshape(node, tensors)
            elif node.op_type == "PRelu":
                slope = node.input[1]  # (C, 1, 1) in ONNX, (C,) in torch
                tensors[slope] = tensors[slope].flatten()
    except Exception as error:  # a damaged protocol buffer raises anything
        raise WeightsError(path, "it is not a whole ONNX file of known structure") from error
    return Weights(path, {rename(name): tensor for name, tensor in tensors.items()})


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


def _dequantised(node: Any, tensors: dict[str, Tensor]) -> Tensor:
    """(q - zero point) * scale, both given for each block along one axis."""
    settings = {a.name: a.i for a in node.attribute}
    axis, block = settings["axis"], settings["block_size"]
    quantised, scale, zero = (tensors.pop(name) for name in node.input)
    scale, zero = (v.repeat_interleave(block, axis) for v in (scale, zero.to(scale)))
    length = quantised.shape[axis]  # the last block may be a part
    return (quantised - zero.narrow(axis, 0, length)) * scale.narrow(axis, 0, length)


def _reshape(node: Any, tensors: dict[str, Tensor]) -> None:
    shape = tensors.pop(node.input[1]).tolist()
    tensors[node.output[0]] = tensors.pop(node.input[0]).reshape(shape)
