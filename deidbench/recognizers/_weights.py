"""Files of weights to named tensors, each of which a network must use exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from deidbench.errors import DeidbenchError

_COUNTER = "num_batches_tracked"


class WeightsError(DeidbenchError):
    """A file of weights is damaged or holds another network."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"weights {path.name} cannot be used: {what}. "
            "Delete the file and run 'deidbench assets fetch'."
        )


class Weights:
    """Named tensors of one file, taken out one by one.

    Raises:
        WeightsError: from each method that finds the file to be not what the network needs.
    """

    def __init__(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self.path = path
        self._tensors = tensors
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise WeightsError(path, f"tensor '{name}' holds NaN or infinity")

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor of this very shape, which is then gone from here."""
        if name not in self._tensors:
            raise WeightsError(self.path, f"no tensor '{name}'")
        got, want = tuple(self._tensors[name].shape), tuple(shape)
        if got != want:
            raise WeightsError(self.path, f"tensor '{name}' has the shape {got}, not {want}")
        return self._tensors.pop(name)

    def require_empty(self) -> None:
        """Raise unless every tensor was taken."""
        if self._tensors:
            raise WeightsError(self.path, f"unexpected tensor '{min(self._tensors)}'")


def fill(network: nn.Module, weights: Weights) -> nn.Module:
    """Copy every tensor of a file to the parameter or statistic of that name.

    Raises:
        WeightsError: a tensor is missing, has another shape, or is left over.
    """
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not name.endswith(_COUNTER):
                tensor.copy_(weights.take(name, tensor.shape))
    weights.require_empty()
    return network


def read_state_dict(path: Path, *, without: str | None = None) -> Weights:
    """A torch state dict, without the counters that inference never reads.

    Args:
        without: the beginning of names that are left out: a classifier, of no use here.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive or pickle raises anything
        raise WeightsError(path, "it is not a torch state dict") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(path, "it is not a torch state dict")
    return Weights(path, {key: value for key, value in state.items() if _is_used(key, without)})


def _is_used(name: str, without: str | None) -> bool:
    return not (name.endswith(_COUNTER) or (without and name.startswith(without)))
