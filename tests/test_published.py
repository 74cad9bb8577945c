"""What is published in reports/ is true to the entries beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deidbench import entries, plugins
from deidbench.measure import worst_rows
from deidbench.render.leaderboard import write_board
from deidbench.results.entry import read_entry
from deidbench.results.schema import MetricRow
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


def percent(row: MetricRow) -> str:
    """As reports/README.md writes a worst case: 'T3, dlib: 0.9 % [0, 2]'."""
    assert row.value is not None and row.low is not None and row.high is not None
    ends = f"[{100 * row.low:.0f}, {100 * row.high:.0f}]"
    return f"{row.threat}, {row.recognizer}: {100 * row.value:.1f} % {ends}"


def area(row: MetricRow) -> str:
    assert row.value is not None and row.low is not None and row.high is not None
    return f"{row.threat}, {row.recognizer}: {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_the_table_of_the_reports_is_that_of_the_entries(path: Path) -> None:
    rows = read_entry(path, groups=False).record.rows
    worst = {(row.metric, row.params.get("far")): row for row in worst_rows(rows)}
    (lpips,) = (row.value for row in rows if row.metric == "lpips" and row.threat is None
                and row.group is None and row.params.get("region") == "chip")  # fmt: skip
    told = [percent(worst["worst-case-tar", 0.01]), area(worst["worst-case-auc", None]),
            f"{lpips:.3f}"]  # fmt: skip
    lines = (REPORTS / "README.md").read_text("utf-8").splitlines()
    (line,) = (line for line in lines if f"| `{path.stem}` |" in line)
    assert [cell.strip() for cell in line.split("|")[3:6]] == told


def points(path: str) -> dict[tuple[str, str, str, float | None], dict[str, float]]:
    """What runs say, by threat, recognizer, method and strength."""
    found = json.loads((REPORTS / "fadenet" / path).read_text("utf-8"))["points"]
    return {(one["threat"], one["recognizer"], one["method"], one["strength"]): one
            for one in found}  # fmt: skip


TABLES = [
    ("frontier.json", "| untreated |", 8, [("T1/T1w", "dlib"), ("T1/T1w", "sface"), ("T2", "dlib"),
     ("T2", "sface"), ("T3", "dlib"), ("T3", "sface")]),
    ("outside/frontier.json", "| | LPIPS | T1 faceres |", 15,
     [(threat, f"onnx:{name}") for threat in ("T1/T1w", "T2", "T3")
      for name in ("faceres", "mobileface")]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "first", "count", "attacks"), TABLES, ids=["frontier", "outside"])
def test_a_table_of_fadenet_is_that_of_its_points(
    path: str, first: str, count: int, attacks: list[tuple[str, str]]
) -> None:
    known = points(path)
    text = (REPORTS / "fadenet" / "README.md").read_text("utf-8")
    seen = 0
    for line in text[text.index(first) :].partition("\n\n")[0].splitlines():
        name, lpips, *others = (cell.strip().replace("*", "") for cell in line.split("|")[1:-1])
        run = re.fullmatch(r"`?([a-z-]+)`? ([0-9.]+)", name)
        if not run:
            continue
        for attack, cell in zip(attacks, others[-len(attacks) :], strict=True):
            point = known[(*attack, run[1], float(run[2]))]
            told = re.fullmatch(r"([0-9.]+)(?: \[(.+), (.+)\])?(?:, EER ([0-9]+))?", cell)
            assert told, cell
            require_rounded(told[1], 100 * point["tar"])
            require_rounded(lpips, point["lpips"])
            for number, value in ((told[2], "low"), (told[3], "high"), (told[4], "eer")):
                if number:
                    require_rounded(number, 100 * point[value])
        seen += 1
    assert seen == count


def require_rounded(told: str, value: float) -> None:
    """A number as written is the value, but for what is not written of it."""
    places = len(told.partition(".")[2])
    assert float(told) == pytest.approx(value, abs=0.501 * 10**-places), (told, value)
