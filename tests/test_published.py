"""What is published in reports/ is true to the entries beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deidbench import entries, plugins
from deidbench.render.leaderboard import write_board
from deidbench.results.entry import read_entry
from deidbench.throughput import read_throughput

REPORTS = Path(__file__).parents[1] / "reports"
RESULTS = REPORTS / "results"
PAGES = REPORTS / "synthid-standard-v1"
ENTRIES = sorted((RESULTS / "synthid" / "standard-v1").glob("*.json"))
OUTSIDE = {"command", "folder-output", "python"}  # methods that are nothing until they are named

if not RESULTS.is_dir():
    pytest.skip("the results are not in the package", allow_module_level=True)


def test_every_method_is_on_the_board() -> None:
    measured = {read_entry(path, groups=False).record.method.name for path in ENTRIES}
    assert measured == set(plugins.names("methods")) - OUTSIDE


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_a_report_is_of_the_run_of_its_entry(path: Path) -> None:
    record = read_entry(path, groups=False).record
    page = (PAGES / path.stem / "index.html").read_text("utf-8")
    assert record.run_id in page
    assert record.dataset.synthetic  # faces are shown


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_the_speed_of_an_entry_is_that_of_its_method(path: Path, tmp_path: Path) -> None:
    entry = read_entry(path, groups=False)
    assert entry.bench is not None
    file = tmp_path / "speed.json"
    file.write_text(json.dumps(entry.bench), encoding="utf-8")
    assert read_throughput(file).method == entry.record.method


def test_the_numbers_of_an_entry_follow_from_its_scores() -> None:
    found = entries.verify(RESULTS / "synthid" / "standard-v1" / "gaussian-blur.json")
    assert found.stands, found.wrong
    assert found.checked > 300


def test_the_board_is_the_one_that_its_entries_give(tmp_path: Path) -> None:
    rankings, problems = entries.rank(RESULTS.rglob("*.json"), RESULTS)
    assert not problems
    write_board(rankings, tmp_path)
    for page in sorted(tmp_path.rglob("*.html")):
        published = REPORTS / "leaderboard" / page.relative_to(tmp_path)
        assert published.read_text("utf-8") == page.read_text("utf-8"), page.name
