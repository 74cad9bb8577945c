"""How much memory a method adds: measured in a fresh process, which nothing else has filled.

That process loads torch and the faces, notes what it holds, and only then builds the method. What
it holds at most from there on, weights, fitting and one batch, is the method's.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deidbench.resident import forget_peak, held_bytes, peak_bytes

from .record import MemoryRecord

if TYPE_CHECKING:
    from torch import Tensor

MIB = 2**20
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
UNKNOWN = "this system does not tell how much a process has held"


@dataclass(frozen=True)
class Order:
    """What the fresh process is to measure. Plain values: it is told in JSON."""

    method: str
    strength: float | None
    settings: dict[str, Any]
    weights: str | None
    device: str
    threads: int
    batches: Sequence[int]
    chips: str = ""
    """A file of uint8 (N, 3, S, S)."""
    subjects: Sequence[str] = ()


def measure(order: Order, chips: Tensor, subjects: Sequence[str]) -> list[MemoryRecord]:
    """The memory of a method for each of the order's batches, weights and fitting included.

    Args:
        chips: uint8 (N, 3, S, S). subjects: the person of each.
    """
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="deidbench-") as folder:
        file = Path(folder) / "chips.npy"
        np.save(file, chips.numpy())
        told = json.dumps({**asdict(order), "chips": str(file), "subjects": list(subjects)})
        # The very same modules as here, wherever it starts.
        code = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as m; m.main()"
        done = subprocess.run(  # noqa: S603 -- our own code, told by JSON
            [sys.executable, "-c", code], input=told, capture_output=True, text=True, check=False
        )
    kind: Literal["gpu", "process"] = "gpu" if order.device.startswith("cuda") else "process"
    try:
        peaks = json.loads(done.stdout.splitlines()[-1])
        return [
            MemoryRecord(
                of=kind, batch=batch, peak_mib=peak, note=UNKNOWN if peak is None else None
            )
            for batch, peak in zip(order.batches, peaks, strict=True)
        ]
    except (IndexError, ValueError):
        why = f"the process that measured it ended with code {done.returncode}"
        return [MemoryRecord(of=kind, batch=b, peak_mib=None, note=why) for b in order.batches]


def main() -> None:
    """In the fresh process: an ``Order`` on stdin, MiB for each batch on stdout."""
    order = Order(**json.load(sys.stdin))
    print("\n" + json.dumps(_peaks(order)))  # a method may have printed half a line


def _peaks(order: Order) -> list[float | None]:
    import numpy as np
    import torch

    from deidbench.alignment import to_float
    from deidbench.setup import load_method

    torch.set_num_threads(order.threads)
    faces = to_float(torch.from_numpy(np.load(order.chips, allow_pickle=False))).to(order.device)
    batches = [faces[torch.arange(size) % len(faces)] for size in order.batches]
    _wake(faces)
    gauge = _Gauge(order.device)
    weights = order.weights and Path(order.weights)
    method = load_method(order.method, strength=order.strength, weights=weights, **order.settings)
    if hasattr(method, "fit"):
        method.fit(faces, order.subjects)
    peaks = []
    for batch in batches:
        method.deidentify(batch, seed=0)  # type: ignore[union-attr]
        peaks.append(gauge.peak())
    return peaks


def _wake(faces: Tensor) -> None:
    """What torch itself sets up on first use is not the method's."""
    import torch

    side = faces[:1]
    torch.nn.functional.conv2d(side, torch.ones(3, 3, 3, 3, device=faces.device))
    _ = side @ side
    if faces.is_cuda:
        torch.cuda.synchronize(faces.device)
    gc.collect()


class _Gauge:
    """The most memory that is held since it was made, in MiB."""

    def __init__(self, device: str) -> None:
        self.gpu = device if device.startswith("cuda") else None
        if self.gpu:
            import torch

            torch.cuda.reset_peak_memory_stats(self.gpu)
            self.before = float(torch.cuda.memory_allocated(self.gpu))
            return
        forget_peak()
        self.before = held_bytes() or peak_bytes() or 0.0

    def peak(self) -> float | None:
        """Since then; None where it cannot be told."""
        if self.gpu:
            import torch

            torch.cuda.synchronize(self.gpu)
            most: float | None = torch.cuda.max_memory_allocated(self.gpu)
        else:
            most = peak_bytes()
        return None if most is None else max(0.0, most - self.before) / MIB


def available_bytes() -> float | None:
    """What is left for this process on the machine or in its container; None where unknown."""
    left = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        left.append(1024 * float(next(x for x in lines if x.startswith("MemAvailable")).split()[1]))
    for limit in LIMITS:  # of a container; what else runs in it is not known
        with suppress(OSError, ValueError):  # 'max' is no number: no limit
            most = float(Path(limit).read_text(encoding="ascii"))
            left.append(max(0.0, most - (held_bytes() or 0.0)))
    return min(left, default=None)
