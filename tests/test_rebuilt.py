"""A run's stored scores give its numbers again, to the last digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deidbench.config import RunConfig
from deidbench.harness import evaluate
from deidbench.progress import Progress
from deidbench.rebuilt import Stored, read_stored, rebuilt_rows
from deidbench.results.schema import MetricRow

pytestmark = pytest.mark.slow


@pytest.fixture
def stored(tmp_path: Path, home: Path) -> Stored:
    config = RunConfig(
        method="gaussian-blur", recognizers=("sface",), limit_subjects=9, draws=200,
        protocol="quick-v1", seed=3, out=tmp_path / "run",
    )  # fmt: skip
    return read_stored(evaluate(config, Progress(quiet=True))[0])


def key(row: MetricRow) -> tuple[Any, ...]:
    settings = tuple(sorted(row.params.items()))
    return row.threat, row.recognizer, row.pairs, row.view, row.metric, settings


def test_every_row_of_cross_image_attacks_comes_out_the_same(stored: Stored) -> None:
    claimed = {
        key(row): row
        for row in stored.record.rows
        if row.pairs == "cross" and row.view in ("landmarks", "system") and row.group is None
    }
    anew = {key(row): row for row in rebuilt_rows(stored)}
    assert len(anew) > 40
    for name, row in anew.items():
        assert row == claimed[name]
    left = {name[4] for name in claimed.keys() - anew.keys()}
    # Searches, folds and the worst case are made of other things than one attack's comparisons.
    assert all("fold" in n or "worst" in n or n in ("rank-k", "dir", "d-sys") for n in left), left

    attack = stored.attack("T1", "sface")
    assert attack is not None
    used = stored.subjects[attack.pairs.reference]
    assert used.max() < stored.n_measured <= stored.subjects.max() + 1
    assert stored.attack("T4", "sface") is None  # it was not run
    assert stored.attack("T1", "nobody") is None
