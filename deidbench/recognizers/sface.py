"""SFace of the OpenCV zoo, from its block-quantised int8 ONNX file (Apache-2.0)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from ._base import FrozenRecognizer
from ._conv import Conv, Names, PReLU, load_convs, take_norm
from ._onnx import read_onnx
from ._weights import Weights, WeightsError

# (width out, stride) of the depthwise-separable layers (MobileNet v1, Howard et al. 2017).
LAYERS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
HEAD_EPSILON = 2e-5
PIXELS = 7 * 7  # of each channel before the linear layer

# MXNet's endings, in the graph's own writing, and torch's.
_SUFFIXES = {
    "_gamma": ".weight",
    "_beta": ".bias",
    "_moving_mean": ".running_mean",
    "_moving_var": ".running_var",
    "_weight_reshaped": ".weight",
    "_weight_dequantized": ".weight",
    "_bias_dequantized": ".bias",
}


class SFace(FrozenRecognizer):
    """MobileNet v1 trained with the SFace loss (Zhong et al. 2021, doi 10.1109/TIP.2020.3048632).

    128-d, cosine. The int8 weights are dequantised and computed with in float32.
    """

    name = "sface"
    asset = "sface-int8"
    mean = (127.5, 127.5, 127.5)
    scale = (128.0, 128.0, 128.0)
    chunk = 4

    @staticmethod
    def read(path: Path) -> nn.Module:
        """The network in the ONNX file, its scaling of the input left out."""
        weights = read_onnx(path, rename=_torch_name)
        constants = [weights.take(f"scalar_op{i}", (1,)).item() for i in (1, 2)]
        if constants != [127.5, 1 / 128]:
            raise WeightsError(path, f"it scales its input by {constants}, not 127.5 and 1/128")
        network = _network()
        load_convs(network, weights, _names(), epsilon=1e-3)
        _load_head(network[-1], weights)
        weights.require_empty()
        return network


def _network() -> nn.Sequential:
    layers: list[nn.Module] = [Conv(3, 32, 3, PReLU(32), padding=1)]
    inputs = 32
    for outputs, stride in LAYERS:
        depthwise = PReLU(inputs)
        layers.append(Conv(inputs, inputs, 3, depthwise, stride=stride, groups=inputs, padding=1))
        layers.append(Conv(inputs, outputs, 1, PReLU(outputs)))
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024 * PIXELS, 128))


def _names() -> Iterator[Names]:
    yield _unit("conv_1")
    for i in range(2, len(LAYERS) + 2):
        yield _unit(f"conv_{i}_dw")
        yield _unit(f"conv_{i}")


def _unit(name: str) -> Names:
    return Names(f"{name}_conv2d", f"{name}_batchnorm", f"{name}_relu")


def _load_head(linear: nn.Module, weights: Weights) -> None:
    """Fold the batch norms on both sides of the linear layer into it."""
    weight, bias = linear.get_parameter("weight"), linear.get_parameter("bias")
    matrix = weights.take("pre_fc1.weight", weight.shape)
    own_bias = weights.take("pre_fc1.bias", bias.shape)
    norm = take_norm(weights, "bn1", matrix.shape[1] // PIXELS, HEAD_EPSILON)
    gain_in, shift_in = (v.repeat_interleave(PIXELS) for v in norm)
    gain_out, shift_out = take_norm(weights, "fc1", len(matrix), HEAD_EPSILON)
    with torch.no_grad():
        bias.copy_((own_bias + matrix @ shift_in) * gain_out + shift_out)
        weight.copy_(matrix * gain_out[:, None] * gain_in)


def _torch_name(name: str) -> str:
    for theirs, ours in _SUFFIXES.items():
        if name.endswith(theirs):
            return name.removesuffix(theirs) + ours
    return name
