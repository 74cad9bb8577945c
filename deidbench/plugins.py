"""Finds the parts that are installed, ours and guests', by entry point. Loads on use."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from .errors import PluginError

Kind = Literal["datasets", "methods", "recognizers", "threats", "metrics", "trainers"]
KINDS: tuple[Kind, ...] = ("datasets", "methods", "recognizers", "threats", "metrics")


def names(kind: Kind) -> list[str]:
    """Names of all installed parts of a kind, sorted. Imports none of them."""
    return sorted(_claims(kind))


def load(kind: Kind, name: str) -> Any:
    """The class that an entry point names.

    Raises:
        PluginError: the name is unknown, two packages claim it, or its import fails.
    """
    point = require(kind, name)
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(
            f"{kind} '{name}' of {_owner(point)} cannot be loaded: {error}. Reinstall that package."
        ) from error


def build(kind: Kind, spec: str, /, **settings: Any) -> Any:
    """A part by ``NAME`` or ``NAME:ARGUMENT``; settings that are None keep the part's own defaults.

    Raises:
        PluginError: there is no such part, or it has no such setting, or refuses its value.
    """
    name, argument = split_argument(spec)
    factory = load(kind, name)
    accepted = inspect.signature(factory).parameters
    given = {key: value for key, value in settings.items() if value is not None}
    if "argument" in accepted:
        given["argument"] = argument
    elif argument is not None:
        raise PluginError(f"{kind} '{name}' takes no argument, but got '{argument}'. Write {name}.")
    for key in sorted(given.keys() - accepted.keys()):
        raise PluginError(f"{kind} '{name}' has no setting '{key}'. {_settings(accepted)}")
    try:
        return factory(**given)
    except (TypeError, ValueError) as error:
        if not settings:
            raise
        raise PluginError(
            f"{kind} '{name}' cannot be built with {settings}: {error}. Change a setting."
        ) from error


def split_argument(spec: str) -> tuple[str, str | None]:
    """'folder:/data/faces' -> ('folder', '/data/faces'); 'synthid' -> ('synthid', None)."""
    name, colon, argument = spec.partition(":")
    return name, argument if colon else None


def require(kind: Kind, name: str) -> EntryPoint:
    """The entry point of a name, without importing what it names.

    Raises:
        PluginError: the name is unknown, or two packages claim it.
    """
    claims = _claims(kind)
    if name not in claims:
        raise PluginError(_unknown(kind, name, sorted(claims)))
    if len(claims[name]) > 1:
        owners = ", ".join(sorted(_owner(claim) for claim in claims[name]))
        raise PluginError(f"two packages offer {kind} '{name}': {owners}. Uninstall one.")
    return claims[name][0]


def _claims(kind: Kind) -> dict[str, list[EntryPoint]]:
    claims: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in entry_points(group=f"deidbench.{kind}"):
        # A checkout on sys.path lists its own package a second time: one owner, one value.
        claims.setdefault(point.name, {})[(_owner(point), point.value)] = point
    return {name: list(owners.values()) for name, owners in claims.items()}


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _settings(accepted: Mapping[str, inspect.Parameter]) -> str:
    names = [name for name in accepted if name != "argument"]
    return f"It has: {', '.join(names)}." if names else "It has none."


def _unknown(kind: Kind, name: str, installed: list[str]) -> str:
    close = difflib.get_close_matches(name, installed, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    listing = ", ".join(installed) or "none; run 'pip install' again"
    return f"no {kind} called '{name}'.{hint} Installed: {listing}."
