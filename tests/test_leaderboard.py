"""The leaderboard: entries that lose nothing, checks that catch false ones, ranks, the site."""

from __future__ import annotations

import hashlib
import html.parser
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from deidbench import entries
from deidbench.cli import cli
from deidbench.config import RunConfig
from deidbench.errors import DeidbenchError
from deidbench.harness import evaluate
from deidbench.progress import Progress
from deidbench.results import store
from deidbench.results.entry import (
    Comparisons,
    dump,
    entry_place,
    pack,
    parse_entry,
    read_comparisons,
    read_entry,
    slug,
    unpack,
    write_comparisons,
)
from deidbench.results.schema import MethodRecord, MetricRow, RunRecord
from tests import sample_entry, sample_run

HOSTILE = "<script>alert(1)</script>\"'\u202e" + "x" * 200


def run_cli(*words: object) -> Result:
    return CliRunner().invoke(cli, ["leaderboard", *map(str, words)])


# Of a real run


@pytest.fixture(scope="module")
def run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small run of the embedded faces; its home stays set, so that it can be repeated."""
    folder = tmp_path_factory.mktemp("leaderboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEIDBENCH_HOME", str(folder / "home"))
        patch.setenv("DEIDBENCH_MIRROR", str(weights))
        patch.setenv("DEIDBENCH_OFFLINE", "1")
        config = RunConfig(
            method="gaussian-blur", recognizers=("sface",), limit_subjects=9, draws=200,
            protocol="quick-v1", seed=3, out=folder / "run",
        )  # fmt: skip
        yield evaluate(config, Progress(quiet=True))[0]


@pytest.fixture
def entry(run: Path, tmp_path: Path) -> Path:
    """Its entry."""
    return entries.submit(run, tmp_path / "results", entries.About(author="A. Nobody"))


def test_an_entry_holds_all_of_a_run_but_names_and_pictures(run: Path, entry: Path) -> None:
    assert entry.relative_to(entry.parents[2]) == Path("synthid/quick-v1/gaussian-blur.json")
    record, found = store.read_run(run), read_entry(entry)
    assert found.record == record.model_copy(update={"examples": []})
    assert record.examples
    assert (found.author, found.title) == ("A. Nobody", "")
    assert read_entry(entry, groups=False).record.rows == [
        r for r in record.rows if r.group is None
    ]

    images = store.read_images(run)
    data = entry.read_bytes() + entry.with_suffix(".scores.parquet").read_bytes()
    for name in {*images["id"], *images["subject"]}:
        assert name.encode() not in data
    assert entry.stat().st_size < (run / "run.json").stat().st_size / 3

    again = entries.submit(run, entry.parents[2] / "again", entries.About(author="A. Nobody"))
    for suffix in (".json", ".scores.parquet"):
        assert again.with_suffix(suffix).read_bytes() == entry.with_suffix(suffix).read_bytes()


def test_the_scores_of_an_entry_are_those_of_the_run(run: Path, entry: Path) -> None:
    found = read_entry(entry)
    comparisons = read_comparisons(entry, found)
    for told, scores in comparisons.scores.items():
        table = store.read_scores(
            run, threat=told.threat, recognizer=told.recognizer, view=told.view
        ).to_pandas()
        table = table[table["reference"] != table["probe"]]
        np.testing.assert_array_equal(scores, table["score"].to_numpy(np.float32))
    people = np.array(found.subjects)
    assert people.max() == found.n_measured - 1
    assert (people[comparisons.reference] == people[comparisons.probe]).any()


def test_a_true_claim_stands_and_an_entry_is_never_overwritten(run: Path, entry: Path) -> None:
    done = run_cli("verify", entry)
    assert done.exit_code == 0, done.output
    assert re.search(r"stands: \d\d+ numbers and curves made again", done.output)

    with pytest.raises(DeidbenchError, match=r"gaussian-blur\.json exists; .*--replace"):
        entries.submit(run, entry.parents[2], entries.About())
    written = entries.submit(run, entry.parents[2], entries.About(title="new"), replace_old=True)
    assert written == entry
    assert read_entry(entry).title == "new"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.999])
def test_a_number_that_was_changed_is_named(entry: Path, place: float) -> None:
    found = read_entry(entry)
    follow = [i for i, row in enumerate(found.record.rows) if entries._follows(row) and row.value]
    target = follow[int(place * len(follow))]
    row = found.record.rows[target]
    assert row.value is not None
    change = row.model_copy(update={"value": 0.5 * row.value, "low": None, "high": None})
    rows = [change if i == target else r for i, r in enumerate(found.record.rows)]
    _rewrite(entry, rows=rows)

    done = run_cli("verify", entry)
    assert done.exit_code == 1
    assert f"{row.metric}" in done.output
    assert f"claimed {0.5 * row.value:.6g}, found {row.value:.6g}" in done.output


def test_a_score_that_was_changed_is_noticed_though_its_hash_fits(entry: Path) -> None:
    found = read_entry(entry)
    comparisons = read_comparisons(entry, found)
    attack = next(one for one in comparisons.scores if one.threat == "T1")
    people = np.array(found.subjects)
    genuine = people[comparisons.reference] == people[comparisons.probe]
    changed = np.where(genuine, -1, comparisons.scores[attack]).astype(np.float32)
    _rescore(entry, replace(comparisons, scores={**comparisons.scores, attack: changed}))

    done = run_cli("verify", entry)
    assert done.exit_code == 1
    assert "does not stand" in done.output
    assert "T1 by sface" in done.output


def test_the_scores_of_another_entry_are_refused(entry: Path, tmp_path: Path) -> None:
    other = sample_entry.write(tmp_path / "other.json", sample_entry.record())
    shutil.copy(other.with_suffix(".scores.parquet"), entry.with_suffix(".scores.parquet"))
    done = run_cli("verify", entry, other)
    assert done.exit_code == 2
    assert "its SHA-256 differs" in done.stderr
    assert f"{other}: stands" in done.stdout  # the others are still checked


def test_an_attack_that_was_left_out_is_missed(entry: Path) -> None:
    found = read_entry(entry)
    comparisons = read_comparisons(entry, found)
    kept = {one: scores for one, scores in comparisons.scores.items() if one.threat != "T2"}
    rows = [row for row in found.record.rows if row.threat != "T2"]
    worst = list(entries.worst_rows(rows))
    rows = [row for row in rows if row.metric not in entries.WORST] + worst
    curves = [one for one in found.record.curves if one.threat != "T2"]
    _rescore(entry, replace(comparisons, scores=kept))
    _rewrite(entry, rows=rows, curves=curves)
    done = run_cli("verify", entry)
    assert done.exit_code == 1
    assert "T2 by sface: the protocol asks for it, but there are no numbers" in done.output


def test_rows_claimed_twice_and_curves_drawn_otherwise_are_noticed(entry: Path) -> None:
    record = read_entry(entry).record
    row = next(row for row in record.rows if row.metric == "auc" and row.threat == "T1")
    curve = record.curves[0].model_copy(update={"tar": [0.0] * len(record.curves[0].tar)})
    _rewrite(entry, rows=[row, *record.rows], curves=[curve, *record.curves[1:]])
    done = run_cli("verify", entry)
    assert done.exit_code == 1
    assert "auc of T1 by sface (landmarks): claimed twice" in done.output
    assert "curve of T0 by sface: not the one of the scores" in done.output


def test_a_run_whose_numbers_were_changed_makes_no_entry(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    content = json.loads((copy / "run.json").read_text("utf-8"))
    row = next(r for r in content["rows"] if r["metric"] == "auc" and r["threat"] == "T1")
    row["value"] -= 0.01
    (copy / "run.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DeidbenchError, match=r"auc of T1 by sface .landmarks.: claimed 0"):
        entries.submit(copy, tmp_path / "results", entries.About())
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_running_it_again_bears_a_true_claim_out_and_not_a_false_one(entry: Path) -> None:
    done = run_cli("verify", entry, "--rerun", "--quiet")
    assert done.exit_code == 0, done.output
    assert "by running it again" in done.output

    # Scores and numbers that agree with each other and not with the method.
    found = read_entry(entry)
    comparisons = read_comparisons(entry, found)
    people = np.array(found.subjects)
    genuine = people[comparisons.reference] == people[comparisons.probe]
    better = {
        one: np.where(genuine, np.float32(0), s) if one.threat != "T0" else s
        for one, s in comparisons.scores.items()
    }
    forged = entries.stored_entry(found, replace(comparisons, scores=better))
    rows, curves = entries._recomputed(forged)
    left = [row for row in found.record.rows if not entries._follows(row)]
    _rescore(entry, replace(comparisons, scores=better))
    same = [c for c in found.record.curves if c.pairs == "same"]
    _rewrite(entry, rows=[*rows, *left], curves=[*curves, *same])
    assert run_cli("verify", entry).exit_code == 0
    done = run_cli("verify", entry, "--rerun", "--quiet")
    assert done.exit_code == 1
    assert re.search(r"auc of T1 by sface .*: claimed 0\.\d+ .*, found 0\.", done.output)


@pytest.mark.parametrize(
    ("config", "method", "why"),
    [
        ({}, "command:touch {out}", "needs a path or a program of its author"),
        ({}, "python:os:remove", "needs a path or a program of its author"),
        ({}, "blurr", "method 'blurr': it is not installed"),
        ({"dataset": "folder:faces"}, "pixelate", "'folder:faces': it needs a path"),
        ({"weights": "mine.safetensors"}, "fadenet", "its weights, 'mine.safetensors'"),
        ({"settings": {"k": "/etc/passwd"}}, "k-same-pixel", "a setting of the method is a path"),
        ({"settings": {"k": ["x"]}}, "k-same-pixel", "a setting of the method is a path"),
        ({"draws": "many"}, "pixelate", "cannot be run again here"),
        ({"draws": 10}, "pixelate", "--draws must be between"),
    ],
)
def test_what_cannot_be_repeated_here_is_one_line(
    config: dict[str, Any], method: str, why: str, tmp_path: Path
) -> None:
    record = sample_entry.record(recognizers=("sface",))[0]
    asked = {**record.config, **config}
    changed = {"config": asked, "method": record.method.model_copy(update={"name": method})}
    record = record.model_copy(update={**changed, "protocol": "quick-v1"})
    with pytest.raises(DeidbenchError, match=re.escape(why)):
        entries.rerun_config(Path("e.json"), record, tmp_path)


def test_other_faces_and_other_protocols_cannot_be_repeated(tmp_path: Path) -> None:
    record = sample_entry.record(recognizers=("sface",))[0]
    blur = record.method.model_copy(update={"name": "gaussian-blur"})
    record = record.model_copy(update={"method": blur})
    with pytest.raises(DeidbenchError, match="protocol 'made-v1' is not one of the package"):
        entries.rerun_config(Path("e.json"), record, tmp_path)
    with pytest.raises(DeidbenchError, match="the faces here are not those of the record"):
        other = record.dataset.model_copy(update={"sha256": "0" * 64})
        entries._refuse_other_parts(
            Path("e.json"), record, record.model_copy(update={"dataset": other})
        )


# The files


ROWS: list[dict[str, Any]] = [
    {"metric": "auc", "value": 1.0, "params": {"far": 1}},
    {"metric": "auc", "value": None, "note": "none", "params": {"far": 1.0}},
    {"metric": "auc", "value": 0.1 + 0.2, "higher_is_better": False},
    {"metric": "auc", "value": 1.0, "n": 1},
]


def test_rows_as_columns_lose_nothing() -> None:
    packed = json.loads(json.dumps(pack(ROWS)))
    again = unpack(packed)
    assert json.dumps(again, sort_keys=True) == json.dumps(ROWS, sort_keys=True)
    assert packed["columns"]["metric"] == {"of": ["auc"], "at": [0, 0, 0, 0]}
    assert unpack(pack([])) == []


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"value": [1.0]}, "value has 1 values, but there are 2 rows"),
        ({"value": {"of": [1.0], "at": [0, 1]}}, "a value that is not there"),
        ({"value": {"of": [1.0], "at": [0, -1]}}, "a value that is not there"),
        ({"value": {"of": [1.0], "at": [0, True]}}, "a value that is not there"),
        ({"value": {"of": "ab", "at": [0, 1]}}, "must be lists"),
        ({"value": 3}, "neither a list nor"),
        ([], "named lists"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        unpack({"count": 2, "columns": columns})


def test_scores_that_are_no_round_numbers_and_lost_faces_come_back(tmp_path: Path) -> None:
    path = sample_entry.write(tmp_path / "a.json", sample_entry.record())
    entry = read_entry(path)
    found = read_comparisons(path, entry)
    attack, other = list(found.scores)[:2]
    exact = np.random.default_rng(0).normal(size=len(found.probe)).astype(np.float32)
    rounded = exact.round(5)
    exact[3] = rounded[5] = np.nan
    _rescore(path, replace(found, scores={**found.scores, attack: exact, other: rounded}))
    again = read_comparisons(path, read_entry(path)).scores
    np.testing.assert_array_equal(again[attack], exact)
    np.testing.assert_array_equal(again[other], rounded)
    schema = pq.read_schema(path.with_suffix(".scores.parquet"))
    kinds = [schema.field(one.column).type for one in (attack, other)]
    assert kinds == [pa.float32(), pa.int32()]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with two made-up entries."""
    root = tmp_path / "results"
    for name, apart in (("weak", 2.5), ("strong", 0.2)):
        sample_entry.write(
            root / "synthid" / f"{name}.json", sample_entry.record(name, apart=apart)
        )
    return root


