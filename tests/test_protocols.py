"""Protocols: the presets, files of a user's own, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deidbench import plugins, protocols
from deidbench.config import PROTOCOL
from deidbench.errors import DeidbenchError
from deidbench.protocols import Protocol

PRESETS = protocols.names()


def deidbench(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deidbench", *arguments],
        capture_output=True, text=True, cwd=cwd, check=False,
    )  # fmt: skip


def saved(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_promised_presets_are_there() -> None:
    assert {"quick-v1", "standard-v1", "full-v1", "ljubljana-v1", "psr-makeup-v1"} <= set(PRESETS)
    assert PROTOCOL in PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole(name: str) -> None:
    protocol = protocols.load(name)
    assert protocol.name == name
    assert protocol.summary
    assert protocol.threats[0] == "T0", "without a ceiling nothing can be judged"
    for threat in protocol.threats:
        assert plugins.build("threats", threat).id == threat


def test_standard_is_every_attacker_but_the_one_who_wants_a_gpu() -> None:
    assert set(protocols.load("standard-v1").threats) == {
        "T0", "T1", "T1w", "T2", "T3", "T4", "T5", "T6", "P"
    }  # fmt: skip
    full = set(protocols.load("full-v1").threats)
    assert full - set(protocols.load("standard-v1").threats) == {"T3f"}
    assert protocols.load("standard-v1").controls
    assert protocols.load("full-v1").controls


def test_what_show_prints_can_be_used(tmp_path: Path) -> None:
    shown = deidbench("protocols", "show", "standard-v1")
    assert shown.returncode == 0
    path = saved(tmp_path, "copy", shown.stdout)
    assert protocols.load(path) == protocols.load("standard-v1")
    again = deidbench("protocols", "show", str(path))
    assert again.stdout == shown.stdout


def test_list_names_all() -> None:
    listed = deidbench("protocols", "list")
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in PRESETS)


def test_a_changed_preset_needs_another_name(tmp_path: Path) -> None:
    text = protocols.text("quick-v1")
    path = saved(tmp_path, "mine", text.replace("calibration = 0.4", "calibration = 0.3").replace(
        "eval = 0.6", "eval = 0.7"))  # fmt: skip
    with pytest.raises(DeidbenchError, match="changes protocol 'quick-v1'"):
        protocols.load(path)
    path.write_text(path.read_text().replace('"quick-v1"', '"mine-v1"'))
    assert protocols.load(path).shares == {"calibration": 0.3, "eval": 0.7}


def test_another_summary_is_no_other_protocol(tmp_path: Path) -> None:
    text = protocols.text("quick-v1").replace("Recognizers as they are", "As they are")
    assert protocols.load(saved(tmp_path, "mine", text)).sha256 == protocols.load("quick-v1").sha256


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "is no TOML"),
        ('name = "x"\nsummary = "s"\nthreats = ["T0"]', "name: "),
        ('name = "x-v1"\nthreats = ["T0"]', "summary: "),
        ('name = "x-v1"\nsummary = "s"\nthreats = ["T0"]\nfars = [0.0]', "fars.0: "),
        ('name = "x-v1"\nsummary = "s"\nthreats = ["T0"]\nspeed = 1', "speed: "),
        ('name = "x-v1"\nsummary = "s"\nthreats = ["T0"]\n[shares]\neval = 0.9', "shares: "),
        ('name = "x-v1"\nsummary = "s"\nthreats = ["T0"]\n[shares]\ncalibration = 0.4\neval = 0.4',
         "expected a sum of 1, but got 0.8"),
        ('name = "x-v1"\nsummary = "s"\nthreats = ["T0"]\n[thresholds.a]\n"0.1" = 0.3',
         "one for each FAR"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_and_exit_code_2(tmp_path: Path, text: str, words: str) -> None:
    path = saved(tmp_path, "bad", text)
    with pytest.raises(DeidbenchError) as refused:
        protocols.load(path)
    assert words in str(refused.value)
    result = deidbench("evaluate", "--method", "identity", "--protocol", str(path), cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("standart-v1", "Did you mean 'standard-v1'"),
        ("nowhere.toml", "cannot read protocol nowhere.toml"),
    ],
)
def test_an_unknown_protocol_is_named(spec: str, words: str, tmp_path: Path) -> None:
    result = deidbench("evaluate", "--method", "identity", "--protocol", spec, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr


def test_an_unknown_threat_is_found_before_the_work(tmp_path: Path) -> None:
    path = saved(tmp_path, "t", 'name = "t-v1"\nsummary = "s"\nthreats = ["T0", "T9"]')
    result = deidbench("evaluate", "--method", "identity", "--protocol", str(path), cwd=tmp_path)
    assert result.returncode == 2
    assert "no threats called 'T9'" in result.stderr


@pytest.mark.slow
def test_published_thresholds_hold_for_their_own_recognizers_only(tmp_path: Path) -> None:
    result = deidbench(
        "evaluate", "--method", "identity", "--protocol", "psr-makeup-v1", "--recognizers", "lbp",
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 2
    assert "has thresholds for onnx:ir152" in result.stderr
    assert "got lbp" in result.stderr


@given(
    calibration=st.floats(0.05, 0.6),
    teachers=st.floats(0.05, 0.3),
    ranks=st.sets(st.integers(1, 50)),
)
def test_the_hash_tells_protocols_apart(
    calibration: float, teachers: float, ranks: set[int]
) -> None:
    shares = {"attacker-train": teachers, "calibration": calibration}
    shares["eval"] = 1 - sum(shares.values())
    one = Protocol(
        name="a-v1", summary="", threats=("T0",), shares=shares, ranks=tuple(sorted(ranks))
    )
    assert one.sha256 == one.model_copy(update={"summary": "other"}).sha256
    assert one.sha256 != one.model_copy(update={"threats": ("T0", "T1")}).sha256
    with pytest.raises(ValidationError):
        one.name = "b-v1"
