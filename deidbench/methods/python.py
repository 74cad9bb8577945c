"""A Python function, or a class of methods, that is no installed plugin."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deidbench.errors import DeidbenchError

if TYPE_CHECKING:
    from torch import Tensor

    Treatment = Callable[..., Tensor]


class Python:
    """``python:module:function``: a function of faces, found as ``import module`` finds it.

    ``function(faces)`` takes and gives float32 RGB (N, 3, H, W) in [0, 1]. With a parameter
    ``seed`` it gets the seed, and must take all its randomness from there. The folder where the
    command runs is searched first.

    Args:
        argument: ``module:function``, with dots in the module where it lies in a package; or, from
            Python, the function itself.
    Raises:
        DeidbenchError: there is no such module or function, or it cannot be called.
    """

    version = 1
    strength: float | None = None
    trained_against: Sequence[str] = ()
    needs_argument = True

    def __init__(self, argument: str | Treatment | None = None) -> None:
        function = argument if callable(argument) else _load(argument)
        self._function = function
        self._seeded = _takes_seed(function)
        self.name = f"python:{getattr(function, '__qualname__', type(function).__name__)}"
        self.fingerprint = _fingerprint(function)

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> what the function makes of a copy."""
        import torch

        with torch.no_grad():
            # A copy: who writes into his input must not change the original.
            given = faces.clone()
            output = self._function(given, seed=seed) if self._seeded else self._function(given)
        return output.clone() if output is given else output


def _load(argument: str | None) -> Treatment:
    module, _, name = (argument or "").partition(":")
    if not (module and name):
        raise DeidbenchError(f"python: expected module:function, but got '{argument or ''}'.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError) as error:
        raise DeidbenchError(
            f"python: cannot load '{argument}': {error}. Name a module in this folder or installed."
        ) from error
    if not callable(function):
        raise DeidbenchError(f"python: '{argument}' is no function, but {type(function).__name__}.")
    loaded: Treatment = function
    return loaded


def _takes_seed(function: Treatment) -> bool:
    import inspect

    try:
        return "seed" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions say nothing about themselves
        return False


def _fingerprint(function: Treatment) -> str:
    """Hash of the file that the function is written in; of one without a file, never the same."""
    import hashlib
    import inspect
    import secrets

    try:
        source = Path(inspect.getfile(inspect.unwrap(function))).read_bytes()
    except (TypeError, OSError):
        return secrets.token_hex(16)
    return hashlib.sha256(source).hexdigest()
