#!/usr/bin/env python3
"""Choose the people of the set: python choose.py --judge PYTHON. Writes people.csv.

Candidates of each stratum are rendered in a plain frontal photograph. One whose landmarks MTCNN
misreads, or that dlib's recognizer finds too near to an accepted person of the same gender, is
replaced by the next of its stratum.
Blender and torch live in two environments: PYTHON is the one where deidbench is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from synthfaces import people
from synthfaces.geometry import misreading

SIZE, SAMPLES = 160, 4
NEAREST = 0.40  # Euclidean distance between dlib embeddings
MISREAD = 0.06  # mean distance of the landmarks, in distances between the eyes
SEED = 11
ROUNDS = 16

JUDGE = """
import sys
import numpy as np
import torch
from PIL import Image
from deidbench.alignment import Aligner, to_float
from deidbench.recognizers.dlib import Dlib

images = [np.asarray(Image.open(path).convert("RGB")) for path in sys.argv[2:]]
aligner = Aligner()
aligned = aligner(images)
with torch.inference_mode():
    features = Dlib().embed(to_float(aligned.chips), aligned.landmarks).numpy()
np.savez(sys.argv[1], features=features, landmarks=aligner.detect(images))
"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", default=sys.executable, help="a Python that has deidbench")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nearest", type=float, default=NEAREST)
    return parser.parse_args()


class Casting:
    """Renders candidates and remembers their embeddings."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        from synthfaces.studio import Studio

        self.options, self.scratch = options, scratch
        self.studio = Studio(SIZE, SAMPLES, options.threads)
        self.features: dict[int, np.ndarray] = {}
        """(128,) by candidate; NaN for a face that is not found, or misread."""
        self.truth: dict[int, np.ndarray] = {}

    def see(self, candidates: list[int]) -> None:
        """Photograph and embed those that are new."""
        new = [c for c in candidates if c not in self.features]
        paths = [str(self._photograph(c)) for c in new]
        out = self.scratch / "judgement.npz"
        if new:
            command = [self.options.judge, "-c", JUDGE, str(out), *paths]
            subprocess.run(command, check=True)  # noqa: S603 - the user names the interpreter
            judged = np.load(out)
            for c, feature, found in zip(new, judged["features"], judged["landmarks"], strict=True):
                good = misreading(self.truth[c], found) <= MISREAD  # not so for NaN
                self.features[c] = feature if good else np.full_like(feature, np.nan)

    def _photograph(self, candidate: int) -> Path:
        from synthfaces import photo
        from synthfaces.person import sample_person
        from synthfaces.shot import plain_shot

        person = sample_person(self.options.seed, candidate)
        shot, studio = plain_shot(person), self.studio
        studio.set_person(person)
        landmarks = self.truth[candidate] = studio.figure.landmarks(studio.vertices, shot, SIZE)
        light = studio.render(shot, self.scratch / "light.exr")
        scenery = studio.scenery[shot.light.hdri]
        path = self.scratch / f"{candidate}.png"
        photo.develop(light, landmarks, shot, scenery, studio.skin_colour).save(path)
        print(f"candidate {candidate}", file=sys.stderr, flush=True)
        return path


def choose(casting: Casting, places: list[people.Place], nearest: float) -> list[int]:
    """A candidate for each place: in order, the first of its stratum that is unlike all before."""
    used: dict[int, int] = defaultdict(int)
    accepted: dict[str, list[int]] = defaultdict(list)
    chosen = {}
    waiting = list(range(len(places)))
    for _ in range(ROUNDS):
        if not waiting:
            break
        batch = {}
        for i in waiting:
            stratum = places[i].stratum
            batch[i] = stratum + len(people.STRATA) * used[stratum]
            used[stratum] += 1
        casting.see(list(batch.values()))
        waiting = []
        for i, candidate in batch.items():
            mates = accepted[places[i].gender]
            if _distance(casting, candidate, mates) < nearest:
                waiting.append(i)
                continue
            mates.append(candidate)
            chosen[i] = candidate
        print(f"{len(chosen)} accepted, {len(waiting)} to replace", file=sys.stderr, flush=True)
    if waiting:
        raise SystemExit("error: too few candidates are far apart. Lower --nearest.")
    return [chosen[i] for i in range(len(places))]


def _distance(casting: Casting, candidate: int, mates: list[int]) -> float:
    """To the nearest mate; 0 for a face that was not found, or misread."""
    feature = casting.features[candidate]
    if not np.isfinite(feature).all():
        return 0.0
    others = (np.linalg.norm(feature - casting.features[mate]) for mate in mates)
    return float(min(others, default=np.inf))


def main() -> None:
    """Write people.csv."""
    options = parse()
    places = people.shuffled_places(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        chosen = choose(Casting(options, Path(scratch)), places, options.nearest)
    members = [
        people.Member(f"id{i:03d}", options.seed, candidate, place.split)
        for i, (candidate, place) in enumerate(zip(chosen, places, strict=True))
    ]
    people.write(people.FILE, members)


if __name__ == "__main__":
    main()
