"""FaDeNet as methods of deidbench; the only module here that knows its protocol."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from deidbench.errors import DeidbenchError

from .checkpoint import Provenance, load_weights, weights_at, weights_sha256
from .model import FaDeNet

SMALLEST = 32


class FaDeNetMethod:
    """Treat faces with trained FaDeNet weights. Deterministic: the seed changes nothing.

    Args:
        strength: in [0, 1]; 0 gives the face itself, 1 the strongest treatment; None means 1.
        weights: a file of ``deidbench train``; None means the weights of this package.
    Raises:
        DeidbenchError: the strength is out of range, or the weights are missing, damaged or those
            of the other method.
    """

    name = "fadenet"
    version = 3
    keyed = False

    def __init__(self, strength: float | None = None, weights: Path | str | None = None) -> None:
        if strength is not None and not 0 <= strength <= 1:
            raise DeidbenchError(f"{self.name}: strength must be in [0, 1], got {strength!r}.")
        self.strength: float | None = 1.0 if strength is None else float(strength)
        self._network, self.provenance, self.weights_sha256 = _open(self.name, weights)
        if bool(self._network.config.key) != self.keyed:
            has, other = ("no", "fadenet") if self.keyed else ("a", "fadenet-keyed")
            raise DeidbenchError(
                f"{self.name}: these weights take {has} key. Use --method {other}, or name others."
            )
        self.trained_against: tuple[str, ...] = tuple(self.provenance.critics)
        self.trained_on_metrics: tuple[str, ...] = self.provenance.metrics

    @property
    def training_subjects(self) -> tuple[str, ...]:
        """``deidbench.types.subject_digest`` of each person that the weights were trained on."""
        return self.provenance.subjects

    @torch.no_grad()
    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        """float32 RGB (N, 3, H, W) in [0, 1] -> same shape, dtype and device, in [0, 1].

        Meant for aligned chips of 112 px and more; sides below 32 px are refused.
        """
        if faces.ndim != 4 or faces.shape[1] != 3 or min(faces.shape[-2:]) < SMALLEST:
            raise DeidbenchError(
                f"{self.name}: expected faces (N, 3, H, W) of {SMALLEST} px or more, "
                f"got {tuple(faces.shape)}."
            )
        if not len(faces):
            return faces.clone()
        self._network.to(faces.device)
        strength = 1.0 if self.strength is None else self.strength
        treated: Tensor = self._network(faces, strength, self._keys(len(faces), seed))
        return treated.contiguous()

    def _keys(self, count: int, seed: int) -> Tensor | None:
        return None


class FastFaDeNetMethod(FaDeNetMethod):
    """FaDeNet with a smaller network that looks at faces at half the size: for video."""

    name = "fadenet-fast"
    version = 1


class KeyedFaDeNetMethod(FaDeNetMethod):
    """FaDeNet steered by a key that is drawn from the seed for every face anew.

    Two treated photographs of a person are changed in different ways, so that they, and what an
    attacker learns from the method's output, say less about each other. The seed is the secret.
    """

    name = "fadenet-keyed"
    version = 2
    keyed = True

    def _keys(self, count: int, seed: int) -> Tensor:
        """One key for each face (N, key), from a normal distribution."""
        random = torch.Generator().manual_seed(seed)
        return torch.randn(count, self._network.config.key, generator=random)


def _open(name: str, weights: Path | str | None) -> tuple[FaDeNet, Provenance, str]:
    with weights_at(name if weights is None else Path(weights)) as path:
        network, provenance = load_weights(path)
        return network, provenance, weights_sha256(path)
