"""Finds the parts that are installed, ours and guests', by entry point. Loads on use."""

from __future__ import annotations

import difflib
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


def _unknown(kind: Kind, name: str, installed: list[str]) -> str:
    close = difflib.get_close_matches(name, installed, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    listing = ", ".join(installed) or "none; run 'pip install' again"
    return f"no {kind} called '{name}'.{hint} Installed: {listing}."
