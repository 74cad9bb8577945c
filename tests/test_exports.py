"""A report in other forms: numbers true to the record, names harmless, files whole or not there."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from deidbench.cli import cli
from deidbench.errors import DeidbenchError
from deidbench.render import dpia, exports, frontier, numbers, papers, seal
from deidbench.render.reading import Run, open_runs
from deidbench.results.schema import RunRecord
from tests import sample_run

TWO = ("dlib", sample_run.WHITE_BOX)
HOSTILE = {
    "script": "<script>alert(1)</script>",
    "quotes": "a\"b'c`d",
    "right to left": "\u202eevil\u2066\u05d0\u05d1",
    "long": "x" * 200,
    "formula": '=HYPERLINK("http://evil.example")',
    "link": "[x](http://evil.example) ![y](http://evil.example/z.png) <http://evil.example>",
    "table": "a|b | c\n\n# head",
    "tex": "\\input{/etc/passwd} $x$ 50% a_b^c & {~} #1 \\",
    "bracket": "[2pt] * --- ",
    "end": "</script><!--",
    "address": "http://evil.example www.evil.example @someone",
}


def changed(made: RunRecord, **changes: Any) -> RunRecord:
    return RunRecord.model_validate({**made.model_dump(), **changes})


def named(name: str, run_id: str = "named") -> RunRecord:
    """A record in which all that has a name of its own carries this one."""
    made = sample_run.record(method="METHOD", adaptive=True, recognizers=TWO, run_id=run_id)
    text = made.model_dump()
    text["method"]["parameters"] = {"mode": name}
    text["not_measured"] = [{"what": name, "why": name}]
    text["learned"] = [{**one, "note": name} for one in text["learned"]]
    text["dataset"]["label"] = name
    text["rows"] = [{**row, "note": row["note"] and name} for row in text["rows"]]
    for where in ("rows", "curves", "identification", "thresholds", "learned", "controls"):
        for one in text[where]:
            if one.get("recognizer") == "dlib":
                one["recognizer"] = name
    text["recognizers"][0]["name"] = name
    text["method"]["name"] = name
    return RunRecord.model_validate(text)


def swept() -> list[RunRecord]:
    """A method at three strengths, with a setting that follows from it, and another method."""
    found = []
    for i, strength in enumerate((1.0, 0.25, 0.5)):
        one = sample_run.record(
            method="gaussian-blur", strength=strength, protection=1.5 - strength, seed=i,
            run_id=f"blur{i}", recognizers=TWO, adaptive=True, trained_against=(),
        )  # fmt: skip
        method = {**one.method.model_dump(), "parameters": {"sigma": 8 * strength}}
        rows = [row.model_dump() for row in one.rows]
        for row in rows:
            if row["metric"] == "lpips" and row["threat"] is None:
                row.update(value=strength / 2, low=strength / 2 - 0.01, high=strength / 2 + 0.01)
        found.append(changed(one, method=method, rows=rows))
    other = sample_run.record(run_id="other", recognizers=TWO, adaptive=True)
    return [*found, other]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "run"
    sample_run.write(folder, sample_run.record(adaptive=True, recognizers=TWO), n_examples=1)
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = tmp_path_factory.mktemp("sweep")
    for i, one in enumerate(swept()):
        sample_run.write(base / str(i), one, n_examples=0)
    return [base / str(i) for i in range(4)]


def opened(*folders: Path) -> list[Run]:
    from deidbench.results.store import read_run

    return open_runs([(read_run(folder), folder) for folder in folders])


# CSV


def test_the_csv_holds_every_row_in_full_precision(full: Path, tmp_path: Path) -> None:
    (path,) = exports.export([full], tmp_path, ["csv"])
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"))))
    record = sample_run.record(adaptive=True, recognizers=TWO)
    assert len(rows) == len(record.rows)
    for written, row in zip(rows, record.rows, strict=True):
        assert written["run_id"] == record.run_id
        assert written["metric"] == row.metric and written["threat"] == (row.threat or "")
        for name in ("value", "low", "high"):
            value = getattr(row, name)
            assert written[name] == ("" if value is None else repr(float(value)))
        assert written["far"] == str(row.params.get("far", ""))
        told = dict(part.split("=") for part in written["other_params"].split("; ") if part)
        own = {k: str(v) for k, v in row.params.items() if k not in exports.OWN_PARAMS}
        assert told == own


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r+", " =", "\u00a0@"])
def test_no_cell_is_computed_by_a_spreadsheet(start: str) -> None:
    cell = str(exports.csv_cell(f"{start}1+1"))
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))


def test_numbers_below_zero_stay_numbers() -> None:
    assert exports.csv_cell(-0.25) == -0.25
    assert exports.csv_cell(None) == "" and exports.csv_cell(True) == "true"


# Markdown


class Tags(HTMLParser):
    """Elements and their attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def rendered(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_the_markdown_says_what_the_page_says(full: Path, tmp_path: Path) -> None:
    (path,) = exports.export([full], tmp_path, ["md"])
    html = rendered(path.read_text("utf-8"))
    (run,) = opened(full)
    worst = run.worst(0.01)
    assert worst is not None
    text = re.sub(r"<[^>]+>", "", html).replace(numbers.SPACE, " ")
    share = numbers.percent(worst.value or 0, 2).replace(numbers.SPACE, " ")
    assert f"({worst.threat}, {worst.recognizer}) recognises {share}" in text
    assert "What was not measured" in text and "human observers" in text
    assert seal.seal(full).sha256 in text
    assert html.count("<table>") >= 7
    assert text.index("recognises") < text.index("What each attacker")


@pytest.mark.parametrize("which", HOSTILE)
def test_a_name_in_markdown_is_text(which: str, tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", named(HOSTILE[which]), n_examples=0)
    paths = exports.export([tmp_path / "run"], tmp_path / "out", ["md", "dpia"])
    for path in paths:
        if path.suffix != ".md":
            continue
        html = rendered(path.read_text("utf-8"))
        tags = {tag for tag, _ in Tags(html).found}
        assert {"script", "a", "img", "input", "hr"}.isdisjoint(tags)
        assert [line for line in html.splitlines() if line.startswith("<h1")][1:] == []
        shown = re.sub(r"\s+", " ", numbers.plain(HOSTILE[which])).strip()
        seen = re.sub(r"\s+", " ", ElementTree.fromstring(f"<r>{_xml(html)}</r>").text or "")
        texts = "".join(ElementTree.fromstring(f"<r>{_xml(html)}</r>").itertext())
        assert shown in re.sub(r"\s+", " ", seen + texts)
        assert "http://" not in path.read_text("utf-8").replace("&#58;", "")


def _xml(html: str) -> str:
    return re.sub(r"<(br|hr)>", r"<\1/>", html.replace("<!-- deidbench report -->", ""))


@given(st.text(max_size=60))
def test_any_text_in_markdown_is_shown_as_it_is(text: str) -> None:
    html = rendered(f"- {exports.md(text)}\n- end")
    tags = [tag for tag, _ in Tags(html).found]
    assert tags == ["ul", "li", "li"]


# LaTeX


def test_the_latex_table_has_a_row_a_method_and_its_columns(sweep: list[Path]) -> None:
    runs = opened(*sweep)
    text = exports.latex(runs)
    head = next(line for line in text.splitlines() if line.startswith("Method"))
    columns = [cell.strip() for cell in head.removesuffix(r" \\").split("&")]
    assert columns == ["Method", "Worst case", "T1", "T1w", "P", "T2", "T3", "T3f", "T4", "T5",
                       "LPIPS", "SSIM"]  # fmt: skip
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 2 * len(runs)
    for run, values, ends in zip(runs, body[::2], body[1::2], strict=True):
        cells = values.removesuffix(r" \\").split(" & ")
        worst = run.worst(0.01)
        assert worst is not None and cells[0] == run.label
        assert cells[1] == numbers.number(100 * (worst.value or 0))
        assert numbers.interval(worst).replace(numbers.SPACE, "~") in ends
        assert len(cells) == len(columns) == len(ends.split(" & "))


@pytest.mark.parametrize("which", HOSTILE)
def test_a_name_in_latex_is_text(which: str, tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", named(HOSTILE[which]), n_examples=0)
    text = exports.latex(opened(tmp_path / "run"))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    known = {"\\textbackslash", "\\textasciicircum", "\\textasciitilde", "\\textless",
             "\\textgreater", "\\textbar", "\\textquotedbl", "\\textquotesingle",
             "\\textasciigrave", "\\textendash", "\\dots", "\\footnotesize"}  # fmt: skip
    assert set(re.findall(r"\\[A-Za-z]+", body)) <= known
    assert balanced(text)
    assert all(ord(sign) <= exports.LAST_LATIN for sign in body)
    rows = body.strip().splitlines()
    assert len(rows) == 2 and not rows[0].startswith(("[", "*"))
    assert rows[0].count("&") - rows[0].count(r"\&") == rows[1].count("&")


@given(st.text())
def test_any_text_in_latex_is_balanced_and_commands_are_ours(text: str) -> None:
    written = exports.tex(text)
    assert balanced(written)
    assert not re.search(r"(?<!\\)[%#&_]|\n", written)
    assert "--" not in written


def balanced(text: str) -> bool:
    depth = 0
    for sign in re.sub(r"\\[{}\\]", "", text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("which", HOSTILE)
def test_latex_sets_the_table(which: str, tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", named(HOSTILE[which]), n_examples=0)
    table = exports.latex(opened(tmp_path / "run"))
    (tmp_path / "a.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\usepackage{textcomp}"
        f"\\usepackage[T1]{{fontenc}}\\begin{{document}}{table}\\end{{document}}"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-no-shell-escape", "a.tex"], cwd=tmp_path, check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


# Figures


def test_figures_are_the_same_bytes_again_and_hold_text(full: Path, tmp_path: Path) -> None:
    first = exports.export([full], tmp_path / "a", ["figures"])
    again = exports.export([full], tmp_path / "b", ["figures"])
    assert {path.name for path in first} == {
        f"{name}.{kind}" for name in ("roc", "det", "histograms", "trade-off")
        for kind in ("svg", "pdf")
    }  # fmt: skip
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    for path in first:
        if path.suffix == ".svg":
            texts = [text.text for text in ElementTree.parse(path).getroot().iter(
                "{http://www.w3.org/2000/svg}text")]  # fmt: skip
            assert len(texts) > 8, path
            assert not list(ElementTree.parse(path).getroot().iter(
                "{http://www.w3.org/2000/svg}image"))  # fmt: skip
        else:
            assert path.read_bytes().startswith(b"%PDF")
            assert b"/Subtype /Image" not in path.read_bytes()


@pytest.mark.parametrize("which", HOSTILE)
def test_a_name_in_a_figure_is_text(which: str, tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", named(HOSTILE[which]), n_examples=0)
    for path in exports.export([tmp_path / "run"], tmp_path / "out", ["figures"]):
        if path.suffix == ".svg":
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
            assert {"script", "a", "image", "foreignObject"}.isdisjoint(tags)


def test_figures_use_colours_that_differ_in_brightness_or_hue() -> None:
    assert len(set(papers.OF_THREATS.values())) == len(papers.OF_THREATS)
    assert len(set(papers.COLOURS)) == len(papers.COLOURS) == 8


# Sweeps


def test_runs_of_one_method_at_several_strengths_are_one_sweep(sweep: list[Path]) -> None:
    runs = opened(*sweep)
    (found,) = frontier.sweeps(runs)
    assert (found.name, found.knob) == ("gaussian-blur", "strength")
    assert found.values == (0.25, 0.5, 1.0)
    assert [run.letter for run in found.runs] == ["B", "C", "A"]


@pytest.mark.parametrize(
    "changes",
    [
        [{"strength": 0.5}, {"strength": 0.5}],  # twice the same
        [{"strength": 0.5, "parameters": {"mode": "a"}},
         {"strength": 1.0, "parameters": {"mode": "b"}}],  # another thing, too
        [{"strength": 0.5}, {"strength": 1.0, "version": 9}],
        [{"strength": None}, {"strength": 1.0}],
    ],
)  # fmt: skip
def test_what_differs_in_more_than_one_number_is_no_sweep(changes: list[dict[str, Any]]) -> None:
    made = sample_run.record(recognizers=TWO)
    records = [changed(made, method={**made.method.model_dump(), **change}) for change in changes]
    assert frontier.sweeps([Run(one, letter=x) for one, x in zip(records, "AB", strict=True)]) == []


def test_another_setting_can_be_swept_as_well() -> None:
    made = sample_run.record(recognizers=TWO)
    records = [
        changed(made, method={**made.method.model_dump(), "parameters": {"k": k, "mode": "x"}})
        for k in (8, 2)
    ]
    (found,) = frontier.sweeps([Run(one, letter=x) for one, x in zip(records, "AB", strict=True)])
    assert (found.knob, found.values, found.runs[0].letter) == ("k", (2.0, 8.0), "B")


def test_an_attacker_below_half_is_turned_round_on_the_frontier() -> None:
    made = sample_run.record(recognizers=TWO, adaptive=True)
    rows = [row.model_dump() for row in made.rows]
    for row in rows:
        if row["metric"] == "worst-case-auc":
            row.update(metric="auc")
    rows = [row for row in rows if "worst" not in row["metric"]]
    for row in rows:
        if (row["threat"], row["metric"]) in (("T1", "auc"), ("T1w", "auc")):
            row.update(value=0.1, low=0.05, high=0.2)
    (spot,) = frontier.spots([Run(changed(made, rows=rows))], None)
    assert (spot.at, spot.ends) == (pytest.approx(0.9), pytest.approx((0.8, 0.95)))


# DPIA


def test_the_appendix_is_tied_to_the_files_by_their_hash(full: Path, tmp_path: Path) -> None:
    paths = exports.export([full], tmp_path, ["dpia"])
    assert [path.name for path in paths] == ["dpia.html", "dpia.md"]
    names = ("run.json", "scores.parquet", "images.parquet")
    digests = [hashlib.sha256((full / name).read_bytes()).hexdigest() for name in names]
    lines = "".join(f"{digest}  {name}\n" for digest, name in zip(digests, names, strict=True))
    whole = hashlib.sha256(lines.encode()).hexdigest()
    for path in paths:
        text = path.read_text("utf-8")
        assert all(digest in text for digest in [whole, *digests])
    said = CliRunner().invoke(cli, ["validate", str(full)])
    assert f"sha256 {whole}" in said.output


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_check_that_the_appendix_names_prints_the_hash(full: Path) -> None:
    done = subprocess.run(
        seal.CHECK, shell=True, cwd=full, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == seal.seal(full).sha256


@pytest.mark.parametrize("name", ["run.json", "scores.parquet", "images.parquet"])
def test_a_changed_file_changes_the_hash(full: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(full, tmp_path / "run"))
    with (copy / name).open("ab") as file:
        file.write(b" ")
    assert seal.seal(copy).sha256 != seal.seal(full).sha256


def test_examples_do_not_count_for_the_hash(full: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(full, tmp_path / "run"))
    shutil.rmtree(copy / "examples")
    assert seal.seal(copy) == seal.seal(full)


def test_a_link_out_of_the_run_is_not_hashed(full: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(full, tmp_path / "run"))
    (copy / "scores.parquet").unlink()
    (tmp_path / "secret").write_text("secret")
    (copy / "scores.parquet").symlink_to(tmp_path / "secret")
    with pytest.raises(DeidbenchError, match="leads out of the run folder"):
        seal.seal(copy)


def test_the_appendix_says_what_is_left_and_what_is_not_known(full: Path, tmp_path: Path) -> None:
    html, _ = exports.export([full], tmp_path, ["dpia"])
    source = html.read_text("utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", source, flags=re.S))
    (run,) = opened(full)
    worst = run.worst(0.01)
    assert worst is not None and worst.value and worst.low is not None and worst.high is not None
    assert (
        f"({worst.threat}, {worst.recognizer}) accepts about {100 * worst.value:.0f} "
        f"({100 * worst.low:.0f} to {100 * worst.high:.0f} with 95 % confidence)" in text
    )
    for words in ("Singling out", "Linkability", "Inference", "lower bound", "human observers",
                  "2 controls were tried", "trained against"):  # fmt: skip
        assert words in text
    assert "<img" not in source and "data:image" not in source and "<script" not in source
    assert "http" not in source.replace("http-equiv", "")


def test_without_attackers_who_adapt_the_appendix_says_so(tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", sample_run.record(recognizers=TWO), n_examples=0)
    html, _ = exports.export([tmp_path / "run"], tmp_path / "out", ["dpia"])
    text = html.read_text("utf-8")
    assert "No attacker learned from treated faces." in text
    assert "The protocol tried none" in text
    assert "T5 linkage" in text and "not part of this protocol" in text


def test_a_run_that_is_not_whole_gets_no_appendix(full: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(full, tmp_path / "run"))
    (copy / "images.parquet").unlink()
    with pytest.raises(DeidbenchError, match=r"images\.parquet is missing"):
        exports.export([copy], tmp_path / "out", ["dpia"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(DeidbenchError, match="needs a run folder"):
        dpia.appendix(Run(sample_run.record(recognizers=TWO)))


@pytest.mark.parametrize("which", HOSTILE)
def test_a_name_in_the_appendix_is_text(which: str, tmp_path: Path) -> None:
    sample_run.write(tmp_path / "run", named(HOSTILE[which]), n_examples=0)
    html, _ = exports.export([tmp_path / "run"], tmp_path / "out", ["dpia"])
    source = html.read_text("utf-8")
    tags = Tags(source).found
    assert {"script", "img", "iframe"}.isdisjoint(tag for tag, _ in tags)
    assert all(not name.startswith("on") for _, attributes in tags for name in attributes)
    assert "\u202e" not in source


# The command and its files


def test_the_command_writes_what_is_asked_for(full: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli,
        ["report", str(full), "--out", str(tmp_path), "--format", "md,csv", "--format", "latex"],
    )
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv", "report.md", "table.tex",
    ]  # fmt: skip
    assert done.output.split() == [str(tmp_path / n) for n in ("report.md", "metrics.csv",
                                                               "table.tex")]  # fmt: skip


def test_one_run_needs_no_folder_to_be_named(full: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    done = CliRunner().invoke(cli, ["report", str(run), "--format", "csv"])
    assert done.exit_code == 0 and (run / "report" / "metrics.csv").is_file()
    several = CliRunner().invoke(cli, ["report", str(run), str(run)])
    assert isinstance(several.exception, DeidbenchError)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "word"], "--format expects html, md"),
        (["--script", "http://evil.example/x.js"], "--script expects embed"),
        (["--script", "/abs.js"], "--script expects"),
        (["--script", "plotly.txt"], "--script expects"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    full: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    done = CliRunner().invoke(cli, ["report", str(full), "--out", str(tmp_path / "o"), *options])
    assert isinstance(done.exception, DeidbenchError)
    assert words in str(done.exception) and "\n" not in str(done.exception)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("form", "name"), [("md", "report.md"), ("csv", "metrics.csv"), ("latex", "table.tex"),
                       ("figures", "figures/roc.svg"), ("figures", "figures/roc.pdf"),
                       ("dpia", "dpia.md"), ("dpia", "dpia.html")],
)  # fmt: skip
def test_ours_is_replaced_and_a_stranger_is_left_alone(
    full: Path, tmp_path: Path, form: str, name: str
) -> None:
    exports.export([full], tmp_path, [form])
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(before + b"\n")
    exports.export([full], tmp_path, [form])
    assert (tmp_path / name).read_bytes() == before
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(DeidbenchError, match="was not written by deidbench"):
        exports.export([full], tmp_path, [form])
    assert (tmp_path / name).read_bytes() == b"mine"


def test_several_runs_have_an_appendix_each(sweep: list[Path], tmp_path: Path) -> None:
    paths = exports.export(sweep[:2], tmp_path, ["dpia"])
    assert [path.name for path in paths] == [
        "dpia-A.html", "dpia-A.md", "dpia-B.html", "dpia-B.md",
    ]  # fmt: skip
