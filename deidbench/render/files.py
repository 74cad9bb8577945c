"""Files of a report: each appears whole or not at all, and only files of ours are replaced."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deidbench.errors import DeidbenchError

GENERATOR = "deidbench report"
"""Stands in every file of ours that has room for it."""


@dataclass(frozen=True)
class Output:
    """A file to write. One that is there may be replaced where it holds ``mark``."""

    target: Path
    content: bytes
    mark: bytes = GENERATOR.encode()


def write_outputs(outputs: Sequence[Output]) -> list[Path]:
    """Write files, after a look at what stands in their places; returns their paths.

    Raises:
        DeidbenchError: a file of that name is not ours, or a place cannot be written to.
    """
    for output in outputs:
        try:
            output.target.parent.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(output)
        except OSError as error:
            raise _unwritable(output, error) from error
    for output in outputs:
        try:
            _replace(output)
        except OSError as error:
            raise _unwritable(output, error) from error
    return [output.target for output in outputs]


def _unwritable(output: Output, error: OSError) -> DeidbenchError:
    return DeidbenchError(f"cannot write the report to {output.target}: {error.strerror}.")


def _refuse_foreign(output: Output) -> None:
    """An older file of ours may be replaced, nothing else."""
    if output.target.exists() and output.mark not in output.target.read_bytes():
        raise DeidbenchError(f"{output.target} was not written by deidbench; name another folder.")


def _replace(output: Output) -> None:
    """Write beside the target, then take its place at once."""
    target = output.target
    handle, name = tempfile.mkstemp(prefix=".report-", suffix=target.suffix, dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(output.content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
