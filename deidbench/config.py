"""What a run is asked to do. Light: the command line builds it before anything heavy loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import DeidbenchError

PROTOCOL = "standard-v1"
"""What ``evaluate`` follows unless it is told otherwise."""
ALL = "all"
"""In place of names: every part of that kind that can be had and needs no argument."""


@dataclass(frozen=True)
class RunConfig:
    """The settings of one evaluation. Everything that changes a number is in here."""

    method: str
    strength: float | None = None
    settings: tuple[tuple[str, bool | int | float | str], ...] = ()
    """Of the method, by name."""
    weights: Path | None = None
    """Another file of weights for a method that takes one."""
    dataset: str = "synthid"
    protocol: str = PROTOCOL
    """By name, or the path of a TOML file."""
    recognizers: tuple[str, ...] = ()
    """By name; empty means those that attack by default and whose weights can be had."""
    metrics: tuple[str, ...] = ()
    """By name, besides those that are measured by default."""
    pairs: Literal["cross", "official"] = "cross"
    aligned: bool = False
    chip_size: int = 160
    seed: int = 0
    draws: int = 2000
    limit_subjects: int | None = None
    leave_out_trained: bool = False
    """Leave out the people that the method was trained on, instead of refusing to run."""
    adults_only: bool = True
    """Leave out children, where a dataset says who is one."""
    strict: bool = False
    """Stop at the first image that cannot be read or treated, instead of counting it."""
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


def parse_value(text: str) -> bool | int | float | str:
    """A setting as it was written: 'true' or 'false', a number, or else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _between(option: str, value: float | None, low: float, high: float | None) -> None:
    if value is None or (value >= low and (high is None or value <= high)):
        return
    limits = f"at least {low}" if high is None else f"between {low} and {high}"
    raise DeidbenchError(f"{option} must be {limits}, got {value}. Choose another value.")
