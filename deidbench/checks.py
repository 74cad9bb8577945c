"""What can be found wrong with a configuration before the heavy imports, which take seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from . import plugins
from .config import ALL, RunConfig
from .errors import DeidbenchError


def refuse_unknown(config: RunConfig, *, named: bool = True) -> None:
    """Find misspelt names and a protocol that is at fault.

    Args:
        named: whether the method is one that is found by its name.
    Raises:
        DeidbenchError: a name is unknown, or the protocol cannot be used.
    """
    wanted = [("methods", config.method)] if named else []
    wanted += [("datasets", config.dataset)]
    wanted += [("recognizers", name) for name in config.recognizers if name != ALL]
    wanted += [("metrics", name) for name in config.metrics if name != ALL]
    for kind, spec in wanted:
        plugins.require(cast("plugins.Kind", kind), plugins.split_argument(spec)[0])
    from . import protocols  # pydantic takes a moment, and --help waits for this module

    for threat in protocols.load(config.protocol).threats:
        plugins.require("threats", threat)


def refuse_unwritable(folder: Path) -> None:
    """Find out before the work, not after it, that a run cannot be written.

    Raises:
        DeidbenchError: there is something of that name, or the place takes no folder.
    """
    if folder.exists():
        raise DeidbenchError(f"{folder} exists; runs are never overwritten. Name another one.")
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DeidbenchError(f"cannot write a run to {folder}: {there} refuses. Choose --out.")
