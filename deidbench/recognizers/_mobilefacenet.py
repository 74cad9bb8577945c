"""MobileFaceNet (Chen, Liu, Gao, Han 2018, arXiv:1804.07573).

Two trainings of it are in use here. They differ in the activation, in one pointwise convolution
of the stem and in the names within their files: each of our modules lists its names in the
order in which the data flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor, nn

from ._conv import Conv, Names, load_convs
from ._weights import read_state_dict

# (width inside, width out, stride) of the inverted residual blocks.
BLOCKS = (
    (128, 64, 2),
    *[(128, 64, 1)] * 4,
    (256, 128, 2),
    *[(256, 128, 1)] * 6,
    (512, 128, 2),
    *[(256, 128, 1)] * 2,
)

Activation = Callable[[int], nn.Module]


class Block(nn.Sequential):
    """Inverted residual: widen, filter each channel, narrow; added to its input at stride 1."""

    def __init__(
        self, inputs: int, inside: int, outputs: int, stride: int, activation: Activation
    ) -> None:
        super().__init__(
            Conv(inputs, inside, 1, activation(inside)),
            Conv(inside, inside, 3, activation(inside), stride=stride, groups=inside, padding=1),
            Conv(inside, outputs, 1),
        )
        self.residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H/stride, W/stride)."""
        y = x
        for layer in self:
            y = layer(y)
        return x + y if self.residual else y


def mobilefacenet(stem: Iterable[nn.Module], activation: Activation) -> nn.Sequential:
    """(N, 3, 112, 112) -> (N, 128), the stem's output being (N, 64, 56, 56)."""
    widths = [64, *(outputs for _, outputs, _ in BLOCKS)]
    blocks = [
        Block(inputs, inside, outputs, stride, activation)
        for inputs, (inside, outputs, stride) in zip(widths, BLOCKS, strict=False)
    ]
    return nn.Sequential(
        *stem,
        *blocks,  # (N, 128, 7, 7)
        Conv(128, 512, 1, activation(512)),
        Conv(512, 512, 7, groups=512),  # (N, 512, 1, 1)
        Conv(512, 128, 1),
        nn.Flatten(),
    )


def load(network: nn.Module, path: Path, names: Iterable[Names]) -> nn.Module:
    """Fill a network from a state dict, all of which must be used.

    Raises:
        WeightsError: the file is damaged or holds another network.
    """
    weights = read_state_dict(path)
    load_convs(network, weights, names, epsilon=1e-5)
    weights.require_empty()
    return network
