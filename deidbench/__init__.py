"""deidbench: how well a face de-identification method protects people, and what it costs.

``deidbench.evaluate`` measures a method and ``deidbench.open_run`` opens what was measured before;
both give a ``deidbench.Run``. They load on first use, so that ``import deidbench`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Run, evaluate, open_run
    from .errors import ControlError, DeidbenchError

__version__ = "0.1.0"
__all__ = ["ControlError", "DeidbenchError", "Run", "__version__", "evaluate", "open_run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from . import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
