"""What our recognizers share: a frozen network, a warp, and the input scaling."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from deidbench import assets
from deidbench.errors import AssetUnavailableError
from deidbench.geometry import ARC112, align
from deidbench.types import Similarity


class FrozenRecognizer(nn.Module):
    """A recognizer whose weights are one asset; a subclass says how to read it.

    Args:
        weights: the file, where it is already at hand; otherwise the asset is fetched.
    Raises:
        AssetUnavailableError: the asset cannot be had.
        WeightsError: the file is damaged or holds another network.
    """

    name: str
    version: int = 1
    similarity: Similarity = "cosine"
    differentiable: bool = True
    by_default: bool = True
    asset: str
    template: Tensor = ARC112
    size: int = 112
    mean: tuple[float, float, float]
    """Taken from RGB in [0, 255], then divided by ``scale``."""
    scale: tuple[float, float, float]
    chunk: int = 32
    """Crops at once on a CPU: few enough that the widest layers stay in its cache."""

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        path = assets.fetch(self.asset) if weights is None else Path(weights)
        if not path.is_file():
            raise AssetUnavailableError(f"there are no weights at {path}; name another file.")
        self.network = self.read(path)
        self.weights_sha256 = assets.sha256_of(path)
        mean, scale = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (self.mean, self.scale))
        self.register_buffer("_gain", 255 / scale)
        self.register_buffer("_offset", -mean / scale)
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # a third faster on a CPU

    def read(self, path: Path) -> nn.Module:
        """The network in a file of weights: scaled crops to embeddings."""
        raise NotImplementedError

    def embed(self, chips: Tensor, landmarks: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] and (N, 5, 2) in chip pixels -> (N, D) float32, differentiable."""
        return self.forward(align(chips, landmarks, self.template, self.size))

    def forward(self, crops: Tensor) -> Tensor:
        """Aligned crops (N, 3, size, size) in [0, 1] -> (N, D) float32."""
        size = self.chunk if crops.device.type == "cpu" else max(len(crops), 1)
        return torch.cat([self._embedded(chunk) for chunk in torch.split(crops, size)])

    def _embedded(self, crops: Tensor) -> Tensor:
        scaled = crops * self.get_buffer("_gain") + self.get_buffer("_offset")
        embeddings: Tensor = self.network(scaled.contiguous(memory_format=torch.channels_last))
        return embeddings.float()