def _change(path: Path, **changes: Any) -> None:
    """Fields of the JSON file, as it stands there."""
    content = json.loads(path.read_text("utf-8"))
    for name, value in changes.items():
        first, _, second = name.partition("__")
        if second:
            content[first][second] = value
        else:
            content[first] = value
    path.write_text(json.dumps(content), encoding="utf-8")


BROKEN: list[tuple[str, Any, str]] = [
    ("cut", lambda p: p.write_bytes(p.read_bytes()[:2000]), "is not readable JSON"),
    ("list", lambda p: p.write_text("[]"), "is no entry of a leaderboard"),
    ("run", lambda p: p.write_text('{"schema_version": 1, "record": {}}'), "has no entry_version"),
    ("old", lambda p: _change(p, entry_version=0), "entry_version 0, older than 1; submit"),
    ("new", lambda p: _change(p, entry_version=2), "entry_version 2, newer than 1; upgrade"),
    ("newer", lambda p: _change(p, record__schema_version=9), "schema_version 9, newer than 1"),
    ("text", lambda p: _change(p, n_measured="12"), "n_measured: Input should be a valid integer"),
    ("strange", lambda p: _change(p, colour="red"), "colour: Extra inputs"),
    ("rows", lambda p: _change(p, rows={"count": 1, "columns": {}}), "is no entry: "),
    ("up", lambda p: _change(p, scores__file="../weak.scores.parquet"), "expected a name like"),
    ("root", lambda p: _change(p, scores__file="/etc/x.scores.parquet"), "expected a name like"),
    ("gone", lambda p: p.with_suffix(".scores.parquet").unlink(), "No such file"),
    ("script", lambda p: _change(p, link="javascript:alert(1)"), "link: Value error, expected an"),
    ("people", lambda p: _change(p, n_measured=3), "people who are not measured"),
    ("huge", lambda p: _change(p, n_measured=10**9), "too much work"),
    ("draws", lambda p: _change(p, record__config={}), "no draws or no seed"),
    ("nan", lambda p: _change(p, bench={"x": float("nan")}), "is not readable JSON"),
    ("nest", lambda p: p.write_text("[" * 100_000), "is not readable JSON"),
]


