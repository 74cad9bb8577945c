"""Measures the data set synthid, and writes its numbers and its datasheet.

Usage:
    python tools/synthid/measure.py                     the committed set
    python tools/synthid/measure.py --lfw lfw_eval      also its ranking of treatments beside LFW's
    python tools/synthid/measure.py --data DIR --out DIR    another folder, written elsewhere

A folder of data holds images/ and samples.csv. Written are numbers.json and card.md, beside the
data unless --out says otherwise, and for the committed set docs/synthid.md, a copy of card.md.
Without --lfw the ranking in the numbers.json of that place is kept as it is. Recognizers whose
weights cannot be had are left out, and the numbers say so.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from measure_faces import (
    DLIB_DISTANCE,
    RECOGNIZERS,
    Comparisons,
    Faces,
    embed,
    load_faces,
    load_recognizers,
    masked,
    rounded,
)
from measure_ranking import compare_rankings, real_faces
from PIL import Image

from deidbench.datasets.synthid import SynthID

if TYPE_CHECKING:
    from deidbench.types import BoolArray, FloatArray

    Numbers = dict[str, Any]
    Rows = Sequence[Mapping[str, str]]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMITTED = ROOT / "deidbench" / "datasets" / "synthid"
COPY = ROOT / "docs" / "synthid.md"
TEMPLATE = HERE / "card.md.j2"
SPLITS = ("method-train", "attacker-train", "calibration", "eval")
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
GROUPS = ("gender", "ancestry")  # impostors who share both are the hard ones
YAW_EDGES = (-90, -25, -15, -5, 5, 15, 25, 90)


@dataclass(frozen=True)
class DataSet:
    """A folder of data: its table, and its aligned faces in the same order."""

    folder: Path
    rows: Rows
    faces: Faces

    @classmethod
    def read(cls, folder: Path) -> DataSet:
        """Read the table, find and align all faces."""
        with (folder / "samples.csv").open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        paths = [folder / "images" / row["path"] for row in rows]
        return cls(folder, rows, load_faces(paths, [row["subject"] for row in rows]))

    def split(self, name: str) -> Faces:
        """The faces of one split; all of them where the table has no splits."""
        chosen = [i for i, row in enumerate(self.rows) if row.get("split", name) == name]
        return self.faces.take(chosen)


def fingerprint(folder: Path) -> str:
    """sha256 over the table and all images: says which data numbers were measured on."""
    digest = hashlib.sha256()
    for path in [folder / "samples.csv", *sorted((folder / "images").rglob("*.jpg"))]:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def measure(data: DataSet, recognizers: Sequence[Any]) -> Numbers:
    """Everything except the ranking of treatments."""
    comparisons = Comparisons.of(data.faces)
    colour = data.faces.mean_colour
    return {
        "schema_version": 1,
        "dataset": contents(data),
        "people": balance(data.rows),
        "photographs": photographs(data.rows),
        "detector": detector(data),
        "mean_colour": {
            "auc": comparisons.auc(comparisons.score(colour, colour, "negative-euclidean"))
        },
        "recognizers": {one.name: recognition(one, data, comparisons) for one in recognizers},
        "recognizers_left_out": [
            name for name in RECOGNIZERS if name not in {one.name for one in recognizers}
        ],
    }


def contents(data: DataSet) -> Numbers:
    """How much there is, and which version it is."""
    images = sorted((data.folder / "images").rglob("*.jpg"))
    table = data.folder / "samples.csv"
    sizes = {_size(path) for path in images}
    same = Comparisons.of(data.faces, draws=2).pairs.same
    return {
        "name": SynthID.name,
        "version": SynthID.version,
        "sha256": fingerprint(data.folder),
        "images": len(data.rows),
        "people": len({row["subject"] for row in data.rows}),
        "sizes": [f"{width} x {height}" for width, height in sorted(sizes)],
        "bytes": sum(path.stat().st_size for path in [*images, table]),
        "genuine_pairs": int(same.sum()),
        "impostor_pairs": int((~same).sum()),
    }


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def balance(rows: Rows) -> Numbers:
    """People of each group in each split."""
    people = {row["subject"]: row for row in rows}.values()
    groups = [("gender",), ("age_band",), ("ancestry",), GROUPS]
    tables: Numbers = {}
    for columns in groups:
        table: dict[str, Counter[str]] = {}
        for row in people:
            value = ", ".join(row[column] for column in columns)
            table.setdefault(value, Counter()).update([row.get("split", "eval"), "all"])
        names = [*SPLITS, "all"]
        tables[" x ".join(columns)] = {
            value: {name: counts[name] for name in names} for value, counts in sorted(table.items())
        }
    return tables


def photographs(rows: Rows) -> Numbers:
    """What was varied from photograph to photograph."""
    yaw = np.array([float(row["yaw"]) for row in rows])
    counts = np.histogram(yaw, YAW_EDGES)[0]
    names = [f"{low} to {high}" for low, high in pairwise(YAW_EDGES)]
    found: Numbers = {
        column: dict(Counter(row[column] for row in rows).most_common())
        for column in ("expression", "light", "glasses")
    }
    found["yaw"] = {
        "histogram": dict(zip(names, counts.tolist(), strict=True)),
        **spread(np.abs(yaw), name="absolute"),
        "frontal_share": rounded((np.abs(yaw) <= 15).mean()),
    }
    return found


def detector(data: DataSet) -> Numbers:
    """Whether MTCNN finds the faces, and how far its landmarks are from the true ones."""
    true = np.array(
        [
            [[float(row[f"{point}_{axis}"]) for axis in "xy"] for point in POINTS]
            for row in data.rows
        ]
    )
    between_eyes = np.linalg.norm(true[:, 1] - true[:, 0], axis=1)
    found = data.faces.found
    errors = np.linalg.norm(data.faces.in_photo - true, axis=2)[found]
    percent = 100 * errors / between_eyes[found, None]
    return {
        "found_share": rounded(found.mean()),
        "landmark_error_percent": {
            "mean": rounded(percent.mean()),
            "p95": rounded(np.quantile(percent, 0.95)),
            "by_point": {
                point: rounded(value) for point, value in zip(POINTS, percent.mean(0), strict=True)
            },
        },
        "eye_distance_pixels": spread(between_eyes),
    }


def spread(values: FloatArray, name: str = "") -> Numbers:
    """Median and the range of nine in ten."""
    prefix = f"{name}_" if name else ""
    names = [f"{prefix}{key}" for key in ("p5", "median", "p95")]
    shares = np.quantile(values, (0.05, 0.5, 0.95))
    return {key: rounded(value) for key, value in zip(names, shares, strict=True)}


def recognition(recognizer: Any, data: DataSet, comparisons: Comparisons) -> Numbers:
    """How well one recognizer tells the people apart, and what it leans on."""
    faces, kind = data.faces, recognizer.similarity
    clean = embed(recognizer, faces.chips, faces)
    scores = comparisons.score(clean, clean, kind)
    inner = embed(recognizer, masked(faces), faces)
    found = comparisons.verification(scores)
    found["masked_auc"] = comparisons.auc(comparisons.score(inner, inner, kind))
    found["same_group_auc"] = comparisons.auc(scores, same_group(data.rows, comparisons))
    if recognizer.name == "dlib":
        found["impostors_within_0.6"] = comparisons.accepted(scores, DLIB_DISTANCE)
    return found | {"most_alike": most_alike(scores, data, comparisons)}


def same_group(rows: Rows, comparisons: Comparisons) -> BoolArray:
    """Genuine comparisons, and those of two people of one gender and ancestry."""
    groups = np.array(["/".join(row[group] for group in GROUPS) for row in rows])
    alike: BoolArray = groups[comparisons.pairs.reference] == groups[comparisons.pairs.probe]
    return alike | comparisons.pairs.same


def most_alike(scores: FloatArray, data: DataSet, comparisons: Comparisons) -> Numbers:
    """The two people, and the two images of different people, that are taken for one most easily.

    ``position``: 0 is the mean impostor comparison, 1 the mean genuine one. ``genuine_below``: the
    share of the genuine comparisons that are less alike.
    """
    pairs, (a, b) = comparisons.pairs, comparisons.people
    usable = np.isfinite(scores)
    genuine, impostor = scores[usable & pairs.same], scores[usable & ~pairs.same]

    def placed(score: float) -> Numbers:
        position = (score - impostor.mean()) / (genuine.mean() - impostor.mean())
        below = rounded((genuine < score).mean())
        return {"score": rounded(score), "position": rounded(position), "genuine_below": below}

    strangers = np.flatnonzero(usable & ~pairs.same)
    size = comparisons.weights.shape[1]
    cells = np.minimum(a, b)[strangers] * size + np.maximum(a, b)[strangers]
    count = np.bincount(cells, minlength=size**2)
    total = np.bincount(cells, scores[strangers], size**2)
    means = np.divide(total, count, out=np.full(size**2, -np.inf), where=count > 0)
    first, second = divmod(int(means.argmax()), size)
    names = sorted(set(data.faces.names))
    best = strangers[scores[strangers].argmax()]
    images = [data.rows[side[best]]["path"] for side in (pairs.reference, pairs.probe)]
    return {
        "people": {"names": [names[first], names[second]], **placed(float(means.max()))},
        "images": {"names": sorted(images), **placed(float(scores[best]))},
    }


def render_card(numbers: Numbers) -> str:
    """The datasheet in Markdown."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,  # noqa: S701, it is no HTML
    )  # fmt: skip
    environment.filters |= {"bare": bare, "with_interval": shown, "percent": percent}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(**numbers)


