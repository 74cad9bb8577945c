"""MobileFaceNet trained on CASIA-WebFace (github bubbliiiing/arcface-pytorch, MIT)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from ._base import FrozenRecognizer
from ._conv import Conv, Names, PReLU
from ._mobilefacenet import load, mobilefacenet

_BLOCKS = (
    "conv_23",
    *(f"conv_3.model.{i}" for i in range(4)),
    "conv_34",
    *(f"conv_4.model.{i}" for i in range(6)),
    "conv_45",
    *(f"conv_5.model.{i}" for i in range(2)),
)


class MobileFaceNetCasia(FrozenRecognizer):
    """MobileFaceNet of 1.0 M parameters, trained with ArcFace on 0.5 M faces; 128-d, cosine.

    Known accuracy: LFW View 2 98.65 %.
    """

    name = "mobilefacenet-casia"
    asset = "mobilefacenet-casia"
    mean = (127.5, 127.5, 127.5)
    scale = (127.5, 127.5, 127.5)
    chunk = 8

    @staticmethod
    def read(path: Path) -> nn.Module:
        """The network in a state dict of the original repository."""
        return load(_network(), path, _names())


def _network() -> nn.Module:
    stem = [
        Conv(3, 64, 3, PReLU(64), stride=2, padding=1),
        Conv(64, 64, 3, PReLU(64), groups=64, padding=1),
    ]
    return mobilefacenet(stem, PReLU)


def _names() -> Iterator[Names]:
    yield _unit("conv1")
    yield _unit("conv2_dw")
    for block in _BLOCKS:
        yield _unit(f"{block}.conv")
        yield _unit(f"{block}.conv_dw")
        yield Names(f"arcface.{block}.project.conv", f"arcface.{block}.project.bn")
    yield Names("arcface.sep", "arcface.sep_bn", "arcface.prelu")
    yield Names("arcface.GDC_dw", "arcface.GDC_bn")
    yield Names("arcface.features", "arcface.last_bn")


def _unit(name: str) -> Names:
    prefix = f"arcface.{name}"
    return Names(f"{prefix}.conv", f"{prefix}.bn", f"{prefix}.prelu")
