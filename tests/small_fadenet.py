"""Small networks, faces and runs with which FaDeNet is tested."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deidbench.geometry import align, chip_template
from fadenet.checkpoint import Provenance
from fadenet.config import TrainConfig
from fadenet.faces import Faces
from fadenet.losses import LossConfig
from fadenet.model import FaDeNet, FaDeNetConfig, ResidualBlock
from fadenet.train import Eyes, Trainer

SMALL = FaDeNetConfig(widths=(8, 16, 16), working_size=48)
GENTLE = LossConfig(pixel=0.1, smooth=0.1)


def faces_of(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random images in [0, 1]."""
    coarse = torch.rand(shape[0], 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, shape[1:], mode="bilinear", align_corners=False)


def woken(config: FaDeNetConfig = SMALL, seed: int = 0) -> FaDeNet:
    """A network whose heads are no longer zero, so that it changes something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FaDeNet(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in (network.head, network.shift_head):
            head.weight.copy_(0.3 * torch.randn(head.weight.shape, generator=random))
    return network.requires_grad_(False).eval()


def taught(config: FaDeNetConfig = SMALL, seed: int = 0) -> FaDeNet:
    """A woken network that strength and key steer too."""
    network = woken(config, seed)
    random = torch.Generator().manual_seed(seed)
    levels = network.steering.levels
    levels.weight.copy_(torch.randn(levels.weight.shape, generator=random))
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            block.second.weight.copy_(
                0.1 * torch.randn(block.second.weight.shape, generator=random)
            )
    return network


def provenance() -> Provenance:
    return Provenance(
        training={"steps": 3}, critics={"sface": "0" * 64}, data="four images of two people",
        subjects=("abc", "def"), steps=3, seed=1, deidbench="0.1.0",
    )  # fmt: skip


class Eye(nn.Module):
    """A small frozen recognizer of random weights that keeps the contract of ``Recognizer``."""

    version = 1
    similarity = "cosine"

    def __init__(self, name: str = "eye", seed: int = 0) -> None:
        super().__init__()
        self.name = name
        self.weights_sha256 = f"{seed:064d}"
        random = torch.Generator().manual_seed(seed)
        self.layer = nn.Conv2d(3, 16, 8, stride=8, bias=False).requires_grad_(False)
        self.layer.weight.copy_(torch.randn(16, 3, 8, 8, generator=random) / 10)

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        crops = align(chips, landmarks, chip_template(32), 32)
        seen: Tensor = self.layer(crops - 0.5)
        return seen.flatten(1)


class Gap:
    """Mean squared difference: an image metric without weights."""

    name, version, higher_is_better, unit = "gap", 1, False, "1"

    def to(self, device: Any) -> Gap:
        return self

    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        return (original - treated).square().mean((1, 2, 3))


def people(count: int = 6, each: int = 2, size: int = 48) -> Faces:
    chips = (faces_of(count * each, size, size) * 255).to(torch.uint8)
    landmarks = chip_template(size).expand(count * each, 5, 2).clone()
    return Faces(chips, landmarks, tuple(f"person{i // each}" for i in range(count * each)))


def config(**changes: Any) -> TrainConfig:
    base = TrainConfig(
        critics=("eye",), steps=6, batch=4, reproduce_steps=1, ramp_steps=2, log_every=1,
        checkpoint_every=100, validation_faces=2, model=SMALL, ema=0.5, loss=GENTLE,
        memory=4, samples=False,
    )  # fmt: skip
    return replace(base, **changes)


def trainer(out: Path, settings: TrainConfig | None = None) -> Trainer:
    return Trainer(
        settings or config(), people(), Eyes({"eye": Eye()}, Gap()), out=out,
        say=lambda line: None,
    )  # fmt: skip
