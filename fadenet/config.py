"""What a training run is asked to do: read from TOML, checked, saved in the checkpoint."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from deidbench.errors import DeidbenchError

from .losses import LossConfig
from .model import FaDeNetConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Section = TypeVar("Section")


class TrainConfigError(DeidbenchError):
    """A training configuration cannot be used."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The learning rate and the identity term follow the step, not the clock."""

    critics: tuple[str, ...]
    """Recognizers to fool, by name."""
    held_out: tuple[str, ...] = ()
    """Recognizers that only validation asks: no gradient of theirs reaches the network."""
    data: str | None = None
    """Folder of <person>/<photograph>, or an .npz of chips that an earlier run has made."""
    data_name: str = "unnamed photographs"
    start: str | None = None
    """Weights to go on from: a method whose weights are shipped, or a file. None: from nothing."""
    steps: int = 1900
    batch: int = 8
    """Faces of a step, half of them another photograph of the other half's people."""
    accumulate: int = 1
    """Parts that a batch is cut into, one after the other, to save memory."""
    critics_per_face: int = 1
    """How many of the critics look at each face of a batch; more costs time."""
    weigh_critics: bool = True
    """Whether a critic who lately was harder to fool counts more."""
    perceptual_share: float = 0.5
    """Part of each batch that the perceptual term looks at; the rest saves time."""
    full_share: float = 0.4
    """Part of the faces treated at strength 1; the others at any strength alike."""
    memory: int = 512
    """Pairs of faces that the attacker of each critic learns from."""
    learning_rate: float = 1e-3
    reproduce_steps: int = 2
    """Steps without the identity term."""
    ramp_steps: int = 20
    """Steps over which the identity term then grows to its full weight."""
    ema: float = 0.995
    seed: int = 0
    checkpoint_every: int = 400
    log_every: int = 10
    validation_faces: int = 128
    """Faces of people set aside from training, looked at with each checkpoint."""
    samples: bool = True
    """Draw synthetic faces with each checkpoint."""
    precision: str = "float32"
    """Or 'bfloat16': mixed precision."""
    compile: bool = False
    """Compile the network: pays on a GPU and in long runs."""
    max_minutes: float | None = None
    """Stop (and export) after this much wall time, whatever the step."""
    model: FaDeNetConfig = field(default_factory=FaDeNetConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        """Refuse values that would fail hours later."""
        _require(len(self.critics) > 0, "critics", self.critics, "name at least one recognizer")
        _require(
            1 <= self.critics_per_face <= len(self.critics), "critics_per_face",
            self.critics_per_face, f"choose 1 to {len(self.critics)}",
        )  # fmt: skip
        for name in ("steps", "checkpoint_every", "log_every", "memory", "accumulate"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "choose 1 or more")
        batch = self.batch
        _require(batch >= 2 and batch % 2 == 0, "batch", batch, "choose an even number")
        _require(
            2 * self.accumulate <= batch, "accumulate", self.accumulate,
            "choose at most half the batch",
        )  # fmt: skip
        _require(0 <= self.full_share <= 1, "full_share", self.full_share, "choose 0 to 1")
        precise = self.precision
        _require(
            precise in ("float32", "bfloat16"), "precision", precise, "choose float32 or bfloat16"
        )
        both = sorted(set(self.critics) & set(self.held_out))
        _require(not both, "held_out", both, "a critic is not held out")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "choose above 0")
        _require(0 <= self.ema < 1, "ema", self.ema, "choose at least 0 and below 1")
        share = self.perceptual_share
        _require(0 < share <= 1, "perceptual_share", share, "choose above 0, at most 1")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "choose 0 to 2147483647")
        limit = self.max_minutes
        _require(limit is None or limit > 0, "max_minutes", limit, "choose above 0")
        twice = len(set(self.critics)) < len(self.critics)
        _require(not twice, "critics", self.critics, "name each once")
        aside = self.validation_faces
        _require(aside >= 1, "validation_faces", aside, "choose 1 or more")
        _require(0 < self.loss.far < 1, "far", self.loss.far, "choose between 0 and 1")
        restored = self.loss.restored
        _require(0 <= restored <= 1, "restored", restored, "choose 0 to 1")
        _require(self.loss.prototypes >= 1, "prototypes", self.loss.prototypes, "choose 1 or more")
        for name, weight in vars(self.loss).items():
            good = math.isfinite(weight) and (weight >= 0 or name == "margin")
            _require(good, name, weight, "choose 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **asdict(self),
            "critics": list(self.critics),
            "held_out": list(self.held_out),
            "model": self.model.to_dict(),
        }


def read_config(path: Path, **overrides: Any) -> TrainConfig:
    """The run that a TOML file asks for; overrides that are not None win over the file.

    The file has the tables [train], [model] and [loss], with the fields of ``TrainConfig``,
    ``FaDeNetConfig`` and ``LossConfig``.

    Raises:
        TrainConfigError: the file is missing or not TOML, a name is unknown, a value is out of
            range or of another type.
    """
    document = _read_toml(path)
    known = ("train", "model", "loss")
    for name in document:
        _known(name, known, path, "table")
    settings = {**_table(document, "train", path)}
    for name in ("model", "loss"):
        if name in settings:
            raise TrainConfigError(f"{path.name}: write {name} as a table [{name}].")
    settings["model"] = _section(FaDeNetConfig, _table(document, "model", path), path)
    settings["loss"] = _section(LossConfig, _table(document, "loss", path), path)
    settings.setdefault("critics", ())
    config = _section(TrainConfig, settings, path)
    return replace(config, **{k: v for k, v in overrides.items() if v is not None})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainConfigError(f"no training configuration at {path}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainConfigError(f"{path.name} is not TOML: {error}. Mend that line.") from error


def _table(document: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise TrainConfigError(f"{path.name}: {name} must be a table [{name}], got {table!r}.")
    return table


def _section(kind: type[Section], settings: Mapping[str, Any], path: Path) -> Section:
    defaults = {item.name: str(item.type) for item in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in settings.items():
        _known(name, tuple(defaults), path, "setting")
        values[name] = _checked(name, value, defaults[name], path)
    try:
        return kind(**values)
    except ValueError as error:
        raise TrainConfigError(f"{path.name}: {error}. Correct it.") from error


def _checked(name: str, value: Any, kind: str, path: Path) -> Any:
    """The value as its field wants it; bool is no number here."""
    if kind in ("FaDeNetConfig", "LossConfig"):
        return value
    if kind.startswith("tuple"):
        inner = str if "str" in kind else int
        if isinstance(value, (list, tuple)) and all(type(item) is inner for item in value):
            return tuple(value)
    elif kind.startswith("float"):
        if type(value) in (int, float):
            return float(value)
    elif type(value) is {"int": int, "bool": bool}.get(kind, str):
        return value
    raise TrainConfigError(f"{path.name}: {name} must be {kind}, got {value!r}. Correct it.")


def _known(name: str, known: tuple[str, ...], path: Path, what: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise TrainConfigError(f"{path.name}: no {what} called '{name}'.{hint}")


def _require(kept: bool, name: str, got: object, remedy: str) -> None:
    if not kept:
        raise TrainConfigError(f"{name} cannot be {got!r}; {remedy}.")
