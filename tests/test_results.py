"""The run record and its folder: round trips, refusals, faults, untrusted folders."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deidbench.errors import DeidbenchError
from deidbench.results import store
from deidbench.results.schema import (
    Curve,
    ExampleName,
    MetricRow,
    RunRecord,
    ThresholdRecord,
    example_name,
    json_schema,
)
from deidbench.results.store import (
    Example,
    ScoreBlock,
    read_images,
    read_run,
    read_scores,
    validate,
    write_run,
)
from tests import sample_run

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    sample_run.write(folder)
    return folder


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "run"))


def edit(run: Path, **changes: Any) -> None:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, **changes}))


# Records


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_number_may_be_nan_or_infinite(bad: float) -> None:
    with pytest.raises(pydantic.ValidationError):
        MetricRow(metric="auc", value=bad)
    with pytest.raises(pydantic.ValidationError):
        MetricRow(metric="auc", value=0.5, params={"far": bad})
    made = sample_run.record().model_dump()
    with pytest.raises(pydantic.ValidationError):
        RunRecord.model_validate({**made, "config": {"deep": [{"down": bad}]}})


def test_a_row_without_a_value_says_why() -> None:
    with pytest.raises(pydantic.ValidationError, match="note that says why"):
        MetricRow(metric="tar", value=None)
    assert MetricRow(metric="tar", value=None, note="too few impostors").value is None


def test_an_interval_is_not_upside_down() -> None:
    with pytest.raises(pydantic.ValidationError, match="upside down"):
        MetricRow(metric="auc", value=0.5, low=0.6, high=0.4)


def test_a_record_is_frozen_and_knows_all_its_keys() -> None:
    row = MetricRow(metric="auc", value=0.5)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        row.value = 0.1  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError, match="Extra"):
        MetricRow(metric="auc", value=0.5, vlaue=0.4)  # type: ignore[call-arg]


def test_a_curve_has_as_many_fmr_as_tar_and_one_edge_more_than_bins() -> None:
    good = sample_run.record().curves[0].model_dump()
    for key in ("fmr", "tar", "histogram_edges", "genuine_histogram"):
        with pytest.raises(pydantic.ValidationError, match="curve"):
            Curve.model_validate({**good, key: good[key][:-1]})


@pytest.mark.parametrize("edges", [[], [0.0]])
def test_a_curve_has_a_bin_at_least(edges: list[float]) -> None:
    good = sample_run.record().curves[0].model_dump()
    empty = {"histogram_edges": edges, "genuine_histogram": [], "impostor_histogram": []}
    with pytest.raises(pydantic.ValidationError, match="2 edges or more"):
        Curve.model_validate({**good, **empty})


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, 2])
def test_a_far_lies_between_0_and_1(far: float) -> None:
    fixed = {"threat": "T0", "recognizer": "dlib", "view": "landmarks", "n_impostor": 9}
    with pytest.raises(pydantic.ValidationError, match=r"far\n"):
        ThresholdRecord.model_validate({**fixed, "far": far, "value": 0.5})
    for wrong in (far, "0.01"):
        with pytest.raises(pydantic.ValidationError, match="far must lie between 0 and 1"):
            MetricRow(metric="tar", value=0.5, params={"far": wrong})


def test_examples_have_different_names(tmp_path: Path) -> None:
    made = sample_run.record().model_dump()
    with pytest.raises(pydantic.ValidationError, match="two examples have the same name"):
        RunRecord.model_validate({**made, "examples": ["a", "b", "a"]})
    with pytest.raises(jsonschema.ValidationError, match="non-unique"):
        jsonschema.validate({**made, "examples": ["a", "a"]}, json_schema())
    face = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DeidbenchError, match="two examples have the same name"):
        write_run(tmp_path / "run", sample_run.record(), [], sample_run.images(),
                  [Example("a", face, face)] * 2)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_numpy_numbers_become_plain_ones() -> None:
    row = MetricRow(metric="auc", value=np.float32(0.5), n=np.int64(3))  # type: ignore[arg-type]
    assert type(row.value) is float and type(row.n) is int


def test_the_record_survives_json() -> None:
    made = sample_run.record()
    assert RunRecord.model_validate_json(made.model_dump_json(), strict=True) == made


def test_the_published_schema_describes_what_is_written(run: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads((run / "run.json").read_text())
    jsonschema.validate(content, schema)
    assert content["rows"][0]["metric"] == "auc"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "seed": "zero"}, schema)


@given(st.text())
def test_every_sample_id_gives_a_safe_example_name(text: str) -> None:
    name = example_name(text)
    assert pydantic.TypeAdapter(ExampleName).validate_python(name) == name


# Round trip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = sample_run.record()
    written = sample_run.write(tmp_path / "run", made)
    blocks = sample_run.blocks(made)
    assert read_run(tmp_path / "run") == validate(tmp_path / "run") == written
    assert written.rows == made.rows
    assert written.stored_rows == {"scores.parquet": 50 * len(blocks), "images.parquet": 200}
    pd.testing.assert_frame_equal(read_images(tmp_path / "run"), sample_run.images())
    scores = read_scores(tmp_path / "run")
    assert scores.schema.names == store.SCORE_SCHEMA.names
    expected = np.concatenate([block.score for block in blocks])
    found = scores["score"].to_numpy()
    np.testing.assert_array_equal(found, expected)
    assert scores["score"].null_count == len(blocks)  # a lost face is null, never NaN
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_one_attack_can_be_read_alone(run: Path) -> None:
    made = read_run(run)
    block = next(b for b in sample_run.blocks(made) if (b.threat, b.recognizer) == ("T1", "sface"))
    scores = read_scores(run, threat="T1", recognizer="sface", view="landmarks")
    np.testing.assert_array_equal(scores["probe"].to_numpy(), block.probe)
    assert scores["threat"].unique().to_pylist() == ["T1"]
    assert read_scores(run, threat="T1", view="system").num_rows == 0


def test_large_blocks_are_written_in_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP", 16)
    sample_run.write(tmp_path / "run")
    with pq.ParquetFile(tmp_path / "run" / "scores.parquet") as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes[:4] == [16, 16, 16, 2]


def test_blocks_are_taken_one_at_a_time(tmp_path: Path) -> None:
    alive: list[int] = []

    def stream() -> Any:
        for block in sample_run.blocks(sample_run.record()):
            alive.append(1)
            yield block

    write_run(tmp_path / "run", sample_run.record(), stream(), pa.table({"id": ["a"] * 200}))
    assert len(alive) == len(sample_run.record().curves)
    assert validate(tmp_path / "run").examples == []


def test_a_run_without_scores_is_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run", sample_run.record(), [], sample_run.images())
    assert validate(tmp_path / "run").stored_rows["scores.parquet"] == 0
    assert read_scores(tmp_path / "run", threat="T1").num_rows == 0


def test_the_run_of_schema_version_1_still_loads() -> None:
    made = validate(DATA / "run-v1")
    assert made.schema_version == 1
    assert made.rows[0].metric == "auc"
    assert read_scores(DATA / "run-v1", threat="T0").num_rows > 0


# Writing goes wrong


def test_an_existing_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DeidbenchError, match="never overwritten"):
        sample_run.write(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_failure_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    def stream() -> Any:
        yield sample_run.blocks(sample_run.record())[0]
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="power"):
        write_run(tmp_path / "run", sample_run.record(), stream(), sample_run.images())
    assert list(tmp_path.iterdir()) == []


def test_an_infinite_score_is_refused(tmp_path: Path) -> None:
    index = np.zeros(1, np.int32)
    block = ScoreBlock("T1", "dlib", "system", index, index, np.array([np.inf], np.float32))
    with pytest.raises(DeidbenchError, match="infinite score"):
        write_run(tmp_path / "run", sample_run.record(), [block], sample_run.images())


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", ".", "..", "nul\0", "x" * 99])
def test_an_example_cannot_be_written_elsewhere(tmp_path: Path, name: str) -> None:
    face = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DeidbenchError, match="an example is named by"):
        write_run(
            tmp_path / "deep" / "run", sample_run.record(), [], sample_run.images(),
            [Example(name, face, face)],
        )  # fmt: skip
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeidbenchError, match="cannot write the run"):
        sample_run.write(tmp_path / "file" / "run")


HANG = """
import sys, time
from pathlib import Path
from deidbench.results.store import write_run
from tests import sample_run

