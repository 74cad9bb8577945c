"""A method measured at several strengths, or at several values of another setting."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import RunConfig
from .errors import DeidbenchError

if TYPE_CHECKING:
    from .results.schema import RunRecord

MOST, FARTHEST = 100, 1e9
USAGE = "--sweep expects NAME=LOW:HIGH:COUNT, as strength=0:1:6"


@dataclass(frozen=True)
class Sweep:
    """What is varied, and its values."""

    name: str
    values: tuple[int | float, ...]


def read_sweep(text: str) -> Sweep:
    """'strength=0:1:6' -> six strengths from 0 to 1; whole numbers stay whole.

    Raises:
        DeidbenchError: it is not written so.
    """
    name, _, numbers = (part.strip() for part in text.partition("="))
    if not re.fullmatch(r"[A-Za-z][\w-]*", name) or name == "weights":
        raise DeidbenchError(f"{USAGE}; '{name}' is no setting to vary, got '{text}'.")
    try:
        low, high, count = numbers.split(":")
        ends, steps = (float(low), float(high)), int(count)
    except ValueError as error:
        raise DeidbenchError(f"{USAGE}, but got '{text}'.") from error
    if not -FARTHEST <= ends[0] < ends[1] <= FARTHEST or not 2 <= steps <= MOST:
        raise DeidbenchError(
            f"{USAGE}, with LOW below HIGH and 2 to {MOST} values, but got '{text}'."
        )
    step = (ends[1] - ends[0]) / (steps - 1)
    values = [round(ends[0] + step * place, 6) for place in range(steps)]
    if len(set(values)) < steps:
        raise DeidbenchError(f"{USAGE}; the values of '{text}' are too close to each other.")
    if all(value.is_integer() for value in values) and name != "strength":
        return Sweep(name, tuple(int(value) for value in values))
    return Sweep(name, tuple(values))


def points(config: RunConfig, sweep: Sweep, folder: Path) -> list[RunConfig]:
    """The evaluation of each value, each with a folder of its own within ``folder``.

    Raises:
        DeidbenchError: the configuration says that value itself, or a value is out of range.
    """
    given = {"strength"} if config.strength is not None else {name for name, _ in config.settings}
    if sweep.name in given:
        raise DeidbenchError(f"--sweep {sweep.name} and one {sweep.name} exclude each other.")
    return [
        replace(_with(config, sweep.name, value), out=folder / f"{sweep.name}-{_written(value)}")
        for value in sweep.values
    ]


def _with(config: RunConfig, name: str, value: float) -> RunConfig:
    if name == "strength":
        return replace(config, strength=value)
    return replace(config, settings=(*config.settings, (name, value)))


def _written(value: float) -> str:
    """0.5 -> '0.5', 1.0 -> '1', 1234567 -> '1234567'."""
    return str(int(value)) if float(value).is_integer() else str(value)


def measured(config: RunConfig) -> RunRecord | None:
    """The record of an evaluation that has been made already; None where there is none.

    Raises:
        DeidbenchError: the folder holds another run.
    """
    from .harness import settings_of
    from .results.store import read_run

    folder = config.out
    if folder is None or not folder.exists():
        return None
    record = read_run(folder)
    same = _told(record.config) == _told(settings_of(config))
    if not (same and _same_protocol(config, record) and _same_method(config, record)):
        raise DeidbenchError(f"{folder} holds another run. Choose another --out.")
    return record


def _same_method(config: RunConfig, record: RunRecord) -> bool:
    """Whether the method is the very one of the record: its version and its weights too."""
    from .setup import load_method

    method = load_method(
        config.method, strength=config.strength, weights=config.weights, **dict(config.settings)
    )
    then = (record.method.name, record.method.version, record.method.weights_sha256)
    return then == (method.name, method.version, getattr(method, "weights_sha256", None))


def _same_protocol(config: RunConfig, record: RunRecord) -> bool:
    from .protocols import load

    return bool(record.protocol_settings == load(config.protocol).model_dump(mode="json"))


def _told(settings: dict[str, Any]) -> dict[str, Any]:
    """What can be compared; method and protocol are looked at themselves."""
    untold = ("method", "protocol")
    return {key: _listed(value) for key, value in settings.items() if key not in untold}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
