"""Charts, read back from their SVG: lines where they must be, in colours of the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.special import ndtri

from deidbench import statistics
from deidbench.render import figures
from deidbench.render.figures import Line, RankLine
from deidbench.results.schema import CmcCurve, Curve

FRAME = 57.6, -171.36, 221.76, -7.2
"""Left, bottom, right and top of the square axes of a DET plot, in units of its SVG."""
FIELDS = {"recognizer": "r", "pairs": "cross", "view": "landmarks"}


def curve(fmr: np.ndarray, tar: np.ndarray, threat: str = "T1") -> Curve:
    return Curve(
        **FIELDS, threat=threat, fmr=fmr.tolist(), tar=tar.tolist(), histogram_edges=[0, 1],
        genuine_histogram=[1], impostor_histogram=[1],
    )  # fmt: skip


def normal_curve(separation: float, threat: str = "T1") -> Curve:
    """Of a million scores of each kind, at even steps of their distributions."""
    even = ndtri((np.arange(1_000_000) + 0.5) / 1_000_000)
    roc = statistics.roc_curve(genuine=even + separation, impostor=even)
    return curve(roc.fmr, roc.tar, threat)


def ranks(size: int, rate: list[float], threat: str = "T1") -> CmcCurve:
    rank = np.unique(np.linspace(1, size, len(rate)).round().astype(int)).tolist()
    return CmcCurve(**FIELDS, threat=threat, n=9, n_enrolled=size, rank=rank, rate=rate)


def points(svg: str, ink: str) -> list[np.ndarray]:
    """The lines drawn in a colour, each (P, 2) in units of the SVG, y upwards."""
    found = []
    for path in ElementTree.fromstring(svg).iter():
        if f"stroke: var(--{ink})" in path.get("style", "") and path.get("clip-path"):
            numbers = [float(x) for x in re.findall(r"-?\d+\.?\d*", path.get("d", ""))]
            found.append(np.array(numbers).reshape(-1, 2) * [1, -1])
    return found


def ticks(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter("text")]


def test_normal_scores_give_a_straight_line_on_the_axes_of_normal_deviates() -> None:
    """Parallel to the line of guessing and, along an axis, d' away from it."""
    svg = figures.det([Line(normal_curve(2.0), "T1")], key="k", label="x")
    (line,), (guess,) = points(svg, "T1"), points(svg, "soft")
    left, bottom, right, top = FRAME
    straight = line[(line[:, 1] > bottom + 1) & (line[:, 1] < top - 1)]  # not at the edge
    assert np.ptp(straight[:, 0]) > 0.4 * (right - left)
    assert straight.sum(1) == pytest.approx(straight.sum(1).mean(), abs=0.3)
    deviate = (right - left) / (ndtri(0.995) - ndtri(1e-4))
    assert (guess.sum(1)[0] - straight.sum(1).mean()) / deviate == pytest.approx(2.0, abs=0.02)


def test_guessing_lies_on_its_line() -> None:
    fmr = np.geomspace(0.006, 0.9, 60)
    svg = figures.det([Line(curve(fmr, fmr), "T1")], key="k", label="x")
    (line,), (guess,) = points(svg, "T1"), points(svg, "soft")
    assert line.sum(1) == pytest.approx(guess.sum(1)[0], abs=0.01)


@pytest.mark.parametrize("tar", [0.0, 1.0])
def test_rates_that_have_no_deviate_stand_at_the_edge(tar: float) -> None:
    """An attacker who refuses all genuine pairs, or none: the axes still have numbers."""
    svg = figures.det(
        [Line(curve(np.linspace(0.01, 0.9, 20), np.full(20, tar)), "T1")], key="k", label="x"
    )
    (line,) = points(svg, "T1")
    assert line[:, 1] == pytest.approx(FRAME[3] if tar == 0 else FRAME[1], abs=0.01)
    assert {"1", "10", "50", "90"} <= set(ticks(svg))


def test_the_last_point_of_a_roc_is_no_measurement_of_a_det() -> None:
    fmr, tar = np.array([0.01, 0.1, 0.5, 1.0]), np.array([0.2, 0.5, 0.9, 1.0])
    svg = figures.det([Line(curve(fmr, tar), "T1")], key="k", label="x")
    (line,) = points(svg, "T1")
    assert len(line) == 3


