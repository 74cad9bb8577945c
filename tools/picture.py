"""Draws docs/images/methods.png: embedded (synthetic) faces before and after each method.

Usage: python tools/picture.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from deidbench import plugins
from deidbench.alignment import Aligner, to_float
from deidbench.datasets.synthid import SynthID
from deidbench.images import read_image

METHODS = (
    "identity",
    "fadenet",
    "fadenet-fast",
    "fadenet-keyed",
    "gaussian-blur",
    "pixelate",
    "blackout",
)
PEOPLE = ("id001", "id004", "id008", "id012", "id016", "id019")
OUT = Path(__file__).parents[1] / "docs" / "images" / "methods.png"


def main() -> None:
    """One row a method, one column a person."""
    samples = [sample for sample in SynthID(None).samples() if sample.path.stem == "00"]
    chosen = [read_image(sample.path) for sample in samples if sample.subject in PEOPLE]
    faces = to_float(Aligner()(chosen).chips)
    figure = Figure(figsize=(len(PEOPLE) * 1.3 + 1.4, len(METHODS) * 1.3), dpi=110)
    axes = figure.subplots(len(METHODS), len(PEOPLE), squeeze=False)
    for row, name in zip(axes, METHODS, strict=True):
        treated: torch.Tensor = plugins.load("methods", name)().deidentify(faces, seed=0)
        for axis, face in zip(row, treated, strict=True):
            axis.imshow(face.permute(1, 2, 0).numpy())
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        label = "original" if name == "identity" else name
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=11)
    figure.subplots_adjust(0.16, 0.005, 0.995, 0.995, 0.03, 0.03)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT)


if __name__ == "__main__":
    main()
