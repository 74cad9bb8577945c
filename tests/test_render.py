"""The report and the terminal summary: what they say, what they hide, what they never load."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import unicodedata
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deidbench.errors import DeidbenchError
from deidbench.measure import worst_rows
from deidbench.render import figures, numbers, reading, report
from deidbench.render.details import command
from deidbench.render.interactive import NONE, Script
from deidbench.render.reading import Run
from deidbench.render.terminal import summary_table
from deidbench.results.schema import MetricRow, RunRecord
from tests import sample_run

TWO = ("dlib", sample_run.WHITE_BOX)
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Elements, texts and addresses of a page; raises on elements that close out of order."""

    VOID = frozenset({"meta", "img", "link", "br", "line", "path", "use", "input"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write_report(
    runs: list[Path], out: Path, *, show_faces: bool = False, script: Script = NONE
) -> Path:
    """A page that stands still, unless a script is asked for: its words are the same."""
    return report.write_report(runs, out, show_faces=show_faces, script=script)


def changed(made: RunRecord, **changes: Any) -> RunRecord:
    return RunRecord.model_validate({**made.model_dump(), **changes})


def without_rates(made: RunRecord) -> RunRecord:
    """As an official pair list leaves it: no thresholds, hence no rates at a FAR."""
    rows = [r.model_dump() for r in made.rows if "far" not in r.params and r.pairs != "same"]
    rows = [{**row, "pairs": row["pairs"] and "official"} for row in rows]
    curves = [{**curve.model_dump(), "pairs": "official"} for curve in made.curves]
    return changed(made, rows=rows, curves=curves, thresholds=[])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    made = {
        "fadenet": sample_run.record(),
        "blur": sample_run.record(method="gaussian-blur", strength=0.5, protection=1.4, seed=1,
                                  trained_against=(), run_id="blur", recognizers=TWO),
        "few": sample_run.record(honest=0.1, run_id="few", recognizers=TWO),
        "real": sample_run.record(synthetic=False, run_id="real", recognizers=TWO),
        "evil": sample_run.record(method=EVIL, run_id=f"{EVIL}1", recognizers=TWO),
        "official": without_rates(sample_run.record(run_id="official", recognizers=TWO)),
    }  # fmt: skip
    for name, one in made.items():
        sample_run.write(base / name, one, n_examples=2)
    return {name: base / name for name in made}


@pytest.fixture(scope="module")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report([runs["fadenet"]], tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def both(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Page:
    folders = [runs["fadenet"], runs["blur"]]
    return Page(write_report(folders, tmp_path_factory.mktemp("both")))


# One file, offline, safe


@pytest.mark.parametrize("which", ["page", "both"])
def test_the_page_refers_to_nothing_outside_itself(
    which: str, request: pytest.FixtureRequest
) -> None:
    page: Page = request.getfixturevalue(which)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert re.findall(r"url\((?!#)", page.source) == []
    assert not re.search(r"https?:|@import|//[a-z]", page.source.split("base64,")[0])
    assert {"script", "link", "iframe", "object", "embed"}.isdisjoint(t for t, _ in page.tags)


@pytest.mark.parametrize("which", ["page", "both"])
def test_ids_are_unique_and_every_inner_address_leads_to_one(
    which: str, request: pytest.FixtureRequest
) -> None:
    page: Page = request.getfixturevalue(which)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:href="|url\()#([^")]+)', page.source))
    assert wanted and wanted <= set(ids)


def test_what_comes_from_a_run_is_text(runs: dict[str, Path], tmp_path: Path) -> None:
    evil = Page(write_report([runs["evil"], runs["few"]], tmp_path))
    assert "<script" not in evil.source
    assert EVIL in evil.text


def test_every_text_of_a_record_is_escaped(tmp_path: Path) -> None:
    def spoil(value: Any, key: str = "") -> Any:
        free = {"created", "status", "pairs", "view", "metric", "threat", "recognizer", "unit"}
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v, key) for v in value]
        return f"{value}{EVIL}'\"" if isinstance(value, str) and key not in free else value

    spoilt = RunRecord.model_validate(spoil(sample_run.record(recognizers=TWO).model_dump()))
    sample_run.write(tmp_path / "run", spoilt, n_examples=1)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert "<script" not in page.source
    named = [
        attributes for _, attributes in page.tags if any(n.startswith("on") for n in attributes)
    ]
    assert named == []


def test_dollar_signs_and_odd_letters_do_not_break_the_charts(tmp_path: Path) -> None:
    odd = sample_run.record(recognizers=TWO, method="$\\frac{1}$ 顔 \u202e\x07")
    sample_run.write(tmp_path / "run", odd, n_examples=0)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert "$\\frac{1}$ 顔" in page.text
    assert "\x07" not in page.source and "\u202e" not in page.source


@pytest.mark.parametrize("odd", ["a\\b", "\\1", "\\g<0>", "back\\"])
def test_a_backslash_in_a_name_is_a_letter(tmp_path: Path, odd: str) -> None:
    text = sample_run.record(recognizers=("dlib",)).model_dump_json()
    named = text.replace('"dlib"', '"' + odd.replace("\\", "\\\\") + '"')
    sample_run.write(tmp_path / "run", RunRecord.model_validate_json(named), n_examples=0)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    labels = [a["aria-label"] or "" for a in page.all("svg") if a.get("class") == "chart"]
    assert any(f"ROC curves of {odd} under" in label for label in labels)


