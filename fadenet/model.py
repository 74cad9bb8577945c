"""FaDeNet's whole network: an encoder-decoder that repaints a face by a bounded, smooth change.

A FaDeNet-style implementation from the abstract of Meden, Peer, Struc, IWOBI 2018,
doi 10.1109/IWOBI.2018.8464214. Only the abstract is public: an encoder-decoder reproduces the
face while a second network stops recognising it. Layers, sizes and losses are therefore ours.

The decoder paints no face from nothing. It says how to change the one it was given: a smooth
displacement of pixels and a smooth change of colour, both bounded and both zero before training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class FaDeNetConfig:
    """Shape of the network; saved inside every checkpoint."""

    widths: tuple[int, ...] = (24, 48, 96, 160)
    """Channels at H/2, H/4, H/8, ...; their number fixes the depth."""
    blocks: int = 1
    """Residual blocks at each level below the first, in the encoder."""
    working_size: int = 160
    """Pixels of the shorter side at which the network looks at a face."""
    colour: float = 0.25
    """Largest change of a colour value; values lie in [0, 1]."""
    shift: float = 0.04
    """Largest displacement of a pixel, as a fraction of the side; 0 switches it off."""

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> FaDeNetConfig:
        """Rebuild from ``asdict``, where JSON has made lists of tuples."""
        return cls(**{**fields, "widths": tuple(fields["widths"])})

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "widths": list(self.widths)}


@dataclass(frozen=True)
class Change:
    """What the decoder asks for, for images of any size."""

    colour: Tensor
    """(N, 3, h, w), added to the colours, within +-config.colour."""
    shift: Tensor
    """(N, 2, h, w), (x, y) in fractions of the side, within +-config.shift."""


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))); starts as the identity, so depth costs no normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same."""
        x = x + self.second(F.leaky_relu(self.first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class FaDeNet(nn.Module):
    """The encoder-decoder: float32 RGB (N, 3, H, W) in [0, 1] -> same shape, in [0, 1].

    H and W are free. The network looks at the face at ``working_size``; the change that it asks
    for is smooth, so it is enlarged to (H, W) and applied to the full-size pixels, which keeps
    fine detail and makes the cost nearly independent of the size.
    """

    def __init__(self, config: FaDeNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or FaDeNetConfig()
        widths = self.config.widths
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)
        self.downs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)
        )
        self.encoders = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(self.config.blocks)))
            for width in widths[1:]
        )
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.shift_head = nn.Conv2d(widths[1], 2, 3, padding=1)
        for head in (self.head, self.shift_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, faces: Tensor, strength: float = 1.0) -> Tensor:
        """The treated faces; ``strength`` in [0, 1] scales the change, 0 gives the input."""
        if strength == 0:
            return faces.clone()
        return self.apply_change(faces, self.change(faces), strength)

    def change(self, faces: Tensor) -> Change:
        """The change that is asked for at full strength."""
        x = self._look(faces)  # (N, 12, h/2, w/2)
        x = self.stem(x * 2 - 1)  # (N, 24, h/2, w/2)
        skips = []
        for down, encoder in zip(self.downs, self.encoders, strict=True):
            skips.append(x)
            x = encoder(down(F.leaky_relu(x, 0.1)))  # (N, 48, h/4, w/4) to (N, 160, h/16, w/16)
        shift = x
        for level in reversed(range(len(skips))):
            if level == 0:
                shift = self.shift_head(x)  # (N, 2, h/4, w/4)
            x = F.interpolate(self.ups[level](x), scale_factor=2.0, mode="nearest")
            x = self.decoders[level](x + skips[level])
        colour = self.head(F.leaky_relu(x, 0.1))  # (N, 3, h/2, w/2)
        return Change(
            colour=torch.tanh(colour) * self.config.colour,
            shift=torch.tanh(shift) * self.config.shift,
        )

    def apply_change(self, faces: Tensor, change: Change, strength: float = 1.0) -> Tensor:
        """Move the pixels, then add the colours, both scaled by ``strength``."""
        size = faces.shape[-2:]
        colour = F.interpolate(change.colour, size, mode="bilinear", align_corners=False)
        moved = faces
        if self.config.shift > 0:
            shift = F.interpolate(change.shift, size, mode="bilinear", align_corners=False)
            moved = move(faces, shift * strength)
        return (moved + colour * strength).clamp(0, 1)

    def _look(self, faces: Tensor) -> Tensor:
        height, width = faces.shape[-2:]
        grain = 2 ** len(self.config.widths)
        scale = self.config.working_size / min(height, width)
        size = tuple(max(1, round(side * scale / grain)) * grain for side in (height, width))
        if size != (height, width):
            faces = F.interpolate(faces, size, mode="bilinear", align_corners=False, antialias=True)
        return F.pixel_unshuffle(faces, 2)


def move(images: Tensor, shift: Tensor) -> Tensor:
    """Fetch each pixel from where ``shift`` (N, 2, H, W), in fractions of the side, points to.

    Bilinear; the border pixel goes on for ever beyond the edge.
    """
    height, width = images.shape[-2:]
    x = torch.linspace(-1, 1, width, dtype=images.dtype, device=images.device)
    y = torch.linspace(-1, 1, height, dtype=images.dtype, device=images.device)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (H, W, 2)
    grid = grid + 2 * shift.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)
