"""The tool that compares methods at equal LPIPS, where the answer is known."""

from __future__ import annotations

from pathlib import Path

import frontier
import numpy as np
import pytest

from deidbench import statistics
from deidbench.config import RunConfig
from deidbench.harness import evaluate
from deidbench.progress import Progress

KEY = ("T3", "sface")


def point(method: str, lpips: float, tar: float, *, spread: float = 0.02, seed: int = 0) -> object:
    """A point whose draws lie around its value; those of one seed go up and down together."""
    drawn = tar + spread * np.random.default_rng(seed).normal(size=2000)
    return frontier.Point(method, None, lpips, tar, tar - 0.04, tar + 0.04, None, drawn)


def curve(*places: tuple[float, float]) -> list[object]:
    return [point("blur", *place) for place in places]


def test_a_curve_is_read_off_between_its_points() -> None:
    told = frontier.compare(KEY, point("ours", 0.05, 0.3), curve((0.0, 1.0), (0.1, 0.6)), 50)
    assert told.difference == pytest.approx(0.3 - 0.8)
    assert told.other == "blur"
    assert told.verdict == "better"


def test_what_goes_up_and_down_together_is_told_apart() -> None:
    together = frontier.compare(KEY, point("ours", 0.1, 0.58), curve((0.0, 1.0), (0.1, 0.6)), 50)
    assert together.low == pytest.approx(together.high) == pytest.approx(-0.02)
    apart = point("ours", 0.1, 0.58, seed=1)
    assert (
        frontier.compare(KEY, apart, curve((0.0, 1.0), (0.1, 0.6)), 50).verdict == "not told apart"
    )


def test_worse_is_said() -> None:
    told = frontier.compare(KEY, point("ours", 0.1, 0.9), curve((0.0, 1.0), (0.1, 0.6)), 50)
    assert told.verdict == "worse"


@pytest.mark.parametrize("lpips", [0.01, 0.2])
def test_nothing_is_said_beyond_a_curve(lpips: float) -> None:
    assert (
        frontier.compare(KEY, point("ours", lpips, 0.3), curve((0.02, 0.9), (0.1, 0.6)), 50) is None
    )


def test_every_point_of_ours_meets_every_other_curve_but_ours() -> None:
    found = {
        KEY: {
            "ours": [point("ours", 0.0, 1.0), point("ours", 0.05, 0.3)],
            "mine": [point("mine", 0.05, 0.3)],
            "identity": [point("identity", 0.0, 1.0)],
            "blur": [point("blur", 0.3, 0.5)],
        }
    }
    told = list(frontier.comparisons(found, ["ours", "mine"], 50))
    assert [(one.method, one.other) for one in told] == [("ours", "blur"), ("mine", "blur")]
    assert "| T3 sface | ours | 0.050 | blur |" in frontier.as_markdown(found, told)
    assert frontier.draw(found).axes


@pytest.mark.slow
def test_the_draws_of_a_run_give_the_interval_of_its_record(home: Path, tmp_path: Path) -> None:
    config = RunConfig(
        method="pixelate", strength=0.4, recognizers=("sface",),
        protocol="quick-v1", out=tmp_path / "run",
    )  # fmt: skip
    _, record = evaluate(config, Progress(quiet=True))
    found = dict(frontier.points(tmp_path / "run"))
    assert set(found) == {("T1/T1w", "sface"), ("T2", "sface")}
    people = record.split.subjects["eval"]
    for one in found.values():
        low, high = statistics.interval(one.draws, subjects=people)
        assert one.tar == pytest.approx(np.mean(one.draws), abs=0.05)
        assert (low, high) == pytest.approx((one.low, one.high), abs=0.02)