def stream():
    yield sample_run.blocks(sample_run.record())[0]
    print("writing", flush=True)
    time.sleep(60)

write_run(Path(sys.argv[1]), sample_run.record(), stream(), sample_run.images())
"""


def test_the_next_write_cleans_after_a_killed_one_but_not_after_a_live_one(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", HANG, str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            (unfinished,) = (p for p in tmp_path.iterdir() if p.is_dir())
            sample_run.write(tmp_path / "first")
            assert unfinished.is_dir()
        finally:
            process.send_signal(signal.SIGKILL)
    sample_run.write(tmp_path / "second")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


def test_only_our_own_leftovers_are_cleaned(tmp_path: Path) -> None:
    theirs = [".notes.writing-draft", "run.writing-" + "0" * 32, ".x.writing-" + "0" * 32]
    for name in theirs:
        (tmp_path / name).mkdir()
    (tmp_path / ".link.writing-").with_name(".l.writing-" + "1" * 32).symlink_to(tmp_path)
    sample_run.write(tmp_path / "run")
    assert {*theirs, "run"} <= {p.name for p in tmp_path.iterdir()}


def test_of_two_writers_of_one_name_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    def stream() -> Any:
        sample_run.write(tmp_path / "run", sample_run.record(run_id="quick"))
        return iter(())

    with pytest.raises(DeidbenchError, match="never overwritten"):
        write_run(
            tmp_path / "run",
            sample_run.record(run_id="slow"),
            (block for _ in [0] for block in stream()),
            sample_run.images(),
        )
    assert read_run(tmp_path / "run").run_id == "quick"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


# Reading what does not fit


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not readable JSON"),
        (b'{"schema_version": 1', "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (b'{"schema_version": NaN}', "not readable JSON"),
        (b"\xff\xfe\x00", "not readable JSON"),
        (b"[]", "no schema_version"),
        (b"{}", "no schema_version"),
        (b'{"schema_version": "1"}', "no schema_version"),
        (b'{"schema_version": true}', "no schema_version"),
        (b'{"schema_version": 0}', "older than 1; evaluate again"),
        (b'{"schema_version": 2}', "newer than 1; upgrade deidbench"),
        (b'{"schema_version": 1}', "not a run record: run_id"),
    ],
)
def test_a_garbled_record_is_one_clear_line(run: Path, content: bytes, message: str) -> None:
    (run / "run.json").write_bytes(content)
    with pytest.raises(DeidbenchError, match=message) as caught:
        read_run(run)
    assert "\n" not in str(caught.value)


def test_a_number_written_as_text_is_refused(run: Path) -> None:
    edit(run, seed="0")
    with pytest.raises(DeidbenchError, match="seed"):
        read_run(run)


@pytest.mark.parametrize("name", ["run.json", "scores.parquet", "images.parquet"])
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(DeidbenchError, match=f"{name} is missing"):
        validate(run)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="no such folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["scores.parquet", "images.parquet"])
def test_a_cut_table_is_one_clear_error(run: Path, name: str) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DeidbenchError, match="not readable Parquet"):
        validate(run)


def test_other_columns_are_told(run: Path) -> None:
    pq.write_table(read_scores(run).drop_columns(["probe"]), run / "scores.parquet")
    with pytest.raises(DeidbenchError, match="expected columns"):
        validate(run)
    with pytest.raises(DeidbenchError, match="expected columns"):
        read_scores(run)


@pytest.mark.parametrize(
    ("name", "type_"), [("reference", pa.string()), ("score", pa.float64()), ("view", pa.int32())]
)
def test_columns_of_another_type_are_told(run: Path, name: str, type_: pa.DataType) -> None:
    table = read_scores(run)
    position = table.schema.get_field_index(name)
    other = pa.nulls(table.num_rows, type_)
    pq.write_table(table.set_column(position, name, other), run / "scores.parquet")
    for read in (validate, read_scores):
        with pytest.raises(DeidbenchError, match=rf"expected columns .* got .*{name} \({type_}\)"):
            read(run)


def test_a_table_of_another_run_is_told(run: Path, tmp_path: Path) -> None:
    sample_run.write(tmp_path / "other", sample_run.record(run_id="other"))
    shutil.copy(tmp_path / "other" / "scores.parquet", run)
    with pytest.raises(DeidbenchError, match="belongs to run other"):
        validate(run)


def test_lost_rows_are_told(run: Path) -> None:
    pq.write_table(read_scores(run).slice(1), run / "scores.parquet")
    with pytest.raises(DeidbenchError, match="rows, but the files hold"):
        validate(run)


def test_scores_of_no_image_are_told(run: Path) -> None:
    table = read_scores(run).to_pandas()
    table.loc[3, "probe"] = 200
    schema = read_scores(run).schema
    pq.write_table(pa.Table.from_pandas(table, schema=schema), run / "scores.parquet")
    with pytest.raises(DeidbenchError, match="none of the 200 images"):
        validate(run)


# A folder that came from elsewhere


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname", "a/../../b", "x\x00", "..\\b"])
def test_an_example_cannot_be_read_from_elsewhere(run: Path, name: str) -> None:
    edit(run, examples=[name])
    with pytest.raises(DeidbenchError, match="an example is named by"):
        read_run(run)


@pytest.mark.parametrize(
    "name", ["run.json", "scores.parquet", "images.parquet", "examples/s000-0-before.png"]
)
def test_a_link_out_of_the_folder_is_not_followed(run: Path, tmp_path: Path, name: str) -> None:
    (run / name).rename(tmp_path / "outside")
    (run / name).symlink_to(tmp_path / "outside")
    with pytest.raises(DeidbenchError, match="leads out of the run folder"):
        validate(run)


def test_a_linked_examples_folder_is_not_followed(run: Path, tmp_path: Path) -> None:
    (run / "examples").rename(tmp_path / "elsewhere")
    (run / "examples").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DeidbenchError, match="leads out of the run folder"):
        validate(run)


def test_a_run_folder_may_itself_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(run)
    assert validate(tmp_path / "latest") == validate(run)


@pytest.mark.parametrize("content", [b"", b"<svg onload='x()'/>", b"GIF89a\x01\x00\x01\x00\x00"])
def test_an_example_that_is_no_png_is_refused(run: Path, content: bytes) -> None:
    (run / "examples" / "s000-0-after.png").write_bytes(content)
    with pytest.raises(DeidbenchError, match="not a readable PNG"):
        validate(run)


def test_attacks_that_were_not_asked_for_are_not_read(run: Path) -> None:
    path = run / "scores.parquet"
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(0).column(5)
        start, size = chunk.data_page_offset, chunk.total_compressed_size
    content = bytearray(path.read_bytes())
    content[start : start + size // 2] = bytes(size // 2)
    path.write_bytes(content)
    assert read_scores(run, threat="T2", recognizer="dlib").num_rows == 50
    with pytest.raises(DeidbenchError, match="not readable Parquet"):
        read_scores(run, threat="T0", recognizer="dlib")
