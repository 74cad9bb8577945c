"""Two runs side by side: laws, an outside bootstrap, false alarms, refusals, rules, the page."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console

from deidbench import statistics
from deidbench.cli import main
from deidbench.compare import Comparison, Match, Row, compare, differences, parse_rule
from deidbench.errors import DeidbenchError
from deidbench.measure import Attack, Ruler, attack_rows, mean_row, worst_rows
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.pairs import PairList, cross_pairs
from deidbench.rebuilt import verification_metrics
from deidbench.render.comparison import markdown, page, read, terminal, write_comparison
from deidbench.results.schema import MetricRow, RecognizerRecord, RunRecord, ThresholdRecord
from deidbench.results.store import ScoreBlock, read_run, write_run
from tests import sample_run

Array = NDArray[Any]
PEOPLE, PHOTOS, DRAWS = 12, 4, 300
FARS = (0.1, 0.01, 0.001)
CUTS = {0.1: 1.28, 0.01: 2.33}
ATTACKS = {"T0": 6.0, "T1": 0.6, "T2": 1.5, "T3": 2.5, "T5": 2.0}
RECOGNIZERS = {"dlib": 1.0, "sface": 0.8}
EVIL = "<script>alert('x')</script>\"|`@all`\n\u202e" + "x" * 40


# Invented runs


def subjects(people: int = PEOPLE, photos: int = PHOTOS) -> Array:
    return np.repeat(np.arange(people, dtype=np.int32), photos)


def pair_list(owner: Array) -> PairList:
    return cross_pairs(range(len(owner)), owner)


def drawn_scores(
    pairs: PairList, owner: Array, distance: float, shared: Array, rng: np.random.Generator
) -> Array:
    """Genuine scores lie ``distance`` above impostors; some people are easier than others."""
    noise = rng.normal(size=len(pairs.same))
    means = np.where(pairs.same, distance + shared[owner[pairs.reference]], 0.0)
    return (means + noise).astype(np.float32)


def thresholds(threat: str, recognizer: str) -> list[ThresholdRecord]:
    about: dict[str, Any] = {"threat": threat, "recognizer": recognizer, "view": "landmarks",
                             "n_impostor": 4000}  # fmt: skip
    fixed = [ThresholdRecord(far=far, value=value, **about) for far, value in CUTS.items()]
    return [*fixed, ThresholdRecord(far=0.001, value=None, note="too few impostors", **about)]


def made_attacks(
    *,
    easier: float = 0.0,
    seed: int = 0,
    naive: str = "T1",
    threats: Sequence[str] = tuple(ATTACKS),
) -> list[Attack]:
    """All attacks of a run; ``easier`` raises the success of those on treated faces."""
    owner = subjects()
    pairs = pair_list(owner)
    shared = np.random.default_rng(99).normal(0, 0.7, PEOPLE)
    found = []
    for number, (recognizer, sharpness) in enumerate(RECOGNIZERS.items()):
        for threat in threats:
            fixed = threat == "T0"
            rng = np.random.default_rng([list(ATTACKS).index(threat), number, 0 if fixed else seed])
            distance = ATTACKS[threat] * sharpness + (0 if fixed else easier)
            name = naive if threat == "T1" and recognizer == "sface" else threat
            scores = drawn_scores(pairs, owner, distance, shared, rng)
            found.append(
                Attack(name, recognizer, "landmarks", pairs, scores, thresholds(name, recognizer))
            )
    return found


def image_table(*, change: float, seed: int) -> pd.DataFrame:
    owner = subjects()
    rng = np.random.default_rng([7, seed])
    return pd.DataFrame(
        {
            "id": [f"p{person:02d}/{i}.jpg" for i, person in enumerate(owner)],
            "subject": [f"p{person:02d}" for person in owner],
            "part": "eval",
            "found": True,
            "treated": True,
            "found_treated": rng.random(len(owner)) < 0.9 - change,
            "lpips_chip": (0.2 + change + 0.05 * rng.random(len(owner))).astype(np.float32),
            "lpips_face": (0.3 + change + 0.05 * rng.random(len(owner))).astype(np.float32),
            "ssim_chip": (0.8 - change + 0.05 * rng.random(len(owner))).astype(np.float32),
            "psnr_chip": (25 - 9 * change + rng.random(len(owner))).astype(np.float32),
        }
    )


UTILITY = {
    ("lpips", "chip"): False, ("lpips", "face"): False, ("ssim", "chip"): True,
    ("psnr", "chip"): True,
}  # fmt: skip


def utility_rows(images: pd.DataFrame, ruler: Ruler) -> Iterator[MetricRow]:
    for (metric, region), better in UTILITY.items():
        values = images[f"{metric}_{region}"].to_numpy(np.float64)
        yield mean_row(metric, values, ruler.subjects, ruler.weights,
                       params={"region": region}, higher_is_better=better)  # fmt: skip
    found = images["found_treated"].to_numpy(np.float64)
    yield mean_row("detection-rate", found, ruler.subjects, ruler.weights,
                   params={"images": "treated"}, unit="fraction")  # fmt: skip
    for batch, speed in ((1, 50.0), (32, 200.0)):
        yield MetricRow(metric="images-per-second", params={"batch": batch}, unit="images/s",
                        value=speed)  # fmt: skip


def made_record(attacks: Sequence[Attack], images: pd.DataFrame, **changes: Any) -> RunRecord:
    weights = statistics.draw_weights(PEOPLE, draws=DRAWS, seed=0)
    ruler = Ruler(verification_metrics(("auc", "eer", "tar")), subjects(), weights)
    rows = [row for attack in attacks for row in attack_rows(attack, ruler)]
    rows += [*worst_rows(rows), *utility_rows(images, ruler)]
    record = sample_run.record(recognizers=tuple(RECOGNIZERS), trained_against=())
    config = {"pairs": "cross", "seed": 0, "draws": DRAWS, "aligned": False}
    usual = {"rows": rows, "curves": [], "config": config, "protocol_settings": {"fars": [0.1]},
             "thresholds": [one for attack in attacks for one in attack.thresholds]}  # fmt: skip
    return RunRecord.model_validate({**record.model_dump(), **usual, **changes})


def write(
    folder: Path, *, easier: float = 0.0, change: float = 0.0, seed: int = 0, naive: str = "T1",
    edit: Callable[[list[Attack], pd.DataFrame], None] = lambda attacks, images: None,
    **changes: Any,
) -> Path:  # fmt: skip
    attacks = made_attacks(easier=easier, seed=seed, naive=naive)
    images = image_table(change=change, seed=seed)
    edit(attacks, images)
    record = made_record(attacks, images, run_id=folder.name, **changes)
    blocks = [
        ScoreBlock(one.threat, one.recognizer, one.view, one.pairs.reference, one.pairs.probe,
                   one.scores)
        for one in attacks
    ]  # fmt: skip
    write_run(folder, record, blocks, images)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    return {
        "a": write(base / "a"),
        "b": write(base / "b", seed=1),
        "weak": write(base / "weak", easier=1.5, change=-0.1, seed=2),
        "mild": write(base / "mild", easier=0.02, change=0.05, seed=0),
        "critic": write(base / "critic", naive="T1w", seed=3),
    }


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    """A run whose record says something else."""
    shutil.copytree(source, target)
    record = RunRecord.model_validate({**read_run(source).model_dump(), **changes})
    (target / "run.json").write_text(record.model_dump_json())
    return target


# Laws


def test_a_run_does_not_differ_from_itself(runs: dict[str, Path]) -> None:
    found = compare(runs["weak"], runs["weak"])
    assert found.exit_code == 0
    judged = [row for row in found.rows if row.low is not None]
    assert len(judged) > 40
    for row in judged:
        assert (row.difference, row.low, row.high, row.verdict) == (0, 0, 0, "same")
    assert {row.verdict for row in found.rows} <= {"same", "not judged"}


def test_swapping_the_runs_swaps_the_signs(runs: dict[str, Path]) -> None:
    there, back = compare(runs["a"], runs["weak"]), compare(runs["weak"], runs["a"])
    opposite = {"better": "worse", "worse": "better"}
    assert [row.name for row in there.rows] == [row.name for row in back.rows]
    for row, other in zip(there.rows, back.rows, strict=True):
        assert (row.base, row.head) == (other.head, other.base)
        assert other.verdict == opposite.get(row.verdict, row.verdict)
        if row.low is not None and row.high is not None:
            assert other.difference == pytest.approx(-row.difference)
            assert (other.low, other.high) == pytest.approx((-row.high, -row.low), abs=1e-9)
    assert there.exit_code == 1
    assert back.exit_code == 0


def test_both_sides_are_the_numbers_of_their_records(runs: dict[str, Path]) -> None:
    found = compare(runs["a"], runs["weak"])
    for side in ("base", "head"):
        record = read_run(runs["a" if side == "base" else "weak"])
        claimed = {
            (row.threat, row.recognizer, row.metric, row.params.get("far"),
             row.params.get("region")): row.value
            for row in record.rows
        }  # fmt: skip
        for row in found.rows:
            if row.kind in ("attack", "utility"):
                key = (row.threat, row.recognizer, row.metric, row.params.get("far"),
                       row.params.get("region"))  # fmt: skip
                assert getattr(row, side) == claimed[key], row.name
        worst = {row.metric: row for row in record.rows if row.params.get("far") in (None, 0.01)}
        for metric in ("tar", "auc"):
            named = worst[f"worst-case-{metric}"]
            row = found.row(f"worst_case.{metric}")
            assert getattr(row, side) == named.value
            assert f"{named.threat} by {named.recognizer}" in (row.note or "")


def test_the_order_of_images_and_comparisons_says_nothing(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    order = np.random.default_rng(5).permutation(PEOPLE * PHOTOS)
    place = np.argsort(order).astype(np.int32)

    def shuffle(attacks: list[Attack], images: pd.DataFrame) -> None:
        images[:] = images.iloc[order].to_numpy()
        for i, one in enumerate(attacks):
            mixed = np.random.default_rng(i).permutation(len(one.scores))
            pairs = replace(
                one.pairs,
                reference=place[one.pairs.reference][mixed],
                probe=place[one.pairs.probe][mixed],
                same=one.pairs.same[mixed],
            )
            attacks[i] = replace(one, pairs=pairs, scores=one.scores[mixed])

    source = read_run(runs["weak"])
    write(tmp_path / "raw", easier=1.5, change=-0.1, seed=2, edit=shuffle)
    mixed = rewritten(tmp_path / "raw", tmp_path / "mixed", rows=source.model_dump()["rows"])
    plain, other = compare(runs["a"], runs["weak"]), compare(runs["a"], mixed)
    for row, same in zip(plain.rows, other.rows, strict=True):
        assert close(row, same), row.name


def close(row: Row, other: Row) -> bool:
    ends = [(row.difference, other.difference), (row.low, other.low), (row.high, other.high)]
    return row.name == other.name and all(
        a == b or (a is not None and b is not None and abs(a - b) < 1e-6) for a, b in ends
    )


# Intervals, by an outside bootstrap


def naive_draws(attack: Attack, far: float | None, weights: Array, owner: Array) -> Array:
    """The number in each draw of people, with every comparison repeated as often as it is drawn."""
    values = []
    a, b = owner[attack.pairs.reference], owner[attack.pairs.probe]
    for drawn in weights.astype(int):
        times = np.where(attack.pairs.same, drawn[a], drawn[a] * drawn[b])
        scores = np.repeat(attack.scores, times)
        same = np.repeat(attack.pairs.same, times)
        if far is None:
            values.append(AreaUnderCurve()(genuine=scores[same], impostor=scores[~same]))
        else:
            values.append(np.mean(scores[same] >= CUTS[far]))
    return np.array(values)


def test_intervals_are_those_of_a_bootstrap_in_a_loop(runs: dict[str, Path]) -> None:
    found = compare(runs["a"], runs["b"])
    weights = statistics.draw_weights(PEOPLE, draws=DRAWS, seed=0)
    sides = made_attacks(), made_attacks(seed=1)
    everything: dict[float | None, list[list[Array]]] = {}
    for far, within in ((0.1, 1e-12), (0.01, 1e-12), (None, 5e-3)):
        drawn = [[naive_draws(one, far, weights, subjects()) for one in side] for side in sides]
        everything[far] = drawn
        for one, base, head in zip(sides[0], *drawn, strict=True):
            low, high = statistics.interval(head - base, subjects=PEOPLE)
            row = found.row(f"{one.threat}.{one.recognizer}.{'auc' if far is None else 'tar'}"
                            + ("" if far is None else f"@{far}"))  # fmt: skip
            assert (row.low, row.high) == pytest.approx((low, high), abs=within), row.name
    _check_worst(found, everything[0.01], sides)


def _check_worst(found: Comparison, drawn: list[list[Array]], sides: Any) -> None:
    """The worst case, chosen in each draw by values and by how far bounds lie above them."""
    chosen = []
    for attacks, values in zip(sides, drawn, strict=True):
        known = [(one, v) for one, v in zip(attacks, values, strict=True) if one.threat != "T0"]
        reach = []
        for one, v in known:
            at = float(np.mean(one.scores[one.pairs.same] >= CUTS[0.01]))
            reach.append(statistics.interval(v, subjects=PEOPLE)[1] - at)
        picks = []
        for i in range(DRAWS):
            bounds = [v[i] + r for (_, v), r in zip(known, reach, strict=True)]
            picks.append(known[int(np.argmax(bounds))][1][i])
        at = max(float(np.mean(one.scores[one.pairs.same] >= CUTS[0.01])) for one, _ in known)
        chosen.append(np.array(picks) - 2 * (np.mean(picks) - at))
    row = found.row("worst_case.tar")
    ends = statistics.interval(chosen[1] - chosen[0], subjects=PEOPLE)
    assert (row.low, row.high) == pytest.approx(ends, abs=1e-12)


def test_means_of_images_are_drawn_by_person(runs: dict[str, Path]) -> None:
    row = compare(runs["a"], runs["mild"]).row("lpips")
    images = [image_table(change=change, seed=0)["lpips_chip"].to_numpy(float)
              for change in (0.0, 0.05)]  # fmt: skip
    weights = statistics.draw_weights(PEOPLE, draws=DRAWS, seed=0)
    drawn = [
        np.mean(np.repeat(images[1] - images[0], np.repeat(one.astype(int), PHOTOS)))
        for one in weights
    ]
    assert row.difference == pytest.approx(0.05, abs=1e-6)
    ends = statistics.interval(np.array(drawn), subjects=PEOPLE)
    assert (row.low, row.high) == pytest.approx(ends, abs=1e-9)


# False alarms and coverage, by simulation


def simulated(
    rng: np.random.Generator, *, people: int, photos: int, rises: Sequence[float],
    distances: Sequence[float], draws: int,
) -> list[Row]:  # fmt: skip
    """Rows of runs whose attacks share people, as attacks do, and differ in their noise."""
    owner = subjects(people, photos)
    pairs = pair_list(owner)
    easy = rng.normal(0, 0.5, people)
    ruler = Ruler(
        verification_metrics(("tar",)), owner,
        statistics.draw_weights(people, draws=draws, seed=int(rng.integers(1 << 30))),
    )  # fmt: skip
    matches = []
    for number, (distance, rise) in enumerate(zip(distances, rises, strict=True)):
        own = rng.normal(0, 0.5, people)
        sides = []
        for more in (0.0, rise):
            shared = easy + own + rng.normal(0, 0.3, people)
            scores = drawn_scores(pairs, owner, distance + more, shared, rng)
            at = [one for one in thresholds("T3", f"r{number}") if one.far == 0.01]
            sides.append(Attack("T3", f"r{number}", "landmarks", pairs, scores, at))
        matches.append(Match("T3", sides[0], sides[1]))
    return differences(matches, ruler)[0]


def alarmed(rows: Sequence[Row]) -> bool:
    return any(row.verdict == "worse" and row.p is not None and row.p <= 0.05 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("distances", [(0.5, 1.0, 1.5, 2.0, 2.5, 3.0), (2.0,) * 6, (0.3,) * 4])
def test_the_default_rule_raises_few_false_alarms(distances: tuple[float, ...]) -> None:
    rng = np.random.default_rng(11)
    settings = {"people": 20, "photos": 4, "draws": 300}
    rises = [0.0] * len(distances)
    rate = np.mean(
        [alarmed(simulated(rng, rises=rises, distances=distances, **settings)) for _ in range(120)]
    )
    assert rate <= 0.11, rate  # 5 % and three standard errors


@pytest.mark.slow
def test_the_default_rule_sees_what_got_worse() -> None:
    rng = np.random.default_rng(12)
    settings = {"people": 28, "photos": 4, "draws": 300, "distances": (0.5, 1.0, 1.5, 2.0)}
    rate = np.mean([alarmed(simulated(rng, rises=(0, 0, 0, 1.0), **settings)) for _ in range(60)])
    assert rate > 0.9, rate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("distances", "rises"),
    [((2.0, 2.0, 2.0, 2.0), (0.8, 0, 0, 0)), ((2.0, 1.9, 1.8, 1.7), (0, 0.3, 0, 0))],
)
def test_intervals_of_the_worst_case_hold_the_truth(
    distances: tuple[float, ...], rises: tuple[float, ...]
) -> None:
    """Where several attacks are about alike, so that the worst of them is overrated."""
    from scipy.stats import norm

    rng = np.random.default_rng(14)
    spread = np.sqrt(1 + 0.5**2 + 0.5**2 + 0.3**2)
    best = max(d + rise for d, rise in zip(distances, rises, strict=True))
    truth = norm.sf(2.33, best, spread) - norm.sf(2.33, max(distances), spread)
    held = []
    for _ in range(60):
        settings = {"people": 28, "photos": 4, "draws": 300}
        row = simulated(rng, distances=distances, rises=rises, **settings)[0]
        assert row.kind == "worst case"
        held.append(row.low is not None and row.high is not None and row.low <= truth <= row.high)
    assert np.mean(held) >= 0.79  # 91 % and 90 %, less three standard errors


@pytest.mark.slow
def test_intervals_of_differences_hold_the_truth() -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(13)
    spread = np.sqrt(1 + 0.5**2 + 0.5**2 + 0.3**2)
    truth = {
        f"r{i}": norm.sf(2.33, d + rise, spread) - norm.sf(2.33, d, spread)
        for i, (d, rise) in enumerate([(1.0, 0.0), (2.0, 0.4), (3.0, -0.5)])
    }
    held, count = 0, 0
    for _ in range(80):
        rows = simulated(rng, people=28, photos=5, draws=400, distances=(1.0, 2.0, 3.0),
                         rises=(0.0, 0.4, -0.5))  # fmt: skip
        for row in rows:
            if row.kind == "attack" and row.low is not None and row.high is not None:
                held += row.low <= truth[str(row.recognizer)] <= row.high
                count += 1
    assert held / count >= 0.89, held / count  # 95 %, less three standard errors


# What cannot be compared


def recognizers(record: RunRecord, **changes: Any) -> list[RecognizerRecord]:
    return [
        RecognizerRecord.model_validate({**one.model_dump(), **(changes if i == 0 else {})})
        for i, one in enumerate(record.recognizers)
    ]


def changed_record(record: RunRecord, what: str) -> dict[str, Any]:
    dumped = record.model_dump()
    changes: dict[str, dict[str, Any]] = {
        "protocol": {"protocol": "mine-v2"},
        "settings": {"protocol_settings": {"fars": [0.2]}},
        "dataset": {"dataset": {**dumped["dataset"], "sha256": "12" * 32}},
        "split": {"split": {**dumped["split"], "sha256": "34" * 32}},
        "seed": {"seed": 7},
        "chip size": {"chip_size": 112},
        "pairs": {"config": {**dumped["config"], "pairs": "official"}},
        "aligned": {"config": {**dumped["config"], "aligned": True}},
        "weights": {"recognizers": recognizers(record, weights_sha256="00" * 32)},
        "recognizer version": {"recognizers": recognizers(record, version=2)},
        "fewer recognizers": {"recognizers": recognizers(record)[1:]},
        "metric version": {"rows": [{**row, "version": 9 if row["metric"] == "tar" else 1}
                                    for row in dumped["rows"]]},
        "threat version": {"threats": [{**one, "version": 5} for one in dumped["threats"]]},
        "fewer threats": {"threats": dumped["threats"][1:]},
    }  # fmt: skip
    return changes[what]


REASONS = {
    "protocol": r"another protocol: BASE has full-v1, HEAD has mine-v2",
    "settings": r"another protocol setting fars: BASE has \[0.1\], HEAD has \[0.2\]",
    "dataset": r"another dataset \(hash of its files\): BASE has abab.*, HEAD has 1212",
    "split": r"another split",
    "seed": r"another seed: BASE has 0, HEAD has 7",
    "chip size": r"another chip size: BASE has 160, HEAD has 112",
    "pairs": r"another pairs: BASE has cross, HEAD has official",
    "aligned": r"another aligned: BASE has False, HEAD has True",
    "weights": r"another recognizer dlib: .*weights efef.*, HEAD has .*weights 0000",
    "recognizer version": r"another recognizer dlib: BASE has version 1.* HEAD has version 2",
    "fewer recognizers": r"BASE was attacked by recognizer dlib, HEAD was not",
    "metric version": r"another version of metric tar: BASE has 1, HEAD has 9",
    "threat version": r"another threat T0: BASE has version 1, HEAD has version 5",
    "fewer threats": r"BASE was attacked by threat T0, HEAD was not",
}


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``deidbench compare``."""
    monkeypatch.setattr(sys, "argv", ["deidbench", "compare", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as done:
        code = int(done.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize("what", REASONS)
def test_other_conditions_are_refused_in_one_line(
    what: str, runs: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    head = rewritten(runs["b"], tmp_path / "other", **changed_record(read_run(runs["b"]), what))
    reason = REASONS[what].replace("full-v1", read_run(runs["a"]).protocol)
    code, out, err = run_command(monkeypatch, capsys, runs["a"], head)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(f"cannot compare: {reason}", err), err


def test_other_people_or_comparisons_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    def rename(attacks: list[Attack], images: pd.DataFrame) -> None:
        images.loc[0, "id"] = "somebody/else.jpg"

    def drop(attacks: list[Attack], images: pd.DataFrame) -> None:
        for i, one in enumerate(attacks):
            kept = np.arange(len(one.scores) - 1)
            pairs = replace(one.pairs, reference=one.pairs.reference[kept],
                            probe=one.pairs.probe[kept], same=one.pairs.same[kept])  # fmt: skip
            attacks[i] = replace(one, pairs=pairs, scores=one.scores[kept])

    def lose(attacks: list[Attack], images: pd.DataFrame) -> None:
        attacks[:] = [one for one in attacks if (one.threat, one.recognizer) != ("T3", "dlib")]

    for edit, reason in ((rename, "other images, people or parts"),
                         (drop, "other comparisons under T0 by dlib"),
                         (lose, "HEAD has no scores of T3 by dlib")):  # fmt: skip
        head = write(tmp_path / edit.__name__, edit=edit)
        with pytest.raises(DeidbenchError, match=reason):
            compare(runs["a"], head)


def test_a_broken_run_is_refused(
    runs: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(runs["b"], tmp_path / "cut")
    scores = tmp_path / "cut" / "scores.parquet"
    scores.write_bytes(scores.read_bytes()[:1000])
    for head in (tmp_path / "cut", tmp_path / "nothing"):
        code, _, err = run_command(monkeypatch, capsys, runs["a"], head)
        assert code == 2
        assert err.count("\n") == 1


def test_more_attacks_on_head_are_left_out_and_named(runs: dict[str, Path], tmp_path: Path) -> None:
    def fewer(attacks: list[Attack], images: pd.DataFrame) -> None:
        attacks[:] = [one for one in attacks if one.recognizer == "dlib"]

    one = write(tmp_path / "one", edit=fewer)
    base = rewritten(one, tmp_path / "base", recognizers=recognizers(read_run(one))[:1])
    found = compare(base, runs["a"])
    assert {row.recognizer for row in found.rows} == {"dlib", None}
    assert any("Only HEAD was attacked by sface" in note for note in found.notes)


def test_comparisons_that_one_run_lost_are_left_out_in_both(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def lose(attacks: list[Attack], images: pd.DataFrame) -> None:
        one = next(one for one in attacks if (one.threat, one.recognizer) == ("T3", "dlib"))
        one.scores[[3, 4, 5]] = np.nan

    found = compare(runs["a"], write(tmp_path / "lost", edit=lose))
    row = found.row("T3.dlib.tar")
    assert row.difference == 0  # the others are the same
    assert row.base != read_run(runs["a"]).rows[0].value
    assert any("T3 by dlib 3" in note for note in found.notes)


# One recognizer as T1 and as T1w


def test_a_critic_of_one_run_only_is_compared_and_marked(runs: dict[str, Path]) -> None:
    found = compare(runs["a"], runs["critic"])
    row = found.row("T1.sface.tar")
    assert row.difference is not None
    assert "HEAD was trained against this recognizer" in (row.note or "")
    assert found.row("T1.dlib.tar").note is None
    both = compare(runs["critic"], runs["critic"])
    assert both.row("T1w.sface.tar").note is None
    with pytest.raises(KeyError):
        both.row("T1.sface.tar")


# Rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worst_case.tar", "is no rule; write"),
        ("> +0.02", "is no rule"),
        ("worst_case.tar = +0.02", "is no rule"),
        ("worst_case.tar > +two", "'\\+two' is no number"),
        ("worst_case.tar > +inf", "is no number"),
        ("worst_case.tar > 0.02", r"Did you mean 'worst_case.tar > \+0.02'"),
        ("lpips > 5%", r"Did you mean 'lpips > \+5%'"),
        ("worst_case.tra > +0.02", "Did you mean 'worst_case.tar'"),
        ("T3.dlibb.tar > +0.02", "Did you mean 'T3.dlib.tar'"),
        ("T3.dlib.tar@0.5 > +0.02", "no number is called"),
        ("worst_case.tar < -0.02", r"asks the wrong way.*Did you mean 'worst_case.tar > \+0.02'"),
        ("ssim > +1%", r"worse when it falls. Did you mean 'ssim < -1%'"),
        ("T3.tar@0.001 > +0.02", "cannot judge .*too few impostors"),
    ],
)
def test_a_malformed_rule_is_refused_in_one_line(
    text: str, said: str, runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code, out, err = run_command(monkeypatch, capsys, runs["a"], runs["b"], "--fail-on", text)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(said, err), err


def test_a_malformed_rule_is_found_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="is no rule"):
        compare(tmp_path / "none", tmp_path / "none", fail_on=["what"])


@pytest.mark.parametrize("text", ["T3.tar > +0.02", " T3.TAR>+0.02 ", "t3.tar  >  +2e-2"])
def test_spaces_and_capitals_do_not_matter(text: str, runs: dict[str, Path]) -> None:
    assert parse_rule(text).bound == 0.02
    broken = compare(runs["a"], runs["weak"], fail_on=[text]).regressions
    assert [one.name for one in broken] == ["T3.dlib.tar@0.01", "T3.sface.tar@0.01"]


def test_a_bound_is_passed_only_beyond_it(runs: dict[str, Path]) -> None:
    row = compare(runs["a"], runs["weak"]).row("worst_case.tar")
    assert row.difference is not None
    assert row.low is not None
    assert row.base is not None
    exact, share = repr(row.difference), repr(100 * row.difference / row.base)

    def broken(rule: str, **options: bool) -> bool:
        return bool(compare(runs["a"], runs["weak"], fail_on=[rule], **options).regressions)

    assert not broken(f"worst_case.tar > +{exact}")
    assert broken(f"worst_case.tar >= +{exact}")
    assert broken(f"worst_case.tar > +{row.difference - 1e-6}")
    assert broken(f"worst_case.tar > +{float(share) - 1e-4}%")
    assert not broken(f"worst_case.tar > +{float(share) + 1e-4}%")
    between = (row.low + row.difference) / 2
    assert broken(f"worst_case.tar > +{between}")
    assert not broken(f"worst_case.tar > +{between}", certain=True)
    assert broken(f"worst_case.tar > +{row.low - 1e-6}", certain=True)


def test_utility_detection_and_speed_have_rules(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = read_run(runs["mild"]).model_dump()["rows"]
    for row in rows:
        if row["metric"] == "images-per-second":
            row["value"] *= 0.7
    head = rewritten(runs["mild"], tmp_path / "slow", rows=rows)

    def broken(*rules: str) -> list[str]:
        return [one.name for one in compare(runs["a"], head, fail_on=rules).regressions]

    assert broken("lpips > +0.049") == ["lpips"]
    assert broken("lpips > +0.06", "lpips.face > +0.04") == ["lpips.face"]
    assert broken("ssim < -0.04", "psnr < -5%") == ["ssim"]
    assert broken("detection_rate < -0.001") == ["detection_rate"]
    assert broken("images_per_second < -20%") == ["images_per_second@32"]
    assert broken("images-per-second@1 < -20%") == ["images_per_second@1"]
    assert broken("images_per_second < -40%") == []
    with pytest.raises(DeidbenchError, match="has no interval"):
        compare(runs["a"], head, fail_on=["images_per_second < -20%"], certain=True)


def test_speed_is_no_regression_by_default(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = read_run(runs["a"]).model_dump()["rows"]
    for row in rows:
        row["value"] = 0.1 if row["metric"] == "images-per-second" else row["value"]
    head = rewritten(runs["a"], tmp_path / "slow", rows=rows)
    found = compare(runs["a"], head)
    row = found.row("images_per_second")
    assert (found.exit_code, row.verdict, row.low) == (0, "not judged", None)
    assert row.ratio == pytest.approx(-0.9995)


def test_the_default_rule_can_stand_beside_others(runs: dict[str, Path]) -> None:
    rules = ["default", "lpips < -1"]
    with pytest.raises(DeidbenchError, match="wrong way"):
        compare(runs["a"], runs["weak"], fail_on=rules)
    found = compare(runs["a"], runs["weak"], fail_on=["default", "lpips > +1"])
    assert {one.rule for one in found.regressions} == {"default"}
    assert "worst_case.tar@0.01" in {one.name for one in found.regressions}
    assert compare(runs["a"], runs["weak"], fail_on=["lpips > +1"]).exit_code == 0


def test_an_auc_turned_round_is_no_protection(runs: dict[str, Path], tmp_path: Path) -> None:
    def flip(attacks: list[Attack], images: pd.DataFrame) -> None:
        one = next(one for one in attacks if (one.threat, one.recognizer) == ("T3", "dlib"))
        one.scores[:] = -one.scores

    found = compare(runs["a"], write(tmp_path / "flipped", edit=flip))
    for metric in ("auc", "eer"):
        row = found.row(f"T3.dlib.{metric}")
        assert row.head == pytest.approx(row.base, abs=1e-3)
        assert row.verdict == "same"
        assert "sign flipped in HEAD" in (row.note or "")


def test_without_a_rate_the_default_rule_looks_at_the_auc(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    def none(folder: str, source: str) -> Path:
        record = read_run(runs[source]).model_dump()
        fixed = [{**one, "value": None, "note": "none"} for one in record["thresholds"]]
        return rewritten(runs[source], tmp_path / folder, thresholds=fixed)

    found = compare(none("a", "a"), none("weak", "weak"))
    assert found.far is None
    assert "T2.dlib.auc" in {one.name for one in found.regressions}
    read(found.as_json())


# What people and machines see


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two runs with hostile names everywhere."""
    base = tmp_path_factory.mktemp("evil")
    attacks = [replace(one, recognizer=EVIL) for one in made_attacks() if one.recognizer == "dlib"]

    def rename(found: list[Attack], images: pd.DataFrame) -> None:
        found[:] = [
            replace(one, thresholds=[t.model_copy(update={"recognizer": EVIL})
                                     for t in one.thresholds])
            for one in attacks
        ]  # fmt: skip

    write(base / "raw", edit=rename)
    record = read_run(base / "raw")
    changes: dict[str, Any] = {
        "method": {**record.method.model_dump(), "name": EVIL, "trained_against": [EVIL]},
        "recognizers": [{**record.recognizers[0].model_dump(), "name": EVIL}],
        "dataset": {**record.dataset.model_dump(), "label": EVIL},
        "protocol": EVIL,
        "deidbench_version": "1 --> <b>",
    }
    head = rewritten(base / "raw", base / "head", **changes)
    changes["method"] = {**changes["method"], "trained_against": []}
    return compare(rewritten(base / "raw", base / "base", **changes), head)


class Reader(HTMLParser):
    """Elements of a page, with their attributes; raises on elements that close out of order."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_hostile_names_stay_text_on_the_page(evil: Comparison) -> None:
    source = page(read(evil.as_json()))
    reader = Reader(source)
    assert not {"script", "img", "iframe"} & {tag for tag, _ in reader.tags}
    assert all(not name.startswith("on") for _, found in reader.tags for name in found)
    assert "<script" not in source
    assert "&lt;script&gt;" in source
    assert "\u202e" not in source
    policy = [found for tag, found in reader.tags if found.get("http-equiv")]
    assert "default-src 'none'" in str(policy[0]["content"])


def test_hostile_names_stay_code_in_markdown(evil: Comparison) -> None:
    text = markdown(read(evil.as_json()))
    outside = re.sub(r"`[^`\n]*`", "", text)
    assert "script" not in outside
    assert "@" not in outside
    assert "\u202e" not in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert table
    assert {line.count("|") for line in table} == {6}
    assert text.count("-->") == 1


def shown(found: Comparison, width: int) -> str:
    file = StringIO()
    Console(file=file, width=width, highlight=False).print(terminal(read(found.as_json()), width))
    return file.getvalue()


def test_hostile_names_cannot_drive_a_terminal(evil: Comparison) -> None:
    text = shown(evil, 100)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>" in text


@pytest.mark.parametrize("width", [60, 84, 200])
def test_the_table_fits_a_terminal(width: int, runs: dict[str, Path]) -> None:
    text = shown(compare(runs["a"], runs["weak"]), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("worst_case.tar", "T3.dlib.tar", "worse", "lpips", "Regression"):
        assert word in text
    assert "…" not in text


def test_many_attacks_leave_room_for_those_that_changed(runs: dict[str, Path]) -> None:
    found = compare(runs["a"], runs["weak"])
    extra = [replace(row, name=f"T2.r{i}.tar@0.01", recognizer=f"r{i}", verdict="same")
             for i, row in enumerate([found.row("T2.dlib.tar")] * 30)]  # fmt: skip
    text = shown(replace(found, rows=(*found.rows, *extra)), 80)
    assert "T3.dlib.tar" in text
    assert "T2.r7.tar" not in text
    assert "that did not change are left out" in text


def test_the_command_says_it_in_every_form(
    runs: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "page"
    code, said, err = run_command(
        monkeypatch, capsys, runs["a"], runs["weak"], "--out", out, "--json", "--draws", 150
    )
    assert (code, err) == (1, "")
    content = json.loads(said)
    assert content == json.loads((out / "comparison.json").read_text())
    assert (content["outcome"], content["draws"]) == ("regression", 150)
    assert {file.name for file in out.iterdir()} == {
        "index.html", "comparison.md", "comparison.json"
    }  # fmt: skip
    assert "broke a rule" in (out / "index.html").read_text()
    code, said, _ = run_command(monkeypatch, capsys, runs["weak"], runs["a"], "--out", out)
    assert code == 0  # and what was written before is replaced
    assert "No regression" in said
    assert "No regression" in (out / "comparison.md").read_text()


def test_files_of_others_are_left_alone(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "comparison.md").write_text("my notes")
    with pytest.raises(DeidbenchError, match=r"comparison.md was not written by deidbench"):
        write_comparison(read(compare(runs["a"], runs["b"]).as_json()), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["comparison.md"]


def test_draws_are_limited(runs: dict[str, Path]) -> None:
    with pytest.raises(DeidbenchError, match="--draws must be between"):
        compare(runs["a"], runs["b"], draws=3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_offline_and_accessibly(
    width: int, scheme: str, runs: dict[str, Path], evil: Comparison, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe-core here")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("there is no Chromium here")
    pages = [
        write_comparison(read(one.as_json()), tmp_path / str(i))
        for i, one in enumerate([compare(runs["a"], runs["weak"]), evil])
    ]
    with playwright.sync_playwright() as start:
        browser = start.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        for path in pages:
            tab, said = context.new_page(), []
            tab.on("console", lambda message, said=said: said.append(message.text))
            tab.on("request", lambda request, said=said: said.append(request.url))
            tab.goto(path.as_uri())
            tab.locator("details summary").focus()
            tab.keyboard.press("Enter")
            assert tab.locator("details").get_attribute("open") is not None
            assert said == [path.as_uri()]
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert tab.evaluate(wider) == 0
            assert axe.Axe().run(tab).response["violations"] == []
        browser.close()
