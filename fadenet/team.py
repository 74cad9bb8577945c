"""Several processes that train one network, as ``torchrun`` starts them; or one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Team:
    """Who this process is among those that train together.

    Args:
        rank: from 0; the first leads: he alone writes and speaks. size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.leads = rank == 0

    def part(self, rows: list[int]) -> list[int]:
        """This process's share of a batch."""
        return rows[self.rank :: self.size]

    def average_gradients(self, network: nn.Module) -> None:
        """Give every process the mean of all gradients, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat / self.size, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def anyone(self, says: bool, device: str) -> bool:
        """Whether any process says so; all of them hear the same."""
        if self.size == 1:
            return says
        heard: Tensor = torch.tensor(float(says), device=device)
        dist.all_reduce(heard)
        return bool(heard > 0)

    def agrees(self, number: int, device: str) -> bool:
        """Whether every process names the same number."""
        if self.size == 1:
            return True
        ends: Tensor = torch.tensor([number, -number], device=device)
        dist.all_reduce(ends, dist.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def team_of(device: str) -> Iterator[tuple[Team, str]]:
    """The team that the environment names, and the device of this process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(), device
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    # The others wait while the leader aligns thousands of photographs, or validates.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(hours=24))
    try:
        yield Team(dist.get_rank(), size), device
    finally:
        dist.destroy_process_group()