def test_reports_need_no_torch_and_no_harness(runs: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import deidbench.render.terminal\n"
        "from deidbench.render.report import write_report\n"
        "write_report([Path(sys.argv[1])], Path(sys.argv[2]))\n"
        "heavy = {'torch', 'torchvision', 'deidbench.harness', 'deidbench.measure', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", code, str(runs["few"]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


def test_the_same_runs_give_the_same_bytes(
    runs: dict[str, Path], page: Page, tmp_path: Path
) -> None:
    assert write_report([runs["fadenet"]], tmp_path).read_text(encoding="utf-8") == page.source


# What it says


def test_the_worst_off_the_shelf_attacker_comes_first(page: Page) -> None:
    made = Run(sample_run.record())
    worst = made.ranked("T1", 0.01)[0]
    assert worst.value == max(row.value for row in made.ranked("T1", 0.01) if row.value is not None)
    sentence = (
        f"Against the naive attacker (T1) {worst.recognizer} still accepts "
        f"{numbers.percent(worst.value, 2)}"
    )
    assert page.text.index(sentence.replace("\u00a0", " ")) < page.text.index("(T1w, white box)")
    assert "at 1 false match in 100; untreated faces: 99 %" in page.text


def test_a_fixed_threshold_cannot_make_a_method_look_safe() -> None:
    made = sample_run.record()
    shifted = [  # treated scores moved below the threshold: they still tell people apart
        {**row.model_dump(), "value": 0.0, "low": 0.0, "high": 0.0}
        if (row.metric, row.threat) == ("tar", "T1")
        else row.model_dump()
        for row in made.rows
    ]
    run = Run(changed(made, rows=shifted))
    text = " ".join(reading.summary(run, 0.1)).replace("\u00a0", " ")
    curve = next(c for c in made.curves if (c.threat, c.recognizer) == ("T1", "dlib"))
    rate = max(t for f, t in zip(curve.fmr, curve.tar, strict=True) if f <= 0.1)
    assert "(T1) dlib still accepts 0 % [0, 0]" in text  # ties are broken by AUC
    assert rate > 0.3
    assert f"With its threshold set anew on treated faces it accepts {100 * rate:.0f} %." in text
    assert (
        f"Set anew on treated faces, for the same share of false matches, the best attacker "
        f"accepts {100 * rate:.0f} % (T1, dlib)" in text
    )


def test_a_white_box_attacker_is_never_ranked_as_naive() -> None:
    made = Run(sample_run.record())
    assert sample_run.WHITE_BOX not in {row.recognizer for row in made.ranked("T1", 0.01)}
    assert [row.recognizer for row in made.ranked("T1w", 0.01)] == [sample_run.WHITE_BOX]


def test_limits_are_said_plainly(page: Page) -> None:
    assert "Adapted attackers (T3 and above), who train on the method's output, were not run" in (
        page.text
    )
    assert "The faces of synthid are synthetic" in page.text
    assert "AUC of 0.367, below 0.5: identity is still encoded, with its sign flipped" in page.text
    for gap in ("human observers", "recognizer arcface", "too few impostors"):
        assert gap in page.text


def test_real_faces_are_not_called_synthetic(runs: dict[str, Path], tmp_path: Path) -> None:
    real = Page(write_report([runs["real"]], tmp_path))
    assert "synthetic" not in real.text


def test_human_observers_are_missed_even_when_a_record_forgets_them(tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", changed(sample_run.record(recognizers=TWO), not_measured=[]))
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    for gap in ("human observers", "adapted attackers", "recognizer arcface", "dlib at FAR 0.001"):
        assert gap in page.text


def test_the_headline_uses_the_smallest_honest_far(runs: dict[str, Path], tmp_path: Path) -> None:
    page = Page(write_report([runs["few"]], tmp_path))
    assert "at 1 false match in 10; untreated" in page.text
    assert "1 false match in 100" not in page.text


def test_without_any_honest_far_the_page_speaks_of_auc(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page = Page(write_report([runs["official"]], tmp_path))
    assert re.search(r"\(T1\) \S+ still reaches an AUC of 0\.\d+ \[", page.text)
    assert "false match in" not in page.text


def test_a_method_trained_against_all_has_no_naive_attacker(tmp_path: Path) -> None:
    made = sample_run.record(trained_against=TWO, recognizers=TWO)
    sample_run.write(tmp_path / "run", made)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert "No off-the-shelf recognizer attacked as T1" in page.text


def test_an_undefined_number_is_never_printed_as_one(runs: dict[str, Path], tmp_path: Path) -> None:
    page = Page(write_report([runs["few"]], tmp_path))
    assert "Without a value: TAR at FAR 0.01, Dodging PSR at FAR 0.01" in page.text
    assert not re.search(r"\b(nan|None|inf)\b", page.text)


def test_a_run_with_the_bare_minimum_still_makes_a_page(tmp_path: Path) -> None:
    made = changed(
        sample_run.record(recognizers=TWO),
        rows=[],
        curves=[],
        thresholds=[],
        timings=[],
        failures={},
        config={},
    )
    sample_run.write(tmp_path / "run", made, n_examples=0)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert "Nothing was recorded" in page.text and "The run holds no examples." in page.text


def test_groups_are_shown_with_the_worst_marked(tmp_path: Path) -> None:
    made = sample_run.record(recognizers=TWO)
    row = Run(made).ranked("T1", 0.01)[0].model_dump()
    groups = [{**row, "group": g, "value": v, "low": None, "high": None}
              for g, v in (("skin tone: dark", 0.71), ("skin tone: light", 0.11))]  # fmt: skip
    made = changed(made, rows=[*(r.model_dump() for r in made.rows), *groups])
    sample_run.write(tmp_path / "run", made)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert re.search(r'class="warn">\s*<span class="number">71.0', page.source)
    assert not re.search(r'class="warn">\s*<span class="number">11.0', page.source)
    assert "still accepts 71" not in page.text  # the headline is that of the whole set


def test_the_command_to_do_it_again_is_quoted() -> None:
    config = {"method": "a b; rm", "strength": None, "aligned": True, "show_faces": False}
    made = changed(sample_run.record(), config={**config, "recognizers": ["dlib", "sface"]})
    assert command(Run(made)) == (
        "deidbench evaluate --method 'a b; rm' --seed 0 --aligned --recognizers dlib,sface"
    )


def test_settings_are_part_of_the_command() -> None:
    config = {"settings": {"k": 10, "bound": "lpips"}, "adults_only": False, "pairs": "cross"}
    assert command(Run(changed(sample_run.record(), config=config))) == (
        "deidbench evaluate --with-children --set k=10 --set bound=lpips --method fadenet --seed 0 "
        "--pairs cross"
    )


def test_speed_and_what_is_left_of_the_face_are_told_apart(tmp_path: Path) -> None:
    made = sample_run.record()
    pose = MetricRow(metric="head-pose-yaw", value=4.05, unit="degrees", n=3)
    made = changed(made, rows=[*(row.model_dump() for row in made.rows), pose.model_dump()])
    sample_run.write(tmp_path / "run", made)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    before, _, after = page.text.partition("Speed and memory on the machine named below")
    assert "Change of yaw" in before and "4.05 degrees" in before
    assert "Change of yaw" not in after


def trained_on(made: RunRecord, *metrics: str) -> RunRecord:
    method = {**made.method.model_dump(), "trained_on_metrics": list(metrics)}
    return changed(made, method=method)


@pytest.mark.parametrize(
    ("metrics", "sentence", "flatters"),
    [
        (("lpips",), "fadenet was trained on LPIPS: read SSIM and PSNR beside it.", True),
        (("ssim", "lpips"), "fadenet was trained on SSIM and LPIPS: read PSNR beside it.", True),
        (("ssim",), "fadenet was trained on SSIM: read LPIPS and PSNR beside it.", False),
        (("lpips", "ssim", "psnr"), "trained on LPIPS, SSIM and PSNR: they flatter it.", True),
    ],
)
def test_metrics_that_a_method_was_trained_on_are_told(
    tmp_path: Path, metrics: tuple[str, ...], sentence: str, flatters: bool
) -> None:
    made = trained_on(sample_run.record(recognizers=TWO), *metrics)
    sample_run.write(tmp_path / "run", made, n_examples=0)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert page.text.count(sentence) == 1
    remark = "fadenet was trained on LPIPS, so this figure flatters it."
    assert page.text.count(remark) == flatters


def test_of_several_runs_those_that_were_trained_on_a_metric_are_named(
    page: Page, both: Page, runs: dict[str, Path], tmp_path: Path
) -> None:
    assert "was trained on" not in page.text + both.text
    made = trained_on(sample_run.record(recognizers=TWO), "lpips")
    sample_run.write(tmp_path / "run", made, n_examples=0)
    mixed = Page(write_report([runs["blur"], tmp_path / "run"], tmp_path / "out"))
    assert mixed.text.count("B fadenet was trained on LPIPS: read SSIM and PSNR beside it.") == 1
    assert mixed.text.count("B fadenet was trained on LPIPS, so this figure flatters it.") == 1
    assert mixed.text.count("was trained on") == 2


def test_no_chart_grows_beyond_560_pixels(page: Page) -> None:
    widths = re.findall(r"figure(?:\.wide)? \{ max-width: ([\d.]+)rem", page.source)
    assert len(widths) == 2 and max(map(float, widths)) * 16 <= 560


# All attackers


@pytest.fixture(scope="module")
def adaptive() -> RunRecord:
    return sample_run.record(adaptive=True, recognizers=TWO)


@pytest.fixture(scope="module")
def ladder(adaptive: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> Page:
    base = tmp_path_factory.mktemp("ladder")
    sample_run.write(base / "run", adaptive, n_examples=0)
    return Page(write_report([base / "run"], base / "out"))


def section(page: Page, name: str) -> str:
    """The source of one section of a page."""
    found = re.search(rf'<section id="{name}".*?</section>', page.source, re.S)
    assert found
    return found.group()


def as_text(source: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", source)).replace("\u00a0", " ")


def test_the_worst_case_is_the_first_sentence_and_the_first_card(
    adaptive: RunRecord, ladder: Page
) -> None:
    attacks = [r for r in adaptive.rows if r.metric == "tar" and r.params["far"] == 0.01
               and (r.pairs, r.view, r.group) == ("cross", "landmarks", None)
               and r.threat not in ("T0", "T6")]  # fmt: skip
    worst = max(attacks, key=lambda row: (row.high or 0, row.value or 0))
    share = numbers.percent(worst.value or 0, 2)
    ends = numbers.interval(worst, 2)
    sentence = (
        f"An attacker who trains the recognizer itself on treated faces ({worst.threat}, "
        f"{worst.recognizer}) recognises {share} {ends} of people's other photos at "
        "1 false match in 100. This is the worst case of the attacks that were run."
    ).replace("\u00a0", " ")
    first = re.search(r'<p class="first">(.*?)</p>', ladder.source)
    card = re.search(r'aria-label="Key figures">\s*<li class="worst-card (\w+)">', ladder.source)
    assert first and as_text(first[1]).replace("&#39;", "'") == sentence
    assert card and card[1] == worst.threat
    assert section(ladder, "attackers").count('<em class="flag">worst case</em>') == 1


@pytest.mark.parametrize(
    ("threat", "words"),
    [("T3", "An attacker who adapts (T3, dlib) recognises 22 % [16, 28] of people's other photos"),
     ("T5", "(T5, dlib) links 22 % [16, 28] of the pairs of treated photos that show one person")],
)  # fmt: skip
def test_the_worst_case_is_told_in_the_words_of_its_attack(threat: str, words: str) -> None:
    rows = [row.model_dump() for row in sample_run.record(recognizers=TWO).rows]
    row = {"metric": "worst-case-tar", "params": {"far": 0.01}, "threat": threat, "value": 0.22,
           "low": 0.16, "high": 0.28, "recognizer": "dlib", "unit": "fraction"}  # fmt: skip
    made = changed(sample_run.record(recognizers=TWO), rows=[*rows, row])
    first = reading.summary(Run(made), 0.01)[0].replace("\u00a0", " ")
    assert f"{words} at 1 false match in 100." in first
    few = "few " * (threat == "T5")  # nobody learned
    assert f"the worst case of the {few}attacks that were run" in first


def test_every_attack_has_a_sentence(adaptive: RunRecord) -> None:
    text = " ".join(reading.summary(Run(adaptive), 0.01)).replace("\u00a0", " ")
    for threat, who in reading.ATTACKERS.items():
        if threat not in ("T1", "T1w", "T3f"):  # told in sentences of their own
            assert f"{who} ({threat}) does best with {sample_run.WHITE_BOX}" in text
    assert "(T5, D_sys, mobilefacenet-ms1m): 0.451 [0.401, 0.501], where 0 is not at all" in text
    assert "A detector (T6) tells treated faces from untreated ones with an AUC of 0.962" in text
    assert "were not run" not in text


def test_a_worst_case_by_auc_stands_in_where_no_rate_can_be_told(adaptive: RunRecord) -> None:
    rows = [row.model_dump() for row in adaptive.rows if "far" not in row.params]
    sentences = reading.summary(Run(changed(adaptive, rows=rows)), None)
    assert re.search(r"reaches an AUC of 0\.99\d\s\[.*where 0\.5 is guessing", sentences[0])
    assert "By AUC, which" not in sentences[1]


def test_each_attack_has_its_column_and_its_row(ladder: Page) -> None:
    heads = re.findall(r'<th scope="col">(\w+) [a-z-]+', section(ladder, "attackers"))
    assert heads[:9] == ["T0", "T1", "T1w", "P", "T2", "T3", "T3f", "T4", "T5"]
    keys = set(re.findall(r'class="key (\w+)">\1\b', section(ladder, "numbers")))
    assert keys == {"T0", "T1", "T1w", "P", "T2", "T3", "T3f", "T4", "T5"}
    text = as_text(section(ladder, "attackers"))
    assert re.search(r"T5 linkage dlib .*0\.410 \[0\.360, 0\.460\]", text)
    assert re.search(r"T6 detection detector .*0\.962 1 \[0\.942, 0\.982\]", text)
    assert "treated against clean images: not whose it is" in text


def test_every_attack_is_drawn_in_its_colour(ladder: Page) -> None:
    charts = re.findall(r'<svg class="chart".*?</svg>', section(ladder, "curves"), re.S)
    for kind in ("ROC", "CMC", "DET"):
        for name, naive in (("dlib", "T1"), (sample_run.WHITE_BOX, "T1w")):
            (chart,) = [c for c in charts if f'aria-label="{kind} curves of {name} ' in c]
            drawn = {naive, "T0", "P", "T2", "T3", "T3f", "T4", "T5"}
            assert drawn == set(re.findall(r"stroke: var\(--([TP]\w*)\)", chart))
            assert ", ".join(t for t in reading.LADDER if t in drawn) in chart


def test_the_heat_map_has_every_attack_and_marks_the_worst(
    adaptive: RunRecord, ladder: Page
) -> None:
    (heat,) = re.findall(r'<caption id="heat">.*?</table>', ladder.source, re.S)
    run = Run(adaptive)
    cells = re.findall(r'<td class="heat" style="--heat:([\d.]+)">(.*?)</td>', heat, re.S)
    found = [row for name in TWO for threat in reading.LADDER
             if (row := run.success(threat, name, 0.01))]  # fmt: skip
    assert len(cells) == len(found) == 16
    for (share, text), row in zip(cells, found, strict=True):
        assert float(share) == pytest.approx(row.value, abs=0.001)
        assert numbers.percent(row.value or 0, 2).replace("\u00a0", " ") in as_text(text)
        auc = run.success(row.threat or "", row.recognizer or "", None)
        assert auc and f"AUC {numbers.value(auc)}" in as_text(text)
        worst = run.worst(0.01)
        is_worst = worst and (worst.threat, worst.recognizer) == (row.threat, row.recognizer)
        assert ("worst" in text) == is_worst


def test_the_strongest_attack_stands_beside_the_change_of_the_image(
    adaptive: RunRecord, ladder: Page
) -> None:
    text = as_text(section(ladder, "trade-off"))
    worst, auc = Run(adaptive).worst(0.01), Run(adaptive).worst(None)
    assert worst and auc
    for row in (worst, auc):
        told = f"{numbers.value(row)} {numbers.interval(row)} {row.threat}, {row.recognizer}"
        assert told.replace("\u00a0", " ") in text
    assert len(re.findall('<svg class="chart"', section(ladder, "trade-off"))) == 2


def test_lost_images_and_hashes_of_the_files_are_told(ladder: Page) -> None:
    assert "alignment 2 treated 9" in as_text(section(ladder, "lost"))
    details = as_text(section(ladder, "details"))
    for name in ("the run (all below)", "run.json", "scores.parquet", "images.parquet"):
        assert re.search(rf"{re.escape(name)} [0-9a-f]{{64}}", details)


def test_light_and_dark_and_print_have_a_colour_for_every_attack(ladder: Page) -> None:
    for theme in themes(ladder):
        one = {name: theme[name] for name in figures.THREATS}
        assert len(set(one.values())) == len(one)


def themes(page: Page) -> list[dict[str, str]]:
    """Colours by name: light, dark by the system, dark by the reader, and print."""
    rules = re.findall(r"color-scheme: (light|dark);([^}]*)\}", page.source)
    assert [name for name, _ in rules] == ["light", "dark", "dark", "light"]
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", rule)) for _, rule in rules]


def test_without_search_there_is_no_cmc(page: Page) -> None:
    assert "(CMC)" not in page.text and "Search in a gallery" not in page.text


def test_search_in_a_gallery_has_ranks_chance_and_refusals(
    adaptive: RunRecord, ladder: Page
) -> None:
    text = as_text(section(ladder, "numbers"))
    for heading in ("Rank-k k = 1", "Rank-k k = 5", "DIR FPIR 0.1"):
        assert heading in text
    assert "Rank-k k = 40" not in text
    assert "Without a value: Rank-k at k = 40 (a rank of 40 needs more than 40 people)" in text
    assert "chance 0.025; 40 people enrolled; the method promises at most 0.1" in text
    row = next(r for r in adaptive.rows if r.metric == "dir" and r.threat == "T3")
    assert numbers.value(row).replace("\u00a0", " ") in text


def test_folds_stand_beside_the_whole(ladder: Page) -> None:
    text = as_text(section(ladder, "numbers"))
    assert "AUC over folds 10 folds" in text and "EER over folds 10 folds" in text
    assert "low and high are one standard deviation over folds" in text


def test_what_was_learned_and_what_was_tried_is_told(ladder: Page, page: Page) -> None:
    assert "dlib T3 fused, by the AUC of: ridge 0.84, fused 0.87" in ladder.text
    controls = as_text(section(ladder, "controls"))
    assert "2 controls, all held" in controls
    assert "T6 on grey faces AUC at least 0.99 1.0000" in controls
    assert "Protocol standard-v1 tried none." in page.text
    assert "What the attackers learned" not in page.text


def test_restored_faces_stand_beside_the_treated_ones(adaptive: RunRecord, ladder: Page) -> None:
    text = as_text(section(ladder, "cost"))
    rows = Run(adaptive).rows(threat=None, metric="psnr")
    treated = next(row for row in rows if row.params.get("region") == "chip")
    assert "Restored faces" in text
    ends = numbers.interval(treated)
    beside = f"dlib {numbers.value(treated)} {ends}".replace("\u00a0", " ").strip()
    assert f"PSNR (region chip) {beside} 27.4 dB" in text


def test_the_worst_group_of_each_attack_is_found(ladder: Page) -> None:
    worst, _, groups = as_text(section(ladder, "numbers")).partition("All groups")
    assert worst.count("age=young") == 14  # 7 attacks of 2 recognizers each
    assert "age=old" not in worst
    assert groups.count("age=old") == 14 + 2  # of the untreated faces too
    first = re.search(r"all people (\w+) \S+ age=young", worst)
    assert first and first[1] == "T3f"


def test_hostile_names_stay_text_everywhere(adaptive: RunRecord, tmp_path: Path) -> None:
    learned = [{**one.model_dump(), "threat": EVIL, "note": EVIL + "1"} for one in adaptive.learned]
    controls = [{"name": EVIL + "2", "recognizer": EVIL + "3", "expected": EVIL + "4",
                 "found": EVIL + "5"}]  # fmt: skip
    made = changed(
        adaptive, learned=learned, controls=controls, protocol=EVIL + "6",
        protocol_settings={EVIL + "7": EVIL + "8"},
        not_measured=[{"what": f"T4 {EVIL}9", "why": "\x1b[2J" + EVIL}],
    )  # fmt: skip
    sample_run.write(tmp_path / "run", made, n_examples=0)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert "<script" not in page.source and "\x1b" not in page.source
    for digit in "12345678":
        assert f"{EVIL}{digit}" in page.text
    lines = printed(made, 80)
    assert not {unicodedata.category(c) for line in lines for c in line} & {"Cc", "Cf"}


def test_unknown_attacks_do_not_break_a_page(adaptive: RunRecord, tmp_path: Path) -> None:
    made = RunRecord.model_validate_json(adaptive.model_dump_json().replace('"T3f"', '"T9<b>"'))
    sample_run.write(tmp_path / "run", made, n_examples=0)
    page = Page(write_report([tmp_path / "run"], tmp_path / "out"))
    assert "An attacker (T9<b>, mobilefacenet-ms1m) recognises" in page.text
    assert "T9<b>" in "\n".join(printed(made, 60))


@pytest.mark.parametrize("change", [{"fars": [0.1, 0.02]}, {"folds": 10}, {"ranks": []}])
def test_one_name_for_two_protocols_is_refused(adaptive: RunRecord, change: dict[str, Any]) -> None:
    other = changed(adaptive, protocol_settings={**adaptive.protocol_settings, **change})
    (key,) = change
    for pair in ([adaptive, other], [other, adaptive]):
        with pytest.raises(DeidbenchError, match=f"both named full-v1 but differ in {key},"):
            reading.check_comparable(pair)


def test_settings_that_ask_for_the_same_may_stand_together(adaptive: RunRecord) -> None:
    about = {"summary": "In other words.", "thresholds": {}}
    same = changed(adaptive, protocol_settings={**adaptive.protocol_settings, **about})
    reading.check_comparable([adaptive, same])
    older = changed(adaptive, protocol_settings={})
    reading.check_comparable([older, older])
    for pair in ([adaptive, older], [older, adaptive]):
        with pytest.raises(DeidbenchError, match="of an older deidbench, does not"):
            reading.check_comparable(pair)


def test_what_was_not_run_is_told_with_its_reason(adaptive: RunRecord) -> None:
    def told(*gaps: tuple[str, str], made: RunRecord = adaptive) -> str:
        listed = [{"what": what, "why": why} for what, why in gaps]
        return " ".join(reading.summary(Run(changed(made, not_measured=listed)), 0.01))

    assert "Attacks that were not run: T4: too few people." in told(("T4", "too few people."))
    naive = sample_run.record(recognizers=TWO)
    text = told(("attackers who adapt (T3, T4)", "not part of quick-v1"), made=naive)
    assert "expect them to do better than these numbers. T3, T4: not part of quick-v1." in text


def test_several_runs_of_all_attackers_stand_side_by_side(
    adaptive: RunRecord, tmp_path: Path
) -> None:
    other = sample_run.record(adaptive=True, recognizers=TWO, protection=1.5, run_id="other",
                              method="gaussian-blur", seed=1)  # fmt: skip
    for name, made in (("a", adaptive), ("b", other)):
        sample_run.write(tmp_path / name, made, n_examples=0)
    page = Page(write_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert section(page, "attackers").count('<em class="flag">worst case</em>') == 2
    assert page.text.count("2 controls, all held") == 2


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_summary_of_all_attackers_is_short_and_starts_with_the_worst(
    adaptive: RunRecord, width: int
) -> None:
    lines = printed(adaptive, width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= (23 if width < 80 else 21)
    assert lines[1].startswith("worst case: T3f by mobilefacenet-ms1m 96.8% [93, 100] at FAR")
    text = " ".join("\n".join(lines).split())
    for threat in ("P", "T2", "T3", "T3f", "T4", "T5"):
        (line,) = [one for one in lines if re.match(rf"{threat} +\w", one) and "D_sys" not in one]
        assert sample_run.WHITE_BOX in line  # the strongest recognizer only
    assert "T5 D_sys 0.451" in text and "T6 treated or not: AUC 0.962" in text
    assert "controls: 2 held" in text
    assert "but for T1 the strongest recognizer only" in text


def test_a_summary_without_adapted_attackers_says_so() -> None:
    naive = sample_run.record(recognizers=TWO)
    rows = [*naive.rows, *worst_rows(naive.rows)]
    made = changed(naive, rows=[row.model_dump() for row in rows])
    assert printed(made, 120)[1].startswith("worst case (nobody adapted): T2 by ")


# Several runs


def test_several_runs_stand_side_by_side(both: Page) -> None:
    assert "fadenet and gaussian-blur compared" in both.text
    for label in ("A fadenet", "B gaussian-blur (strength 0.5)"):
        assert label in both.text


def test_a_white_box_attacker_is_marked_in_every_table(page: Page, both: Page) -> None:
    for one, marks in ((page, 2), (both, 2)):
        found = re.findall(r'class="key T1w">T1w[^<]*<small>[^<]*seen in training', one.source)
        assert len(found) == marks  # other photos, same photo


def test_runs_of_different_protocols_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    sample_run.write(tmp_path / "other", changed(sample_run.record(), protocol="quick-v9"))
    with pytest.raises(DeidbenchError, match="different protocols") as caught:
        write_report([runs["fadenet"], tmp_path / "other"], tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_rows_of_different_metric_versions_are_refused(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    rows = [row.model_dump() for row in sample_run.record(recognizers=TWO).rows]
    newer = [{**row, "version": 2 if row["metric"] == "eer" else 1} for row in rows]
    sample_run.write(tmp_path / "newer", changed(sample_run.record(recognizers=TWO), rows=newer))
    assert write_report([tmp_path / "newer"], tmp_path / "alone").is_file()
    with pytest.raises(DeidbenchError, match="metric eer has versions 1, 2"):
        write_report([runs["fadenet"], tmp_path / "newer"], tmp_path / "out")


def test_different_faces_are_warned_about(runs: dict[str, Path], tmp_path: Path) -> None:
    made = sample_run.record(recognizers=TWO)
    other = changed(made, dataset={**made.dataset.model_dump(), "sha256": "00" * 32})
    sample_run.write(tmp_path / "other", other)
    page = Page(write_report([runs["few"], tmp_path / "other"], tmp_path / "out"))
    assert "The runs used different faces" in page.text


def test_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeidbenchError, match="no run to report"):
        write_report([], tmp_path)


# Faces


def test_synthetic_faces_are_shown_before_and_after(page: Page) -> None:
    alts = [attributes["alt"] for attributes in page.all("img")]
    assert alts == [f"Face s00{i}-0, {m}" for i in range(2) for m in ("original", "fadenet")]


def test_real_faces_are_shown_only_on_request(runs: dict[str, Path], tmp_path: Path) -> None:
    hidden = Page(write_report([runs["real"]], tmp_path / "hidden"))
    assert hidden.all("img") == [] and "data:image" not in hidden.source
    assert "show real people, so they are not shown. --show-faces shows them" in hidden.text
    shown = Page(write_report([runs["real"]], tmp_path / "shown", show_faces=True))
    assert len(shown.all("img")) == 4


def test_in_a_mixed_report_only_the_synthetic_faces_are_shown(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page = Page(write_report([runs["real"], runs["evil"]], tmp_path))
    assert [a["alt"] for a in page.all("img")][1::2] == [f"Face s00{i}-0, B {EVIL}" for i in (0, 1)]
    assert "A: the faces of lfw show real people" in page.text


def test_pictures_are_drawn_anew_so_that_nothing_else_comes_along(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    run = Path(shutil.copytree(runs["few"], tmp_path / "run"))
    secret = PngInfo()
    secret.add_text("place", "somewhere private")
    target = run / "examples" / "s000-0-before.png"
    with Image.open(target) as image:
        image.load()
        image.save(target, pnginfo=secret)
    page = Page(write_report([run], tmp_path / "out"))
    import base64

    sources = [attributes["src"] or "" for attributes in page.all("img")]
    assert all(b"private" not in base64.b64decode(s.partition(",")[2]) for s in sources)


# Accessibility


@pytest.mark.parametrize("which", ["page", "both"])
def test_headings_tables_and_charts_are_named(which: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(which)
    names = [tag for tag, _ in page.tags]
    assert names.count("h1") == 1 and names.count("main") == 1
    assert names.count("table") == names.count("caption")
    charts = [a for a in page.all("svg") if a.get("class") == "chart"]
    assert charts and all(a["role"] == "img" and a["aria-label"] for a in charts)
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("scope") for a in page.all("th"))
    levels = [int(tag[1]) for tag in names if re.fullmatch(r"h\d", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert page.all("a")[0]["href"] == "#content"


def test_every_colour_of_the_charts_is_a_variable_of_the_page(both: Page) -> None:
    used = set(re.findall(r"var\(--([\w]+)\)", both.source))
    for theme in themes(both):
        assert used - set(theme) <= {"sans", "serif", "mono", "tone", "heat"}
    charts = "".join(re.findall(r'<svg class="chart".*?</svg>', both.source, re.S))
    assert not re.search(r"#[0-9a-f]{6}\b", charts)


# Writing


def test_an_older_page_is_replaced_and_nothing_else_is_left(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    first = write_report([runs["few"]], tmp_path).read_bytes()
    assert write_report([runs["blur"]], tmp_path).read_bytes() != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.html", "notes.txt"]


def test_a_page_that_is_not_ours_is_left_alone(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>my home page</h1>")
    with pytest.raises(DeidbenchError, match="not written by deidbench"):
        write_report([runs["few"]], tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>my home page</h1>"


@pytest.mark.parametrize("obstacle", ["file", "folder"])
def test_an_unwritable_place_is_one_clear_error(
    runs: dict[str, Path], tmp_path: Path, obstacle: str
) -> None:
    out = tmp_path / "out"
    if obstacle == "file":
        out.write_text("")
    else:
        (out / "index.html").mkdir(parents=True)
    with pytest.raises(DeidbenchError, match="cannot write the report"):
        write_report([runs["few"]], out)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_opens_in_a_browser_without_sideways_scrolling(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    target = write_report([runs["fadenet"], runs["blur"]], tmp_path / "out")
    wrapper = tmp_path / "phone.html"
    wrapper.write_text(
        f'<iframe id=f src="{target.as_uri()}" style="width:390px;height:800px"></iframe>'
        "<script>f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = `${d.scrollWidth}<=${d.clientWidth}`; }</script>"
    )
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
         "--allow-file-access-from-files", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=4000", "--dump-dom", wrapper.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<title>(\d+)&lt;=(\d+)</title>", done.stdout)
    assert found and int(found[1]) <= int(found[2])


# The terminal


def printed(made: RunRecord, width: int) -> list[str]:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(summary_table(made, width))
        return console.export_text().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_summary_fits_and_is_whole(width: int) -> None:
    lines = printed(sample_run.record(), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 21
    text = "\n".join(lines)
    assert lines[0].startswith("fadenet on synthid")
    assert re.search(r"^T1w\s+mobilefacenet-ms1m\s+0?\.367\*", text, re.M)
    assert re.search(r"^T1 +sface +0?\.797 \[0?\.7\S+,.*%", text, re.M)
    assert not any(line.endswith("…") for line in lines)
    for word in ("LPIPS", "SSIM", "PSNR", "Faces found", "images/s", "human observers"):
        assert word in " ".join(text.split())


def test_the_summary_uses_the_smallest_honest_far() -> None:
    assert "0.01" in printed(sample_run.record(), 60)[1]
    assert "0.1" in printed(sample_run.record(honest=0.1), 60)[1].split()


def test_the_summary_needs_no_rates() -> None:
    lines = printed(without_rates(sample_run.record()), 60)
    assert any(line.startswith("T1 ") and numbers.DASH in line for line in lines)


def test_names_cannot_drive_a_terminal() -> None:
    lines = printed(sample_run.record(method="\x1b[2J[red]\u202ehidden"), 80)
    assert "[red]" in lines[0]
    assert not {unicodedata.category(c) for line in lines for c in line} & {"Cc", "Cf"}


def test_long_names_keep_their_ends() -> None:
    made = sample_run.record().model_dump_json().replace("mobilefacenet", "mobilefacenet-extended")
    text = "\n".join(printed(RunRecord.model_validate_json(made), 60))
    assert "ded-casia" in text and "ded-ms1m" in text


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.8344, "0.834"), (24.61, "24.6"), (9.999, "10.0"), (1234.5, "1,234"),
     (0.00012345, "0.000123"), (1.2e-9, "1.2e-09"), (1.219e-6, "1.22e-06"), (-0.475, "\u22120.475"),
     (100, "100"), (99.95, "100"), (0.99984, "0.9998"), (0.999999, "0.9999"), (1, "1.00")],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert numbers.number(value) == text


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_a_written_number_is_the_number_within_half_a_percent(value: float) -> None:
    assert abs(float(numbers.number(value).replace(",", "")) - value) <= 0.005 * value


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.4123, 3, "41.2 %"), (0.4123, 2, "41 %"), (1, 2, "100 %"), (0.9996, 3, "> 99.9 %"),
     (0.9996, 2, "> 99.9 %"), (0.998, 2, "99.8 %"), (0.0052, 2, "0.52 %"), (0, 2, "0 %")],
)  # fmt: skip
def test_percentages_never_round_to_certainty(share: float, digits: int, text: str) -> None:
    assert numbers.percent(share, digits).replace("\u00a0", " ") == text


def test_odds_of_a_far_are_words() -> None:
    assert numbers.odds(0.001) == "1 false match in 1,000"
    assert numbers.odds(0) == "no false match"


def test_intervals_are_in_the_unit_of_their_value() -> None:
    row = MetricRow(metric="tar", value=0.41, low=0.36, high=0.471, unit="fraction")
    assert numbers.interval(row, digits=2).replace("\u00a0", " ") == "[36, 47]"
    assert numbers.interval(row).replace("\u00a0", " ") == "[36.0, 47.1]"


def test_an_inverted_recognizer_ranks_by_what_an_attacker_makes_of_it() -> None:
    made = without_rates(sample_run.record())
    rows = [row.model_dump() for row in made.rows]
    for row in rows:
        if (row["threat"], row["recognizer"], row["metric"]) == ("T1", "sface", "auc"):
            row.update(value=0.05, low=0.04, high=0.06)
    ranked = Run(changed(made, rows=rows)).ranked("T1", None)
    assert ranked[0].recognizer == "sface"
    assert any("reaches 0.950" in s for s in reading.summary(Run(changed(made, rows=rows)), None))


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    from deidbench.render.figures import MAX_POINTS, _thinned

    rng = np.random.default_rng(0)
    fmr = np.sort(rng.uniform(1e-6, 1, 20_000))
    tar = np.sqrt(fmr)
    curve = (
        sample_run.record().curves[0].model_copy(update={"fmr": fmr.tolist(), "tar": tar.tolist()})
    )
    x, y = _thinned(curve, fmr[0])
    assert len(x) <= MAX_POINTS + 2
    assert (x[0], x[-1]) == (fmr[0], fmr[-1])
    np.testing.assert_array_equal(y, np.sqrt(x))
