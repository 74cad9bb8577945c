"""What the metrics by deepface's attribute models share (github serengil/deepface, MIT).

The package builds the networks; their weights come through our own assets. Input is prepared as
``DeepFace.analyze`` does it with a face that was already cut out.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deidbench import assets
from deidbench.errors import AssetUnavailableError, DeidbenchError

from ._images import checked_pair, require_size

if TYPE_CHECKING:
    from typing_extensions import Self

SIDE = 224  # pixels of a face as deepface hands it to a model
# The square box of deepface's default detector, in a chip of side 1: where the recognizer
# 'deepface' puts the eyes in that box, laid over the eyes of an aligned chip.
BOX = (0.124, 0.138, 0.876, 0.890)  # left, top, right, bottom


class DeepFaceAttribute:
    """An image metric that compares what a model of deepface reads in a face before and after.

    It says whether the treatment changed the reading, not whether the reading was right.

    Args:
        weights: the model's file as deepface offers it; fetched by default.
    Raises:
        AssetUnavailableError: deepface is not installed, or the weights cannot be had.
        DeidbenchError: the file holds something else.
    """

    name: str
    version = 1
    kind: Literal["image"] = "image"
    unit: str
    higher_is_better: bool
    regions = ("chip",)
    by_default = False
    model: ClassVar[str]
    """Its module in deepface, and in lower case its asset."""

    def __init__(self, weights: Path | None = None) -> None:
        asset = f"deepface-{self.model.lower()}"
        module = _import(f"deepface.models.demography.pytorch.{self.model}")
        self._network = _network(module, assets.fetch(asset) if weights is None else weights)

    def to(self, device: Any) -> Self:
        """Move the network; returns self."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, original: Tensor, treated: Tensor) -> Tensor:
        """Two (N, 3, H, W) face chips in [0, 1] -> (N,) float32.

        Raises:
            DeidbenchError: the chips are smaller than 32 pixels, or not in [0, 1].
        """
        original, treated = checked_pair(self.name, original, treated)
        require_size(self.name, original, 32)
        before, after = (self._network(self.prepare(faces(x))) for x in (original, treated))
        return self.compare(before, after).float()

    def prepare(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, 224, 224), BGR in [0, 1], to the input of the network."""
        return crops

    def compare(self, before: Tensor, after: Tensor) -> Tensor:
        """Class probabilities of both sides, (N, C) each -> (N,)."""
        return before.argmax(1) == after.argmax(1)


def faces(chips: Tensor) -> Tensor:
    """Chips (N, 3, S, S) to what deepface would cut out of them, (N, 3, 224, 224) in BGR."""
    height, width = chips.shape[-2:]
    left, top, right, bottom = (
        round(edge * side) for edge, side in zip(BOX, (width, height) * 2, strict=True)
    )
    crops = chips[..., top:bottom, left:right].flip(1)
    return F.interpolate(crops, (SIDE, SIDE), mode="bilinear", align_corners=False)


def _network(module: Any, path: Path) -> torch.nn.Module:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.device("meta"):  # nothing is drawn at random, or filled
            network: torch.nn.Module = module.base_model()
        network.load_state_dict(state, assign=True)
    except Exception as error:  # a damaged archive or pickle raises anything
        raise DeidbenchError(
            f"{path.name} does not hold deepface's weights of that model. "
            "Delete the file and run 'deidbench assets fetch'."
        ) from error
    return network.requires_grad_(False).eval()


def _import(name: str) -> Any:
    """A module of deepface; what its import prints or warns of is kept from the user."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise AssetUnavailableError(
            f"deepface cannot be imported ({error}). Run: pip install 'deidbench[deepface]'."
        ) from error
