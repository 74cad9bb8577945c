"""MobileFaceNet trained on MS-Celeb-1M, refined (github foamliu/MobileFaceNet, Apache-2.0)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from ._base import FrozenRecognizer
from ._conv import Conv, Names
from ._mobilefacenet import BLOCKS, load, mobilefacenet


class MobileFaceNetMS1M(FrozenRecognizer):
    """MobileFaceNet of 1.0 M parameters, trained with ArcFace on 3.8 M faces; 128-d, cosine.

    Known accuracy: LFW View 2 99.28 %.
    """

    name = "mobilefacenet-ms1m"
    asset = "mobilefacenet-ms1m"
    mean = (0.485 * 255, 0.456 * 255, 0.406 * 255)
    scale = (0.229 * 255, 0.224 * 255, 0.225 * 255)
    chunk = 8

    @staticmethod
    def read(path: Path) -> nn.Module:
        """The network in a state dict of the original repository."""
        return load(_network(), path, _names())


def _network() -> nn.Module:
    stem = [
        Conv(3, 64, 3, nn.ReLU6(), stride=2, padding=1),
        Conv(64, 64, 3, nn.ReLU(), groups=64, padding=1),
        Conv(64, 64, 1, nn.ReLU()),
    ]
    return mobilefacenet(stem, lambda _: nn.ReLU6())


def _names() -> Iterator[Names]:
    yield Names("conv1.0", "conv1.1")
    yield Names("dw_conv.depthwise", "dw_conv.bn1")
    yield Names("dw_conv.pointwise", "dw_conv.bn2")
    for i in range(len(BLOCKS)):
        block = f"features.{i}.conv"
        yield Names(f"{block}.0.0", f"{block}.0.1")
        yield Names(f"{block}.1.0", f"{block}.1.1")
        yield Names(f"{block}.2", f"{block}.3")
    yield Names("conv2.0", "conv2.1")
    yield Names("gdconv.depthwise", "gdconv.bn")
    yield Names("conv3", "bn")
