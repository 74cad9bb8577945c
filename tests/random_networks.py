"""Networks with random weights that still tell pictures apart, and a server for their files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Blotches of colour, coarser in some pictures than in others: (N, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        coarse = torch.rand(1, 3, 2 + i % 7, 2 + i % 7, generator=generator)
        made.append(F.interpolate(coarse, size=(height, width), mode="bilinear"))
    return torch.cat(made)


def randomize(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Random weights that keep the size of what flows, and the statistics that these inputs give.

    Weights as they are at first would give nearly one embedding for all pictures.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                # A layer of its own for each place keeps them as (place, output, input).
                inside = parameter.shape[-1] if parameter.ndim == 3 else parameter[0].numel()
                parameter.normal_(0, (2 / inside) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.05, generator=generator)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of all batches, of which there is one
        norm.reset_running_stats()
    if norms:
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)  # of the dropout
            network.train()(inputs)
    return network.eval()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder over HTTP on this machine; yields its address."""
    handler = partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
