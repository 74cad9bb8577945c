"""One method at several strengths: how a sweep is written, made, gone on with and shown."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from deidbench.cli import cli
from deidbench.config import RunConfig
from deidbench.errors import DeidbenchError
from deidbench.harness import evaluate
from deidbench.progress import Progress
from deidbench.render.terminal import sweep_table
from deidbench.results.store import read_run
from deidbench.sweep import measured, points, read_sweep
from fadenet.checkpoint import save_weights
from tests.sample_run import record
from tests.small_fadenet import provenance, woken


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("strength=0:1:6", "strength", (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ("strength=0:1:2", "strength", (0.0, 1.0)),
        ("k=2:20:4", "k", (2, 8, 14, 20)),
        ("sigma=0.5:2:4", "sigma", (0.5, 1.0, 1.5, 2.0)),
    ],
)
def test_a_sweep_is_read(text: str, name: str, values: tuple[float, ...]) -> None:
    sweep = read_sweep(text)
    assert (sweep.name, sweep.values) == (name, values)
    assert [type(value) for value in sweep.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    "text",
    ["", "strength", "strength=0:1", "=0:1:3", "strength=1:0:3", "strength=0:1:1", "a=0:1:2.5",
     "strength=0:one:3", "strength=0:1:101", "weights=0:1:2", "../x=0:1:2",
     "k=0:0.000001:5", "strength=nan:1:3", "strength=0:inf:3"],
)  # fmt: skip
def test_another_writing_is_one_clear_line(text: str) -> None:
    with pytest.raises(DeidbenchError, match="strength=0:1:6") as caught:
        read_sweep(text)
    assert "\n" not in str(caught.value)


def test_each_point_is_an_evaluation_of_its_own(tmp_path: Path) -> None:
    config = RunConfig(method="k-same-pixel", settings=(("other", True),))
    runs = points(config, read_sweep("k=2:10:3"), tmp_path)
    assert [dict(one.settings) for one in runs] == [{"other": True, "k": k} for k in (2, 6, 10)]
    assert [one.out for one in runs] == [tmp_path / name for name in ("k-2", "k-6", "k-10")]
    with pytest.raises(DeidbenchError, match="--sweep k and one k exclude each other"):
        points(replace(config, settings=(("k", 3),)), read_sweep("k=2:10:3"), tmp_path)
    with pytest.raises(DeidbenchError, match="--strength must be between 0 and 1"):
        points(config, read_sweep("strength=0:2:3"), tmp_path)


def test_the_table_has_a_line_for_each_value() -> None:
    records = [record(strength=value, adaptive=True) for value in (0.0, 0.5, 1.0)]
    lpips = next(
        row.value
        for row in records[0].rows
        if row.metric == "lpips" and row.threat is None and row.params["region"] == "chip"
    )
    for width in (60, 120):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(sweep_table(records, "strength", [0.0, 0.5, 1.0]))
        lines = console.export_text().splitlines()
        assert all(name in lines[0] for name in ("strength", "LPIPS", "T1", "T3", "worst case"))
        assert [line.split()[0] for line in lines[1:4]] == ["0", "0.5", "1"]
        assert all(float(line.split()[1]) == pytest.approx(lpips, abs=5e-4) for line in lines[1:4])
        assert all(len(line) <= width for line in lines)


@pytest.mark.slow
def test_a_sweep_is_measured_shown_and_gone_on_with(home: Path, tmp_path: Path) -> None:
    command = [
        "evaluate", "--method", "pixelate", "--recognizers", "sface", "--limit-subjects", "6",
        "--protocol", "quick-v1", "--draws", "100", "--quiet", "--out", str(tmp_path / "sweep"),
        "--sweep", "strength=0:1:2",
    ]  # fmt: skip
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sweep" / "report" / "index.html").is_file()
    weak, strong = (read_run(tmp_path / "sweep" / f"strength-{value}") for value in (0, 1))
    lpips = [next(row.value for row in one.rows if row.metric == "lpips") for one in (weak, strong)]
    assert lpips[0] == 0 < (lpips[1] or 0)
    again = CliRunner().invoke(cli, [*command, "--json"], catch_exceptions=False)
    assert [one["run_id"] for one in json.loads(again.output)] == [weak.run_id, strong.run_id]
    other = [*command, "--seed", "1"]
    with pytest.raises(DeidbenchError, match=r"strength-0 holds another run. Choose another --out"):
        CliRunner().invoke(cli, other, catch_exceptions=False)


def test_what_stands_in_the_way_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "strength-1").mkdir()
    command = [
        "evaluate", "--method", "pixelate", "--protocol", "quick-v1", "--quiet",
        "--sweep", "strength=0:1:2", "--out", str(tmp_path),
    ]  # fmt: skip
    with pytest.raises(DeidbenchError, match="strength-1 is not a whole run"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
    assert not (tmp_path / "strength-0").exists()


def test_a_point_that_is_not_there_is_to_be_measured(tmp_path: Path) -> None:
    assert measured(RunConfig(method="pixelate", out=tmp_path / "none")) is None


def test_large_values_have_folders_of_their_own(tmp_path: Path) -> None:
    runs = points(RunConfig(method="k-same-pixel"), read_sweep("k=1234567:1234569:3"), tmp_path)
    assert len({one.out for one in runs}) == 3


def test_two_ways_to_say_the_strength_exclude_each_other(tmp_path: Path) -> None:
    config = RunConfig(method="pixelate", strength=1.0)
    with pytest.raises(DeidbenchError, match="--sweep strength and one strength exclude"):
        points(config, read_sweep("strength=0:1:2"), tmp_path)


@pytest.mark.slow
def test_a_run_of_other_weights_is_another_run(home: Path, tmp_path: Path) -> None:
    """The file has the same name, but was trained anew."""
    weights = tmp_path / "fadenet.safetensors"
    save_weights(weights, woken(seed=1), provenance())
    config = RunConfig(
        method="fadenet", weights=weights, recognizers=("sface",), limit_subjects=6,
        protocol="quick-v1", draws=100, strength=1.0, out=tmp_path / "run",
    )  # fmt: skip
    evaluate(config, Progress(quiet=True))
    assert measured(config) is not None
    save_weights(weights, woken(seed=2), provenance())
    with pytest.raises(DeidbenchError, match="holds another run"):
        measured(config)
