"""Folders as a user writes them."""

from __future__ import annotations

from pathlib import Path

from deidbench.errors import DeidbenchError


def expanded(written: str, where: str) -> Path:
    """The path with its ``~`` replaced.

    Args:
        where: what holds the path, for the message.
    Raises:
        DeidbenchError: there is no such user, or no home folder.
    """
    try:
        return Path(written).expanduser()
    except RuntimeError as error:
        raise DeidbenchError(
            f"{where} names '{written}', but its '~' is no home folder here. Write the whole path."
        ) from error
