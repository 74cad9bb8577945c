"""An attacker who learns while FaDeNet does, from the treated faces of its last steps.

He is much of deidbench's T3 and T5: what a treatment does to all faces alike, and any change that
his linear maps or his small network can undo, protects nobody from him. FaDeNet is trained against
what he knows by now, and he on its latest faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

LESSON, LESSONS = 64, 2  # pairs that the student looks at together; how often in each step
TEMPERATURE = 0.1  # of the student's cosines


@dataclass(frozen=True)
class Maps:
    """What the attacker has learned of treated and clean faces."""

    treated_mean: Tensor
    clean_mean: Tensor
    back: Tensor
    """(D, D): from centred treated to centred clean embeddings."""
    within: Tensor
    """(D, D): makes what varies within a person count less."""
    size: Tensor
    """Mean norm of centred treated embeddings, a scalar."""

    def centred(self, clean: Tensor) -> Tensor:
        """Clean embeddings (..., D), to compare guesses with."""
        return clean - self.clean_mean

    def centred_treated(self, treated: Tensor) -> Tensor:
        """Treated embeddings (..., D), what the treatment does to all alike taken away."""
        return treated - self.treated_mean

    def scaled(self, treated: Tensor) -> Tensor:
        """The same (..., D) in a size that a network likes: numbers around 1."""
        scale: Tensor = treated.shape[-1] ** 0.5 / self.size
        return self.centred_treated(treated) * scale

    def mapped(self, treated: Tensor) -> Tensor:
        """Guesses of the centred clean embeddings (..., D)."""
        return self.centred_treated(treated) @ self.back

    def whitened(self, treated: Tensor) -> Tensor:
        """Treated embeddings (..., D), to compare with each other."""
        return self.centred_treated(treated) @ self.within


class Student(nn.Module):
    """A small network from treated embeddings (N, D), as ``Maps.scaled`` gives them, to centred
    clean ones; starts as no change.

    It learns step by step to tell whose clean face belongs to a treated one (InfoNCE: van den Oord
    et al. 2018, arXiv:1807.03748).
    """

    def __init__(self, size: int, random: Generator) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)
        with torch.no_grad():
            self.first.weight.normal_(0, size**-0.5, generator=random)
            self.first.bias.zero_()
            self.second.weight.zero_()
            self.second.bias.zero_()
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-4)

    def forward(self, treated: Tensor) -> Tensor:
        """Guesses (N, D) whose direction counts."""
        guess: Tensor = treated + self.second(F.gelu(self.first(treated)))
        return guess

    def learn(self, treated: Tensor, clean: Tensor) -> None:
        """One step on these pairs (n, D)."""
        guesses = F.normalize(self(treated), dim=1) @ F.normalize(clean, dim=1).T
        loss = F.cross_entropy(guesses / TEMPERATURE, torch.arange(len(clean), device=clean.device))
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()


class Adversary:
    """Remembers pairs of faces of a person, treated and clean, and learns from them anew.

    Args:
        memory: pairs that are remembered; older ones are forgotten.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pairs = torch.zeros(0)
        """(memory, 4, D): treated, treated, clean, clean; the first two of the same person."""
        self.seen = 0
        self.student: Student | None = None

    def remember(self, treated: Tensor, clean: Tensor) -> None:
        """Pairs (n, 2, D) of embeddings; the pair of a row is of one person."""
        rows = torch.cat([treated, clean], 1).detach().cpu()  # (n, 4, D)
        if not len(self.pairs):
            self.pairs = torch.zeros(self.memory, *rows.shape[1:])
        places = (self.seen + torch.arange(len(rows))) % self.memory
        self.pairs[places] = rows
        self.seen += len(rows)

    def ready(self) -> bool:
        """Whether half the memory is full: fewer pairs teach nothing that others share."""
        return 2 * self.seen >= self.memory

    def teach(self, maps: Maps, random: Generator) -> Student:
        """Let the student learn a little more from pairs drawn from the memory."""
        size, device = self.pairs.shape[-1], maps.back.device
        if self.student is None:
            self.student = Student(size, random).to(device)
        for _ in range(LESSONS):
            rows = torch.randperm(min(self.seen, self.memory), generator=random)[:LESSON]
            known = self.pairs[rows].to(device)
            # The clean face of another photograph than the treated one.
            self.student.learn(maps.scaled(known[:, 0]), maps.centred(known[:, 3]))
        return self.student

    def learn(self, penalty: float, device: str) -> Maps:
        """The best maps for the pairs that are remembered.

        Args:
            penalty: of both maps, in mean eigenvalues of what they invert.
        """
        known = self.pairs[: self.seen].to(device)
        treated, clean = (side.flatten(0, 1) for side in (known[:, :2], known[:, 2:]))
        treated_mean, clean_mean = treated.mean(0), clean.mean(0)
        centred = treated - treated_mean
        back = torch.linalg.solve(
            _lifted(centred.T @ centred, penalty), centred.T @ (clean - clean_mean)
        )
        apart = known[:, 0] - known[:, 1]
        values, vectors = torch.linalg.eigh(_lifted(apart.T @ apart / len(apart), penalty))
        within = vectors * values.clamp_min(1e-12).rsqrt() @ vectors.T
        return Maps(treated_mean, clean_mean, back, within, centred.norm(dim=1).mean())

    def state(self) -> dict[str, Any]:
        """What ``load`` takes."""
        student = self.student and {
            "network": self.student.state_dict(),
            "optimizer": self.student.optimizer.state_dict(),
        }
        return {"pairs": self.pairs, "seen": self.seen, "student": student}

    def load(self, state: Mapping[str, Any], device: str) -> None:
        """Go on from an earlier run's memory and knowledge."""
        self.pairs, self.seen = state["pairs"], state["seen"]
        if state["student"] is not None:
            self.student = Student(self.pairs.shape[-1], Generator()).to(device)
            self.student.load_state_dict(state["student"]["network"])
            self.student.optimizer.load_state_dict(state["student"]["optimizer"])


def _lifted(matrix: Tensor, penalty: float) -> Tensor:
    """The matrix plus a share of its mean eigenvalue on the diagonal."""
    lift = penalty * matrix.diagonal().mean() + 1e-8
    return matrix + lift * torch.eye(len(matrix), device=matrix.device)
