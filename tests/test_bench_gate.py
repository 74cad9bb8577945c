"""The gate of speed, tried by real runs of pytest on small benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks import gate

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "benchmarks"
LOOP = """
import os, time
import pytest

WORK = int(os.environ.get("WORK", 1))

def loop():
    total = 0
    for number in range(20_000 * WORK):
        total += number * number % 7
    time.sleep(float(os.environ.get("WAIT", 0)))
    return total

@pytest.mark.kernel("python")
def test_loop(benchmark):
    assert benchmark(loop) > 0
"""
SLOW_MACHINE = """
import os

def slow():
    for _ in range(int(os.environ.get("MACHINE", 1))):
        gate._loop()

gate.KERNELS["python"] = lambda: slow
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


def folder_of(path: Path) -> Path:
    """A folder with the gate and one benchmark."""
    (path / "pytest.ini").write_text("[pytest]\n")
    (path / "test_bench_loop.py").write_text(LOOP)
    names = (HERE / "conftest.py").read_text("utf-8").replace("tests.benchmarks.gate", "gate")
    (path / "conftest.py").write_text(f"{names}\nimport gate\n")
    return path


def run_in(folder: Path, *options: str, **environment: object) -> subprocess.CompletedProcess[str]:
    """The gate on the benchmarks of a folder."""
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider",
        "--benchmark-only", "--benchmark-max-time=0.01", "--benchmark-min-rounds=1",
        "--bench-baseline", "baseline.json", *(options or (".",)),
    ]  # fmt: skip
    own = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env = {**own, "PYTHONPATH": str(HERE), **{k: str(v) for k, v in environment.items()}}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the gate in a folder of its own, without a baseline."""
    return partial(run_in, folder_of(tmp_path))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is stored of the benchmark as it is."""
    folder = folder_of(tmp_path_factory.mktemp("baseline"))
    done = run_in(folder, ".", "--bench-store")
    assert done.returncode == 0, done.stdout
    return (folder / "baseline.json").read_text("utf-8")


@pytest.fixture
def stored(run: Run, baseline: str, tmp_path: Path) -> dict[str, dict[str, float]]:
    """The same folder, with that baseline."""
    (tmp_path / "baseline.json").write_text(baseline)
    benchmarks: dict[str, dict[str, float]] = json.loads(baseline)["benchmarks"]
    return benchmarks


LOOPED = "test_bench_loop.py::test_loop"


def test_what_did_not_change_passes(run: Run, stored: dict[str, dict[str, float]]) -> None:
    assert 0.4 < stored[LOOPED]["ratio"] < 0.9  # 20,000 turns, and 30,000 in the kernel
    done = run()
    assert done.returncode == 0, done.stdout
    assert "none of 1 is slower than 1.5 times the baseline" in done.stdout


@pytest.mark.parametrize("planted", [{"WORK": 2}, {"WAIT": 0.02}])
def test_a_planted_slow_down_fails(
    run: Run, stored: dict[str, dict[str, float]], planted: dict[str, object]
) -> None:
    """A loop of twice the length; and a wait, which takes no processor."""
    done = run(**planted)
    assert done.returncode == 1, done.stdout
    assert f"{LOOPED}  SLOWER" in done.stdout
    assert f"1 slower than 1.5 times the baseline, thrice measured: {LOOPED}" in done.stdout
    assert run(".", "--bench-limit", "1000", **planted).returncode == 0


def test_a_machine_that_is_slower_in_all_passes(
    run: Run, tmp_path: Path, stored: dict[str, dict[str, float]]
) -> None:
    """Three times the work, in the benchmark and in its kernel: as if each step took longer."""
    with (tmp_path / "conftest.py").open("a") as conftest:
        conftest.write(SLOW_MACHINE)
    done = run(MACHINE=3, WORK=3)
    assert done.returncode == 0, done.stdout
    done = run(MACHINE=3, WORK=6)  # and the plant is still seen there
    assert done.returncode == 1, done.stdout