@pytest.mark.parametrize(("name", "spoil", "why"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_a_broken_entry_is_one_line_and_the_others_are_built(
    name: str, spoil: Any, why: str, made: Path, tmp_path: Path
) -> None:
    spoil(made / "synthid" / "weak.json")
    done = run_cli("build", made, "--out", tmp_path / "site")
    assert done.exit_code == 0, done.output
    assert done.stderr.count("\n") == 1
    assert why in done.stderr
    assert "weak" in done.stderr
    assert "(1 entry in 1 ranking; 1 left out)" in done.stdout
    assert [page.name for page in (tmp_path / "site" / "methods").iterdir()] == [
        "synthid--strong.html"
    ]
    done = run_cli("verify", made / "synthid" / "weak.json")
    assert done.exit_code == 2


def test_links_out_of_the_folder_are_not_followed(made: Path, tmp_path: Path) -> None:
    scores = made / "synthid" / "weak.scores.parquet"
    scores.rename(tmp_path / "elsewhere.parquet")
    scores.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(DeidbenchError, match="leads out of its folder"):
        entries.verify(made / "synthid" / "weak.json")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"reference": [0, 99], "probe": [1, 2]}, "none of the 36 images"),
        ({"reference": [0, -1], "probe": [1, 2]}, "none of the 36 images"),
        ({"reference": [0.0, 1.0], "probe": [1.0, 2.0]}, "numbered by int32"),
        ({"reference": [0, 1]}, "expected the columns"),
    ],
)
def test_scores_that_make_no_sense_are_refused(table: dict[str, Any], why: str, made: Path) -> None:
    path = made / "synthid" / "weak.json"
    attacks = read_entry(path).scores.attacks
    kind = {"reference": pa.int32(), "probe": pa.int32()} if "int32" not in why else {}
    columns = {name: pa.array(values, kind.get(name)) for name, values in table.items()}
    columns |= {one.column: pa.array([1, 2], pa.int32()) for one in attacks}
    file = path.with_suffix(".scores.parquet")
    pq.write_table(pa.table(columns), file)
    _change(path, scores__sha256=_sha256(file), scores__comparisons=2)
    with pytest.raises(DeidbenchError, match=why):
        entries.verify(path)


