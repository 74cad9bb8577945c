"""A made-up run: plausible scores of invented attackers on gradients in place of faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deidbench.measure import worst_rows
from deidbench.results.schema import (
    CmcCurve,
    ControlRecord,
    Curve,
    DatasetRecord,
    LearnedRecord,
    Machine,
    MethodRecord,
    MetricRow,
    NotMeasured,
    RecognizerRecord,
    RunRecord,
    SplitRecord,
    StageTiming,
    ThreatRecord,
    ThresholdRecord,
)
from deidbench.results.store import Example, ScoreBlock, write_run

SUBJECTS, PHOTOS = 40, 5
THREATS = {
    "T0": ("clean", "Untreated faces against untreated faces: the ceiling."),
    "T1": ("naive", "Treated faces against a gallery of untreated ones; knows nothing."),
    "T1w": ("white box", "As T1, by a recognizer that the method saw in training."),
    "T2": ("parrot", "Treats the gallery with the same method."),
}
ADAPTIVE = {
    "P": ("purified", "As T1, behind the best of five filters."),
    "T3": ("adapted", "Learned on other people what the method does."),
    "T3f": ("fine-tuned", "The recognizer itself learned."),
    "T4": ("reconstruction", "Treated faces are restored first."),
    "T5": ("linkage", "Treated faces against each other."),
}
DETECTION = {"T6": ("detection", "Has this face been treated?")}
SEPARATION = {"T0": 5.0, "T1": 1.4, "T1w": -0.4, "T2": 2.6,
              "P": 1.6, "T3": 3.2, "T3f": 3.6, "T4": 2.0, "T5": 2.9}  # fmt: skip
LANDMARKS_ONLY = ("P", "T4")
TREATED_GALLERY = ("T3", "T3f", "T5")
SHARPNESS = {"dlib": 1.0, "sface": 0.85, "mobilefacenet-casia": 0.7, "mobilefacenet-ms1m": 1.1}
WHITE_BOX = "mobilefacenet-ms1m"


def record(
    *,
    method: str = "fadenet",
    strength: float | None = None,
    synthetic: bool = True,
    protection: float = 1.0,
    honest: float = 0.01,
    run_id: str = "20250102T030405-fadenet-5eed",
    seed: int = 0,
    trained_against: tuple[str, ...] = (WHITE_BOX,),
    recognizers: tuple[str, ...] = tuple(SHARPNESS),
    adaptive: bool = False,
) -> RunRecord:
    """A record whose rows and curves come from drawn scores; FARs below ``honest`` are refused.

    ``adaptive`` as ``full-v1`` has it: all attackers, search in galleries, controls, groups.
    """
    rng = np.random.default_rng(seed)
    rows: list[MetricRow] = []
    curves: list[Curve] = []
    for recognizer in recognizers:
        names = ["T0", "T1w" if recognizer in trained_against else "T1", "T2"]
        names += [*ADAPTIVE] if adaptive else []
        for threat in names:
            scores = _scores(rng, threat, recognizer, protection)
            rows += _attack_rows(threat, recognizer, *scores, honest)
            curves.append(_curve(threat, recognizer, *scores))
    label = "synthid" if synthetic else "lfw"
    more: dict[str, Any] = _adaptive(rows, curves) if adaptive else {}
    rows += more.pop("rows", [])
    return RunRecord(
        run_id=run_id,
        created="2025-01-02T03:04:05Z",
        deidbench_version="0.1.0",
        protocol="full-v1" if adaptive else "standard-v1",
        seed=seed,
        chip_size=160,
        config={"method": method, "dataset": label, "batch_size": 64, "engine": "local"},
        dataset=DatasetRecord(
            name=label, version=1, label=label, synthetic=synthetic,
            n_samples=SUBJECTS * PHOTOS, n_subjects=SUBJECTS, sha256="ab" * 32,
        ),
        split=SplitRecord(
            seed=0, sha256="cd" * 32,
            subjects={"method-train": 20, "attacker-train": 20, "calibration": 20, "eval": 40},
            images={"method-train": 100, "attacker-train": 100, "calibration": 100, "eval": 200},
        ),
        method=MethodRecord(
            name=method, version=3, strength=strength,
            trained_against=list(trained_against), weights_sha256="9c" * 32,
        ),
        recognizers=[
            *(
                RecognizerRecord(
                    name=name, version=1, status="run", similarity="cosine",
                    weights_sha256="ef" * 32,
                )
                for name in recognizers
            ),
            RecognizerRecord(
                name="arcface", version=1, status="unavailable",
                reason="its weights are not on this machine and the network is off",
            ),
        ],
        threats=[
            ThreatRecord(id=key, version=1, title=title, summary=summary)
            for key, (title, summary) in {
                **THREATS, **(ADAPTIVE | DETECTION if adaptive else {})
            }.items()
        ],
        thresholds=[
            ThresholdRecord(threat="T0", recognizer=name, view="landmarks", far=far,
                            value=None if far < honest else 0.4, n_impostor=4950,
                            note="too few impostors" if far < honest else None)
            for name in recognizers for far in (0.1, 0.01, 0.001)
        ],
        rows=[*rows, *_utility_rows(protection)],
        curves=curves,
        failures={"alignment": 2, "treated": 9},
        not_measured=[
            *(
                []
                if adaptive
                else [NotMeasured(what="T3", why="this version has no adapted attacker yet")]
            ),
            NotMeasured(what="human observers", why="nobody was asked; measured with people only"),
            NotMeasured(what="recognizer arcface", why="its weights are not on this machine"),
        ],
        machine=Machine(
            platform="Linux-6.1-x86_64", python="3.12.3", torch="2.5.1+cpu",
            cpu="Example CPU 3.0 GHz", threads=4, device="cpu",
        ),
        timings=[
            StageTiming(stage="alignment", seconds=12.4, images=200, cached=150),
            StageTiming(stage="deidentify", seconds=3.21, images=200, cached=0),
            StageTiming(stage="embed", seconds=41.8, images=1600, cached=800),
        ],
        **more,
    )  # fmt: skip


def write(folder: Path, made: RunRecord | None = None, *, n_examples: int = 4) -> RunRecord:
    """The record as a run folder, with small tables of scores and images."""
    made = made or record()
    rng = np.random.default_rng(1)
    return write_run(folder, made, blocks(made), images(), examples(rng, n_examples))


def blocks(made: RunRecord, size: int = 50) -> list[ScoreBlock]:
    """One small block of scores for each attack, the last score of each lost."""
    rng = np.random.default_rng(2)
    found = []
    for curve in made.curves:
        score = rng.normal(size=size).astype(np.float32)
        score[-1:] = np.nan
        reference, probe = rng.integers(0, SUBJECTS * PHOTOS, (2, size), dtype=np.int32)
        found.append(
            ScoreBlock(curve.threat, curve.recognizer, curve.view, reference, probe, score)
        )
    return found


def images() -> pd.DataFrame:
    index = np.arange(SUBJECTS * PHOTOS)
    return pd.DataFrame(
        {
            "id": [f"s{i // PHOTOS:03d}/{i % PHOTOS}.png" for i in index],
            "subject": [f"s{i // PHOTOS:03d}" for i in index],
            "found": index % 37 != 0,
        }
    )


def examples(rng: np.random.Generator, count: int, size: int = 160) -> list[Example]:
    """Coloured discs on gradients, and the same made coarse."""
    y, x = np.mgrid[0:size, 0:size] / size
    found = []
    for i in range(count):
        tint = rng.uniform(0.3, 1, 3)
        disc = (((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.4) ** 2 < 1)[..., None]
        face = (disc * tint + (1 - disc) * (0.3 + 0.4 * y)[..., None]) * 255
        before = np.clip(face + rng.normal(0, 8, face.shape), 0, 255).astype(np.uint8)
        coarse = before[::16, ::16].repeat(16, 0).repeat(16, 1)[:size, :size]
        found.append(Example(f"s{i:03d}-0", before, np.ascontiguousarray(coarse)))
    return found


Scores = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def _scores(rng: np.random.Generator, threat: str, recognizer: str, protection: float) -> Scores:
    distance = SEPARATION[threat] * SHARPNESS[recognizer]
    if threat != "T0":
        distance *= protection
    return 0.1 + 0.1 * rng.normal(distance, 1, 400), 0.1 + 0.1 * rng.normal(0, 1, 9000)


def _attack_rows(
    threat: str,
    recognizer: str,
    genuine: np.ndarray[Any, Any],
    impostor: np.ndarray[Any, Any],
    honest: float,
) -> list[MetricRow]:
    order = np.sort(impostor)
    auc = float(np.searchsorted(order, genuine).mean() / order.size)
    gap = float(genuine.mean() - impostor.mean()) / 0.1
    rows = []
    for pairs, view in [("cross", "landmarks"), ("cross", "system"), ("cross", "conditional"),
                        ("same", "landmarks")]:  # fmt: skip
        if view != "landmarks" and threat in LANDMARKS_ONLY:
            continue
        if pairs == "same" and threat in TREATED_GALLERY:
            continue
        shift = {"same": 0.03, "cross": 0.0}[pairs] - {"system": 0.01}.get(view, 0.0)
        named: dict[str, Any] = {
            "threat": threat, "recognizer": recognizer, "pairs": pairs, "view": view,
            "n_genuine": 400, "n_impostor": 9000, "n_failed": 7 if view == "system" else 0,
        }  # fmt: skip

        def row(
            metric: str,
            value: float,
            params: dict[str, Any] | None = None,
            named: dict[str, Any] = named,
            better: bool = False,
            top: float = 1.0,
        ) -> MetricRow:
            spread = 0.04 * min(top, 1)
            return MetricRow(
                metric=metric, value=value, low=max(value - spread, 0 if top == 1 else -9),
                high=min(value + spread, top), higher_is_better=better, params=params or {},
                **named,
            )  # fmt: skip

        at = min(max(auc + shift, 0), 1)
        rows += [row("auc", at), row("eer", 1 - at, better=True), row("dprime", gap, top=99.0)]
        for far in (0.1, 0.01, 0.001):
            settings = {"far": far}
            if far < honest:
                for metric in ("tar", "dodging-psr"):
                    rows.append(
                        MetricRow(metric=metric, value=None, params=settings,
                                  note="too few impostors: 9000 bound the FAR by 0.000333", **named)
                    )  # fmt: skip
                continue
            tar = float((genuine > np.quantile(impostor, 1 - far)).mean())
            rows += [
                row("tar", tar, settings),
                row("dodging-psr", 1 - tar, settings, better=True),
            ]
    return rows


def _curve(
    threat: str, recognizer: str, genuine: np.ndarray[Any, Any], impostor: np.ndarray[Any, Any]
) -> Curve:
    cuts = np.unique(np.quantile(impostor, 1 - np.geomspace(1 / 9000, 1, 60)))[::-1]
    edges = np.linspace(-0.4, 1.0, 57)
    clip = lambda values: np.histogram(np.clip(values, -0.4, 1.0), edges)[0].tolist()  # noqa: E731
    return Curve(
        threat=threat, recognizer=recognizer, pairs="cross", view="landmarks",
        fmr=[float((impostor >= cut).mean()) for cut in cuts],
        tar=[float((genuine >= cut).mean()) for cut in cuts],
        histogram_edges=edges.tolist(),
        genuine_histogram=clip(genuine), impostor_histogram=clip(impostor),
    )  # fmt: skip


def _utility_rows(protection: float) -> list[MetricRow]:
    rows = []
    for region, more in (("chip", 0.0), ("face", 0.05)):
        lpips = 0.12 + 0.2 * (1 - protection) + more
        for metric, value, unit, better, params in [
            ("lpips", lpips, "", False, {"net": "alex"}),
            ("ssim", 0.83 - more, "", True, {}),
            ("psnr", 24.6 - 20 * more, "dB", True, {}),
        ]:
            rows.append(
                MetricRow(metric=metric, value=value, low=value * 0.97, high=value * 1.03,
                          unit=unit, higher_is_better=better, n=200,
                          params={"region": region, **params})
            )  # fmt: skip
    for images, value in (("clean", 0.99), ("treated", 0.955)):
        rows.append(
            MetricRow(metric="detection-rate", value=value, low=value - 0.02, n=200,
                      high=min(1, value + 0.02), higher_is_better=True, params={"images": images})
        )  # fmt: skip
    speed = {"n": 200, "higher_is_better": True, "params": {"batch": 64}}
    rows.append(MetricRow(metric="images-per-second", value=62.3, unit="images/s", **speed))
    return rows


def _adaptive(rows: list[MetricRow], curves: list[Curve]) -> dict[str, Any]:
    """What a run of all attackers holds besides: rows first, then whole fields of the record."""
    names = list(dict.fromkeys(curve.recognizer for curve in curves))
    found = [row for curve in curves for row in _identification_rows(curve)]
    found += [row for name in names for row in (*_linkage_rows(name), *_restored_rows(name))]
    found += [_detection_row("auc", 0.962), _detection_row("eer", 0.08)]
    found += [row for one in rows for row in _group_rows(one)]
    found += [_fold_row(one) for one in rows if one.metric in ("auc", "eer")]
    return {
        "rows": [*found, *worst_rows(rows)],
        "identification": [_cmc(curve) for curve in curves],
        "learned": [
            LearnedRecord(threat=threat, recognizer=name, note=f"{best}, by the AUC of: {tried}",
                          restorer=best if threat in ("P", "T4") else None)
            for threat, best, tried in [("P", "median", "jpeg 0.68, median 0.72"),
                                        ("T3", "fused", "ridge 0.84, fused 0.87"),
                                        ("T4", "unet", "unet 0.79, wiener 0.71")]
            for name in names
        ],
        "controls": [
            ControlRecord(name="swapped labels", recognizer=names[0], found="1.000000000",
                          expected="AUC and AUC with labels swapped add up to 1"),
            ControlRecord(name="T6 on grey faces", expected="AUC at least 0.99", found="1.0000"),
        ],
        "protocol_settings": {"name": "full-v1", "summary": "All of it.", "ranks": [1, 5, 40],
                              "fars": [0.1, 0.01, 0.001], "folds": None, "controls": True},
    }  # fmt: skip


def _identification_rows(curve: Curve) -> list[MetricRow]:
    named: dict[str, Any] = {"threat": curve.threat, "recognizer": curve.recognizer,
                             "view": "landmarks", "unit": "fraction", "n": 160,
                             "higher_is_better": False}  # fmt: skip
    best = curve.tar[-1] * 0.9
    rows = [
        MetricRow(metric="rank-k", params={"k": k}, pairs=pairs, value=share, low=share * 0.9,
                  high=min(1, share * 1.1), **named,
                  note=f"chance {k / SUBJECTS:.3g}; 40 people enrolled"
                       + ("; the method promises at most 0.1" if pairs == "same" else ""))
        for pairs in (("cross", "same") if curve.threat == "T1" else ("cross",))
        for k, share in ((1, best * 0.6), (5, best * 0.8))
    ]  # fmt: skip
    why = "a rank of 40 needs more than 40 people"
    rows.append(MetricRow(metric="rank-k", params={"k": 40}, pairs="cross", value=None, note=why,
                          **named))  # fmt: skip
    rows.append(MetricRow(metric="dir", params={"fpir": 0.1}, pairs="cross", value=best * 0.4,
                          low=best * 0.3, high=best * 0.5, n_genuine=80, n_impostor=100,
                          note="chance 0.005; rank 1, mean over 10 halves", **named))  # fmt: skip
    return rows


def _linkage_rows(name: str) -> list[MetricRow]:
    value = 0.41 * SHARPNESS[name]
    return [
        MetricRow(threat="T5", recognizer=name, pairs="cross", view=view, metric="d-sys",
                  value=value, low=value - 0.05, high=value + 0.05, unit="fraction",
                  higher_is_better=False)
        for view in ("landmarks", "system")
    ]  # fmt: skip


def _restored_rows(name: str) -> list[MetricRow]:
    return [
        MetricRow(threat="T4", recognizer=name, metric=metric, value=value, low=value * 0.98,
                  high=value * 1.02, unit=unit, n=200, higher_is_better=better,
                  params={"region": region, **params})
        for region in ("chip", "face")
        for metric, value, unit, better, params in [("lpips", 0.09, "", True, {"net": "alex"}),
                                                    ("psnr", 27.4, "dB", False, {})]
    ]  # fmt: skip


def _detection_row(metric: str, value: float) -> MetricRow:
    return MetricRow(threat="T6", metric=metric, value=value, low=value - 0.02, high=value + 0.02,
                     n=200, higher_is_better=metric == "eer", unit="fraction",
                     note="treated against clean images: not whose it is")  # fmt: skip


def _group_rows(row: MetricRow) -> list[MetricRow]:
    """Young people are recognised a little more often than the whole set, old ones less."""
    wanted = row.metric in ("auc", "tar") and (row.pairs, row.view) == ("cross", "landmarks")
    if not wanted or row.value is None:
        return []
    values = {"age=old": 0.8 * row.value, "age=young": min(1.1 * row.value, 1),
              "skin tone=dark": 0.9 * row.value}  # fmt: skip
    return [row.model_copy(update={"group": group, "value": value, "low": value * 0.9,
                                   "high": min(1, value * 1.2)})
            for group, value in values.items()]  # fmt: skip


def _fold_row(row: MetricRow) -> MetricRow:
    about = {"metric": f"{row.metric}-over-folds", "params": {"folds": 10},
             "note": "low and high are one standard deviation over folds"}  # fmt: skip
    return row.model_copy(update=about)


def _cmc(curve: Curve) -> CmcCurve:
    ranks = [1, 2, 5, 10, 20, SUBJECTS]
    return CmcCurve(
        threat=curve.threat, recognizer=curve.recognizer, pairs="cross", view="landmarks", n=160,
        n_enrolled=SUBJECTS, rank=ranks,
        rate=[float(np.interp(k / SUBJECTS, curve.fmr, curve.tar)) for k in ranks],
    )  # fmt: skip
