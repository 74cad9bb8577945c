"""The datasheet of synthid: it says what was measured, and what was measured holds."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from deidbench.cli import cli

Numbers = dict[str, Any]

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools" / "synthid"
DATA = Path(str(files("deidbench.datasets.synthid")))
TOLERANCE = 0.003  # of a share: images decode, and networks compute, a little differently elsewhere
LOOSER = {"score": 0.02, "position": 0.02, "genuine_below": 0.02, "low": 0.01, "high": 0.01}


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """tools/synthid/measure.py, which is in the checkout only."""
    spec = importlib.util.spec_from_file_location("measure", TOOLS / "measure.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(TOOLS))  # its neighbours
    sys.modules["measure"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(TOOLS))
        for name in ("measure", "measure_faces", "measure_ranking"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    loaded: Numbers = json.loads((DATA / "numbers.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def card() -> str:
    return (DATA / "card.md").read_text(encoding="utf-8")


# The card


def test_the_card_is_the_template_with_the_numbers(
    tool: ModuleType, numbers: Numbers, card: str
) -> None:
    assert tool.render_card(numbers) == card, "run tools/synthid/measure.py"


def test_the_documentation_has_the_same_card(card: str) -> None:
    assert (ROOT / "docs" / "synthid.md").read_text(encoding="utf-8") == card


def test_the_numbers_are_of_these_images(tool: ModuleType, numbers: Numbers) -> None:
    assert numbers["dataset"]["sha256"] == tool.fingerprint(DATA), "run tools/synthid/measure.py"
    assert numbers["ranking"]["sha256"] == numbers["dataset"]["sha256"], "run it with --lfw"


def test_the_card_warns_and_leaves_nothing_open(card: str) -> None:
    assert "absolute numbers are never real-world rates" in " ".join(card.split())
    assert not re.search(r"\{\{|\{%|\bnan\b|\bNone\b|\binf\b", card)
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Motivation", "## Composition", "## How it was made", "## Licences",
        "## What it is good for, and what not", "## Measured", "## Balance", "## Known faults",
        "## Maintenance",
    ]  # fmt: skip


def test_every_table_of_the_card_is_regular(card: str) -> None:
    for block in card.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block
        assert not rows or set(rows[1]) <= set("|-"), block


def test_a_recognizer_without_weights_is_named(
    tool: ModuleType, numbers: Numbers, card: str
) -> None:
    left = {name: one for name, one in numbers["recognizers"].items() if name != "sface"}
    rendered = tool.render_card(numbers | {"recognizers": left, "recognizers_left_out": ["sface"]})
    assert "Not measured, because their weights could not be had: sface." in rendered
    assert "Not measured" not in card, "publish the card with all recognizers"


def test_a_card_can_be_without_a_ranking_or_with_an_old_one(
    tool: ModuleType, numbers: Numbers
) -> None:
    assert "was not measured for this version" in tool.render_card(numbers | {"ranking": None})
    old = numbers["ranking"] | {"sha256": "0" * 64}
    assert "an earlier version of the images" in tool.render_card(numbers | {"ranking": old})


# deidbench datasets card


def test_the_command_prints_the_card_and_needs_no_torch(card: str) -> None:
    code = (
        "import sys; from deidbench.cli import cli\n"
        "try: cli.main(['datasets', 'card', 'synthid'])\n"
        "except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == card


@pytest.mark.skipif(os.name == "nt", reason="needs a terminal to write to")
def test_a_terminal_gets_the_card_laid_out() -> None:
    controller, terminal = os.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [sys.executable, "-m", "deidbench", "datasets", "card", "synthid"],
        stdout=terminal, env=environment,
    )  # fmt: skip
    os.close(terminal)
    shown = b"".join(iter(lambda: _read(controller), b"")).decode()
    os.close(controller)
    assert process.wait() == 0
    assert "\x1b[" in shown and "Motivation" in shown
    assert "## Motivation" not in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # Linux says so that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lfw", "dataset 'lfw' has no card"),
        ("folder:faces", "dataset 'folder' has no card"),
        ("synthd", "Did you mean 'synthid'?"),
    ],
)
def test_a_name_without_a_card_is_one_line(name: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deidbench", "datasets", "card", name],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_help_shows_examples() -> None:
    shown = CliRunner().invoke(cli, ["datasets", "card", "--help"])
    assert shown.exit_code == 0 and "Examples:" in shown.output


# The numbers


def test_the_order_of_treatments_carries_over(numbers: Numbers) -> None:
    ranking = numbers["ranking"]
    assert len(ranking["treatments"]) >= 12
    assert set(ranking["recognizers"]) == set(numbers["recognizers"])
    for name, one in ranking["recognizers"].items():
        assert one["spearman"]["value"] >= 0.9, name


def test_all_faces_are_found_where_they_are(numbers: Numbers) -> None:
    assert numbers["detector"]["found_share"] == 1
    assert numbers["detector"]["landmark_error_percent"]["mean"] <= 6
    assert numbers["mean_colour"]["auc"]["value"] <= 0.62


def test_recognizers_tell_the_people_apart_by_their_faces(numbers: Numbers) -> None:
    for name, one in numbers["recognizers"].items():
        assert 0.985 <= one["auc"]["value"] <= 0.9995, name
        assert one["eer"]["value"] <= 0.05, name
        assert one["masked_auc"]["value"] >= 0.97, name
        assert one["same_group_auc"]["value"] >= 0.96, name


@pytest.fixture(scope="module")
def again(tool: ModuleType, weights: Path) -> Numbers:
    """The numbers of the images that are installed, by the recognizers whose weights are here."""
    found: Numbers = tool.measure(tool.DataSet.read(DATA), tool.load_recognizers()[0])
    assert {"dlib", "sface"} <= set(found["recognizers"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", ["dataset", "people", "photographs", "detector", "mean_colour"])
def test_the_images_give_the_numbers(numbers: Numbers, again: Numbers, part: str) -> None:
    agree(again[part], numbers[part], part)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dlib", "sface", "mobilefacenet-ms1m", "mobilefacenet-casia"])
def test_each_recognizer_gives_its_numbers(numbers: Numbers, again: Numbers, name: str) -> None:
    if name not in again["recognizers"]:
        pytest.skip(f"the weights of {name} cannot be had")
    agree(again["recognizers"][name], numbers["recognizers"][name], name)


def agree(now: Any, then: Any, where: str) -> None:
    """Equal, but for the last digits of what was computed; percentages are 100 times as large."""
    if isinstance(then, Mapping):
        assert set(now) == set(then), where
        for key in then.keys() - {"names"}:  # of the most alike: near-ties may swap
            agree(now[key], then[key], f"{where} {key}")
    elif isinstance(then, float):
        last = where.split()[-1]
        scale = 100 if "percent" in where or "pixels" in where else 1
        assert abs(now - then) <= scale * LOOSER.get(last, TOLERANCE), (where, now, then)
    else:
        assert now == then, where


def test_agreement_is_refused_beyond_the_tolerance() -> None:
    agree({"auc": {"value": 0.99, "n": 3}}, {"auc": {"value": 0.991, "n": 3}}, "x")
    with pytest.raises(AssertionError):
        agree({"auc": {"value": 0.98}}, {"auc": {"value": 0.991}}, "x")
    with pytest.raises(AssertionError):
        agree({"n": 3}, {"n": 4}, "x")


# The tool


def test_spearman_agrees_with_scipy(tool: ModuleType) -> None:
    np, stats = pytest.importorskip("numpy"), pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 9, (2, 20, 14)).astype(float)
    ours = sys.modules["measure_ranking"].spearman(a, b)
    theirs = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(ours, theirs)


def test_treatments_are_many_kinds_and_keep_the_contract(tool: ModuleType) -> None:
    import torch

    ranking = sys.modules["measure_ranking"]
    chips = torch.randint(0, 256, (3, 3, 160, 160), generator=torch.Generator().manual_seed(0))
    chips = chips.to(torch.uint8)
    treatments = ranking.treatments()
    assert len({one.name for one in treatments}) == len(treatments) >= 14
    for one in treatments:
        treated = ranking.treat(one, chips)
        assert treated.shape == chips.shape and treated.dtype == torch.uint8, one.name
        assert not torch.equal(treated, chips), one.name
        assert torch.equal(treated, ranking.treat(one, chips)), one.name


def test_what_is_masked_is_grey_and_narrow_on_the_far_side(tool: ModuleType) -> None:
    import numpy as np

    faces = sys.modules["measure_faces"]
    frontal = np.array([[58.0, 70], [102, 70], [80, 96], [61, 121], [99, 121]])
    turned = frontal + np.array([[0, 0], [0, 0], [8, 0], [0, 0], [0, 0]])
    right = [max(x for x, _ in faces.outline(points)) for points in (frontal, turned)]
    left = [min(x for x, _ in faces.outline(points)) for points in (frontal, turned)]
    assert right[1] < right[0] - 5 and left[1] == pytest.approx(left[0])
    assert 35 < left[0] < 50 and 110 < right[0] < 125


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9932, ".993"), (0.99996, ".99996"), (0.9996, ".9996"), (1.0, "1"), (0.5, ".500")],
)
def test_an_auc_short_of_one_is_never_printed_as_one(
    tool: ModuleType, value: float, text: str
) -> None:
    assert tool.bare(value) == text
