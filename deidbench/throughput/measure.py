"""Measures a method's speed beside two yardsticks, by turns, so that a busy machine slows all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deidbench import __version__, assets, plugins, resident
from deidbench.alignment import to_float
from deidbench.cache import Cache
from deidbench.config import RunConfig
from deidbench.errors import DeidbenchError
from deidbench.harness import machine_record
from deidbench.progress import Progress
from deidbench.results.schema import MethodRecord
from deidbench.setup import choose_device, load_dataset, load_method
from deidbench.split import EVAL
from deidbench.stages import Stages
from deidbench.treatment import treat_faces

from . import memory
from .clock import own_seconds, processor_times, waited_share
from .record import (
    BatchRecord,
    CeilingRecord,
    LatencyRecord,
    MemoryRecord,
    ThroughputRecord,
)

if TYPE_CHECKING:
    from deidbench.types import FloatArray, Method

    Work = Callable[[], object]

REFERENCE = "gaussian-blur"
ROUND_SECONDS = 0.02
"""What is faster is repeated within a round: a clock's grain and a scheduler's must not count."""
FEWEST_ROUNDS = 5
PATIENCE = 3
"""A slow method gets fewer rounds once this many times the seconds are spent."""
MOST_CALLS = 10_000
PERCENTILES = {"p50_ms": 1, "p90_ms": 10, "p99_ms": 100}
"""How many calls each needs at least."""
PAYS = 1.05
"""A larger batch is worth it when it treats 5 % more images a second."""
LARGEST_BATCH = 1024
UNCOUNTED = "it calls no matrix product and no convolution of torch, as a network does"


@dataclass(frozen=True)
class Kernel:
    """Work whose multiply-adds are known."""

    name: str
    multiply_adds: int
    run: Work


class BatchTooLargeError(Exception):
    """A batch does not fit; never seen by a user."""


def bench(
    config: RunConfig,
    *,
    batches: Sequence[int] | None = None,
    seconds: float = 5.0,
    progress: Progress,
) -> ThroughputRecord:
    """Measure the speed of a method on the embedded faces.

    Args:
        batches: sizes of batch; None doubles them for as long as it pays.
        seconds: for the latency, and for each size of batch.
    Raises:
        DeidbenchError: the method is no function of faces, or fails on them.
    """
    refuse_files(config.method)
    device = choose_device(config.device)
    method = load_method(
        config.method, strength=config.strength, weights=config.weights, **dict(config.settings)
    )
    chips, subjects, fitted = _faces(method, config, device, progress)
    bench = Bench(fitted, to_float(chips).to(device), seconds)
    latency = bench.latency()
    progress.say(f"one face: {latency.p50_ms:.3g} ms")
    found, ended = bench.batches(batches, progress)
    best = max(found, key=lambda one: one.images_per_second)
    progress.say("memory, in a fresh process")
    order = memory.Order(
        config.method, config.strength, dict(config.settings),
        None if config.weights is None else str(config.weights), device, torch.get_num_threads(),
        sorted({1, best.batch}),
    )  # fmt: skip
    return bench.record(
        config, latency=latency, batches=found, ended=ended,
        memory=memory.measure(order, chips, subjects),
    )  # fmt: skip


def refuse_files(spec: str) -> None:
    """Photographs that a program or somebody else treats have no speed that could be told.

    Raises:
        DeidbenchError: the method treats files, or there is no such method.
    """
    name, _ = plugins.split_argument(spec)
    if hasattr(plugins.load("methods", name), "treat"):
        raise DeidbenchError(
            f"method '{name}' treats files outside deidbench, so its speed cannot be measured. "
            "Choose a method that treats faces; see 'deidbench list methods'."
        )


class Bench:
    """A method, its faces, and what it is measured beside."""

    def __init__(self, method: Method, faces: torch.Tensor, seconds: float) -> None:
        self.method, self.faces, self.seconds = method, faces, seconds
        self.blur: Method = load_method(REFERENCE)  # type: ignore[assignment]
        self._check()
        self.multiply_adds, self.uncounted = multiply_adds(partial(self._treat, faces[:1]))
        self.kernel = fastest_kernel(faces.device)
        self._ceiling: list[float] = []
        self._floor = resident.held_bytes()
        self._times = processor_times()

    def latency(self) -> LatencyRecord:
        """Of calls with one face each, a different one each time."""
        times: list[float] = []
        spent = 0.0
        while len(times) < MOST_CALLS and (len(times) < FEWEST_ROUNDS or spent < self.seconds):
            row = len(times) % len(self.faces)
            times.append(timed(partial(self._treat, self.faces[row : row + 1]), self.faces.device))
            spent += times[-1]
            if spent > PATIENCE * self.seconds:
                break
        return percentiles(times, self.seconds)

    def batches(
        self, sizes: Sequence[int] | None, progress: Progress
    ) -> tuple[list[BatchRecord], str]:
        """Speed by size of batch, and why it ended there."""
        found: list[BatchRecord] = []
        ended = "all that were asked for"
        for size in sorted(set(sizes)) if sizes else self._doubled(found):
            try:
                found.append(self._batch(size))
            except BatchTooLargeError:
                torch.cuda.empty_cache()
                ended = f"memory does not hold a batch of {size}"
                break
            progress.say(f"batch {size}: {found[-1].images_per_second:.4g} images/s")
        else:
            ended = ended if sizes else self._why_no_larger(found)
        if not found:
            raise DeidbenchError(f"{ended}. Use smaller ones with --batch, or another --device.")
        return found, ended

    def record(
        self,
        config: RunConfig,
        *,
        latency: LatencyRecord,
        batches: list[BatchRecord],
        ended: str,
        memory: list[MemoryRecord],
    ) -> ThroughputRecord:
        """All that was found."""
        low, middle, high = np.quantile(self._ceiling, (0.25, 0.5, 0.75))
        dataset = load_dataset("synthid")
        return ThroughputRecord(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            deidbench_version=__version__,
            method=_method_record(self.method), reference=_method_record(self.blur),
            dataset=dataset.name, dataset_version=dataset.version, n_faces=len(self.faces),
            chip_size_px=config.chip_size, seconds_per_measurement=self.seconds, latency=latency,
            batches=batches, batches_ended=ended, memory=memory,
            multiply_adds_per_image=self.multiply_adds, multiply_adds_note=self.uncounted,
            ceiling=CeilingRecord(
                kernel=self.kernel.name, n_rounds=len(self._ceiling),
                multiply_adds_per_second_low=low, multiply_adds_per_second=middle,
                multiply_adds_per_second_high=high,
            ),
            waited_for_cpu_share=waited_share(self._times, processor_times()),
            machine=machine_record(str(self.faces.device)),
        )  # fmt: skip

    def _check(self) -> None:
        """Before anything is timed: it keeps its contract, and what loads on first use is there."""
        _, problems = treat_faces(self.method, self.faces[:2], seed=0)
        for problem in filter(None, problems):
            raise DeidbenchError(f"method '{self.method.name}' {problem}. Run check_method on it.")

    def _treat(self, faces: torch.Tensor) -> torch.Tensor:
        try:
            return self.method.deidentify(faces, seed=0)
        except DeidbenchError:
            raise
        except Exception as error:
            if ran_out(error):
                raise BatchTooLargeError from error
            raise DeidbenchError(
                f"method '{self.method.name}' raised {type(error).__name__} on a batch of "
                f"{len(faces)}: {' '.join(str(error).split())[:200]}"
            ) from error

    def _batch(self, size: int) -> BatchRecord:
        resident.forget_peak()
        try:
            faces = self.faces[torch.arange(size) % len(self.faces)]
            works: list[Work] = [
                partial(self._treat, faces), partial(self.blur.deidentify, faces, seed=0),
                self.kernel.run,
            ]  # fmt: skip
            rounds = by_turns(works, self.faces.device, self.seconds)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise BatchTooLargeError from error
        own, blur, kernel = rounds.T
        speed = np.quantile(size / own, (0.25, 0.5, 0.75))
        ratio = np.quantile(own / blur, (0.25, 0.5, 0.75))
        self._ceiling += (self.kernel.multiply_adds / kernel).tolist()
        return BatchRecord(
            batch=size, n_rounds=len(rounds), images_per_second=speed[1],
            images_per_second_low=speed[0], images_per_second_high=speed[2],
            time_ratio_to_blur=ratio[1], time_ratio_to_blur_low=ratio[0],
            time_ratio_to_blur_high=ratio[2], share_of_ceiling=self._share(size, own, kernel),
        )  # fmt: skip

    def _share(self, size: int, own: FloatArray, kernel: FloatArray) -> float | None:
        if self.multiply_adds is None:
            return None
        done = self.multiply_adds * size / own
        return float(np.median(done / (self.kernel.multiply_adds / kernel)))

    def _doubled(self, found: list[BatchRecord]) -> Iterator[int]:
        """1, 2, 4, ... for as long as what was found says that it pays."""
        size = 1
        yield size
        while not self._why_no_larger(found):
            size *= 2
            yield size

    def _why_no_larger(self, found: list[BatchRecord]) -> str:
        """Why twice the last batch is not worth trying; '' when it is."""
        last, speeds = found[-1], [one.images_per_second for one in found]
        if len(found) > 2 and max(speeds[-2:]) < PAYS * max(speeds[:-2]):
            return "larger ones do not pay"
        if last.batch / last.images_per_second > self.seconds:
            return f"a batch of {last.batch} takes more than {self.seconds:g} s"
        if 2 * last.batch > LARGEST_BATCH:
            return f"{LARGEST_BATCH} is the largest that is tried"
        return "" if self._fits_twice() else f"memory may not hold a batch of {2 * last.batch}"

    def _fits_twice(self) -> bool:
        """Whether twice as much as the last batch took can be had: no system refuses in time."""
        if self.faces.is_cuda:
            return True  # it refuses politely
        most, left = resident.peak_bytes(), memory.available_bytes()
        if most is None or left is None or self._floor is None:
            return True
        return 2 * (most - self._floor) < left


def timed(work: Work, device: torch.device) -> float:
    """Seconds that a call takes until its last result is there; of its own, on a CPU."""
    if device.type != "cuda":
        return own_seconds(work)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    stream = torch.cuda.current_stream(device)
    torch.cuda.synchronize(device)
    first.record(stream)
    work()
    torch.cuda.synchronize(device)  # a method may use streams of its own
    last.record(stream)
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def by_turns(works: Sequence[Work], device: torch.device, seconds: float) -> FloatArray:
    """Seconds of one call of each work, (rounds, works), after a call to warm up.

    The order turns round with each round, so that none is always the first.
    """
    repeats = []
    for work in works:
        warm = timed(work, device)
        repeats.append(max(1, round(ROUND_SECONDS / max(warm, 1e-6))))
    rounds: list[list[float]] = []
    start = perf_counter()
    while _go_on(len(rounds), perf_counter() - start, seconds):
        row = [0.0] * len(works)
        places = range(len(works)) if len(rounds) % 2 == 0 else reversed(range(len(works)))
        for place in places:
            row[place] = timed(partial(_again, works[place], repeats[place]), device)
            row[place] /= repeats[place]
        rounds.append(row)
    return np.array(rounds)


def _again(work: Work, times: int) -> None:
    for _ in range(times):
        work()


def _go_on(done: int, spent: float, seconds: float) -> bool:
    if done < FEWEST_ROUNDS:
        return not done or spent < PATIENCE * seconds
    return spent < seconds


def percentiles(times: Sequence[float], seconds: float) -> LatencyRecord:
    """Those percentiles of some seconds that so many calls can tell."""
    values: dict[str, Any] = {}
    lacking = []
    for name, fewest in PERCENTILES.items():
        if len(times) < fewest:
            values[name] = None
            lacking.append(f"{name.removesuffix('_ms')} needs {fewest} calls")
        else:
            values[name] = 1e3 * float(np.quantile(times, int(name[1:3]) / 100))
    note = f"{', '.join(lacking)}; {len(times)} were made in {seconds:g} s" if lacking else None
    return LatencyRecord(n_calls=len(times), note=note, **values)


def multiply_adds(work: Work) -> tuple[int | None, str | None]:
    """Multiply-adds of the matrix products and convolutions of a call; or why there are none."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with counter:
            work()
    except Exception as error:  # operators that cannot be watched
        return None, f"they cannot be counted: {type(error).__name__}"
    count = int(counter.get_total_flops()) // 2  # a multiply-add is two operations
    return (count, None) if count else (None, UNCOUNTED)


