"""Which method hides more at equal LPIPS? Draws the frontier of runs and tests it, pair by pair.

Runs are of one dataset and protocol, several strengths of each method. At each point of the methods
named with --ours, every other method's curve is read off at the same LPIPS (straight between its
strengths, and from LPIPS 0, where it does nothing), and the difference of their TAR is drawn again
and again for the same people. Thresholds stay as they are, and many comparisons are made at once:
of twenty without a difference, one is told apart.

Usage: python tools/frontier.py --ours fadenet,fadenet-keyed --out FOLDER RUN [RUN ...]
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from protocol_figures import INK, SOFT, STYLE

from deidbench import statistics
from deidbench.errors import DeidbenchError
from deidbench.results.schema import RunRecord
from deidbench.results.store import read_images, read_run, read_scores

FAR, VIEW, DRAWS = 0.01, "landmarks", 2000
THREATS = ("T1", "T1w", "T2", "T3")
NAIVE = "T1/T1w"
COLOURS = ("#0069a8", "#c44e00", "#00805e", "#7a4fa3", "#8a6d00", "#a3324f", "#3d6f7a", "#666666",
           "#c98bb9")  # fmt: skip
Draws = NDArray[np.floating[Any]]


@dataclass
class Point:
    """One run as an attack sees it."""

    method: str
    strength: float | None
    lpips: float
    tar: float
    low: float
    high: float
    eer: float | None
    draws: Draws = field(repr=False)


def points(folder: Path) -> Iterator[tuple[tuple[str, str], Point]]:
    """The points of a run, by threat and recognizer."""
    record, images = read_run(folder), read_images(folder)
    lpips = _value(record, "lpips", {"region": "chip"})
    # Only people who are measured are drawn; the others, -1, are in no comparison.
    measured = images["subject"].where(images["part"] == "eval")
    people = measured.astype("category").cat.codes.to_numpy()
    weights = statistics.draw_weights(int(people.max()) + 1, DRAWS)
    for threat in THREATS:
        for recognizer in [one.name for one in record.recognizers if one.status == "run"]:
            tar = _row(record, "tar", threat=threat, recognizer=recognizer, far=FAR)
            if tar is None or tar.value is None:
                continue
            eer = _row(record, "eer", threat=threat, recognizer=recognizer)
            drawn = _draws(folder, record, (threat, recognizer), tar.value, people, weights)
            yield (
                # A critic attacks ours as T1w and others as T1: one panel, ours at its best.
                (NAIVE if threat in ("T1", "T1w") else threat, recognizer),
                Point(
                    record.method.name, record.method.strength, lpips, tar.value,
                    tar.low or 0.0, tar.high or 0.0, eer.value if eer else None, drawn,
                ),
            )  # fmt: skip


def _draws(
    folder: Path,
    record: RunRecord,
    key: tuple[str, str],
    value: float,
    people: NDArray[Any],
    weights: Draws,
) -> Draws:
    """TAR at the run's own threshold in each draw of people; ``value`` is that of all."""
    threat, recognizer = key
    table: pd.DataFrame = read_scores(
        folder, threat=threat, recognizer=recognizer, view=VIEW
    ).to_pandas()
    threshold = next(
        one.value
        for one in record.thresholds
        if (one.threat, one.recognizer, one.view, one.far) == (threat, recognizer, VIEW, FAR)
    )
    first, second = people[table["reference"]], people[table["probe"]]
    same = (first == second) & (table["reference"] != table["probe"]).to_numpy()
    matched = (table["score"].to_numpy() >= threshold)[same]
    count = weights.shape[1]
    hits = np.bincount(first[same], matched, count)
    pairs = np.bincount(first[same], minlength=count)
    if abs(hits.sum() / pairs.sum() - value) > 1e-6:
        raise DeidbenchError(f"{folder}: its scores do not give its own TAR. Evaluate it again.")
    return statistics.ratio_bootstrap(hits, pairs, weights)


def _row(
    record: RunRecord, metric: str, *, threat: str, recognizer: str, far: float | None = None
) -> Any:
    return next(
        (
            row
            for row in record.rows
            if (row.metric, row.threat, row.recognizer) == (metric, threat, recognizer)
            and (row.pairs, row.view, row.group) == ("cross", VIEW, None)
            and (far is None or row.params.get("far") == far)
        ),
        None,
    )


def _value(record: RunRecord, metric: str, params: Mapping[str, object]) -> float:
    for row in record.rows:
        alike = all(row.params.get(name) == value for name, value in params.items())
        whole = row.metric == metric and row.threat is None and row.group is None
        if whole and alike and row.value is not None:
            return row.value
    raise DeidbenchError(f"run {record.run_id} has no {metric}. Evaluate it with that metric.")


@dataclass(frozen=True)
class Comparison:
    """A point of ours and another method's curve at the same LPIPS; differences are of TAR."""

    threat: str
    recognizer: str
    method: str
    strength: float | None
    lpips: float
    other: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Who hides more, where the interval excludes 0."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "not told apart"


def compare(
    key: tuple[str, str], ours: Point, curve: Sequence[Point], people: int
) -> Comparison | None:
    """The difference of TAR at the LPIPS of ``ours``, with its interval; None beyond the curve."""
    where = np.array([point.lpips for point in curve])
    if not where[0] <= ours.lpips <= where[-1]:
        return None
    values = np.array([point.tar for point in curve])
    drawn = np.stack([point.draws for point in curve])  # (K, B)
    left, share = _between(where, ours.lpips)
    theirs = (1 - share) * values[left] + share * values[left + 1]
    their_draws = (1 - share) * drawn[left] + share * drawn[left + 1]
    low, high = statistics.interval(ours.draws - their_draws, subjects=people)
    return Comparison(
        *key, ours.method, ours.strength, ours.lpips, curve[-1].method, ours.tar - theirs, low, high
    )