def bare(value: float, places: int = 3) -> str:
    """.993, .9998 or 1: never 1 for what is short of it."""
    while places < 5 and round(value, places) == 1 > value:
        places += 1
    return "1" if value == 1 else f"{value:.{places}f}".replace("0.", ".", 1)


def shown(number: Mapping[str, float]) -> str:
    """.993 [.990, .995]."""
    return f"{bare(number['value'])} [{bare(number['low'])}, {bare(number['high'])}]"


def percent(value: float) -> str:
    """A share as 27 %, 4.1 % or 0.16 %; never 100 % for what is short of it."""
    if 0 < value < 0.1:
        return f"{100 * value:.2g} %"
    return f"{100 * value:.2f} %" if 0.995 <= value < 1 else f"{100 * value:.0f} %"


def summary(numbers: Numbers) -> str:
    """What a terminal shows at the end."""
    data, found = numbers["dataset"], numbers["detector"]
    error = found["landmark_error_percent"]
    lines = [
        f"{data['people']} people, {data['images']} images, {data['bytes'] / 1e6:.2f} MB",
        f"MTCNN finds {percent(found['found_share'])}; landmarks off by {error['mean']:.2f} % "
        f"of the eye distance (95 % within {error['p95']:.2f} %)",
        f"mean colour alone: AUC {shown(numbers['mean_colour']['auc'])}",
    ]
    for name, one in numbers["recognizers"].items():
        lines.append(
            f"{name}: AUC {shown(one['auc'])}, EER {percent(one['eer']['value'])}, "
            f"TAR@.01 {shown(one['tar_at_far_0.01'])}, masked {shown(one['masked_auc'])}, "
            f"same group {shown(one['same_group_auc'])}"
        )
        alike = one["most_alike"]
        lines += [f"  most alike {kind}: {alike[kind]}" for kind in ("people", "images")]
        if "impostors_within_0.6" in one:
            lines.append(f"  impostors within 0.6: {percent(one['impostors_within_0.6'])}")
    lines += [f"left out: {name}, its weights are not here"
              for name in numbers["recognizers_left_out"]]  # fmt: skip
    return "\n".join(lines + _ranking_lines(numbers["ranking"]))


