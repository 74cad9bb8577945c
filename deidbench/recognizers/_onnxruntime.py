"""A network that only onnxruntime can compute, as a torch module without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deidbench.errors import DeidbenchError


class OnnxError(DeidbenchError):
    """An ONNX file cannot be used as a network."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path.name} cannot be used: {what}.")


class OnnxNetwork(nn.Module):
    """float32 images to (N, D) float32, on the CPU with as many threads as torch has.

    Faces go in together where the file leaves the number of images open, else one by one.

    Args:
        path: for messages. data: the bytes of the file.
        input, output: which of them to use, where there are several.
    Raises:
        OnnxError: the file is damaged, keeps weights in other files, or has no such input or
            output.
    """

    def __init__(
        self, path: Path, data: bytes, *, input: str | None = None, output: str | None = None
    ) -> None:
        super().__init__()
        _refuse_other_files(path, data)
        self._session = _session(path, data)
        self._path = path
        self.input = _choose(path, "input", self._session.get_inputs(), input)
        self._output = _choose(path, "output", self._session.get_outputs(), output).name
        if self.input.type != "tensor(float)":
            raise OnnxError(path, f"expected float32 images, but its input is a {self.input.type}")
        if len(self.input.shape) != 4:
            raise OnnxError(path, f"expected an input of 4 axes, but got {self.input.shape}")
        if self.input.shape[0] not in (1, *_open(self.input.shape[:1])):
            what = f"it wants {self.input.shape[0]} images at once"
            raise OnnxError(path, f"{what}; export it for one, or for any number")

    def forward(self, images: Tensor) -> Tensor:
        """Four axes, as the file has them -> (N, D)."""
        if not len(images):
            return self.forward(images.new_zeros(1, *images.shape[1:]))[:0]
        given = np.ascontiguousarray(images.detach().float().cpu().numpy())
        parts = np.split(given, len(given)) if self.input.shape[0] == 1 else [given]
        return torch.from_numpy(np.concatenate([self._run(part) for part in parts])).to(images)

    def _run(self, images: Any) -> Any:
        try:
            (embeddings,) = self._session.run([self._output], {self.input.name: images})
        except Exception as error:  # onnxruntime has many kinds
            raise OnnxError(self._path, _one_line(error)) from error
        if np.ndim(embeddings) < 2 or len(embeddings) != len(images):
            got = np.shape(embeddings)
            raise OnnxError(self._path, f"expected {len(images)} embeddings, but got {got}")
        return np.asarray(embeddings, np.float32).reshape(len(images), -1)


def _open(shape: list[Any]) -> list[Any]:
    """The axes whose length the file leaves open: they have a name or nothing."""
    return [length for length in shape if not isinstance(length, int)]


def _session(path: Path, data: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # files of other exporters make it talk
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds
        raise OnnxError(path, _one_line(error)) from error


def _choose(path: Path, kind: str, offered: list[Any], name: str | None) -> Any:
    names = [one.name for one in offered]
    if name is None and len(offered) == 1:
        return offered[0]
    if name not in names:
        wanted = f"has no {kind} '{name}'" if name else f"has several {kind}s"
        raise OnnxError(path, f"it {wanted}; write {kind} = one of {', '.join(names)}")
    return offered[names.index(name)]


def _refuse_other_files(path: Path, data: bytes) -> None:
    """Weights outside would escape the hash, and may name any path."""
    import onnx

    try:
        graph = onnx.load_from_string(data).graph
    except Exception as error:  # a damaged protocol buffer raises anything
        raise OnnxError(path, "it is not a whole ONNX file") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(graph)):
        raise OnnxError(path, "it keeps weights in other files; save it as one file")


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
