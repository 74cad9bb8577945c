"""``deidbench bench``: how fast a method is here, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deidbench import plugins
from deidbench.config import RunConfig
from deidbench.errors import DeidbenchError

from ._shared import examples, names, settings

if TYPE_CHECKING:
    from rich.table import Table

    from deidbench.throughput.record import (
        BatchRecord,
        LatencyRecord,
        MemoryRecord,
        ThroughputRecord,
    )

AUTO = "auto"
LARGEST_BATCH = 4096
SHORTEST, LONGEST = 0.05, 600.0
NARROW = 72
BUSY = "disturbed"


def _batches(_: click.Context, __: click.Parameter, value: str) -> tuple[int, ...] | None:
    """'auto' -> None; '1,8,32' -> (1, 8, 32)."""
    if value == AUTO:
        return None
    try:
        sizes = tuple(int(size) for size in value.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1 or max(sizes) > LARGEST_BATCH:
        raise DeidbenchError(
            f"--batch expects auto, or sizes from 1 to {LARGEST_BATCH} by comma, as 1,8,32, "
            f"but got '{value}'."
        )
    return sizes


def _seconds(_: click.Context, __: click.Parameter, value: float) -> float:
    if not SHORTEST <= value <= LONGEST:
        raise DeidbenchError(f"--seconds must be from {SHORTEST} to {LONGEST:g}, got {value:g}.")
    return value


@click.command()
@click.option("--method", required=True, shell_complete=names("methods"),
              help="What to measure; see 'deidbench list methods'.")  # fmt: skip
@click.option("--strength", type=float, help="In [0, 1], larger = stronger; default: its own.")
@click.option("--set", "settings", multiple=True, callback=settings, metavar="NAME=VALUE",
              help="A setting of the method; may be given several times.")  # fmt: skip
@click.option("--weights", type=click.Path(path_type=Path),
              help="Weights of your own training, for a method that takes them.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--batch", "batches", default=AUTO, show_default=True, callback=_batches,
              metavar="auto|N,N,...",
              help="Faces at once; auto: doubled while it pays.")  # fmt: skip
@click.option("--chip-size", type=int, default=160, show_default=True, help="Side, in pixels.")
@click.option("--seconds", type=float, default=5.0, show_default=True, callback=_seconds,
              help="For the latency, and for each size of batch.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="New file for the record, JSON.")
@click.option("--json", "as_json", is_flag=True, help="The record on stdout, nothing else.")
@click.option("--quiet", is_flag=True, help="No progress.")
@examples(
    "deidbench bench --method fadenet",
    "deidbench bench --method pixelate --strength 0.8 --batch 1,8,64 --seconds 2",
    "deidbench bench --method fadenet --device cuda --out fadenet-speed.json",
)
def bench(
    batches: tuple[int, ...] | None,
    seconds: float,
    out: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how fast a method treats faces here, and what it needs.

    Latency, images a second by size of batch, memory, multiply-adds, share of what this device
    does at best, and time over that of gaussian-blur, on the embedded faces. Measure while nothing
    else runs. 'deidbench leaderboard submit RUN --bench FILE' takes the file of --out.
    """
    config = RunConfig(**options)
    plugins.require("methods", plugins.split_argument(config.method)[0])
    from deidbench.throughput.record import refuse_unwritable, write_throughput

    if out is not None:
        refuse_unwritable(out)
    from deidbench.progress import Progress
    from deidbench.throughput.measure import bench as measure

    record = measure(config, batches=batches, seconds=seconds, progress=Progress(quiet=quiet))
    if out is not None:
        write_throughput(out, record)
    if as_json:
        click.echo(record.model_dump_json(indent=1))
        return
    show(record)
    if out is not None:
        click.echo(f"record: {out}")


def show(record: ThroughputRecord) -> None:
    """A table and some lines, however narrow the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for line in _heading(record):
        console.print(Text(line, style="bold"), highlight=False)
    console.print(_table(record, narrow=console.width < NARROW))
    lines = Table.grid(padding=(0, 2, 0, 0))
    for name, told in _lines(record):
        lines.add_row(name, Text(told, overflow="fold"), style="yellow" if name == BUSY else "")
    console.print(lines)


def _heading(record: ThroughputRecord) -> list[str]:
    method, machine = record.method, record.machine
    strength = "" if method.strength is None else f" (strength {method.strength:g})"
    threads = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
    return [
        f"{method.name}{strength}, {record.chip_size_px} px",
        f"on {machine.device}: {machine.gpu or f'{machine.cpu}, {threads}'}",
    ]


def _table(record: ThroughputRecord, *, narrow: bool) -> Table:
    """A line for each size of batch; the best one is bold."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
    for heading in ("batch", "images/s", "x blur" if narrow else "x time of blur", "of ceiling"):
        table.add_column(heading, no_wrap=True, overflow="crop", justify="right")
    for one in record.batches:
        share = "" if one.share_of_ceiling is None else f"{100 * one.share_of_ceiling:.3g} %"
        columns = ("images_per_second", "time_ratio_to_blur")
        style = "bold" if one.batch == record.best.batch else ""
        spreads = [_spread(one, name, narrow) for name in columns]
        table.add_row(str(one.batch), *spreads, share, style=style)
    return table


def _spread(record: BatchRecord, name: str, narrow: bool) -> str:
    """12.3 [11.9, 12.4]: median and quartiles; the median alone where there is no room."""
    low, value, high = (getattr(record, name + end) for end in ("_low", "", "_high"))
    return _short(value) if narrow else f"{_short(value)} [{_short(low)}, {_short(high)}]"


def _lines(record: ThroughputRecord) -> list[tuple[str, str]]:
    """What is no matter of the batch, each with its name."""
    count = record.multiply_adds_per_image
    ceiling = record.ceiling
    speed = _large(ceiling.multiply_adds_per_second)
    lines = [
        ("batches", record.batches_ended),
        ("latency", _latency(record.latency)),
        ("memory", ", ".join(map(_memory, record.memory))),
        ("work", f"{_large(count)} multiply-adds an image" if count else
         f"multiply-adds not counted: {record.multiply_adds_note}"),
        ("ceiling", f"{speed} multiply-adds/s ({ceiling.kernel})"),
    ]  # fmt: skip
    if record.disturbed:
        share = record.waited_for_cpu_share or 0
        lines.append((
            BUSY, f"other programs held the processor for {share:.0%} of the time that this one "
            "wanted it; measure again while nothing else runs",
        ))  # fmt: skip
    return lines


def _latency(latency: LatencyRecord) -> str:
    known = ("p50", latency.p50_ms), ("p90", latency.p90_ms), ("p99", latency.p99_ms)
    told = ", ".join(f"{name} {_short(ms)} ms" for name, ms in known if ms is not None)
    return told + (f" ({latency.note})" if latency.note else "")


def _memory(memory: MemoryRecord) -> str:
    most = memory.note if memory.peak_mib is None else f"{_short(memory.peak_mib)} MiB"
    where = "of the GPU, " if memory.of == "gpu" else ""
    return f"{most} ({where}batch {memory.batch})"


def _short(value: float) -> str:
    """Three digits: 0.0123, 1.23, 12.3, 1,230."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _large(value: float) -> str:
    """1230000000 -> '1.23 G'."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.3g}"