def test_when_no_entry_is_left_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text("{}")
    done = run_cli("build", tmp_path / "results", "--out", tmp_path / "site")
    assert isinstance(done.exception, DeidbenchError)  # the program ends with 2
    assert "no entry in" in str(done.exception)
    assert not (tmp_path / "site").exists()


def test_a_foreign_page_is_left_alone_and_old_pages_of_ours_go(made: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run_cli("build", made, "--out", site)
    (site / "methods" / "notes.html").write_text("mine")
    (made / "synthid" / "weak.json").unlink()
    assert run_cli("build", made, "--out", site).exit_code == 0
    assert {page.name for page in (site / "methods").iterdir()} == {
        "synthid--strong.html", "notes.html"
    }  # fmt: skip
    (site / "index.html").write_text("mine")
    done = run_cli("build", made, "--out", site)
    assert "was not written by deidbench" in str(done.exception)
    assert (site / "index.html").read_text() == "mine"


# Ranks


def _ranks(root: Path) -> dict[str, tuple[int | None, str]]:
    rankings, problems = entries.rank(root.rglob("*.json"), root)
    assert not problems
    return {
        place.entry.record.method.name: (place.rank, place.unranked)
        for ranking in rankings
        for place in ranking.places
    }


def test_methods_that_cannot_be_told_apart_share_a_rank(tmp_path: Path) -> None:
    for name, apart, seed in [("a", 0.2, 1), ("b", 0.2, 2), ("c", 1.0, 3), ("d", 1.0, 4),
                              ("e", 1.8, 5)]:  # fmt: skip
        sample_entry.write(
            tmp_path / f"{name}.json", sample_entry.record(name, apart=apart, seed=seed)
        )
    found = _ranks(tmp_path)
    assert [found[name][0] for name in "abcde"] == [1, 1, 3, 3, 5]


def test_a_number_that_no_draw_changes_is_told_apart_by_its_interval(tmp_path: Path) -> None:
    # Nobody is missed of "all", so that each draw gives 1: 12 people still leave much open.
    for name, apart in (("all", 9.0), ("most", 1.6), ("few", 0.2)):
        sample_entry.write(tmp_path / f"{name}.json", sample_entry.record(name, apart=apart))
    rankings, _ = entries.rank(tmp_path.rglob("*.json"), tmp_path)
    rows = {
        place.entry.record.method.name: entries.Candidate(tmp_path, place).worst(0.01)
        for place in rankings[0].places
    }
    first, most = rows["all"], rows["most"]
    assert first and most and first.low and most.high  # for the type checker: all are numbers
    assert (first.value, first.low < most.high < first.value) == (1.0, True)
    assert {name: place[0] for name, place in _ranks(tmp_path).items()} == {
        "few": 1, "most": 2, "all": 2
    }  # fmt: skip


def test_the_same_scores_always_share_a_rank_and_order_is_by_the_upper_bound(
    tmp_path: Path,
) -> None:
    for name in ("x", "y"):
        sample_entry.write(tmp_path / f"{name}.json", sample_entry.record(name, seed=7))
    sample_entry.write(tmp_path / "z.json", sample_entry.record("z", apart=0.3, seed=8))
    rankings, _ = entries.rank(tmp_path.rglob("*.json"), tmp_path)
    bounds = [entries.Candidate(tmp_path, place).worst(0.01) for place in rankings[0].places]
    assert [row.high for row in bounds if row] == sorted(row.high for row in bounds if row)
    found = _ranks(tmp_path)
    assert found["x"] == found["y"]


def test_controls_unreliable_and_less_attacked_entries_have_no_rank(tmp_path: Path) -> None:
    sample_entry.write(tmp_path / "a.json", sample_entry.record("a", apart=1.0))
    sample_entry.write(tmp_path / "b.json", sample_entry.record("b", apart=1.2))
    sample_entry.write(tmp_path / "c.json", sample_entry.record("identity", apart=4.0))
    sample_entry.write(
        tmp_path / "d.json", sample_entry.record("d", apart=0.1), unreliable="gradients were masked"
    )
    sample_entry.write(
        tmp_path / "e.json", sample_entry.record("e", apart=0.1, threats=("T0", "T1"))
    )
    found = _ranks(tmp_path)
    assert found["a"][0] == 1
    assert {name: place[0] for name, place in found.items() if name not in "ab"} == {
        "identity": None, "d": None, "e": None
    }  # fmt: skip
    assert "T3 by dlib, T3 by sface" in found["e"][1]


def test_sets_protocols_and_recognizers_are_never_ranked_together(tmp_path: Path) -> None:
    variants: dict[str, dict[str, Any]] = {
        "a": {}, "b": {"protocol": "made-v2"}, "c": {"recognizers": ("dlib",)}, "d": {},
    }  # fmt: skip
    for name, changes in variants.items():
        sample_entry.write(tmp_path / f"{name}.json", sample_entry.record(name, **changes))
    record, stored = sample_entry.record("other-faces")
    faces = record.dataset.model_copy(update={"sha256": "12" * 32})
    sample_entry.write(tmp_path / "e.json", (record.model_copy(update={"dataset": faces}), stored))
    settings = {"protocol_settings": {"fars": [0.5]}}  # a protocol of the same name
    record, stored = sample_entry.record("other-settings")
    sample_entry.write(tmp_path / "f.json", (record.model_copy(update=settings), stored))
    rankings, problems = entries.rank(tmp_path.rglob("*.json"), tmp_path)
    assert not problems
    names = [sorted(p.entry.record.method.name for p in r.places) for r in rankings]
    assert sorted(names) == [["a", "d"], ["b"], ["c"], ["other-faces"], ["other-settings"]]
    assert all(r.places[0].rank == 1 for r in rankings)


def test_a_worst_case_that_is_not_that_of_the_scores_is_left_out(made: Path) -> None:
    path = made / "synthid" / "weak.json"
    entry = read_entry(path)

    def flattered(row: MetricRow) -> MetricRow:
        lower = {"value": 0.01, "low": 0.0, "high": 0.02}
        return row.model_copy(update=lower) if row.metric == "tar" and row.threat != "T0" else row

    rows = [flattered(r) for r in entry.record.rows if r.metric not in entries.WORST]
    _rewrite(path, rows=[*rows, *entries.worst_rows(rows)])
    rankings, problems = entries.rank(made.rglob("*.json"), made)
    assert [p.entry.record.method.name for r in rankings for p in r.places] == ["strong"]
    assert re.search(r"scores give a worst case of .*but it claims 0.01", problems[0])

    _rewrite(path, rows=rows)
    _, problems = entries.rank(made.rglob("*.json"), made)
    assert "it claims another attack" in problems[0]


def test_the_auc_ranks_where_rates_are_not_defined(tmp_path: Path) -> None:
    for name, apart in (("a", 0.1), ("b", 3.0)):
        record, stored = sample_entry.record(name, apart=apart)
        rows = [row for row in record.rows if row.params.get("far") is None]
        sample_entry.write(
            tmp_path / f"{name}.json", (record.model_copy(update={"rows": rows}), stored)
        )
    rankings, problems = entries.rank(tmp_path.rglob("*.json"), tmp_path)
    assert not problems
    assert rankings[0].far is None
    assert [place.rank for place in rankings[0].places] == [1, 2]


# The site


class _Page(html.parser.HTMLParser):
    """All elements and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _pages(site: Path) -> dict[str, _Page]:
    return {path.name: _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    claim = entries.validated(
        entries.Claim, source=HOSTILE[:200],
        rows=[{"metric": HOSTILE, "value": 0.5},
              {"metric": "tar", "threat": HOSTILE, "value": 0.1}],
    )  # fmt: skip
    made = sample_entry.record(
        HOSTILE, protocol=HOSTILE, label=HOSTILE, recognizers=(HOSTILE, "sface"),
        trained_against=(HOSTILE,),
    )  # fmt: skip
    sample_entry.write(
        tmp_path / "r" / "a.json", made, title=HOSTILE[:200], author=HOSTILE[:200], claim=claim,
        external=True, unreliable=HOSTILE, bench={HOSTILE: [HOSTILE, {"batches": HOSTILE}]},
        link="https://example.org/?a=%3Cscript%3E&b=1",
    )  # fmt: skip
    done = run_cli("build", tmp_path / "r", "--out", tmp_path / "site")
    assert done.exit_code == 0, done.output
    for name, page in _pages(tmp_path / "site").items():
        scripts = [attrs for tag, attrs in page.elements if tag == "script"]
        assert len(scripts) == (name == "index.html")
        assert not any(key.startswith("on") for _, attrs in page.elements for key in attrs)
        assert "<script>alert" in page.text
        text = (tmp_path / "site").joinpath("methods" * (name != "index.html"), name).read_text()
        assert "\u202e" not in text
        assert "<script>alert" not in text
    verified = run_cli("verify", tmp_path / "r" / "a.json")
    assert "\u202e" not in verified.output


def test_pages_load_nothing_and_name_the_hash_of_what_they_run(made: Path, tmp_path: Path) -> None:
    run_cli("build", made, "--out", tmp_path / "site")
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text("utf-8")
        page = _Page(text)
        policy = next(a["content"] for t, a in page.elements if "http-equiv" in a)
        assert policy is not None
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        for tag in ("style", "script"):
            for inline in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S):
                digest = hashlib.sha256(inline.encode()).digest()
                assert _base64(digest) in policy
        for _tag, attrs in page.elements:
            assert "src" not in attrs
            assert "style" not in attrs
            link = attrs.get("href") or ""
            assert not link.startswith(("http", "//", "/", "data:", "javascript:"))
            if link and not link.startswith("#"):
                assert (path.parent / link).is_file()


def test_marks_claims_and_speeds_are_shown(tmp_path: Path) -> None:
    claim = {"source": "the paper, table 2",
             "rows": [{"metric": "tar", "params": {"far": 0.01}, "threat": "T1", "value": 0.02,
                       "recognizer": "dlib"}]}  # fmt: skip
    bench = {"batches": [{"batch": 1, "images_per_second": 10.0, "time_ratio_to_blur": 9.0},
                         {"batch": 8, "images_per_second": 40.0, "time_ratio_to_blur": 2.5}],
             "memory": [{"of": "process", "peak_mib": 123.0}, {"of": "gpu", "peak_mib": None}],
             "note": "free"}  # fmt: skip
    sample_entry.write(
        tmp_path / "r" / "a.json", sample_entry.record(trained_against=("sface", "arcface")),
        claim=entries.validated(entries.Claim, **claim), external=True, bench=bench,
        title="Blur of 2018",
    )  # fmt: skip
    assert run_cli("build", tmp_path / "r", "--out", tmp_path / "site").exit_code == 0
    pages = _pages(tmp_path / "site")
    board, method = pages["index.html"].text, pages["a.html"].text
    for text in ("Blur of 2018", "external", "trained against sface", "40.0", "123\u00a0MiB",
                 "2.50\u00a0\u00d7 blur",
                 "The author claims TAR at FAR 0.01 2.00\u00a0% (T1, dlib)"):  # fmt: skip
        assert text in board, text
    assert "arcface" not in board  # it did not attack, so it flatters nothing here
    for text in ("the paper, table 2", "TAR at FAR 0.01 (T1, dlib)", "2.00\u00a0%", "note", "free"):
        assert text in method, text


def test_a_protocol_without_attackers_who_learn_is_no_proof(tmp_path: Path) -> None:
    for name, threats in (("a", ("T0", "T1")), ("b", ("T0", "T1", "T3"))):
        sample_entry.write(tmp_path / name / "x.json", sample_entry.record(name, threats=threats))
        run_cli("build", tmp_path / name, "--out", tmp_path / f"site-{name}")
    warning = "leaves out attackers who learn"
    assert warning in _pages(tmp_path / "site-a")["index.html"].text
    assert warning not in _pages(tmp_path / "site-b")["index.html"].text


@pytest.mark.slow
def test_a_hundred_methods_and_ten_recognizers_build_in_ten_seconds(tmp_path: Path) -> None:
    sample_entry.many(tmp_path / "r", 100, 10)
    start = time.process_time()  # what other programs of the machine take is not counted
    done = run_cli("build", tmp_path / "r", "--out", tmp_path / "site")
    assert time.process_time() - start < 10
    assert done.exit_code == 0, done.output
    assert "100 entries" in done.stdout
    assert (tmp_path / "site" / "index.html").stat().st_size < 5e6


# Commands and names


def test_names_of_entries_tell_what_was_asked(tmp_path: Path) -> None:
    record = sample_entry.record("Two Words")[0]
    config = {**record.config, "strength": 0.8, "settings": {"k": 5}}
    asked = record.model_copy(update={"config": config})
    assert entry_place(asked, external=True) == (
        "synthid", "made-v1", "two-words-strength-0.8-k-5-external"
    )  # fmt: skip
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("\u202e<>") == "unnamed"
    assert len(slug("x" * 300)) == 80


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"link": "ftp://x"}, "link: .*https"),
        ({"title": "x" * 201}, "title: .*at most 200"),
        ({"unreliable": ""}, "unreliable: "),
        ({"bench": {"x": float("inf")}}, "bench"),
        ({"bench": {"method": {"name": "pixelate"}}}, "whose name is 'pixelate', but that of the"),
        ({"bench": {"method": {"strength": 0.9}}}, "whose strength is 0.9"),
    ],
)
def test_what_is_said_of_an_entry_is_checked(
    run: Path, about: Any, why: str, tmp_path: Path
) -> None:
    with pytest.raises(DeidbenchError, match=why):
        entries.submit(run, tmp_path / "r", entries.About(**about))
    assert not list((tmp_path / "r").rglob("*.json"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not readable JSON"),
        ("[]", "one JSON object"),
        ('{"source": "x"}', "rows: Field required"),
        ('{"source": "x", "rows": [], "more": 1}', "rows: List should have at least 1"),
        ('{"source": "x", "rows": [{"metric": "tar", "value": "a"}]}', r"rows\.0\.value"),
    ],
)
def test_claims_that_cannot_be_read_are_one_line(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text(text)
    with pytest.raises(DeidbenchError, match=why):
        entries.read_claim(tmp_path / "claim.json")


def test_the_help_names_all_commands() -> None:
    told = run_cli("--help").output
    assert all(name in told for name in ("submit", "verify", "build"))


# Small helpers


def _rewrite(path: Path, **changes: Any) -> None:
    """Other fields of the record, written as an entry is."""
    entry = read_entry(path)
    record = RunRecord.model_validate(entry.record.model_copy(update=changes).model_dump())
    path.write_bytes(dump(entry.model_copy(update={"record": record})))
    parse_entry(path, path.read_bytes())


def _rescore(path: Path, found: Comparisons) -> None:
    """Other scores, with the hash of theirs in the entry."""
    entry = read_entry(path)
    sha256, _ = write_comparisons(path.with_suffix(".scores.parquet"), found)
    told = entry.scores.model_copy(update={"sha256": sha256, "attacks": list(found.scores)})
    path.write_bytes(dump(entry.model_copy(update={"scores": told})))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _base64(digest: bytes) -> str:
    import base64

    return base64.b64encode(digest).decode()


def test_speed_that_is_of_another_method_is_refused(tmp_path: Path) -> None:
    run, path = tmp_path / "run", tmp_path / "speed.json"
    measured = sample_run.write(run).method.model_dump(mode="json")
    cases = [({}, None), ({"strength": 0.123}, "another strength"), ({"name": "x"}, "another name"),
             ({"weights_sha256": "0" * 64}, "another weights")]  # fmt: skip
    for change, why in cases:
        timed = sample_entry.throughput(MethodRecord(**{**measured, **change}))
        path.write_text(timed.model_dump_json(), encoding="utf-8")
        if why is None:
            assert entries.read_bench(path, run)["method"] == measured
            continue
        with pytest.raises(DeidbenchError, match=why):
            entries.read_bench(path, run)
    path.write_text(json.dumps({"images_per_second": 12}), encoding="utf-8")
    with pytest.raises(DeidbenchError, match="no record of 'deidbench bench'"):
        entries.read_bench(path, run)
