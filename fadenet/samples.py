"""A picture of treated faces for each look at a training run; nobody on it exists."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator, Tensor

from deidbench import plugins

from .model import FaDeNet

COUNT = 6
STRENGTHS = (0.25, 0.5, 1.0)


class SampleGrid:
    """Synthetic faces, each in a column, treated at growing strengths from row to row."""

    def __init__(self, device: str) -> None:
        from deidbench.alignment import Aligner
        from deidbench.images import read_image

        samples = plugins.load("datasets", "synthid")().samples()
        people: dict[str, Path] = {}
        for sample in samples:
            people.setdefault(sample.subject, sample.path)
        chosen = [people[name] for name in sorted(people)][:: max(1, len(people) // COUNT)]
        aligned = Aligner()([read_image(path) for path in chosen[:COUNT]])
        self.chips = aligned.chips.float().to(device) / 255

    @torch.no_grad()
    def write(self, network: FaDeNet, path: Path) -> None:
        """Draw the grid as a PNG; the first row is untreated."""
        from PIL import Image

        key = None
        if network.config.key:
            random = Generator().manual_seed(0)
            key = torch.randn(len(self.chips), network.config.key, generator=random)
        rows = [self.chips, *(network(self.chips, strength, key) for strength in STRENGTHS)]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_tiled(rows).numpy()).save(path)


def _tiled(rows: list[Tensor]) -> Tensor:
    """Rows of (N, 3, H, W) in [0, 1] -> one uint8 image (rows * H, N * W, 3)."""
    lines = [row.permute(2, 0, 3, 1).flatten(1, 2) for row in rows]  # (H, N * W, 3)
    return (torch.cat(lines) * 255).round().to(torch.uint8).cpu()
