"""Learned perceptual image patch similarity, by VGG-16."""

from __future__ import annotations

from pathlib import Path

from .lpips import LPIPS


class LPIPSVGG(LPIPS):
    """LPIPS v0.1 by VGG-16: many methods are trained against it. The lower, the more alike.

    About ten times as slow as by AlexNet, and on another scale. Zhang et al., CVPR 2018.

    Args:
        weights: as for LPIPS; fetched by default.
    """

    name = "lpips-vgg"
    by_default = False

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__("vgg", weights)
