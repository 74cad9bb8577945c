"""Read a pickle of plain numpy arrays without letting it run anything else.

NumPy's own constructors trust a pickle with raw memory: an object array takes its bytes for
pointers, and a dtype can change its size under an array that uses it. So a pickle gets stand-ins
of ours, and the arrays are made of what those hold.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

from deidbench.errors import DeidbenchError

_KINDS = "biufcSU"  # numbers and text of a fixed size: no objects, no records


def load_numpy_pickle(path: Path, *, encoding: str = "ASCII") -> object:
    """Load a pickle that holds nothing but numpy arrays and Python's plain containers.

    Arrays are of numbers or text: those of objects or records are refused.

    Args:
        encoding: of the strings that Python 2 wrote; 'bytes' leaves them as bytes.
    Raises:
        DeidbenchError: the pickle names any other global (which is not imported, let alone
            called), holds other arrays, or is damaged.
    """
    with Path(path).open("rb") as stream:
        try:
            return _finished(_NumpyUnpickler(stream, encoding=encoding).load(), set())
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


class _Dtype:
    """Stands in for a dtype: its spelling when made, its byte order when its state is set."""

    def __init__(self, spelling: str | bytes, align: bool = False, copy: bool = False) -> None:
        import numpy as np

        self.built = np.dtype(_text(spelling))
        if self.built.hasobject or self.built.kind not in _KINDS:
            raise DeidbenchError(
                f"refused the dtype '{_text(spelling)}': only arrays of numbers or text are loaded."
            )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.built = self.built.newbyteorder(_text(state[1]))


class _Array:
    """Stands in for an array until its state is set."""

    built: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        array = _shaped(data, dtype, shape, "F" if fortran else "C")
        self.built = array.astype(array.dtype.newbyteorder("="), copy=False)  # as NumPy does


def _allowed() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): _ndarray,
        ("numpy", "dtype"): _Dtype,
    }
    # NumPy 2 renamed numpy.core; a pickle keeps the name of the version that wrote it.
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        names[f"{core}.multiarray", "scalar"] = _scalar
        names[f"{core}.numeric", "_frombuffer"] = _shaped
    return names


def _ndarray(*_: object) -> NoReturn:
    """Named by every array, called by none."""
    raise DeidbenchError("refused a call of 'numpy.ndarray': only plain numpy arrays are loaded.")


def _reconstruct(subtype: object, *_: object) -> _Array:
    if subtype is not _ndarray:
        raise DeidbenchError("refused an array of another class: only plain ones are loaded.")
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    import numpy as np

    make: Any = np.float64().__reduce__()[0]
    return make(_dtype_of(dtype), data)


def _shaped(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> Any:
    """An array of its own memory, made of exactly these bytes."""
    import numpy as np

    if not isinstance(data, (bytes, bytearray)) or order not in ("C", "F"):
        raise ValueError("an array without its bytes")
    view = np.ndarray(shape, _dtype_of(dtype), data, order="F" if order == "F" else "C")
    if view.nbytes != len(data):
        raise ValueError(f"an array of {view.nbytes} bytes, but {len(data)} are given")
    return view.copy(order="K")


def _text(spelling: str | bytes) -> Any:
    """As text, also where Python 2 wrote it."""
    return spelling.decode("ascii") if isinstance(spelling, bytes) else str(spelling)


def _dtype_of(dtype: object) -> Any:
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without its dtype")
    return dtype.built


def _finished(value: Any, seen: set[int]) -> Any:
    """The value with arrays in place of what stood in for them."""
    if isinstance(value, (_Array, _Dtype)):
        if value.built is None:
            raise ValueError("an array without its state")
        return value.built
    if isinstance(value, tuple):
        return tuple(_finished(one, seen) for one in value)
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return value
    seen.add(id(value))
    for key, one in list(value.items() if isinstance(value, dict) else enumerate(value)):
        value[key] = _finished(one, seen)
    return value


def _encode(text: str, encoding: str) -> bytes:
    # Protocols 0 to 2 spell bytes as text in latin-1; other codecs have no place here.
    if encoding.lower().replace("-", "") != "latin1":
        raise DeidbenchError(f"refused the codec '{encoding}': only latin1 spells array bytes.")
    return text.encode("latin-1")
