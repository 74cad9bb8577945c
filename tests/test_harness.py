"""Whole evaluations with a real recognizer on the embedded faces."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deidbench.config import RunConfig
from deidbench.datasets.synthid import SynthID
from deidbench.errors import DeidbenchError
from deidbench.harness import evaluate
from deidbench.progress import Progress
from deidbench.results.schema import MetricRow, RunRecord
from deidbench.results.store import read_images, read_run, read_scores, validate
from deidbench.setup import refuse_trained, without_faults
from deidbench.types import subject_digest

SMALL = {
    "recognizers": ("sface",), "limit_subjects": 6, "draws": 200, "batch_size": 6,
    "protocol": "quick-v1",
}  # fmt: skip
TIMED = {"images-per-second", "peak-memory"}


def run(folder: Path, method: str, **changes: object) -> RunRecord:
    config = RunConfig(method=method, out=folder, **{**SMALL, **changes})
    return evaluate(config, Progress(quiet=True))[1]


def numbers(record: RunRecord) -> list[MetricRow]:
    """All rows but the measured speed, which differs from run to run."""
    return [row for row in record.rows if row.metric not in TIMED]


def row(record: RunRecord, threat: str | None, metric: str, **wanted: object) -> MetricRow:
    wanted = {"pairs": "cross", "view": "landmarks", **wanted} if threat else wanted
    wanted = {"group": None, **wanted}
    found = [
        r
        for r in record.rows
        if (r.threat, r.metric) == (threat, metric)
        and all(getattr(r, key) == value for key, value in wanted.items())
    ]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def module_home(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def home(module_home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One home for this module: clean chips are aligned and embedded once."""
    monkeypatch.setenv("DEIDBENCH_HOME", str(module_home))
    monkeypatch.setenv("DEIDBENCH_MIRROR", str(weights))
    monkeypatch.setenv("DEIDBENCH_OFFLINE", "1")
    return module_home


@pytest.mark.slow
def test_identity_leaves_the_attacker_what_he_had(home: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "run", "identity")
    for metric in ("auc", "eer", "dprime"):
        clean, naive = row(record, "T0", metric), row(record, "T1", metric)
        assert (clean.value, clean.low, clean.high) == (naive.value, naive.low, naive.high)
    assert row(record, "T2", "auc").value == row(record, "T0", "auc").value
    psr = [r for r in record.rows if r.metric == "dodging-psr" and r.view == "landmarks"]
    assert {r.value for r in psr} <= {0.0, None}
    assert row(record, None, "lpips", params={"region": "chip"}).value == 0
    assert row(record, None, "ssim", params={"region": "face"}).value == pytest.approx(1)
    psnr = row(record, None, "psnr", params={"region": "chip"})
    assert psnr.value is None
    assert "unchanged images" in (psnr.note or "")


@pytest.mark.slow
def test_blackout_leaves_the_attacker_nothing(home: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "run", "blackout")
    naive = row(record, "T1", "auc")
    assert naive.low is not None and naive.high is not None
    assert naive.low <= 0.5 <= naive.high
    assert row(record, "T2", "auc").value == pytest.approx(0.5)
    assert row(record, None, "detection-rate", params={"images": "treated"}).value == 0
    assert row(record, "T1", "auc", view="system").value == 0.5
    lost = row(record, "T1", "auc", view="conditional")
    assert lost.value is None
    assert "lost a face" in (lost.note or "")
    assert record.failures["treated_not_found"] == record.split.images["eval"]


@pytest.mark.slow
def test_rows_can_be_recomputed_from_the_stored_scores(home: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "run", "pixelate")
    validate(tmp_path / "run")
    subjects = read_images(tmp_path / "run")["subject"].to_numpy()
    for threat in ("T0", "T1", "T2"):
        table = read_scores(tmp_path / "run", threat=threat, view="landmarks").to_pandas()
        cross = table[table.reference != table.probe]
        same = subjects[cross.reference] == subjects[cross.probe]
        assert row(record, threat, "auc").value == pytest.approx(roc_auc_score(same, cross.score))
        assert row(record, threat, "auc").n_genuine == same.sum()


def test_the_parts_share_nobody_and_only_eval_is_measured(home: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "run", "identity")
    images = read_images(tmp_path / "run")
    assert images.groupby("subject")["part"].nunique().max() == 1
    n = record.split.images["eval"]
    auc = row(record, "T0", "auc")
    assert (auc.n_genuine or 0) + (auc.n_impostor or 0) == n * (n - 1) // 2


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_says_the_same(home: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "one", "gaussian-blur")
    second = run(tmp_path / "two", "gaussian-blur")
    assert numbers(first) == numbers(second)
    assert all(timing.cached == timing.images for timing in second.timings)
    assert first.run_id != second.run_id


