"""Read a pickle of plain numpy arrays without letting it run anything else."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

from deidbench.errors import DeidbenchError


def load_numpy_pickle(path: Path) -> object:
    """Load a pickle that holds nothing but numpy arrays and Python's plain containers.

    Raises:
        DeidbenchError: the pickle names any other global (which is not imported, let alone
            called), or it is damaged.
    """
    with Path(path).open("rb") as stream:
        try:
            return _NumpyUnpickler(stream).load()
        except DeidbenchError as error:
            raise DeidbenchError(f"{Path(path).name}: {error}") from None
        except Exception as error:  # a damaged pickle raises nearly any type
            raise DeidbenchError(
                f"{Path(path).name} is no readable pickle of numpy arrays "
                f"({type(error).__name__}: {error}); fetch it again."
            ) from error


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Answer from the allow-list alone; nothing is imported by name."""
        allowed = _allowed()
        if (module, name) not in allowed:
            raise DeidbenchError(
                f"refused the global '{module}.{name}': only plain numpy arrays are loaded."
            )
        return allowed[module, name]


def _allowed() -> dict[tuple[str, str], Any]:
    import numpy as np

    array = np.zeros(1)
    reconstruct, scalar = array.__reduce__()[0], array[0].__reduce__()[0]
    from_buffer = array.__reduce_ex__(5)[0]
    names: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }
    # NumPy 2 renamed numpy.core; a pickle keeps the name of the version that wrote it.
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = reconstruct
        names[f"{core}.multiarray", "scalar"] = scalar
        names[f"{core}.numeric", "_frombuffer"] = from_buffer
    return names


def _encode(text: str, encoding: str) -> bytes:
    # Protocols 0 to 2 spell bytes as text in latin-1; other codecs have no place here.
    if encoding.lower().replace("-", "") != "latin1":
        raise DeidbenchError(f"refused the codec '{encoding}': only latin1 spells array bytes.")
    return text.encode("latin-1")
