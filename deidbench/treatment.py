"""Treats a batch of faces. A face that a method fails on is counted, and the others go on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from .errors import DeidbenchError
from .types import Method

T = TypeVar("T")


@dataclass
class FittedMethods:
    """A method that needs the set that is to be published, fitted on each part by itself.

    Parts are published apart: what hides a person among k others must not count those of another.
    """

    method: Any
    faces_of: Callable[[str], tuple[Tensor, Sequence[str]]]
    """All faces of a part, (N, 3, S, S), and the person of each."""
    _fitted: dict[str, Method] = field(default_factory=dict)

    def of(self, part: str) -> Method:
        """The method for the faces of a part; the very same one when it needs no set."""
        if not hasattr(self.method, "fit"):
            plain: Method = self.method
            return plain
        if part not in self._fitted:
            own = copy.deepcopy(self.method)
            own.fit(*self.faces_of(part))
            self._fitted[part] = own
        return self._fitted[part]


def treat_faces(method: Method, faces: Tensor, *, seed: int) -> tuple[Tensor, list[str]]:
    """Treated faces, and for each why it failed: '' where it did not, and black where it did.

    A batch that raises, or that the memory of a GPU does not hold, is halved until the face at
    fault is alone.
    """
    try:
        output = method.deidentify(faces, seed=seed)
    except DeidbenchError:
        raise  # the method cannot work at all: a setting, or weights that are missing
    except Exception as error:
        if len(faces) == 1:
            return torch.zeros_like(faces), [_one_line(error)]
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        return _halved(method, faces, seed)
    problems = [_breach(face, treated) for face, treated in _pairs(faces, output)]
    good = torch.tensor([not problem for problem in problems], device=faces.device)
    if not bool(good.any()):
        return torch.zeros_like(faces), problems
    return torch.where(good[:, None, None, None], output, 0), problems


def in_pieces(function: Callable[..., Tensor], *batch: Tensor) -> Tensor:
    """A function of a batch; one that the memory of a GPU does not hold is halved, and again.

    Raises:
        DeidbenchError: a single face does not fit.
    """
    try:
        return function(*batch)
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        middle = len(batch[0]) // 2
        if not middle:
            raise DeidbenchError(
                "the GPU's memory does not hold a single face. Use --device cpu."
            ) from error
    parts = (in_pieces(function, *(one[half] for one in batch)) for half in _halves(middle))
    return torch.cat(list(parts))


def _halved(method: Method, faces: Tensor, seed: int) -> tuple[Tensor, list[str]]:
    treated, problems = [], []
    for number, half in enumerate(_halves(len(faces) // 2), 1):
        # Another seed, so that no two faces share their noise by position.
        output, why = treat_faces(method, faces[half], seed=(2 * seed + number) % 2**31)
        treated.append(output)
        problems += why
    return torch.cat(treated), problems


def _halves(middle: int) -> tuple[slice, slice]:
    return slice(middle), slice(middle, None)


def _pairs(faces: Tensor, output: Any) -> list[tuple[Tensor, Any]]:
    """Each face and what became of it; the whole output for each where it is no such batch."""
    if isinstance(output, Tensor) and output.ndim == 4 and len(output) == len(faces):
        return list(zip(faces, output, strict=True))
    return [(face, output) for face in faces]


def _breach(face: Tensor, treated: Any) -> str:
    """How a treated face breaks the contract of ``Method``; '' when it keeps it."""
    expected = f"broke its contract: expected finite values in [0, 1] of shape {tuple(face.shape)}"
    if not isinstance(treated, Tensor):
        return f"{expected}, but got {type(treated).__name__}"
    if treated.shape != face.shape or treated.dtype != face.dtype:
        return f"{expected}, float32, but got {tuple(treated.shape)}, {treated.dtype}"
    low, high = (float(value) for value in torch.aminmax(treated))
    if not (low >= 0 and high <= 1):  # NaN fails too
        return f"{expected}, but got [{low:.4g}, {high:.4g}]"
    return ""


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"raised {type(error).__name__}: {text}" if text else f"raised {type(error).__name__}"
