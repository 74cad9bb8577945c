"""The command line as a user meets it: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from deidbench import assets, plugins
from deidbench.cli import cli


def deidbench(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deidbench", *arguments],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an expected failure."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return lines[0]


@pytest.mark.parametrize("command", [["--help"], ["list"], ["evaluate", "--help"], ["--version"]])
def test_light_commands_import_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; from deidbench.cli import cli\n"
        f"try: cli.main({command!r})\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'rich', 'pydantic', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["evaluate", "report", "train", "validate", "completion"])
def test_help_shows_examples(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.output


def test_list_names_every_installed_part() -> None:
    listed = json.loads(deidbench("list", "--json").stdout)
    for kind in plugins.KINDS:
        names = [entry["name"].partition(":")[0] for entry in listed[kind]]
        assert list(dict.fromkeys(names)) == plugins.names(kind)


def test_list_verbose_says_what_a_method_was_trained_against() -> None:
    done = deidbench("list", "methods", "-v", "--json")
    methods = {entry["name"]: entry for entry in json.loads(done.stdout)["methods"]}
    assert methods["fadenet"]["trained_against"]
    assert methods["gaussian-blur"]["trained_against"] == "nothing"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "gausian-blur"], "Did you mean 'gaussian-blur'?"),
        (["--method", "identity", "--dataset", "synthd"], "Did you mean 'synthid'?"),
        (["--method", "identity", "--recognizers", "sfase"], "Did you mean 'sface'?"),
        (["--method", "pixelate", "--strength", "1.5"], "between 0 and 1, got 1.5"),
        (["--method", "identity", "--chip-size", "161"], "multiple of 8"),
        (["--method", "pixelate", "--set", "strength=0.5"], "Use --strength."),
        (["--method", "pixelate", "--set", "strength"], "expects NAME=VALUE"),
        (["--method", "pixelate", "--set", "spec=1"], "has no setting 'spec'"),
        (["--method", "identity", "--batch-size", "0"], "--batch-size"),
        (["--method", "identity", "--out", "."], "never overwritten"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    assert words in refused(deidbench("evaluate", *arguments, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_one_line(home: Path, tmp_path: Path) -> None:
    done = deidbench("evaluate", "--method", "identity", "--dataset", "folder:nowhere",
                     "--quiet", cwd=tmp_path)  # fmt: skip
    assert "nowhere" in refused(done)


def test_an_unknown_device_is_one_line(home: Path, tmp_path: Path) -> None:
    done = deidbench("evaluate", "--method", "identity", "--device", "gpu", "--quiet", cwd=tmp_path)
    assert "--device 'gpu'" in refused(done)


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    assert "run.json" in refused(deidbench("validate", str(tmp_path)))
    assert "run.json" in refused(deidbench("report", str(tmp_path), "--out", str(tmp_path / "p")))


@pytest.mark.slow
def test_json_has_stdout_to_itself(home: Path, tmp_path: Path) -> None:
    done = deidbench(
        "evaluate", "--method", "pixelate", "--recognizers", "sface", "--limit-subjects", "6",
        "--protocol", "quick-v1",
        "--draws", "100", "--json", "--out", "run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((tmp_path / "run" / "run.json").read_text())
    assert "embed sface" in done.stderr, "progress goes to stderr"
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "pixelate" in page
    assert deidbench("validate", "run", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_a_narrow_terminal_shows_the_summary_whole(home: Path, tmp_path: Path) -> None:
    done = deidbench(
        "evaluate", "--method", "pixelate", "--recognizers", "sface", "--limit-subjects", "6",
        "--protocol", "quick-v1",
        "--draws", "100", "--quiet", cwd=tmp_path, COLUMNS="60",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if not line.startswith(("run:", "report:"))]
    assert max(map(len, table)) <= 60
    assert "T2" in done.stdout and "LPIPS" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    done = deidbench("completion", shell)
    assert "_DEIDBENCH_COMPLETE" in done.stdout


def test_completion_knows_the_methods() -> None:
    done = deidbench(
        _DEIDBENCH_COMPLETE="bash_complete", COMP_WORDS="deidbench evaluate --method gau",
        COMP_CWORD="3",
    )  # fmt: skip
    assert "gaussian-blur" in done.stdout


def test_assets_are_listed_with_their_licences(home: Path) -> None:
    listed = json.loads(deidbench("assets", "list", "--json").stdout)
    assert {"dlib-resnet29", "sface-int8", "lpips-alexnet"} <= {one["name"] for one in listed}
    assert all(one["licence"] for one in listed)


def test_an_asset_that_cannot_be_fetched_offline_says_what_to_do(
    home: Path, tmp_path: Path
) -> None:
    line = refused(deidbench("assets", "fetch", "mobilefacenet-ms1m"))
    assert "DEIDBENCH_OFFLINE" in line


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deidbench", "evaluate", "--method", "pixelate", "--recognizers",
         "sface", "--batch-size", "4", "--out", "run"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        waiting = home / "cache" / "align"
        while not list(waiting.rglob("*.safetensors")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, news = process.communicate(timeout=120)
    assert process.returncode == 130, news
    assert "What is done is kept. Run the same command again to go on" in news
    assert "Traceback" not in news
    assert printed == ""
    assert not (tmp_path / "run").exists()


def test_verify_finds_a_damaged_file(home: Path, weights: Path) -> None:
    (copy,) = weights.rglob("*sface*.onnx")
    damaged = home / "assets" / copy.parent.name / copy.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(copy.read_bytes()[:-1])
    assert "damaged" in deidbench("assets", "list", DEIDBENCH_MIRROR="").stdout
    assert "sface-int8" in refused(deidbench("assets", "verify", DEIDBENCH_MIRROR=""))


def test_verify_says_when_there_is_nothing_to_verify(tmp_path: Path) -> None:
    done = deidbench("assets", "verify", DEIDBENCH_HOME=str(tmp_path), DEIDBENCH_MIRROR="")
    assert (done.returncode, done.stdout) == (0, "no asset is on this machine yet\n")


def test_list_says_what_is_missing_and_how_to_get_it(home: Path) -> None:
    listed = json.loads(deidbench("list", "recognizers", "--json").stdout)["recognizers"]
    entries = {entry["name"]: entry for entry in listed}
    assert entries["deepface:ArcFace"]["not here yet"] == (
        "run: deidbench assets fetch deepface-arcface"
    )
    assert "not here yet" not in entries["sface"], "the fixture has its weights"
    assert "not here yet" not in entries["lbp"], "it needs none"


def test_every_asset_says_who_needs_it() -> None:
    for asset in assets.registry().values():
        assert asset.parts, asset.name
        for own in asset.parts:
            kind, _, name = own.partition("/")
            assert name.partition(":")[0] in plugins.names(kind)  # type: ignore[arg-type]
