"""``deidbench bench``: what it counts is checked by other ways of counting."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deidbench import plugins, resident
from deidbench.cli import cli
from deidbench.commands.bench import show
from deidbench.errors import DeidbenchError
from deidbench.progress import Progress
from deidbench.throughput import clock, measure, memory, read_throughput, write_throughput
from deidbench.throughput.record import LARGEST_FILE, ThroughputRecord, json_schema
from fadenet.method import FaDeNetMethod

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")


class Sleeper:
    """A method that takes some seconds for a call and for each face; it may run out of memory."""

    name, version, strength, trained_against = "sleeper", 1, None, ()

    def __init__(self, call: float = 0.0, face: float = 0.0, most: int = 10**6) -> None:
        self.call, self.face, self.most = call, face, most

    def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
        if len(faces) > self.most:
            raise MemoryError
        time.sleep(self.call + self.face * len(faces))
        return faces.clone()


def bench_of(method: Any, seconds: float = 0.05) -> measure.Bench:
    return measure.Bench(method, torch.rand(3, 3, 32, 32), seconds)


def deidbench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deidbench", "bench", *arguments],
        capture_output=True, text=True, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[ThroughputRecord, Path]:
    """The real command, on a method that must be fitted; its record and its home."""
    folder = tmp_path_factory.mktemp("bench")
    file = folder / "speed" / "record.json"
    done = deidbench(
        "--method", "k-same-pixel", "--set", "k=3", "--seconds", "0.1", "--batch", "4,1",
        "--out", str(file), "--json", DEIDBENCH_HOME=str(folder / "home"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = read_throughput(file)
    assert json.loads(done.stdout) == json.loads(file.read_text("utf-8"))
    return record, folder / "home"


def test_the_command_measures_a_method(measured: tuple[ThroughputRecord, Path]) -> None:
    record, _ = measured
    assert (record.method.name, record.method.parameters) == ("k-same-pixel", {"k": 3})
    assert record.reference.name == "gaussian-blur" and record.reference.strength == 0.5
    assert [one.batch for one in record.batches] == [1, 4]
    assert record.batches_ended == "all that were asked for"
    assert record.multiply_adds_per_image is None and record.multiply_adds_note
    assert all(one.share_of_ceiling is None for one in record.batches)
    assert {one.batch for one in record.memory} == {1, record.best.batch}
    assert all(0 <= (one.peak_mib or 0) < 2000 and one.of == "process" for one in record.memory)
    assert record.n_faces > 200 and record.chip_size_px == 160
    assert record.machine.device == "cpu" or torch.cuda.is_available()


def test_the_table_fits_a_narrow_terminal(
    measured: tuple[ThroughputRecord, Path], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for columns in (40, 60, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        show(measured[0].model_copy(update={"waited_for_cpu_share": 0.4}))
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= columns
        assert "images/s" in shown and "latency" in shown and "40%" in shown
        assert ("[" in shown) == (columns == 120)  # quartiles where there is room


def test_ctrl_c_leaves_nothing(measured: tuple[ThroughputRecord, Path], tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "deidbench", "bench", "--method", "pixelate", "--seconds", "60",
        "--out", str(tmp_path / "record.json"),
    ]  # fmt: skip
    env = {**os.environ, "DEIDBENCH_HOME": str(measured[1])}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("align: done"):
                break
        running.send_signal(signal.SIGINT)
        told = running.stderr.read()
    assert running.returncode == 130
    assert told.strip().splitlines()[-1] == "deidbench: interrupted."
    assert "Traceback" not in told and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "gausian-blur"], "Did you mean 'gaussian-blur'?"),
        (["--method", "folder-output:faces"], "'folder-output' treats files outside"),
        (["--method", "command:run {in} {out}"], "'command' treats files outside"),
        (["--method", "pixelate", "--batch", "0"], "--batch expects auto, or sizes"),
        (["--method", "pixelate", "--batch", "1,x"], "but got '1,x'"),
        (["--method", "pixelate", "--batch", ""], "--batch expects auto"),
        (["--method", "pixelate", "--batch", "4097"], "from 1 to 4096"),
        (["--method", "pixelate", "--seconds", "0"], "--seconds must be from 0.05 to 600, got 0"),
        (["--method", "pixelate", "--seconds", "nan"], "--seconds must be from"),
        (["--method", "pixelate", "--strength", "2"], "between 0 and 1, got 2"),
        (["--method", "pixelate", "--chip-size", "100"], "--chip-size must be between 112"),
        (["--method", "pixelate", "--set", "size"], "--set expects NAME=VALUE"),
        (["--method", "pixelate", "--set", "size=3"], "has no setting 'size'"),
        (["--method", "fadenet", "--weights", "no.safetensors"], "no.safetensors"),
        (["--method", "pixelate", "--device", "toaster"], "--device 'toaster' cannot be used"),
        (["--method", "pixelate", "--out", "."], "exists and is not overwritten"),
        (["--method", "pixelate", "--out", f"{__file__}/record.json"], "refuses"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeidbenchError) as refused:
        cli.main(["bench", *arguments], standalone_mode=False)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert capsys.readouterr() == ("", "")  # found before any work


def test_bad_input_ends_with_2() -> None:
    done = deidbench("--method", "command:run {in} {out}")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("deidbench: method 'command' treats files outside")


def test_memory_is_what_a_method_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that keeps 200 MiB and takes 50 more for each face; what came before is no part."""
    code = """
import torch
kept = torch.ones(200, 2**18)

def treat(faces):
    taken = torch.ones(50 * len(faces), 2**18)
    return faces * float(taken[0, 0]) * float(kept[0, 0])
"""
    (tmp_path / "greedy.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    order = memory.Order("python:greedy:treat", None, {}, None, "cpu", 1, [1, 3])
    one, three = memory.measure(order, torch.zeros(2, 3, 112, 112, dtype=torch.uint8), ["a", "b"])
    assert one.peak_mib == pytest.approx(250, abs=25)
    assert three.peak_mib == pytest.approx(350, abs=25)
    assert (one.of, one.batch, three.batch) == ("process", 1, 3)


def test_a_method_that_dies_has_no_memory_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text("import os\ndef treat(faces):\n    os._exit(7)\n")
    monkeypatch.chdir(tmp_path)
    order = memory.Order("python:deadly:treat", None, {}, None, "cpu", 1, [1])
    (found,) = memory.measure(order, torch.zeros(1, 3, 112, 112, dtype=torch.uint8), ["a"])
    assert found.peak_mib is None and found.note is not None and "code 7" in found.note


def test_a_peak_is_forgotten() -> None:
    before = resident.peak_bytes()
    if before is None or resident.held_bytes() is None:
        pytest.skip("this system does not tell")
    large = torch.ones(100, 2**18)
    assert (resident.peak_bytes() or 0) >= (resident.held_bytes() or 0) >= 100 * memory.MIB
    del large
    resident.forget_peak()
    assert (resident.peak_bytes() or 0) < (resident.held_bytes() or 0) + 20 * memory.MIB
    assert (memory.available_bytes() or 0) > 0


def counted_by_hooks(network: nn.Module, run: Any) -> int:
    """Multiply-adds of the convolutions and linear layers, from the shapes of their outputs."""
    total = 0

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    layers = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    run()
    for handle in handles:
        handle.remove()
    return total


def test_multiply_adds_are_those_of_the_layers() -> None:
    method, faces = FaDeNetMethod(), torch.rand(1, 3, 160, 160)
    found, note = measure.multiply_adds(lambda: method.deidentify(faces, seed=0))
    expected = counted_by_hooks(method._network, lambda: method.deidentify(faces, seed=0))
    assert (found, note) == (expected, None) and expected > 10**8


def test_multiply_adds_of_blur_are_two_products_of_each_colour() -> None:
    method = plugins.build("methods", "gaussian-blur")
    faces = torch.rand(1, 3, 48, 48)
    assert measure.multiply_adds(lambda: method.deidentify(faces, seed=0)) == (6 * 48**3, None)


def test_what_is_no_network_has_no_multiply_adds() -> None:
    method = plugins.build("methods", "blackout")
    found, why = measure.multiply_adds(lambda: method.deidentify(torch.rand(1, 3, 32, 32), seed=0))
    assert found is None and why == measure.UNCOUNTED


def test_works_are_timed_by_turns() -> None:
    calls: list[str] = []

    def work(name: str, seconds: float) -> None:
        calls.append(name)
        time.sleep(seconds)

    rounds = measure.by_turns([lambda: work("a", 0.04), lambda: work("b", 0.08)], CPU, seconds=0.05)
    assert rounds.shape[1] == 2 and 1 <= len(rounds) <= measure.FEWEST_ROUNDS
    assert (rounds[:, 0] >= 0.04).all() and (rounds[:, 1] >= 0.08).all()
    assert calls[:6] == ["a", "b", "a", "b", "b", "a"][: len(calls)]


def test_blur_takes_as_long_as_blur() -> None:
    bench = measure.Bench(plugins.build("methods", "gaussian-blur"), torch.rand(4, 3, 160, 160), 1)
    found, _ = bench.batches([4], QUIET)
    assert found[0].time_ratio_to_blur == pytest.approx(1, rel=0.5)
    assert found[0].share_of_ceiling is not None and found[0].share_of_ceiling < 2


@pytest.mark.slow
def test_batches_double_while_it_pays() -> None:
    """A price for each call makes batches pay; a price for each face does not."""
    by_face, why = bench_of(Sleeper(face=0.01)).batches(None, QUIET)
    assert [one.batch for one in by_face][:3] == [1, 2, 4] and len(by_face) <= 5
    assert "do not pay" in why or "takes more than" in why
    by_call, _ = bench_of(Sleeper(call=0.02), seconds=0.1).batches(None, QUIET)
    assert len(by_call) > 6 and by_call[5].images_per_second > 8 * by_call[0].images_per_second


def test_a_batch_that_takes_too_long_is_the_last() -> None:
    found, why = bench_of(Sleeper(call=0.3), seconds=0.1).batches(None, QUIET)
    assert [one.batch for one in found] == [1]
    assert why == "a batch of 1 takes more than 0.1 s"


def test_memory_that_runs_out_ends_the_doubling() -> None:
    found, why = bench_of(Sleeper(call=0.01, most=4)).batches(None, QUIET)
    assert [one.batch for one in found] == [1, 2, 4]
    assert why == "memory does not hold a batch of 8"
    with pytest.raises(DeidbenchError, match=r"memory does not hold a batch of 16\. Use"):
        bench_of(Sleeper(most=4)).batches([16], QUIET)


def test_a_method_that_breaks_its_contract_is_refused() -> None:
    class Wrong(Sleeper):
        def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
            return faces + 2

    with pytest.raises(DeidbenchError, match="'sleeper' broke its contract"):
        bench_of(Wrong())


def test_a_method_that_fails_on_many_faces_is_one_line() -> None:
    class Failing(Sleeper):
        def deidentify(self, faces: Tensor, *, seed: int) -> Tensor:
            if len(faces) > 2:
                raise ValueError("too\nmany")
            return faces

    with pytest.raises(DeidbenchError, match="raised ValueError on a batch of 4: too many"):
        bench_of(Failing()).batches([1, 4], QUIET)


def test_a_percentile_needs_calls_to_tell_it() -> None:
    few = measure.percentiles([0.002, 0.004, 0.003], 1)
    assert (few.p50_ms, few.p90_ms, few.p99_ms) == (3, None, None)
    assert few.note == "p90 needs 10 calls, p99 needs 100 calls; 3 were made in 1 s"
    many = measure.percentiles([row / 1000 for row in range(1, 1002)], 1)
    assert (many.p50_ms, many.p90_ms, many.p99_ms) == pytest.approx((501, 901, 991))
    assert many.note is None


def spin(seconds: float) -> None:
    """Keep a processor busy for this long, whatever else runs."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_sleep_and_work_are_a_program_s_own_time() -> None:
    assert clock.own_seconds(lambda: time.sleep(0.05)) > 0.045
    assert min(clock.own_seconds(lambda: spin(0.1)) for _ in range(3)) > 0.08


@pytest.mark.skipif(not clock.THREAD.exists(), reason="this system does not tell")
def test_time_of_other_programs_is_taken_off() -> None:
    """Two programs on one processor: each gets half of it."""
    allowed = os.sched_getaffinity(0)
    one = min(allowed)
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); print(flush=True)\nwhile True: pass"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        os.sched_setaffinity(0, {one})
        before, start = clock.processor_times(), time.perf_counter()
        try:
            own = clock.own_seconds(lambda: spin(0.5))
            wall = time.perf_counter() - start
            share = clock.waited_share(before, clock.processor_times())
        finally:
            os.sched_setaffinity(0, allowed)
            other.kill()
    assert wall > 0.75 and own == pytest.approx(0.5, rel=0.2)
    assert share is not None and share > 0.25


def test_the_share_of_waiting() -> None:
    assert clock.waited_share((100, 50), (400, 150)) == 0.25
    assert clock.waited_share((1, 1), (1, 1)) is None
    assert clock.waited_share(None, (1, 1)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_time_ends_with_the_last_kernel(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    large = torch.rand(8192, 8192, device=device)

    def product() -> None:
        for _ in range(10):
            torch.mm(large, large)

    measure.timed(product, device)
    start = time.perf_counter()
    product()
    torch.cuda.synchronize()
    wall = time.perf_counter() - start
    assert measure.timed(product, device) == pytest.approx(wall, rel=0.3)
    order = memory.Order("gaussian-blur", None, {}, None, "cuda", 1, [1, 8])
    one, eight = memory.measure(order, torch.zeros(2, 3, 160, 160, dtype=torch.uint8), ["a", "b"])
    face = 3 * 160 * 160 * 4 / memory.MIB
    assert one.of == "gpu" and one.peak_mib is not None and eight.peak_mib is not None
    assert eight.peak_mib > 8 * face and eight.peak_mib > one.peak_mib


def test_a_record_comes_back_as_it_was(
    measured: tuple[ThroughputRecord, Path], tmp_path: Path
) -> None:
    import jsonschema

    file = tmp_path / "new" / "record.json"
    write_throughput(file, measured[0])
    assert read_throughput(file) == measured[0]
    assert [one.name for one in file.parent.iterdir()] == ["record.json"]
    with pytest.raises(DeidbenchError, match="exists and is not overwritten"):
        write_throughput(file, measured[0])
    jsonschema.validate(json.loads(file.read_text("utf-8")), json_schema())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 2}, "has schema 2, but this version reads 1"),
        ({"schema_version": None}, "has schema None"),
        ({"kind": "run"}, "is no record of 'deidbench bench'"),
        ({"batches": []}, "batches: List should have at least 1"),
        ({"seconds_per_measurement": "5"}, "seconds_per_measurement: Input should be a valid"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"multiply_adds_note": None}, "need a note that says why"),
        ({"created": "<script>"}, "created: String should match"),
    ],
)
def test_what_is_no_record_is_one_line(
    measured: tuple[ThroughputRecord, Path], tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps({**json.loads(measured[0].model_dump_json()), **changes}))
    with pytest.raises(DeidbenchError) as refused:
        read_throughput(file)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, " " * (LARGEST_FILE + 1)])
def test_a_file_without_a_record_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(text)
    with pytest.raises(DeidbenchError, match=r"is not readable JSON|is no record"):
        read_throughput(file)
    with pytest.raises(DeidbenchError, match="is not readable JSON"):
        read_throughput(tmp_path / "missing.json")


def test_the_format_needs_no_torch() -> None:
    code = "import sys, deidbench.throughput; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
