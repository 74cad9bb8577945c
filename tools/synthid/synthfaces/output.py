"""The finished set on disk: images that are whole or absent, settings, and the table."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from .base import Floats
    from .people import Member
    from .person import Person
    from .shot import Shot

QUALITY = 90
LABELS = [
    "path",
    "subject",
    "split",
    "gender",
    "age_band",
    "ancestry",
    "expression",
    "yaw",
    "pitch",
    "light",
    "hair",
    "glasses",
]
POINTS = [
    f"{point}_{axis}"
    for point in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
    for axis in "xy"
]


class SettingsError(RuntimeError):
    """The folder holds images of other settings."""


def check_settings(folder: Path, settings: dict[str, int]) -> None:
    """Keep the settings, so that a folder never mixes images of two.

    Raises:
        SettingsError: it was begun with others.
    """
    path = folder / "settings.json"
    if path.exists():
        begun = json.loads(path.read_text("utf-8"))
        if begun != settings:
            raise SettingsError(
                f"{folder} was begun with {begun}, not {settings}. Use another --out."
            )
        return
    write_text(path, json.dumps(settings) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one go."""
    part = path.with_suffix(".part")
    part.write_text(text, "utf-8")
    part.replace(path)


def save(image: Image.Image, path: Path) -> None:
    """Write a JPEG in one go: it is there as a whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        image.save(file, "JPEG", quality=QUALITY, subsampling=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def is_complete(path: Path, size: int) -> bool:
    """Whether a finished image is there."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.size == (size, size)
    except (OSError, SyntaxError):
        return False


def row(path: str, member: Member, person: Person, shot: Shot, landmarks: Floats) -> list[object]:
    """A line of the table."""
    gender, ancestry, band = member.stratum
    labels = [path, member.subject, member.split, gender, band, ancestry, shot.expression]
    # A negative zero would be one more spelling of the same number.
    angles = [f"{round(angle, 1) + 0.0:.1f}" for angle in (shot.yaw, shot.pitch)]
    extra = [shot.light.name, shot.style, "yes" if shot.glasses else "no"]
    return [*labels, *angles, *extra, *(f"{x:.2f}" for x in landmarks.ravel())]


def write_table(path: Path, rows: list[list[object]]) -> None:
    """Write samples.csv in one go."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*LABELS, *POINTS])
        table.writerows(rows)
    part.replace(path)