@pytest.mark.parametrize("size", [2, 28, 5000])
def test_ranks_by_chance_lie_on_the_chance_line(size: int) -> None:
    rank = np.unique(np.geomspace(1, size, 100).round().astype(int))
    chance = CmcCurve(
        **FIELDS, threat="T1", n=9, n_enrolled=size, rank=rank.tolist(),
        rate=(rank / size).tolist(),
    )  # fmt: skip
    svg = figures.cmc([RankLine(chance, "T1")], key="k", label="x")
    (line,), (expected,) = points(svg, "T1"), points(svg, "soft")
    heights = np.interp(line[:, 0], expected[:, 0], expected[:, 1])
    assert line[:, 1] == pytest.approx(heights, abs=0.6)
    assert line[[0, -1]] == pytest.approx(expected[[0, -1]], abs=0.01)


def test_each_size_of_gallery_has_one_chance_line() -> None:
    lines = [
        RankLine(ranks(size, [0.5, 0.8, 1.0], threat), threat)
        for size, threat in ((10, "T0"), (10, "T1"), (400, "T2"))
    ]
    svg = figures.cmc(lines, key="k", label="x")
    assert len(points(svg, "soft")) == 2
    assert all(len(points(svg, ink)) == 1 for ink in ("T0", "T1", "T2"))
    assert {"1", "10", "100", "0 %", "100 %"} <= set(ticks(svg))


def test_better_ranks_are_drawn_higher() -> None:
    svg = figures.cmc([RankLine(ranks(9, [0.25, 0.5, 1.0]), "T1")], key="k", label="x")
    (line,) = points(svg, "T1")
    rises = np.diff(line[:, 1])
    assert rises[1] == pytest.approx(2 * rises[0], rel=0.01)


def spot(letter: str, x: float, y: float, ink: str = "run0") -> figures.Point:
    return figures.Point(letter, ink, x, y, (x - 0.01, x + 0.01), (y - 0.02, y + 0.02))


def test_runs_of_one_sweep_are_joined_in_the_order_of_their_values() -> None:
    points = [spot("A", 0.4, 0.6), spot("B", 0.1, 0.9), spot("C", 0.2, 0.8, "run2")]
    svg = figures.trade_off(points, [("run0", ["B", "A"])], clean=1.0, key="k", label="x")
    joined = [line for line in points_of(svg, "run0") if len(line) == 2]
    path = max(joined, key=lambda line: float(np.ptp(line[:, 0])))
    assert path[0, 0] < path[1, 0] and path[0, 1] > path[1, 1]
    alone = figures.trade_off(points, clean=1.0, key="k", label="x")
    assert len(points_of(alone, "run0")) == len(points_of(svg, "run0")) - 1


def test_a_rate_is_weighed_on_an_axis_of_percent() -> None:
    svg = figures.trade_off([spot("A", 0.4, 0.6)], clean=None, key="k", label="x", far=0.01)
    assert {"0 %", "100 %"} <= set(ticks(svg))
    assert any("guessing (0.01)" in text for text in ticks(svg))


def points_of(svg: str, ink: str) -> list[np.ndarray]:
    return [line for line in points(svg, ink) if len(line) > 1]


@pytest.mark.parametrize("draw", ["det", "cmc"])
def test_charts_bring_no_colours_links_or_foreign_ids(draw: str) -> None:
    lines = {
        "det": [Line(normal_curve(1.0, threat), threat) for threat in ("T0", "T2")],
        "cmc": [RankLine(ranks(9, [0.2, 0.6, 1.0], threat), threat) for threat in ("T0", "T2")],
    }
    one, again = (
        getattr(figures, draw)(lines[draw], key="own", label='<b> "c" \\1') for _ in range(2)
    )
    assert one == again
    root = ElementTree.fromstring(one)
    assert root.get("aria-label") == '<b> "c" \\1'
    assert not re.search(r"#[0-9a-f]{6}|http|<style|<script", one)
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert names and all(str(name).startswith("own-") for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("draw", [figures.det, figures.cmc])
def test_nothing_to_draw_is_an_empty_chart(draw: object) -> None:
    assert callable(draw)
    assert ElementTree.fromstring(draw([], key="k", label="x")).tag == "svg"
