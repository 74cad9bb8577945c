"""A pytest plugin: is any benchmark slower than it was, on whatever machine it runs now?

Each benchmark is timed by turns with a calibration kernel, a fixed piece of work that is like it:
a matrix product, sums over memory, a loop of Python, or a mix of the three. The ratio of both times
is compared with the one that is stored in ``baseline.json``. A slow machine slows both, so its
ratio stays; a slower program's does not. A ratio above ``LIMIT`` times the stored one is measured
twice again, and fails the run if it stays there.

A machine that is busy with something else does not count either: time in which the process was
ready and waited for a processor is taken off, where the system tells it (Linux). All is measured on
one thread, so that machines with few and many processors compare.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from deidbench.throughput.clock import own_seconds

LIMIT = 1.5
SCHEMA, KERNEL_VERSION = 1, 1
"""Raise the second one with every change of a kernel: ratios to another are not compared."""
SUSPICIONS = 2
"""How often a ratio above the limit is measured again."""
CHUNK_SECONDS = 0.01
"""Quicker work is repeated within a round: the grain of clocks and schedulers must not count."""
MOST_REPEATS = 1 << 17
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15
BUDGET_SECONDS = 0.6
"""More rounds than the fewest are made until this is spent, kernels included."""
BASELINE = Path(__file__).with_name("baseline.json")
PACKAGES = ("deidbench", "numpy", "torch", "pytest-benchmark")

Work = Callable[[], object]


def _loop() -> int:
    total = 0
    for number in range(30_000):
        total += number * number % 7
    return total


def _sums() -> Work:
    import numpy as np

    a, b = np.random.default_rng(0).random((2, 2_000_000))
    return partial(np.add, a, b, out=np.empty_like(a))


def _product() -> Work:
    import torch

    a, b = torch.rand(2, 512, 512, generator=torch.Generator().manual_seed(0))
    return partial(torch.mm, a, b)


KERNELS: dict[str, Callable[[], Work]] = {
    "python": lambda: _loop,
    "memory": _sums,
    "matmul": _product,
}
MIX = "mix"


@dataclass(frozen=True)
class Reading:
    """One benchmark, timed by turns with a kernel."""

    kernel: str
    ratio: float
    """Time of the benchmark over that of the kernel: lower quartiles of the rounds."""
    seconds: float
    kernel_seconds: float
    rounds: int


@dataclass
class Gate:
    """What is measured in this run, and what it is compared with."""

    path: Path
    limit: float
    store: bool
    stored: Mapping[str, Reading]
    collected: set[str] = field(default_factory=set)
    readings: dict[str, Reading] = field(default_factory=dict)

    def judge(self, name: str, kernel: str, work: Work) -> None:
        """Measure a benchmark; again where it seems slow, and always where it is to be stored."""
        tries = [measure(work, kernel)]
        base = self._base(name, tries[0])
        while len(tries) <= SUSPICIONS:
            slow = base is not None and min(t.ratio for t in tries) > self.limit * base.ratio
            if not (slow or self.store):
                break
            tries.append(measure(work, kernel))
        tries.sort(key=lambda one: one.ratio)
        self.readings[name] = tries[len(tries) // 2] if self.store else tries[0]

    def change(self, name: str) -> float | None:
        """How many times the stored ratio a benchmark has; None where none is stored."""
        base = self._base(name, self.readings[name])
        return None if base is None else self.readings[name].ratio / base.ratio

    def slower(self) -> list[str]:
        """Benchmarks above the limit."""
        return [name for name in self.readings if (self.change(name) or 0) > self.limit]

    def vanished(self, arguments: Sequence[str]) -> list[str]:
        """Stored benchmarks that would have been collected, if they were still there."""
        return [
            name for name in self.stored if name not in self.collected and _within(name, arguments)
        ]

    def save(self, arguments: Sequence[str]) -> None:
        """Store what was measured, beside what is stored and was not run."""
        gone = self.vanished(arguments)
        kept = {name: one for name, one in self.stored.items() if name not in gone}
        benchmarks = dict(sorted({**kept, **self.readings}.items()))
        content = {
            "schema_version": SCHEMA,
            "kernel_version": KERNEL_VERSION,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": _machine(),
            "versions": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
            "benchmarks": {name: _rounded(one) for name, one in benchmarks.items()},
        }
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def _base(self, name: str, reading: Reading) -> Reading | None:
        base = self.stored.get(name)
        return base if base is not None and base.kernel == reading.kernel else None


class Watched(BenchmarkFixture):
    """The fixture of pytest-benchmark; it remembers what it was given to run."""

    work: Work | None = None

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As that of pytest-benchmark."""
        self.work = partial(function, *args, **kwargs)
        return super().__call__(function, *args, **kwargs)

    def pedantic(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """As that of pytest-benchmark. With a ``setup``, nothing can be measured again."""
        if options.get("setup") is None:
            self.work = partial(target, *args, **(kwargs or {}))
        return super().pedantic(target, args=args, kwargs=kwargs, **options)


def measure(work: Work, kernel: str) -> Reading:
    """Time a benchmark and a kernel by turns."""
    with one_thread():
        gc.collect()
        kernels = [built(name) for name in (KERNELS if kernel == MIX else [kernel])]
        jobs = [*kernels, work]
        repeats = [_repeats(job) for job in jobs]
        rows: list[list[float]] = []
        spent = 0.0
        while _go_on(len(rows), spent):
            pairs = zip(jobs, repeats, strict=True)
            rows.append([own_seconds(partial(_again, job, n)) / n for job, n in pairs])
            spent += sum(t * n for t, n in zip(rows[-1], repeats, strict=True))
    *kernel_times, own = (_low(column) for column in zip(*rows, strict=True))
    unit = statistics.geometric_mean(kernel_times)
    return Reading(kernel, own / unit, own, unit, len(rows))


@contextmanager
def one_thread() -> Iterator[None]:
    """Whatever is loaded computes on a single thread."""
    with ExitStack() as stack:
        if "numpy" in sys.modules:
            threadpoolctl = pytest.importorskip("threadpoolctl")
            stack.enter_context(threadpoolctl.threadpool_limits(1))
        torch = sys.modules.get("torch")
        if torch is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield


@cache
def built(name: str) -> Work:
    """A kernel, made once: its input too would cost time."""
    return KERNELS[name]()


def read_baseline(path: Path) -> dict[str, Reading]:
    """What is stored; nothing where no file is.

    Raises:
        pytest.UsageError: the file is no baseline, or one of other kernels.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["schema_version"], content["kernel_version"]) != (SCHEMA, KERNEL_VERSION):
            raise ValueError("it was stored with other kernels")
        return {name: Reading(**one) for name, one in content["benchmarks"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise pytest.UsageError(
            f"{path} is no baseline: {error}. Store a new one with --bench-store."
        ) from error


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the gate."""
    group = parser.getgroup("deidbench gate")
    group.addoption("--bench-store", action="store_true", help="store this run as the baseline")
    group.addoption("--bench-baseline", type=Path, default=BASELINE, help="file of the baseline")
    group.addoption("--bench-limit", type=float, default=LIMIT, help="largest change of a ratio")


def pytest_configure(config: pytest.Config) -> None:
    """Where benchmarks are run, they are judged."""
    config.addinivalue_line("markers", "kernel(name): what a benchmark is calibrated by")
    config.addinivalue_line("markers", "ungated: a benchmark of something that is not ours")
    if config.getoption("benchmark_only", default=False):
        path, store = config.getoption("--bench-baseline"), config.getoption("--bench-store")
        stored = {} if store and not path.exists() else read_baseline(path)
        config.stash[GATE] = Gate(path, config.getoption("--bench-limit"), store, stored)


GATE = pytest.StashKey[Gate]()


@pytest.fixture
def benchmark(benchmark: BenchmarkFixture) -> BenchmarkFixture:
    """pytest-benchmark's, watched. It asks for an object of its own class, so that one changes."""
    benchmark.__class__ = Watched
    return benchmark


def pytest_itemcollected(item: pytest.Item) -> None:
    """Take down which benchmarks there are, those that are not run among them."""
    gate = item.config.stash.get(GATE, None)
    if gate is not None:
        gate.collected.add(_name(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """After a benchmark, while its fixtures are still there, judge it."""
    yield
    gate = item.config.stash.get(GATE, None)
    watched = getattr(item, "funcargs", {}).get("benchmark")
    if gate is None or not isinstance(watched, Watched) or watched.work is None:
        return
    if item.get_closest_marker("ungated") is None:
        marker = item.get_closest_marker("kernel")
        gate.judge(_name(item), marker.args[0] if marker else MIX, watched.work)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run with a slower benchmark has failed."""
    gate = session.config.stash.get(GATE, None)
    if gate is None:
        return
    if gate.store:
        gate.save(session.config.args)
    elif gate.slower() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The ratios, and what they mean."""
    gate = config.stash.get(GATE, None)
    if gate is None or not gate.collected:
        return
    terminalreporter.section("time of each benchmark over that of its kernel")
    terminalreporter.write_line(f"{'change':>7} {'ratio':>9} {'ms':>9}  kernel")
    for name, one in gate.readings.items():
        change = gate.change(name)
        told = "new" if change is None else f"{change:.2f} x"
        numbers = f"{told:>7} {one.ratio:>9.4g} {1e3 * one.seconds:>9.3g}"
        terminalreporter.write_line(f"{numbers}  {one.kernel:<7} {name}{_verdict(gate, change)}")
    for name in gate.vanished(config.args):
        terminalreporter.write_line(f"vanished: {name} is in the baseline, but not in the tests")
    _tell_outcome(terminalreporter, gate)


def _tell_outcome(terminalreporter: Any, gate: Gate) -> None:
    slower = gate.slower()
    if gate.store:
        terminalreporter.write_line(f"stored in {gate.path}")
    elif slower:
        terminalreporter.write_line(
            f"{len(slower)} slower than {gate.limit:g} times the baseline, thrice measured: "
            + ", ".join(slower), red=True,
        )  # fmt: skip
    else:
        terminalreporter.write_line(
            f"none of {len(gate.readings)} is slower than {gate.limit:g} times the baseline"
        )


def _verdict(gate: Gate, change: float | None) -> str:
    if gate.store or change is None:
        return ""
    return "  SLOWER" if change > gate.limit else "  faster" if change < 1 / gate.limit else ""


def _within(name: str, arguments: Sequence[str]) -> bool:
    """Whether a run of these paths would have met a benchmark."""
    file = name.partition("::")[0]
    whole = [Path(argument) for argument in arguments if "::" not in argument]
    return any(path.is_dir() or path.name == file for path in whole)


def _name(item: pytest.Item) -> str:
    """file.py::test[parameters], wherever the folder is."""
    return f"{item.path.name}::{item.nodeid.partition('::')[2]}"


def _repeats(work: Work) -> int:
    """How often quick work is done in a round."""
    own_seconds(work)  # what is set up on the first call does not count
    times = 1
    while own_seconds(partial(_again, work, times)) < CHUNK_SECONDS and times < MOST_REPEATS:
        times *= 2
    return times


def _again(work: Work, times: int) -> None:
    for _ in range(times):
        work()


def _go_on(done: int, spent: float) -> bool:
    if done < FEWEST_ROUNDS:
        return True
    return done < MOST_ROUNDS if spent < BUDGET_SECONDS else done < FEWEST_ROUNDS


def _low(values: Sequence[float]) -> float:
    """The lower quartile: what noise adds is never negative."""
    return statistics.quantiles(values, n=4, method="inclusive")[0]


def _rounded(reading: Reading) -> dict[str, Any]:
    """Four digits: more are noise, and make every line of a diff differ."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in asdict(reading).items()
    }


def _machine() -> dict[str, Any]:
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "threads": 1,
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
