"""An attacker who learns, while FaDeNet trains, to paint treated faces back (T4 of deidbench).

He is another FaDeNet, not the network with which deidbench attacks: that one remains an attacker
who was never trained against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from .model import FaDeNet, FaDeNetConfig

LESSON = 8  # faces that he looks at together, once in each step
RATE = 1e-3
REACH = 2.0  # how far his change may go beyond that of the network he undoes


class Restorer:
    """Remembers faces, treated and clean, and learns from them how to get from one to the other.

    Args:
        config: of the network that he undoes. memory: faces that are remembered; older ones are
            forgotten.
    """

    def __init__(self, config: FaDeNetConfig, memory: int, device: str, seed: int) -> None:
        shape = FaDeNetConfig(
            widths=(16, 32, 64), working_size=config.working_size,
            colour=min(1.0, REACH * config.colour), shift=min(1.0, REACH * config.shift),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = FaDeNet(shape).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        self.memory, self.device = memory, device
        self.faces = torch.zeros(0, dtype=torch.uint8)
        """(memory, 2, 3, H, W): treated, clean."""
        self.seen = 0

    def remember(self, treated: Tensor, clean: Tensor) -> None:
        """Faces (n, 3, H, W) in [0, 1]."""
        rows = (torch.stack([treated, clean], 1).detach() * 255).round().to("cpu", torch.uint8)
        if not len(self.faces):
            self.faces = torch.zeros(self.memory, *rows.shape[1:], dtype=torch.uint8)
        places = (self.seen + torch.arange(len(rows))) % self.memory
        self.faces[places] = rows
        self.seen += len(rows)

    def learn(self, random: Generator) -> float:
        """One step on faces drawn from the memory; returns the mean absolute error before it."""
        rows = torch.randperm(min(self.seen, self.memory), generator=random)[:LESSON]
        treated, clean = (self.faces[rows].to(self.device).float() / 255).unbind(1)
        self.network.requires_grad_(True)
        loss = (self.network(treated) - clean).abs().mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.network.requires_grad_(False)
        return float(loss.detach())

    def __call__(self, treated: Tensor) -> Tensor:
        """Faces (N, 3, H, W) in [0, 1] -> the same, as he believes they were; passes gradients."""
        restored: Tensor = self.network(treated)
        return restored

    def state(self) -> dict[str, Any]:
        """What ``load`` takes."""
        return {
            "faces": self.faces, "seen": self.seen, "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier run's memory and knowledge."""
        self.faces, self.seen = state["faces"], state["seen"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