@contextmanager
def busy(processor: int) -> Iterator[None]:
    """Three other programs on a processor."""
    code = f"import os; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_machine_that_is_busy_passes(run: Run, stored: dict[str, dict[str, float]]) -> None:
    """pytest shares its only processor with three others: it has a quarter of it."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})  # what is started from here inherits it
        with busy(min(allowed)):
            done = run()
            assert done.returncode == 0, done.stdout
            assert run(WORK=3).returncode == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_new_benchmark_passes_and_is_shown(
    run: Run, tmp_path: Path, stored: dict[str, dict[str, float]]
) -> None:
    (tmp_path / "test_bench_more.py").write_text(LOOP)
    done = run()
    assert done.returncode == 0, done.stdout
    (line,) = [x for x in done.stdout.splitlines() if x.endswith("test_bench_more.py::test_loop")]
    assert line.split()[0] == "new"


def test_one_that_vanished_is_named_where_it_was_looked_for(
    run: Run, tmp_path: Path, stored: dict[str, dict[str, float]]
) -> None:
    (tmp_path / "test_bench_more.py").write_text(LOOP)
    (tmp_path / "test_bench_loop.py").write_text(LOOP.replace("test_loop", "test_other"))
    gone = f"vanished: {LOOPED} is in the baseline, but not in the tests"
    for arguments in ((), ("test_bench_loop.py",)):
        done = run(*arguments)
        assert done.returncode == 0, done.stdout
        assert gone in done.stdout
    assert gone not in run("test_bench_more.py").stdout
    done = run("test_bench_loop.py", "--bench-store")
    assert done.returncode == 0, done.stdout
    assert set(gate.read_baseline(tmp_path / "baseline.json")) == {"test_bench_loop.py::test_other"}


def test_storing_a_part_keeps_the_rest(
    run: Run, tmp_path: Path, stored: dict[str, dict[str, float]]
) -> None:
    (tmp_path / "test_bench_more.py").write_text(LOOP)
    assert run("test_bench_more.py", "--bench-store").returncode == 0
    content = json.loads((tmp_path / "baseline.json").read_text("utf-8"))
    assert set(content["benchmarks"]) == {LOOPED, "test_bench_more.py::test_loop"}
    assert content["benchmarks"][LOOPED] == stored[LOOPED]
    assert content["machine"]["python"] and content["versions"]["pytest-benchmark"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema_version": 1}', '{"schema_version": 1, "kernel_version": 0}']
)
def test_a_file_that_is_no_baseline_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "baseline.json").write_text(text)
    done = run()
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is no baseline" in done.stderr and "--bench-store" in done.stderr
    assert (tmp_path / "baseline.json").read_text() == text


def test_benchmarks_of_others_are_run_and_not_judged(
    run: Run, tmp_path: Path, stored: dict[str, dict[str, float]]
) -> None:
    marked = LOOP.replace("@pytest", "@pytest.mark.ungated\n@pytest", 1)
    (tmp_path / "test_bench_loop.py").write_text(marked)
    done = run(WORK=3)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout and "SLOWER" not in done.stdout


def test_a_reading_is_the_ratio_of_what_was_timed() -> None:
    reading = gate.measure(lambda: [gate._loop() for _ in range(4)], "python")
    assert reading.ratio == pytest.approx(reading.seconds / reading.kernel_seconds)
    assert reading.ratio == pytest.approx(4, rel=0.3)
    assert reading.rounds >= gate.FEWEST_ROUNDS


def test_the_baseline_of_the_repository_is_one_and_its_benchmarks_exist() -> None:
    stored = gate.read_baseline(gate.BASELINE)
    assert len(stored) > 30
    files = {name.partition("::")[0] for name in stored}
    assert all((HERE / file).is_file() for file in files)
    assert {one.kernel for one in stored.values()} <= {*gate.KERNELS, gate.MIX}
