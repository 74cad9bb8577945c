#!/usr/bin/env python3
"""Render the face set synthid: python render.py --out DIR. Stopped, it goes on where it was."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from synthfaces import output, people, photo
from synthfaces.person import Person, sample_person
from synthfaces.shot import Shot, sample_shot
from synthfaces.studio import Studio

SEED = 11


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished set")
    parser.add_argument("--seed", type=int, default=SEED, help="the seed of people.csv")
    parser.add_argument("--people", type=int, default=96, help="the first so many of people.csv")
    parser.add_argument("--photos", type=int, default=8, help="photographs of each person")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=10, help="light paths a pixel")
    return parser.parse_args(arguments)


class Clock:
    """Says how far it is and how long it will take."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.rendered = total, 0, 0
        self.start = time.monotonic()

    def tick(self, *, rendered: bool) -> None:
        """One more image is there."""
        self.done += 1
        self.rendered += rendered
        if not rendered and self.done < self.total:
            return
        each = (time.monotonic() - self.start) / max(self.rendered, 1)
        left = each * (self.total - self.done) / 60
        text = f"{self.done}/{self.total} images, {each:.2f} s each, {left:.0f} min left"
        print(text, file=sys.stderr, flush=True)


class Printer:
    """Makes the images of one folder."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch = options, scratch
        self.studio = Studio(options.size, options.samples, options.threads)
        self.retakes = people.read_retakes(people.RETAKES)
        self.clock = Clock(options.people * options.photos)

    def all_photos(self, member: people.Member) -> list[list[object]]:
        """Render what is missing of a person; their lines of the table."""
        person = sample_person(member.seed, member.candidate)
        neutral = person.vertices(self.studio.figure.mesh)
        rows, ready = [], False
        for number in range(self.options.photos):
            draw = self.retakes.get((member.subject, number), number)
            shot = sample_shot(member.seed, member.candidate, draw, person)
            landmarks = self.studio.figure.landmarks(neutral, shot, self.options.size)
            name = f"{member.subject}/{number:02d}.jpg"
            rows.append(output.row(name, member, person, shot, landmarks))
            path = self.options.out / "images" / name
            missing = not output.is_complete(path, self.options.size)
            if missing:
                ready = self._render(path, person, shot, landmarks, ready=ready)
            self.clock.tick(rendered=missing)
        return rows

    def _render(
        self, path: Path, person: Person, shot: Shot, landmarks: np.ndarray, *, ready: bool
    ) -> bool:
        if not ready:
            self.studio.set_person(person)
        light = self.studio.render(shot, self.scratch / "light.exr")
        scenery = self.studio.scenery[shot.light.hdri]
        path.parent.mkdir(parents=True, exist_ok=True)
        skin_colour = self.studio.skin_colour
        output.save(photo.develop(light, landmarks, shot, scenery, skin_colour), path)
        return True


def main() -> int:
    """Render the set."""
    options = parse()
    try:
        members = people.read(people.FILE, seed=options.seed, count=options.people)
        options.out.mkdir(parents=True, exist_ok=True)
        settings = {k: getattr(options, k) for k in ("seed", "size", "samples")}
        output.check_settings(options.out, settings)
    except (people.PeopleError, output.SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        printer = Printer(options, Path(scratch))
        rows = [row for member in members for row in printer.all_photos(member)]
    output.write_table(options.out / "samples.csv", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
