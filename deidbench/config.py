"""What a run is asked to do. Light: the command line builds it before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import DeidbenchError

PROTOCOL = "quick-v1"
FARS = (0.1, 0.01, 0.001)
CALIBRATION_SHARE = 0.4


@dataclass(frozen=True)
class RunConfig:
    """The settings of one evaluation. Everything that changes a number is in here."""

    method: str
    strength: float | None = None
    weights: Path | None = None
    """Another file of weights for a method that takes one."""
    dataset: str = "synthid"
    recognizers: tuple[str, ...] = ()
    """By name; empty means all that are installed and whose weights can be had."""
    pairs: Literal["cross", "official"] = "cross"
    aligned: bool = False
    chip_size: int = 160
    seed: int = 0
    draws: int = 2000
    limit_subjects: int | None = None
    leave_out_trained: bool = False
    """Leave out the people that the method was trained on, instead of refusing to run."""
    device: str = "auto"
    batch_size: int = 32
    out: Path | None = None
    show_faces: bool = False

    def __post_init__(self) -> None:
        _between("--strength", self.strength, 0, 1)
        _between("--chip-size", self.chip_size, 112, 512)
        _between("--batch-size", self.batch_size, 1, 4096)
        _between("--draws", self.draws, 100, 100_000)
        _between("--limit-subjects", self.limit_subjects, 4, None)
        _between("--seed", self.seed, 0, 2**31 - 1)
        if self.chip_size % 8:
            raise DeidbenchError(f"--chip-size must be a multiple of 8, got {self.chip_size}.")


def split_argument(spec: str) -> tuple[str, str | None]:
    """'folder:/data/faces' -> ('folder', '/data/faces'); 'synthid' -> ('synthid', None)."""
    name, colon, argument = spec.partition(":")
    return name, argument if colon else None


def _between(option: str, value: float | None, low: float, high: float | None) -> None:
    if value is None or (value >= low and (high is None or value <= high)):
        return
    limits = f"at least {low}" if high is None else f"between {low} and {high}"
    raise DeidbenchError(f"{option} must be {limits}, got {value}. Choose another value.")
