"""Convolution, batch norm and activation as one layer: the norm is folded into the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._weights import Weights


class Names(NamedTuple):
    """Where a file keeps one convolution, its batch norm and, if learned, its activation."""

    conv: str
    norm: str
    slope: str | None = None


class PReLU(nn.PReLU):
    """As torch's, number for number, with a gradient that is several times faster on a CPU.

    Torch's own kernel for it, which compares element by element, took up to half of the time of a
    gradient of a MobileNet; this one has vector operations alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same."""
        if x.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(x)
        activated: Tensor = _Rectify.apply(x, self.weight)
        return activated


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:  # (N, C, ...), (C,)
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, slope = ctx.saved_tensors
        each = slope.reshape(1, -1, *[1] * (x.ndim - 2))
        above = torch.ops.aten.threshold_backward(grad, x, 0)  # 0 where x <= 0
        below = grad - above
        wanted = ctx.needs_input_grad
        to_x = torch.addcmul(above, below, each) if wanted[0] else None
        to_slope = (below * x).sum_to_size(each.shape).flatten() if wanted[1] else None
        return to_x, to_slope


class Conv(nn.Sequential):
    """Convolution (with the bias that a folded batch norm leaves), then an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        activation: nn.Module | None = None,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int = 0,
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
        super().__init__(conv, activation or nn.Identity())


def load_convs(
    network: nn.Module, weights: Weights, names: Iterable[Names], *, epsilon: float
) -> None:
    """Fill all ``Conv`` layers of a network; names go in the order of the data flow.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    layers = [module for module in network.modules() if isinstance(module, Conv)]
    for layer, name in zip(layers, names, strict=True):
        _load_conv(layer, weights, name, epsilon)


def _load_conv(layer: Conv, weights: Weights, names: Names, epsilon: float) -> None:
    weight, bias = (layer[0].get_parameter(part) for part in ("weight", "bias"))
    gain, shift = take_norm(weights, names.norm, len(weight), epsilon)
    kernel = weights.take(f"{names.conv}.weight", weight.shape)
    if f"{names.conv}.bias" in weights:
        shift = shift + weights.take(f"{names.conv}.bias", bias.shape) * gain
    with torch.no_grad():
        weight.copy_(kernel * gain.reshape(-1, 1, 1, 1))
        bias.copy_(shift)
        if names.slope is not None:
            slope = layer[1].get_parameter("weight")
            slope.copy_(weights.take(f"{names.slope}.weight", slope.shape))


def take_norm(weights: Weights, name: str, width: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """A batch norm as gain and shift of each channel."""
    gamma, beta, mean, variance = (
        weights.take(f"{name}.{part}", (width,))
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / torch.sqrt(variance + epsilon)
    return gain, beta - mean * gain