@pytest.mark.slow
def test_strength_and_seed_reach_the_record(home: Path, tmp_path: Path) -> None:
    weak = run(tmp_path / "weak", "gaussian-blur", strength=0.1)
    strong = run(tmp_path / "strong", "gaussian-blur", strength=0.9)
    assert (weak.method.strength, strong.method.strength) == (0.1, 0.9)
    values = [row(r, None, "lpips", params={"region": "chip"}).value or 0 for r in (weak, strong)]
    assert values[0] < values[1]
    other = run(tmp_path / "seed", "gaussian-blur", seed=5)
    assert other.split.sha256 != weak.split.sha256


def test_too_few_impostors_are_never_a_number(home: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "run", "identity")
    rare = [r for r in record.rows if r.params.get("far") == 0.001]
    assert rare
    assert all(r.value is None and "too few impostors" in (r.note or "") for r in rare)


def test_the_record_holds_no_path_of_this_machine(
    home: Path, tmp_path: Path, faces: Callable[..., Path]
) -> None:
    folder = faces(tmp_path / "private" / "album")
    record = run(tmp_path / "run", "identity", dataset=f"folder:{folder}", limit_subjects=None)
    assert record.dataset.label == "folder:album"
    assert "private" not in (tmp_path / "run" / "run.json").read_text()
    assert not record.examples, "faces of real people are kept only on demand"


@pytest.fixture
def faces() -> Callable[..., Path]:
    """Copies some embedded faces into a folder, subject/image, one photo without a face."""

    def copy(folder: Path, people: int = 6, shots: int = 3) -> Path:
        from PIL import Image

        for sample in SynthID(None).samples():
            person, shot = int(sample.subject[-3:]), sample.path.stem
            if person < people and int(shot) < shots:
                (folder / sample.subject).mkdir(parents=True, exist_ok=True)
                (folder / sample.subject / sample.path.name).write_bytes(sample.path.read_bytes())
        blank = Image.new("RGB", (200, 200), "grey")
        for subject in sorted(folder.iterdir()):
            blank.save(subject / "zz.png")
        return folder

    return copy


def test_a_photo_without_a_face_is_counted_not_dropped(
    home: Path, tmp_path: Path, faces: Callable[..., Path]
) -> None:
    folder = faces(tmp_path / "album")
    record = run(tmp_path / "run", "identity", dataset=f"folder:{folder}", limit_subjects=None)
    people = record.split.subjects["eval"]
    assert record.failures["clean_not_found"] == people
    naive = row(record, "T1", "auc")
    n = record.split.images["eval"]
    assert (naive.n_genuine or 0) + (naive.n_impostor or 0) + (naive.n_failed or 0) == (
        n * (n - 1) // 2
    )
    system = row(record, "T1", "auc", view="system")
    assert (system.n_genuine or 0) + (system.n_impostor or 0) == n * (n - 1) // 2
    images = read_images(tmp_path / "run")
    assert (~images[images.id.str.endswith("zz.png")].found).all()


def test_an_existing_run_is_never_overwritten(home: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DeidbenchError, match="never overwritten"):
        run(tmp_path / "run", "identity")


def test_no_recognizer_left_is_an_error(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="no recognizer is left") as caught:
        run(tmp_path / "run", "identity", recognizers=("mobilefacenet-ms1m",))
    assert "mobilefacenet-ms1m" in str(caught.value)


def test_a_recognizer_without_weights_is_named_and_the_run_goes_on(
    home: Path, tmp_path: Path
) -> None:
    record = run(tmp_path / "run", "identity", recognizers=("sface", "mobilefacenet-ms1m"))
    status = {one.name: one.status for one in record.recognizers}
    assert status == {"sface": "run", "mobilefacenet-ms1m": "unavailable"}
    assert any("mobilefacenet-ms1m" in gap.what for gap in record.not_measured)


class Memorising:
    """A method that was trained on one of the embedded people."""

    name = "memorising"
    version = 1
    strength = None
    trained_against = ()
    training_subjects = (subject_digest("id000"),)


def test_people_of_the_training_are_never_measured() -> None:
    samples = SynthID(None).samples()
    with pytest.raises(DeidbenchError, match="1 people of this dataset") as caught:
        refuse_trained(samples, Memorising(), RunConfig(method="memorising"))
    assert "--leave-out-trained" in str(caught.value)
    config = RunConfig(method="memorising", leave_out_trained=True)
    left = refuse_trained(samples, Memorising(), config)
    assert {s.subject for s in samples} - {s.subject for s in left} == {"id000"}


