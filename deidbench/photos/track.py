"""Follows faces from frame to frame, so that none shows in a frame where no detector saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .detect import Face

REACH = 0.7  # of its width: how far a face may be from where it was expected
REACH_PER_FRAME = 0.1  # more for each frame that it was not seen in
GROWTH = 0.03  # of a held face, per frame: nobody knows where it is by now
LARGEST_GROWTH = 1.5


@dataclass
class Track:
    """The sightings of one face, in order."""

    frames: list[int] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)

    def expected(self, frame: int) -> Face:
        """Where the face will be, if it moves on as it did."""
        last = self.faces[-1]
        if len(self.faces) < 2:
            return last
        step = (frame - self.frames[-1]) / (self.frames[-1] - self.frames[-2])
        return _between(self.faces[-2], last, 1 + step)

    def at(self, frame: int) -> Face:
        """The face in a frame: as seen, in a straight line between sightings, or held and grown."""
        after = int(np.searchsorted(self.frames, frame))
        if after == len(self.frames) or frame < self.frames[0]:
            end = 0 if after == 0 else -1
            return _grown(self.faces[end], abs(frame - self.frames[end]))
        if self.frames[after] == frame:
            return self.faces[after]
        first, second = self.frames[after - 1], self.frames[after]
        share = (frame - first) / (second - first)
        return _between(self.faces[after - 1], self.faces[after], share)


def follow(
    found: Sequence[Sequence[Face]], *, longest_gap: int, hold: int
) -> list[list[tuple[int, Face]]]:
    """What to treat in each frame: numbers of faces, the same in all frames, and where they are.

    A face that is lost for at most ``longest_gap`` frames is put where it must have been; it is
    held for ``hold`` frames before its first and after its last sighting.
    """
    tracks: list[Track] = []
    for frame, faces in enumerate(found):
        alive = [one for one in tracks if frame - one.frames[-1] <= longest_gap]
        _extend(tracks, alive, frame, faces)
    planned: list[list[tuple[int, Face]]] = [[] for _ in found]
    for number, track in enumerate(tracks):
        first, last = max(track.frames[0] - hold, 0), min(track.frames[-1] + hold, len(found) - 1)
        for frame in range(first, last + 1):
            planned[frame].append((number, track.at(frame)))
    return planned


def _extend(tracks: list[Track], alive: list[Track], frame: int, faces: Sequence[Face]) -> None:
    """Give each face to the nearest track that can be it, or begin a new one."""
    pairs = [
        (distance, t, f)
        for t, track in enumerate(alive)
        for f, face in enumerate(faces)
        if (distance := _distance(track, frame, face)) < 1
    ]
    taken: set[int] = set()
    placed: set[int] = set()
    for _, t, f in sorted(pairs):
        if t not in taken and f not in placed:
            taken.add(t)
            placed.add(f)
            alive[t].frames.append(frame)
            alive[t].faces.append(faces[f])
    tracks += [Track([frame], [face]) for f, face in enumerate(faces) if f not in placed]


def _distance(track: Track, frame: int, face: Face) -> float:
    """From the expected place, in units of what is allowed; faces of other sizes are far."""
    expected = track.expected(frame)
    width, other = (float(box[2] - box[0]) for box in (face.box, track.faces[-1].box))
    if not 0.5 < width / max(other, 1e-6) < 2:
        return np.inf
    allowed = max(width, other) * (REACH + REACH_PER_FRAME * (frame - track.frames[-1]))
    return float(np.linalg.norm(_centre(face) - _centre(expected))) / allowed


def _centre(face: Face) -> np.ndarray:
    return np.asarray((face.box[:2] + face.box[2:]) / 2)


def _between(one: Face, other: Face, share: float) -> Face:
    weight = np.float32(share)
    return replace(
        other,
        box=one.box + (other.box - one.box) * weight,
        landmarks=one.landmarks + (other.landmarks - one.landmarks) * weight,
        detector="between",
    )


def _grown(face: Face, frames: int) -> Face:
    scale = np.float32(min(1 + GROWTH * frames, LARGEST_GROWTH))
    centre = np.float32(_centre(face))
    box = ((face.box.reshape(2, 2) - centre) * scale + centre).reshape(4)
    return replace(
        face, box=box, landmarks=(face.landmarks - centre) * scale + centre, detector="held"
    )