def _ranking_lines(ranking: Numbers | None) -> list[str]:
    if ranking is None:
        return ["ranking of treatments: not measured; name real faces with --lfw"]
    lines = []
    for name, one in ranking["recognizers"].items():
        largest = one["largest_difference"]
        lines.append(
            f"{name}: Spearman {shown(one['spearman'])} over {len(ranking['treatments'])} "
            f"treatments; levels differ by {one['mean_absolute_difference']:.3f} on average, "
            f"most in {largest['treatment']} ({largest['value']:+.3f})"
        )
    return lines


def ranking_of(data: DataSet, recognizers: Sequence[Any], lfw: Path) -> Numbers:
    """Spearman's rho between synthid and real faces, and on which data it was measured."""
    found = compare_rankings(data.split("eval"), real_faces(lfw), recognizers, _say)
    return {"sha256": fingerprint(data.folder), **found}


def write(numbers: Numbers, folder: Path) -> None:
    """Write numbers.json and card.md, and the copy of the committed set's card."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
    (folder / "numbers.json").write_text(text, encoding="utf-8", newline="\n")
    card = render_card(numbers)
    targets = [folder / "card.md"]
    if folder.resolve() == COMMITTED.resolve():
        targets.append(COPY)
    for target in targets:
        target.write_text(card, encoding="utf-8", newline="\n")


def main() -> None:
    """Measure and write; all arguments are options."""
    parser = argparse.ArgumentParser(description="Measures synthid; see the top of this file.")
    parser.add_argument("--data", type=Path, default=COMMITTED, metavar="DIR")
    parser.add_argument("--lfw", type=Path, metavar="DIR", help="real faces, person/image")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: beside the data")
    options = parser.parse_args()
    out = options.out or options.data
    start = time.perf_counter()
    _say("faces")
    data = DataSet.read(options.data)
    recognizers, _ = load_recognizers()
    _say("recognizers")
    numbers = measure(data, recognizers)
    numbers["ranking"] = (
        ranking_of(data, recognizers, options.lfw) if options.lfw else _kept_ranking(out)
    )
    write(numbers, out)
    print(summary(numbers))
    if numbers["ranking"] and numbers["ranking"]["sha256"] != numbers["dataset"]["sha256"]:
        print("The ranking was measured on other images than these. Run again with --lfw.")
    _say(f"written to {out} after {time.perf_counter() - start:.0f} s")


def _kept_ranking(folder: Path) -> Numbers | None:
    path = folder / "numbers.json"
    if not path.is_file():
        return None
    ranking: Numbers | None = json.loads(path.read_text(encoding="utf-8")).get("ranking")
    return ranking


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