def test_images_with_wrong_labels_are_left_out_and_told() -> None:
    samples = list(SynthID(None).samples())
    samples[3] = replace(samples[3], fault="it shows id007")
    kept, told = without_faults(samples, RunConfig(method="identity"))
    assert kept == samples[:3] + samples[4:]
    assert [gap.what for gap in told] == ["1 image with a wrong label"]
    assert without_faults(kept, RunConfig(method="identity")) == (kept, [])
    official = RunConfig(method="identity", pairs="official")
    assert without_faults(samples, official) == (samples, [])


@pytest.mark.real
@pytest.mark.slow
def test_recognizers_know_clean_photographs(all_weights: Path, tmp_path: Path) -> None:
    """T0 of 100 people of LFW: an adapter or an alignment with a bug falls far below."""
    if not (all_weights / "lfw_eval").is_dir():
        pytest.skip("DEIDBENCH_TEST_ASSETS names no folder with lfw_eval")
    names = ("dlib", "sface", "mobilefacenet-ms1m")
    record = run(
        tmp_path / "run", "blackout", recognizers=names, limit_subjects=100, batch_size=32,
        dataset=f"folder:{all_weights / 'lfw_eval'}",
    )  # fmt: skip
    clean = {r.recognizer: r.value for r in record.rows if (r.threat, r.metric) == ("T0", "auc")}
    assert set(clean) == set(names)
    assert all(value is not None and value > 0.999 for value in clean.values()), clean
    for name in names:
        guess = row(record, "T1", "auc", recognizer=name)
        assert guess.low is not None and guess.high is not None
        assert guess.low <= 0.5 <= guess.high, guess


STAGES = ("align", "treat", "detect", "compare", "embed", "writing")


@pytest.mark.slow
def test_a_run_killed_in_each_stage_ends_with_the_same_rows(
    weights: Path, tmp_path: Path, home: Path
) -> None:
    """SIGKILL as soon as a stage has left its first output; the last start goes through."""
    expected = run(tmp_path / "expected", "gaussian-blur")
    fresh = {**os.environ, "DEIDBENCH_HOME": str(tmp_path / "fresh")}
    command = [
        sys.executable, "-m", "deidbench", "evaluate", "--method", "gaussian-blur",
        "--recognizers", "sface", "--limit-subjects", "6", "--draws", "200",
        "--protocol", "quick-v1", "--batch-size", "6", "--quiet",
        "--out", str(tmp_path / "killed" / "run"),
    ]  # fmt: skip
    for stage in STAGES:
        assert kill_in(stage, command, fresh, tmp_path), f"{stage} was over before the kill"
        assert not (tmp_path / "killed" / "run").exists()
    subprocess.run(command, env=fresh, check=True, capture_output=True)
    assert numbers(read_run(tmp_path / "killed" / "run")) == numbers(expected)
    left = [path.name for path in (tmp_path / "killed").iterdir()]
    assert left == ["run"], "a killed writer's leftovers are swept"


def kill_in(stage: str, command: list[str], env: dict[str, str], tmp_path: Path) -> bool:
    """Start, wait for the stage's first new file, kill. False when the run ended by itself."""

    def outputs() -> int:
        if stage == "writing":
            return len(list((tmp_path / "killed").glob(".run.writing-*/*.parquet")))
        return len(list((tmp_path / "fresh" / "cache" / stage).rglob("*.safetensors")))

    before = outputs()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    while outputs() <= before and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_numbers_are_finite_or_explained(home: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", "pixelate")
    for entry in json.loads((tmp_path / "run" / "run.json").read_text())["rows"]:
        if entry["value"] is None:
            assert entry["note"]
        else:
            assert math.isfinite(entry["value"])
            assert entry["low"] is None or entry["low"] <= entry["high"]


@pytest.mark.slow
def test_same_image_pairs_stand_apart(home: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "run", "gaussian-blur")
    same, cross = row(record, "T1", "auc", pairs="same"), row(record, "T1", "auc")
    assert same.n_genuine == record.split.images["eval"]
    assert same.n_impostor == cross.n_impostor
    assert np.isfinite([same.value, cross.value]).all()
    assert (same.value or 0) >= (cross.value or 0), "one's own photo is easier to link"
    assert not [r for r in record.rows if r.threat == "T0" and r.pairs == "same"]
