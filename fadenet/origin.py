"""Weights that a run goes on from."""

from __future__ import annotations

from dataclasses import dataclass

from .checkpoint import Provenance, load_weights, weights_at, weights_sha256
from .config import TrainConfig, TrainConfigError
from .model import FaDeNet


@dataclass(frozen=True)
class Origin:
    """Weights that a run goes on from; what they have seen stays true of those it makes."""

    network: FaDeNet
    provenance: Provenance
    sha256: str

    @classmethod
    def of(cls, start: str) -> Origin:
        """Weights by the name of a method that ships some, or from a file."""
        with weights_at(start) as path:
            return cls(*load_weights(path), weights_sha256(path))

    def told(self) -> str:
        """Which weights these are, for whoever asks where the next ones come from."""
        before = self.provenance
        told = f"went on from weights {self.sha256}, {before.steps} steps on {before.data}"
        return f"{told}; {before.note}" if before.note else told

    def give(self, network: FaDeNet, config: TrainConfig) -> None:
        """Copy the weights.

        Raises:
            TrainConfigError: the networks have other layers, or a recognizer that shall be held
                out has trained the weights.
        """
        both = sorted(set(self.provenance.critics) & set(config.held_out))
        if both:
            raise TrainConfigError(
                f"held_out cannot be {both}: {config.start} was trained against it. "
                "Start from other weights, or hold out others."
            )
        try:
            network.load_state_dict(self.network.state_dict())
        except RuntimeError as error:
            raise TrainConfigError(
                f"start cannot be {config.start!r}: its layers are those of "
                f"{self.network.config.to_dict()}. Write these widths, blocks and key, or leave "
                "start out."
            ) from error
