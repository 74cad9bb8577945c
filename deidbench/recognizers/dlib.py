"""dlib's face recognition ResNet, ported to torch: it batches, has gradients, runs on a GPU.

Source: Davis King, dlib_face_recognition_resnet_model_v1 (CC0); http://dlib.net.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deidbench.types import Similarity

from ._base import FrozenRecognizer
from ._conv import Conv
from ._dlib_file import Layer, read_dlib
from ._weights import Weights, WeightsError

# (width, halves the image) of the residual blocks.
BLOCKS = (
    *[(32, False)] * 3,
    (64, True),
    *[(64, False)] * 3,
    (128, True),
    *[(128, False)] * 2,
    (256, True),
    *[(256, False)] * 2,
    (256, True),
)

# Where MTCNN's landmarks fall in dlib's own 150 px chips (its frontal detector, its 5-point
# predictor, padding 0.25): median over 194 LFW images outside the test people, made symmetric.
TEMPLATE = torch.tensor(
    [[47.24, 46.11], [101.76, 46.11], [74.50, 78.08], [50.55, 105.69], [98.45, 105.69]]
)


class Dlib(FrozenRecognizer):
    """ResNet with 29 convolutions, trained on 3 M faces; 128-d, Euclidean distance.

    Known accuracy: LFW View 2 99.38 %, by its author.
    """

    name = "dlib"
    asset = "dlib-resnet29"
    similarity: Similarity = "negative-euclidean"
    template = TEMPLATE
    size = 150
    mean = (122.782, 117.001, 104.298)
    scale = (256.0, 256.0, 256.0)

    @staticmethod
    def read(path: Path) -> nn.Module:
        """The network in dlib's own file."""
        file = read_dlib(path)
        if [layer[:2] for layer in file.layers] != list(_expected()):
            raise WeightsError(path, "its layers are not those of dlib's ResNet-29")
        if file.size != (150, 150) or not np.allclose(file.mean, Dlib.mean, rtol=1e-6):
            raise WeightsError(
                path, f"its input is {file.size} less {file.mean}, another network's"
            )
        network = _network()
        _fill(network, path, file.layers)
        return network


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights; zeros fill what is smaller."""

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        stride, padding = (2, 0) if halves else (1, 1)
        self.branch = nn.Sequential(
            Conv(inputs, outputs, 3, nn.ReLU(), stride=stride, padding=padding),
            Conv(outputs, outputs, 3, padding=1),
        )
        self.shortcut = nn.AvgPool2d(2) if halves else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W), or half that height and width."""
        x, y = self.shortcut(x), self.branch(x)
        shape = [max(sizes) for sizes in zip(x.shape[1:], y.shape[1:], strict=True)]
        return F.relu(_pad(x, shape) + _pad(y, shape))


def _pad(x: Tensor, shape: list[int]) -> Tensor:
    channels, height, width = (want - got for want, got in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels))


def _network() -> nn.Sequential:
    blocks = []
    inputs = 32
    for outputs, halves in BLOCKS:
        blocks.append(Residual(inputs, outputs, halves))
        inputs = outputs
    return nn.Sequential(
        Conv(3, 32, 7, nn.ReLU(), stride=2),  # (N, 32, 72, 72)
        nn.MaxPool2d(3, 2),
        *blocks,  # (N, 256, 2, 2)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, 128, bias=False),
    )


def _fill(network: nn.Sequential, path: Path, layers: list[Layer]) -> None:
    """Each convolution is followed by a gain and a shift, which are folded into it."""
    named = {f"{i} {layer.kind}": layer.parameters for i, layer in enumerate(layers)}
    weights = Weights(path, {name: row for name, row in named.items() if len(row)})
    names = (name for name in named if name in weights)
    for conv in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        width, size = conv.out_channels, conv.weight.numel()
        kernel, bias = weights.take(next(names), (size + width,)).tensor_split([size])
        gain, shift = weights.take(next(names), (2 * width,)).tensor_split([width])
        with torch.no_grad():
            conv.weight.copy_(kernel.reshape_as(conv.weight) * gain[:, None, None, None])
            conv.get_parameter("bias").copy_(bias * gain + shift)
    last = network[-1].get_parameter("weight")
    matrix = weights.take(next(names), (last.numel(),)).reshape(last.shape[::-1])
    with torch.no_grad():
        last.copy_(matrix.T)


def _expected() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Kind and settings of each layer in dlib's file."""
    yield from _expected_conv(32, 7, stride=2, padding=0)
    yield "relu_", ()
    yield "max_pool_2", (3, 3, 2, 2, 0, 0)
    for width, halves in BLOCKS:
        yield from _expected_conv(width, 3, stride=1 + halves, padding=1 - halves)
        yield "relu_", ()
        yield from _expected_conv(width, 3, stride=1, padding=1)
        if halves:
            yield "avg_pool_2", (2, 2, 2, 2, 0, 0)
        yield "add_prev_", ()
        yield "relu_", ()
    yield "avg_pool_2", (0, 0, 1, 1, 0, 0)
    yield "fc_2", (128, 256, 1)


def _expected_conv(
    width: int, kernel: int, *, stride: int, padding: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "con_4", (width, kernel, kernel, stride, stride, padding, padding)
    yield "affine_", (0,)
