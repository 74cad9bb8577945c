"""Memory of this process, beside what the system says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deidbench import resident

ASK = "from deidbench.resident import peak_bytes, held_bytes; print(peak_bytes(), held_bytes())"
FULL = f"""
import subprocess, sys
held = bytearray(b"x") * 300_000_000  # written, so really held
print(subprocess.run([sys.executable, "-c", {ASK!r}], capture_output=True, text=True).stdout)
"""

if not Path("/proc/self/status").is_file():
    pytest.skip("this system does not say what a process has held", allow_module_level=True)


def asked(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def test_the_most_is_what_was_held_and_given_back() -> None:
    code = f"block = bytearray(b'x') * 200_000_000\ndel block\n{ASK}"
    most, now = asked(code)
    assert 200e6 < most < 400e6
    assert now < most - 150e6


def test_what_a_parent_held_does_not_count() -> None:
    most, _ = asked(FULL)
    assert most < 150e6


def test_the_most_is_never_less_than_what_is_held() -> None:
    held = resident.held_bytes()
    assert held is not None
    assert 1e6 < held <= (resident.peak_bytes() or 0)
