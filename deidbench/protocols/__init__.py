"""Versioned protocols: which attacks a run carries out, on whom, and at which error rates.

A protocol is a TOML file; those of the package lie beside this module. Numbers of different
protocols are never shown side by side.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deidbench.cache import digest
from deidbench.errors import DeidbenchError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Rate = Annotated[float, Field(gt=0, lt=1)]
SUFFIX = ".toml"


class Protocol(BaseModel):
    """What a run does, but for the method, the dataset and the recognizers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*-v\d+$")]
    """With its version, as 'standard-v1': changed settings need another name."""
    summary: str
    threats: tuple[str, ...]
    fars: tuple[Rate, ...] = (0.1, 0.01, 0.001)
    """Target false accept rates."""
    shares: dict[str, Rate] = {"calibration": 0.4, "eval": 0.6}
    """Of the people, for datasets that bring no parts: 'attacker-train', 'calibration', 'eval'."""
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """k of the rank-k rates; empty: no identification."""
    controls: bool = False
    """Try every attack on faces where its outcome is known, and stop when one fails."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Also the mean and standard deviation over this many folds of people."""
    thresholds: dict[str, dict[str, float]] = {}
    """Published thresholds by recognizer and FAR, in place of CALIBRATION."""

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Protocol:
        known = {"attacker-train", "calibration", "eval"}
        if not {"calibration", "eval"} <= set(self.shares) <= known:
            raise ValueError(f"shares: expected calibration, eval, maybe attacker-train, but got "
                             f"{', '.join(self.shares)}")  # fmt: skip
        if abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError(f"shares: expected a sum of 1, but got {sum(self.shares.values()):g}")
        return self

    @model_validator(mode="after")
    def _thresholds_are_of_its_fars(self) -> Protocol:
        for name, table in self.thresholds.items():
            if {float(far) for far in table} != set(self.fars):
                raise ValueError(f"thresholds.{name}: expected one for each FAR of {self.fars}")
        return self

    @property
    def sha256(self) -> str:
        """Hash of all settings but the summary."""
        return digest(self.model_dump(mode="json", exclude={"summary"}))


def names() -> list[str]:
    """The protocols of the package."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))


def text(name: str) -> str:
    """The file of a protocol of the package. Raises ``DeidbenchError`` when there is none."""
    if name not in names():
        near = get_close_matches(name, names(), 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise DeidbenchError(
            f"no protocol called '{name}'.{hint} Known: {', '.join(names())}, or a {SUFFIX} file."
        )
    return (files(__name__) / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def load(spec: str | Path) -> Protocol:
    """A protocol of the package by name, or one from a file.

    Raises:
        DeidbenchError: there is no such protocol, or the file is no protocol, or it changes one of
            the package without changing its name.
    """
    if not str(spec).endswith(SUFFIX):
        return _parse(text(str(spec)), str(spec))
    try:
        protocol = _parse(Path(spec).read_text(encoding="utf-8"), str(spec))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DeidbenchError(f"cannot read protocol {spec}: {reason}. Check the path.") from error
    if protocol.name in names() and protocol.sha256 != load(protocol.name).sha256:
        raise DeidbenchError(
            f"{spec} changes protocol '{protocol.name}', whose numbers are compared by name. "
            "Give it another name."
        )
    return protocol


def _parse(content: str, where: str) -> Protocol:
    try:
        return Protocol.model_validate(tomllib.loads(content))
    except tomllib.TOMLDecodeError as error:
        raise DeidbenchError(f"{where} is no TOML: {error}. Mend the file.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise DeidbenchError(
            f"{where} is no protocol: {reason}. See 'deidbench protocols show standard-v1'."
        ) from error
