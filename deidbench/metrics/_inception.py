"""What KID and FID share: the Inception network whose features they compare."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from deidbench import assets
from deidbench.errors import DeidbenchError, MetricUndefinedError

from ._images import checked

if TYPE_CHECKING:
    from typing_extensions import Self

    from deidbench.types import FloatArray

ASSET = "inception-fid"
LAYER = "2048"  # the pooled features before the classifier, which both metrics were defined on


class InceptionDistance:
    """A distance of two sets of images by the features of Inception v3, as TensorFlow had it.

    The network and its way of resizing are those of torch-fidelity (Obukhov et al. 2020, doi
    10.5281/zenodo.4957738), so that numbers agree with published ones.

    Args:
        weights: the network's file as torch-fidelity offers it; fetched by default.
    Raises:
        AssetUnavailableError: the weights cannot be had.
        DeidbenchError: the file holds something else.
    """

    name: str
    version = 1
    kind: Literal["set"] = "set"
    higher_is_better = False
    unit = "distance"
    by_default = False

    def __init__(self, weights: Path | None = None) -> None:
        self._network = _network(assets.fetch(ASSET) if weights is None else weights)

    def to(self, device: Any) -> Self:
        """Move the network; returns self."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 2048) float32, of the images in 8 bits.

        Raises:
            DeidbenchError: the images are not in [0, 1].
        """
        pixels = (checked(self.name, "given", images) * 255).round().to(torch.uint8)
        features: Tensor = self._network(pixels)[0]
        return features

    def _sets(self, original: FloatArray, treated: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Both sets in float64: float32 loses what is left of large sums.

        Raises:
            MetricUndefinedError: a set has fewer than two images, which have no spread.
        """
        fewest = min(len(original), len(treated))
        if fewest < 2:
            raise MetricUndefinedError(f"{self.name}: needs 2 images a set, but got {fewest}")
        return original.astype(np.float64), treated.astype(np.float64)


def _network(path: Path) -> torch.nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # torch-fidelity unpickles whatever it is given, so it gets a copy of what was checked.
        checked_copy = io.BytesIO()
        torch.save(state, checked_copy)
        checked_copy.seek(0)
        with torch.random.fork_rng([]):  # it draws weights before it loads these
            network: torch.nn.Module = FeatureExtractorInceptionV3(
                "inception", [LAYER], feature_extractor_weights_path=checked_copy
            )
    except Exception as error:  # a damaged archive or pickle raises anything
        raise DeidbenchError(
            f"{path.name} does not hold the Inception weights of torch-fidelity. "
            f"Delete the file and run 'deidbench assets fetch {ASSET}'."
        ) from error
    return network.requires_grad_(False).eval()
