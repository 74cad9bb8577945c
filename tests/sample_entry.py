"""Made-up entries of a leaderboard: invented scores, and the numbers that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deidbench import entries
from deidbench.measure import curve, worst_rows
from deidbench.pairs import cross_pairs
from deidbench.rebuilt import Stored, rebuilt_rows
from deidbench.results.entry import Entry, ScoresRecord, read_entry, write_comparisons, write_entry
from deidbench.results.schema import MethodRecord, MetricRow, RunRecord, ThresholdRecord
from deidbench.throughput.record import (
    BatchRecord,
    CeilingRecord,
    LatencyRecord,
    MemoryRecord,
    ThroughputRecord,
)
from tests import sample_run

PEOPLE, PHOTOS = 12, 3
THREATS = ("T0", "T1", "T3")
METRICS = ("auc", "eer", "dprime", "tar", "dodging-psr")


def record(
    method: str = "blur",
    *,
    apart: float = 1.0,
    recognizers: Sequence[str] = ("dlib", "sface"),
    threats: Sequence[str] = THREATS,
    seed: int = 0,
    draws: int = 100,
    protocol: str = "made-v1",
    label: str = "synthid",
    lpips: float = 0.1,
    trained_against: tuple[str, ...] = (),
) -> tuple[RunRecord, Stored]:
    """A record whose numbers follow from scores; ``apart`` is how far genuine ones stand out."""
    made = sample_run.record(
        method=method, recognizers=("dlib",), strength=0.5, trained_against=trained_against
    )
    likeness = [
        row.model_copy(update={"value": lpips, "low": lpips, "high": lpips})
        if row.metric == "lpips" else row
        for row in made.rows if row.threat is None
    ]  # fmt: skip
    attacks = [(t, name) for name in recognizers for t in threats]
    eyes = made.recognizers[0]
    changes = {
        "rows": [MetricRow(metric=name, value=0.0) for name in METRICS],
        "config": {"method": method, "dataset": label, "draws": draws, "seed": 0, "pairs": "cross"},
        "protocol": protocol, "dataset": made.dataset.model_copy(update={"label": label}),
        "thresholds": [
            ThresholdRecord(threat=t, recognizer=name, view="landmarks", far=0.01, value=1.2,
                            n_impostor=5000) for t, name in attacks
        ],
        "recognizers": [eyes.model_copy(update={"name": name}) for name in recognizers],
        "not_measured": [], "curves": [],
    }  # fmt: skip
    stored = _stored(made.model_copy(update=changes), attacks, apart, seed)
    rows = list(rebuilt_rows(stored))
    drawn = [curve(attack) for t, name in attacks if (attack := stored.attack(t, name))]
    done = {"rows": [*rows, *worst_rows(rows), *likeness], "curves": [c for c in drawn if c]}
    whole = RunRecord.model_validate(stored.record.model_copy(update=done).model_dump())
    return whole, Stored(whole, stored.subjects, PEOPLE, stored.scores)


def _stored(made: RunRecord, attacks: Sequence[tuple[str, str]], apart: float, seed: int) -> Stored:
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(PEOPLE, dtype=np.int32), PHOTOS)
    pairs = cross_pairs(range(len(subjects)), subjects)
    blocks = []
    for threat, name in attacks:
        far = 4.0 if threat == "T0" else apart
        score = (0.5 * rng.normal(size=len(pairs.same)) + far * pairs.same).astype(np.float32)
        blocks.append(
            pd.DataFrame({"threat": threat, "recognizer": name, "view": "landmarks",
                          "reference": pairs.reference, "probe": pairs.probe,
                          "score": score.round(5)})
        )  # fmt: skip
    return Stored(made, subjects, PEOPLE, pd.concat(blocks, ignore_index=True))


def write(path: Path, made: tuple[RunRecord, Stored], **about: Any) -> Path:
    """An entry and its scores at ``path`` (.json)."""
    found, stored = made
    subjects, comparisons = entries.compared(stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = path.with_suffix(".scores.parquet")
    sha256, _ = write_comparisons(scores, comparisons)
    told = ScoresRecord(file=scores.name, sha256=sha256, comparisons=len(comparisons.probe),
                        attacks=list(comparisons.scores))  # fmt: skip
    write_entry(path, Entry(scores=told, n_measured=PEOPLE, subjects=subjects, record=found,
                            **about))  # fmt: skip
    return path


def many(folder: Path, count: int, recognizers: int) -> None:
    """Entries of one attack after another, with a likeness and a name of their own each."""
    names = [f"recognizer-{i}" for i in range(recognizers)]
    threats = ("T0", "T1", "P", "T2", "T3", "T4", "T5")
    found, stored = record("method", recognizers=names, threats=threats)
    first = write(folder / "000.json", (found, stored))
    entry, data = read_entry(first), first.with_suffix(".scores.parquet").read_bytes()
    for number in range(count):
        rows = [
            row.model_copy(update={"value": number * 7 % count / count, "low": None, "high": None})
            if row.threat is None and row.metric in ("lpips", "ssim") else row
            for row in found.rows
        ]  # fmt: skip
        method = found.method.model_copy(update={"name": f"method-{number}"})
        own = found.model_copy(update={"rows": rows, "method": method})
        told = entry.scores.model_copy(update={"file": f"{number:03d}.scores.parquet"})
        (folder / told.file).write_bytes(data)
        write_entry(
            folder / f"{number:03d}.json",
            entry.model_copy(update={"record": own, "scores": told}),
        )


def throughput(method: MethodRecord) -> ThroughputRecord:
    """A record of speed of this method, of made-up numbers."""
    blur = MethodRecord(name="gaussian-blur", version=1, strength=0.5)
    batch = BatchRecord(
        batch=1, n_rounds=5, images_per_second=50, images_per_second_low=48,
        images_per_second_high=51, time_ratio_to_blur=20, time_ratio_to_blur_low=19,
        time_ratio_to_blur_high=22, share_of_ceiling=0.5,
    )  # fmt: skip
    ceiling = CeilingRecord(
        kernel="matrix product", n_rounds=5, multiply_adds_per_second=4e10,
        multiply_adds_per_second_low=3.9e10, multiply_adds_per_second_high=4.1e10,
    )  # fmt: skip
    return ThroughputRecord(
        created="2026-01-01T10:00:00Z", deidbench_version="0.1.0", method=method, reference=blur,
        dataset="synthid", dataset_version=2, n_faces=64, chip_size_px=160,
        seconds_per_measurement=1, batches=[batch], batches_ended="all that were asked for",
        latency=LatencyRecord(n_calls=20, p50_ms=20, p90_ms=22, p99_ms=None, note="too few calls"),
        memory=[MemoryRecord(of="process", batch=1, peak_mib=21.0)], ceiling=ceiling,
        multiply_adds_per_image=498_000_000, machine=sample_run.record().machine,
    )  # fmt: skip
