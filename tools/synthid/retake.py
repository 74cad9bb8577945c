#!/usr/bin/env python3
"""Name the photographs to take again: python retake.py --set DIR --judge PYTHON.

A photograph in which MTCNN finds no face, or misreads it badly, gets the next draw of its person:
it is noted in retakes.csv and deleted from DIR, and render.py takes it again. Repeat until nothing
is noted.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from synthfaces import people
from synthfaces.geometry import misreading
from synthfaces.output import POINTS

MISREAD = 0.20  # mean distance of the landmarks, in distances between the eyes
JUDGE = """
import sys
import numpy as np
from PIL import Image
from deidbench.alignment import Aligner

paths = open(sys.argv[2], encoding="utf-8").read().splitlines()
images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
aligner = Aligner()
parts = [aligner.detect(images[i : i + 32]) for i in range(0, len(images), 32)]
np.save(sys.argv[1], np.concatenate(parts))
"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, required=True, help="what render.py wrote")
    parser.add_argument("--judge", default=sys.executable, help="a Python that has deidbench")
    return parser.parse_args()


def detect(paths: list[Path], judge: str) -> np.ndarray:
    """MTCNN's landmarks, (N, 5, 2); NaN where it finds no face."""
    with tempfile.TemporaryDirectory() as scratch:
        names, out = Path(scratch, "paths.txt"), Path(scratch, "landmarks.npy")
        names.write_text("\n".join(map(str, paths)), "utf-8")
        command = [judge, "-c", JUDGE, str(out), str(names)]
        subprocess.run(command, check=True)  # noqa: S603 - the user names the interpreter
        return np.load(out)


def main() -> None:
    """Write retakes.csv, and delete what it names anew."""
    options = parse()
    with (options.set / "samples.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    paths = [options.set / "images" / row["path"] for row in rows]
    retakes = people.read_retakes(people.RETAKES)
    for row, path, found in zip(rows, paths, detect(paths, options.judge), strict=True):
        truth = np.array([float(row[point]) for point in POINTS]).reshape(5, 2)
        error = misreading(truth, found)
        if not error <= MISREAD:  # so for NaN too
            key = (row["subject"], int(path.stem))
            retakes[key] = retakes.get(key, key[1]) + people.NEXT_DRAW
            path.unlink()
            print(f"{row['path']}: off by {error:.0%}, taken again", file=sys.stderr)
    people.write_retakes(people.RETAKES, retakes)


if __name__ == "__main__":
    main()
