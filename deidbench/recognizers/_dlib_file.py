"""Reader of dlib's serialised networks (dlib 19: dlib/serialize.h, dlib/dnn/layers.h).

An integer is a byte (count of bytes; bit 7: negative) and little-endian bytes; a real is an
integer mantissa and an integer binary exponent; a flag is the character 0 or 1; a tensor is its
four lengths and raw little-endian float32. Layers follow in the order of the data flow.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._weights import WeightsError

_FIELDS = {
    # width, rows, columns, two strides, two paddings; learning rates, of no use here
    "con_4": ("tensor", *["integer"] * 7, "alias", "alias", *["real"] * 4),
    "affine_": ("tensor", "alias", "alias", "integer"),
    "relu_": (),
    "add_prev_": (),
    # rows, columns, two strides, two paddings; 0 rows means all
    "max_pool_2": ("integer",) * 6,
    "avg_pool_2": ("integer",) * 6,
    "fc_2": ("integer", "integer", "tensor", "alias", "alias", "integer", *["real"] * 4),
}


class Layer(NamedTuple):
    """One layer: its kind and version, its integer settings, its parameters in one row."""

    kind: str
    settings: tuple[int, ...]
    parameters: Tensor


class DlibFile(NamedTuple):
    """What the recognizer needs of a serialised network with a metric loss."""

    mean: tuple[float, ...]
    size: tuple[int, int]
    layers: list[Layer]


def read_dlib(path: Path) -> DlibFile:
    """Read a network for aligned RGB images that ends in a metric loss.

    Raises:
        WeightsError: the file is cut short, has bytes left over, or holds another kind of network.
    """
    try:
        return _Reader(path.read_bytes()).network()
    except (OSError, ValueError, IndexError, KeyError) as error:
        what = f"it is not a whole dlib network of known structure ({error})"
        raise WeightsError(path, what) from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def network(self) -> DlibFile:
        self._expect(self.integer(), 1)
        self._expect(self.text(), "loss_metric_2")
        margin_and_threshold = (self.real(), self.real())
        self._expect(all(value > 0 for value in margin_and_threshold), True)
        while self.integer() != 3:  # versions of the nested layers; 3 is that of the innermost
            pass
        self._expect(self.text(), "input_rgb_image_sized")
        mean = (self.real(), self.real(), self.real())
        size = (self.integer(), self.integer())
        layers = [self.layer()]
        self._expect(self.integer(), 1)  # images per sample, kept by the first layer
        while self._at < len(self._data):
            layers.append(self.layer())
        return DlibFile(mean, size, layers)

    def layer(self) -> Layer:
        kind = self.text()
        settings: list[int] = []
        parameters = torch.empty(0)
        for field in _FIELDS[kind]:
            if field == "integer":
                settings.append(self.integer())
            elif field == "tensor":
                parameters = self.tensor()
            elif field == "alias":
                for _ in range(5):  # version and four lengths
                    self.integer()
            else:
                self.real()
        self._state()
        return Layer(kind, tuple(settings), parameters)

    def _state(self) -> None:
        """What training left behind: three flags and three empty tensors."""
        self._expect(set(self._take(3)) <= set(b"01"), True)
        for _ in range(3):
            self._expect(self.tensor().numel(), 0)

    def integer(self) -> int:
        (head,) = self._take(1)
        self._expect(head & 0x7F in range(1, 9), True)
        value = int.from_bytes(self._take(head & 0x7F), "little")
        return -value if head & 0x80 else value

    def real(self) -> float:
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 2000:
            raise ValueError(f"binary exponent {exponent} at byte {self._at}")
        return float(np.ldexp(float(mantissa), exponent))

    def text(self) -> str:
        return self._take(self.integer()).decode("ascii")

    def tensor(self) -> Tensor:
        self._expect(self.integer(), 2)
        count = int(np.prod([self.integer() for _ in range(4)], dtype=object))
        values = np.frombuffer(self._take(4 * count), "<f4").astype(np.float32)
        return torch.from_numpy(values)

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise ValueError(f"{count} bytes wanted at byte {self._at} of {len(self._data)}")
        self._at += count
        return self._data[self._at - count : self._at]

    def _expect(self, got: object, want: object) -> None:
        if got != want:
            raise ValueError(f"{got!r} where {want!r} belongs, before byte {self._at}")
