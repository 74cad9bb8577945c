"""FaDeNet's whole network: an encoder-decoder that repaints a face by a bounded, smooth change.

A FaDeNet-style implementation from the abstract of Meden, Peer, Struc, IWOBI 2018,
doi 10.1109/IWOBI.2018.8464214. Only the abstract is public: an encoder-decoder reproduces the
face while a second network stops recognising it. Layers, sizes and losses are therefore ours.

The decoder paints no face from nothing. It says how to change the one it was given: a smooth
displacement of pixels and a smooth change of colour, both bounded and both zero before training.
One network gives every strength, and every key where it has keys: both steer the decoder by a
scale and an offset of each channel (FiLM: Perez et al., AAAI 2018, arXiv:1709.07871).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEERING_WIDTH = 64


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
    key: int = 0
    """Numbers in a key; 0 makes a network without keys."""

    def __post_init__(self) -> None:
        """Refuse shapes that no network has: a configuration may come with a stranger's file."""
        _whole("widths", len(self.widths), 2, 8)
        for width in self.widths:
            _whole("widths", width, 1, 1024)
        _whole("blocks", self.blocks, 0, 16)
        _whole("working_size", self.working_size, 32, 1024)
        _whole("key", self.key, 0, 1024)
        for name in ("colour", "shift"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> FaDeNetConfig:
        """Rebuild from ``asdict``, where JSON has made lists of tuples.

        Raises:
            ValueError, TypeError, KeyError: it is of no network.
        """
        return cls(**{**fields, "widths": tuple(fields["widths"])})

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**asdict(self), "widths": list(self.widths)}


def _whole(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be whole and from {low} to {high}, got {value!r}")


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

    def forward(self, x: Tensor, steer: Tensor | None = None) -> Tensor:
        """(N, C, h, w) -> the same; ``steer`` (N, 2C, 1, 1) scales and offsets the middle."""
        middle = self.first(F.leaky_relu(x, 0.1))
        if steer is not None:
            scale, offset = steer.chunk(2, 1)
            middle = middle * (1 + scale) + offset
        x = x + self.second(F.leaky_relu(middle, 0.1))
        return x


class Steering(nn.Module):
    """How strength and key steer each level: (N, 1 + key) -> a (N, 2C, 1, 1) for each width C."""

    def __init__(self, key: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.first = nn.Linear(1 + key, STEERING_WIDTH)
        self.second = nn.Linear(STEERING_WIDTH, STEERING_WIDTH)
        self.levels = nn.Linear(STEERING_WIDTH, 2 * sum(widths))
        nn.init.zeros_(self.levels.weight)
        nn.init.zeros_(self.levels.bias)

    def forward(self, steer: Tensor) -> list[Tensor]:
        """One steering of scale and offset for each level."""
        x = F.silu(self.second(F.silu(self.first(steer))))
        parts: tuple[Tensor, ...] = self.levels(x).split([2 * width for width in self.widths], 1)
        return [part[:, :, None, None] for part in parts]


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
        self.middle = ResidualBlock(widths[-1])
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(ResidualBlock(width) for width in widths[:-1])
        self.steering = Steering(self.config.key, widths)
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.shift_head = nn.Conv2d(widths[1], 2, 3, padding=1)
        for head in (self.head, self.shift_head):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(
        self, faces: Tensor, strength: float | Tensor = 1.0, key: Tensor | None = None
    ) -> Tensor:
        """The treated faces.

        Args:
            strength: in [0, 1], one for all or (N,); 0 gives the input.
            key: (N, config.key), each number about as large as one from a normal distribution;
                None only for a network without keys.
        """
        if isinstance(strength, (int, float)) and strength == 0:
            return faces.clone()
        return apply_change(faces, self.change(faces, strength, key))

    def change(
        self, faces: Tensor, strength: float | Tensor = 1.0, key: Tensor | None = None
    ) -> Change:
        """The change that is asked for; arguments as those of ``forward``."""
        amount = torch.as_tensor(strength, dtype=faces.dtype, device=faces.device)
        amount = amount.expand(len(faces))[:, None]  # (N, 1)
        parts = [2 * amount - 1] if key is None else [2 * amount - 1, key.to(faces)]
        steer = self.steering(torch.cat(parts, 1))
        x = self._look(faces)  # (N, 12, h/2, w/2)
        x = self.stem(x * 2 - 1)  # (N, 24, h/2, w/2)
        skips = []
        for down, encoder in zip(self.downs, self.encoders, strict=True):
            skips.append(x)
            x = encoder(down(F.leaky_relu(x, 0.1)))  # (N, 48, h/4, w/4) to (N, 160, h/16, w/16)
        x = self.middle(x, steer[-1])
        for level in reversed(range(len(skips))):
            if level == 0:
                shift = self.shift_head(x)  # (N, 2, h/4, w/4)
            x = F.interpolate(self.ups[level](x), scale_factor=2.0, mode="nearest")
            x = self.decoders[level](x + skips[level], steer[level])
        colour = self.head(F.leaky_relu(x, 0.1))  # (N, 3, h/2, w/2)
        amount = amount[:, :, None, None]
        return Change(
            colour=torch.tanh(colour) * (self.config.colour * amount),
            shift=torch.tanh(shift) * (self.config.shift * amount),
        )

    def _look(self, faces: Tensor) -> Tensor:
        height, width = faces.shape[-2:]
        grain = 2 ** len(self.config.widths)
        scale = self.config.working_size / min(height, width)
        size = tuple(max(1, round(side * scale / grain)) * grain for side in (height, width))
        if size != (height, width):
            faces = F.interpolate(faces, size, mode="bilinear", align_corners=False, antialias=True)
        return F.pixel_unshuffle(faces, 2)


def apply_change(faces: Tensor, change: Change) -> Tensor:
    """Move the pixels, then add the colours; the change is enlarged to the faces' size."""
    size = faces.shape[-2:]
    colour = F.interpolate(change.colour, size, mode="bilinear", align_corners=False)
    # Two channels that lie beside each other in memory are enlarged four times slower.
    flat = change.shift.contiguous()
    shift = F.interpolate(flat, size, mode="bilinear", align_corners=False)
    return (move(faces, shift) + colour).clamp(0, 1)


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