def _between(where: NDArray[Any], at: float) -> tuple[int, float]:
    """The point of a rising sequence to the left of ``at``, and the share of the way beyond it."""
    left = min(int(np.searchsorted(where, at, side="right")) - 1, len(where) - 2)
    return left, float((at - where[left]) / (where[left + 1] - where[left]))


def comparisons(
    found: Mapping[tuple[str, str], Mapping[str, list[Point]]], ours: Sequence[str], people: int
) -> Iterator[Comparison]:
    """Each point of ours that does something, against each other method's curve."""
    for key, curves in found.items():
        idle = curves.get("identity", [])[:1]
        for name in ours:
            for point in curves.get(name, []):
                if point.lpips < 0.01:
                    continue
                for other, curve in curves.items():
                    whole = [*idle, *curve] if curve[0].lpips > 0 else curve
                    if other not in (*ours, "identity") and len(whole) > 1:
                        told = compare(key, point, whole, people)
                        if told:
                            yield told


def draw(found: Mapping[tuple[str, str], Mapping[str, list[Point]]]) -> Figure:
    """A panel for each threat and recognizer: TAR over LPIPS, lower and further left is better."""
    keys = list(found)
    columns = min(2, len(keys))
    lines = -(-len(keys) // columns)
    figure = Figure(figsize=(3.8 * columns, 2.5 * lines))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    names = list(dict.fromkeys(name for curves in found.values() for name in curves))
    for axes, key in zip(panels, keys, strict=False):
        for name, curve in found[key].items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            at = [point.lpips for point in curve]
            tar = [100 * point.tar for point in curve]
            low, high = ([100 * getattr(point, end) for point in curve] for end in ("low", "high"))
            axes.plot(at, tar, "o-", color=colour, markersize=3.5, linewidth=1.4, label=name)
            axes.vlines(at, low, high, color=colour, linewidth=1)
        axes.set_title(f"{key[0]}, {key[1]}", color=INK)
        axes.set_ylim(-2, 102)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    figure.supxlabel("LPIPS (AlexNet)", color=SOFT, fontsize=10)
    figure.supylabel(f"TAR at FAR {FAR:g}, %", color=SOFT, fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def as_markdown(
    found: Mapping[tuple[str, str], Mapping[str, list[Point]]], told: Sequence[Comparison]
) -> str:
    """The points and the comparisons as tables."""
    lines = [
        "| attack | method | strength | LPIPS | TAR at FAR 0.01, % | EER, % |",
        "|---" * 6 + "|",
    ]
    for (threat, recognizer), curves in found.items():
        for point in (point for curve in curves.values() for point in curve):
            strength = "" if point.strength is None else f"{point.strength:g}"
            eer = "" if point.eer is None else f"{100 * point.eer:.1f}"
            tar = f"{100 * point.tar:.1f} [{100 * point.low:.1f}, {100 * point.high:.1f}]"
            lines.append(
                f"| {threat} {recognizer} | {point.method} | {strength} | {point.lpips:.3f} "
                f"| {tar} | {eer} |"
            )
    lines += ["", "Difference of TAR in points at equal LPIPS, negative where ours hides more:", ""]
    lines += ["| attack | ours | LPIPS | other | difference | verdict |", "|---" * 6 + "|"]
    for one in told:
        strength = "" if one.strength is None else f" {one.strength:g}"
        ends = f"[{100 * one.low:.1f}, {100 * one.high:.1f}]"
        lines.append(
            f"| {one.threat} {one.recognizer} | {one.method}{strength} | {one.lpips:.3f} "
            f"| {one.other} | {100 * one.difference:+.1f} {ends} | {one.verdict} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read runs, write frontier.svg, frontier.md and frontier.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    found: dict[tuple[str, str], dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    _require_one_test(options.runs)
    for folder in options.runs:
        for key, point in points(folder):
            found[key][point.method].append(point)
    found = {key: found[key] for key in sorted(found)}
    for curves in found.values():
        for curve in curves.values():
            curve.sort(key=lambda point: point.lpips)
    people = read_images(options.runs[0])
    measured = people.loc[people["part"] == "eval", "subject"].nunique()
    told = list(comparisons(found, options.ours.split(","), measured))
    options.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        nothing: Any = {"Date": None, "Creator": None}
        draw(found).savefig(options.out / "frontier.svg", metadata=nothing)
    (options.out / "frontier.md").write_text(as_markdown(found, told), encoding="utf-8")
    flat = [
        {"threat": key[0], "recognizer": key[1], **_plain(point)}
        for key, curves in found.items()
        for curve in curves.values()
        for point in curve
    ]
    content = {"points": flat, "comparisons": [asdict(one) for one in told]}
    (options.out / "frontier.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _require_one_test(folders: Sequence[Path]) -> None:
    """Only runs on the same people, by the same recognizers and protocol, can be paired."""
    first, *others = [read_run(folder) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        for what in ("dataset", "split", "protocol_settings", "seed"):
            if getattr(first, what) != getattr(other, what):
                raise DeidbenchError(f"{folder} has another {what} than {folders[0]}.")
        eyes = [
            {(one.name, one.weights_sha256) for one in record.recognizers if one.status == "run"}
            for record in (first, other)
        ]
        if eyes[0] != eyes[1]:
            raise DeidbenchError(f"{folder} has other recognizers than {folders[0]}.")


def _plain(point: Point) -> dict[str, Any]:
    return {name: value for name, value in vars(point).items() if name != "draws"}


if __name__ == "__main__":
    main()