def fastest_kernel(device: torch.device) -> Kernel:
    """The one of a matrix product and a convolution that does more multiply-adds a second."""
    kernels = _kernels(device)
    rounds = by_turns([kernel.run for kernel in kernels], device, seconds=0.3)
    speeds = [k.multiply_adds / t for k, t in zip(kernels, rounds.min(0), strict=True)]
    return kernels[int(np.argmax(speeds))]


def _kernels(device: torch.device) -> list[Kernel]:
    """Large enough to fill the device, and of some milliseconds."""
    cuda = device.type == "cuda"
    side, images, width, size = (8192, 64, 128, 112) if cuda else (1024, 8, 64, 80)
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(side, side, generator=random).to(device) for _ in range(2))
    x = torch.rand(images, width, size, size, generator=random).to(device)
    w = torch.rand(width, width, 3, 3, generator=random).to(device)
    return [
        Kernel(f"matrix product, {side} x {side} x {side}", side**3, partial(torch.mm, a, b)),
        Kernel(
            f"3 x 3 convolution, {images} x {width} x {size} x {size} to {width} channels",
            images * width * width * 9 * size * size,
            partial(torch.nn.functional.conv2d, x, w, padding=1),
        ),
    ]


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of a GPU, was refused."""
    refused = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    return refused or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def _faces(
    method: Any, config: RunConfig, device: str, progress: Progress
) -> tuple[torch.Tensor, list[str], Method]:
    """Chips (N, 3, S, S) uint8 as a run makes them, the person of each, and the fitted method."""
    samples = [one for one in load_dataset("synthid").samples() if one.split == EVAL]
    stages = Stages(
        samples=samples, method=method, cache=Cache(assets.home() / "cache"), progress=progress,
        device=device, batch_size=config.batch_size, chip_size=config.chip_size,
        aligned_input=False, seed=config.seed,
    )  # fmt: skip
    found = np.flatnonzero(stages.align()["found"])
    aligned = [stages.chips(batch) for batch in stages.batches]
    chips = np.concatenate([batch["chips"][batch["found"]] for batch in aligned])
    subjects = [samples[row].subject for row in found]
    return torch.from_numpy(chips), subjects, stages.method_of("")


def _method_record(method: Any) -> MethodRecord:
    return MethodRecord(
        name=method.name, version=method.version, strength=method.strength,
        parameters=dict(getattr(method, "parameters", {})),
        trained_against=list(method.trained_against),
        trained_on_metrics=list(getattr(method, "trained_on_metrics", ())),
        weights_sha256=getattr(method, "weights_sha256", None),
    )  # fmt: skip
