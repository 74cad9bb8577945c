"""deidbench from Python: runs as they are made, opened, shown and drawn."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import deidbench
from deidbench.config import RunConfig
from deidbench.measure import worst_rows
from deidbench.metrics.auc import AreaUnderCurve
from deidbench.results.schema import RunRecord
from tests import sample_run

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}{0$ _hidden",
    "\u202eevil\u202c \u05d0\u05d1\u05d2",
    "n" * 200,
    "{{ 7 * 7 }}{% raw %}",
]
SMALL: dict[str, Any] = {
    "protocol": "quick-v1", "limit_subjects": 6, "recognizers": "sface", "draws": 100,
    "quiet": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    """Charts without a screen, and none left open."""
    from matplotlib import pyplot

    mpl.use("Agg")
    yield
    pyplot.close("all")


class Halves:
    """A method that somebody wrote into a script, and that needs the set to be published."""

    name, version, strength = "halves", 3, 0.25
    trained_against = ("sface",)

    def __init__(self) -> None:
        self.parameters = {"by": 2}
        self.seen: list[int] = []

    def fit(self, faces: Any, subjects: list[str]) -> None:
        self.seen.append(len(faces))

    def deidentify(self, faces: Any, *, seed: int) -> Any:
        assert len(self.seen) < 2
        return faces / 2


def made(folder: Path, **changes: Any) -> deidbench.Run:
    """A made-up run with a worst case."""
    record = sample_run.record(**changes)
    rows = [*record.rows, *worst_rows(record.rows)]
    sample_run.write(folder, record.model_copy(update={"rows": rows}))
    return deidbench.open_run(folder)


@pytest.fixture
def run(tmp_path: Path) -> deidbench.Run:
    return made(tmp_path / "run", adaptive=True)


def refuses(words: str, **arguments: Any) -> None:
    with pytest.raises(deidbench.DeidbenchError, match=words) as caught:
        deidbench.evaluate(**arguments)
    assert "\n" not in str(caught.value)


# What it costs to have it


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys, deidbench\n"
        "light = set(sys.modules)\n"
        "deidbench.evaluate, deidbench.Run, deidbench.open_run\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'jinja2', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert 'deidbench.api' not in light\n"
        "assert set(deidbench.__all__) <= set(dir(deidbench))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_is_nothing_but_what_it_names() -> None:
    for name in deidbench.__all__:
        assert getattr(deidbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = deidbench.evalute  # type: ignore[attr-defined]


def test_its_parameters_are_those_of_the_configuration() -> None:
    parameters = dict(inspect.signature(deidbench.evaluate).parameters)
    assert parameters.pop("quiet").default is False
    known = {field.name: field for field in fields(RunConfig)}
    assert parameters.keys() == known.keys()
    for name, parameter in parameters.items():
        default = known[name].default
        wanted = inspect.Parameter.empty if default is MISSING else default
        assert parameter.default == (None if name == "settings" else wanted), name
        told = inspect.getdoc(deidbench.evaluate) or ""  # Python 3.13 takes the indent away
        assert re.search(rf"(?m)^    {name}: ", told), name


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "gausian-blur"}, "Did you mean 'gaussian-blur'"),
        ({"method": "identity", "dataset": "synthd"}, "Did you mean 'synthid'"),
        ({"method": "identity", "recognizers": "dlib, sfase"}, "Did you mean 'sface'"),
        ({"method": "identity", "metrics": ["ssmi"]}, "Did you mean 'ssim'"),
        ({"method": "identity", "protocol": "quick"}, "quick"),
        ({"method": "identity", "strength": 2}, "between 0 and 1"),
        ({"method": "k-same-pixel", "settings": {"strength": 1}}, "parameter of its own"),
        ({"method": "identity", "out": "."}, "never overwritten"),
        ({"method": 7}, "but got 7"),
        ({"method": Halves(), "strength": 0.5}, "strength=0.5 is for a method that is named"),
        ({"method": type("Half", (), {"deidentify": None})()}, "lacks name, version"),
        ({"method": dict}, "the class dict"),
    ],
)
def test_bad_input_is_one_line(
    arguments: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuses(words, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_misspelt_name_is_found_before_anything_heavy_loads() -> None:
    code = (
        "import sys, deidbench\n"
        "try: deidbench.evaluate('identity', recognizers='sfase')\n"
        "except deidbench.DeidbenchError: pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_parameter_is_an_error_of_python() -> None:
    with pytest.raises(TypeError, match="recogniser"):
        deidbench.evaluate("identity", recogniser="sface")  # type: ignore[call-arg]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    refuses("refuses", method="identity", out=tmp_path / "closed" / "run")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(deidbench.DeidbenchError, match=r"run\.json is missing"):
        deidbench.open_run(tmp_path)


# What it measures


@pytest.mark.slow
def test_a_method_by_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = deidbench.evaluate("gaussian-blur", strength=0.8, **SMALL)
    assert run.folder == Path("runs") / run.record.run_id
    assert run.record.method.strength == 0.8
    assert deidbench.open_run(run.folder).record == run.record
    page = run.report()
    assert page == run.folder / "report" / "index.html"
    assert "gaussian-blur" in page.read_text("utf-8")

    # The tables hold what the record claims.
    cross = run.scores.query("threat == 'T1' and recognizer == 'sface' and view == 'landmarks'")
    cross = cross[(cross["reference"] != cross["probe"]) & cross["score"].notna()]
    score = cross["score"].to_numpy(np.float32)
    genuine = cross["genuine"].to_numpy()
    auc = AreaUnderCurve()(genuine=score[genuine], impostor=score[~genuine])
    told = run.metrics.query("threat == 'T1' and recognizer == 'sface' and metric == 'auc'")
    told = told[(told["pairs"] == "cross") & (told["view"] == "landmarks") & told["group"].isna()]
    assert told["value"].tolist() == [pytest.approx(auc, abs=1e-12)]
    assert told["n_genuine"].tolist() == [genuine.sum()]
    people = run.images["subject"]
    sides = [people.iloc[cross[side]].to_numpy() for side in ("reference", "probe")]
    assert ((sides[0] == sides[1]) == genuine).all()


@pytest.mark.slow
def test_a_function_is_never_taken_for_another(home: Path, tmp_path: Path) -> None:
    """Two closures share their code and their file, so that nothing may be kept of either."""

    def dimmer(factor: float) -> Any:
        return lambda faces: faces * factor

    runs = [
        deidbench.evaluate(dimmer(factor), **SMALL, out=tmp_path / f"{factor}")
        for factor in (1.0, 0.3)
    ]
    assert runs[0].record.method.name.startswith("python:")
    unchanged, dark = (
        run.metrics.query("metric == 'ssim' and region == 'chip'")["value"] for run in runs
    )
    assert unchanged.tolist() == [pytest.approx(1)] * len(unchanged)
    assert 0 < dark.max() < 0.9


@pytest.mark.slow
def test_a_function_with_a_seed_gets_it(home: Path, tmp_path: Path) -> None:
    seeds = set()

    def noisy(faces: Any, *, seed: int) -> Any:
        import torch

        seeds.add(seed)
        draw = torch.Generator().manual_seed(seed)
        return (faces + 0.1 * torch.randn(faces.shape, generator=draw)).clamp(0, 1)

    run = deidbench.evaluate(noisy, **SMALL, out=tmp_path / "run")
    assert len(seeds) > 1
    assert run.record.method.name.endswith("noisy")


@pytest.mark.slow
def test_a_method_as_it_was_built(home: Path, tmp_path: Path) -> None:
    method = Halves()
    run = deidbench.evaluate(method, **SMALL, out=tmp_path / "run")
    told = run.record.method
    assert (told.name, told.version, told.strength) == ("halves", 3, 0.25)
    assert told.parameters == {"by": 2}
    assert run.record.config["settings"] == {"by": 2}
    assert run.record.config["strength"] == 0.25
    # What it saw in training attacks as a white box, as if it had been named.
    assert {row.threat for row in run.record.rows if row.recognizer == "sface"} == {
        "T0", "T1w", "T2"
    }  # fmt: skip
    assert not method.seen, "each part is treated by a copy that was fitted on it alone"


# What it tells


def test_its_tables_are_those_of_the_folder(run: deidbench.Run) -> None:
    from deidbench.results import store

    assert len(run.scores) == run.record.stored_rows["scores.parquet"]
    assert [*run.scores] == [*store.SCORE_SCHEMA.names, "genuine"]
    assert run.scores["score"].isna().any(), "a lost face is NaN"
    assert run.scores["genuine"].dtype == bool
    assert len(run.images) == len(sample_run.images())
    assert run.scores is run.scores


def test_metrics_have_their_settings_in_columns(run: deidbench.Run) -> None:
    table, rows = run.metrics, run.record.rows
    assert len(table) == len(rows)
    for column in ("far", "region", "k", "fpir", "folds"):
        assert column in table
    for i in range(0, len(rows), 7):
        told, row = table.iloc[i], rows[i]
        assert told["metric"] == row.metric
        for name, value in {"value": row.value, **row.params}.items():
            assert pd.isna(told[name]) if value is None else told[name] == value
    assert table.loc[table["value"].isna(), "note"].notna().all()


def test_a_setting_does_not_hide_a_field(tmp_path: Path) -> None:
    record = sample_run.record()
    row = record.rows[0].model_copy(update={"params": {"n": 3}})
    sample_run.write(tmp_path / "run", record.model_copy(update={"rows": [row]}))
    table = deidbench.open_run(tmp_path / "run").metrics
    assert table["n_setting"].tolist() == [3]
    assert table["n"].isna().all()


def test_the_worst_case_comes_first(run: deidbench.Run) -> None:
    worst = run.worst_case
    assert worst is not None
    assert worst.metric == "worst-case-tar"
    assert worst.params == {"far": 0.01}
    assert f"({worst.threat}, {worst.recognizer})" in run.summary()[0]
    first, second = repr(run).split("\n")
    assert f"worst case {worst.threat} by {worst.recognizer}" in first
    assert second == str(run.folder)


def test_without_an_honest_rate_it_speaks_of_auc(tmp_path: Path) -> None:
    run = made(tmp_path / "run", honest=0.5)
    assert run.worst_case is not None
    assert run.worst_case.metric == "worst-case-auc"
    assert "AUC" in repr(run)
    assert run._repr_html_().count("AUC</bdi></th>") == 1


def test_a_run_that_measured_nothing_says_so(tmp_path: Path) -> None:
    record = sample_run.record().model_copy(update={"rows": [], "curves": []})
    sample_run.write(tmp_path / "run", record)
    run = deidbench.open_run(tmp_path / "run")
    assert run.worst_case is None
    assert "no worst case" in repr(run)
    assert "<table" in run._repr_html_()
    assert run.metrics.empty
    with pytest.raises(deidbench.DeidbenchError, match="no curve of any recognizer"):
        run.plot_roc()
    with pytest.raises(deidbench.DeidbenchError, match="no scores of any threat"):
        run.plot_scores()


# How it is shown


class Shown(HTMLParser):
    """Tags, attributes and text of a piece of HTML; a tag that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_the_findings(run: deidbench.Run) -> None:
    shown = Shown(run._repr_html_())
    assert set(shown.tags) <= {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td",
                               "bdi", "details", "summary", "ul", "li"}  # fmt: skip
    for sentence in run.summary():
        assert sentence in shown.text
    for threat in ("T0", "T1", "T3", "T4", "T5"):
        assert threat in shown.text
    assert run.record.run_id in shown.text
    assert str(run.folder) not in shown.text, "a notebook is passed on, and a path tells of people"
    styles = " ".join(value or "" for name, value in shown.attributes if name == "style")
    # Text has the page's own colour, whether that is light or dark.
    assert not re.search(r"(?<![-\w])color\s*:|url\(|@import|position:\s*fixed", styles)
    assert {name for name, _ in shown.attributes} <= {"style", "aria-hidden"}
    assert len(run._repr_html_()) < 30_000


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_outside_are_text(name: str, tmp_path: Path) -> None:
    run = hostile(tmp_path / "run", name)
    shown = Shown(run._repr_html_())
    assert not {"script", "img"} & set(shown.tags)
    assert not [key for key, _ in shown.attributes if key.startswith("on")]
    assert "49" not in shown.text.split("synthetic")[0]
    assert "\u202e" not in shown.text + repr(run)
    assert len(repr(run).split("\n")) == 2
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(1, 3)
    run.plot_roc(grid[0])
    run.plot_det(grid[1], recognizer=name)
    run.plot_scores(grid[2], recognizer=name)
    if name.isascii():  # other letters may be missing in the font, which says so
        figure.canvas.draw()


def hostile(folder: Path, name: str) -> deidbench.Run:
    """A run whose method, dataset and recognizer have a name."""
    record = sample_run.record(method=name, recognizers=("dlib",), adaptive=True)
    text = record.model_dump()
    for kind in ("rows", "curves", "recognizers", "thresholds", "learned", "identification"):
        for one in text[kind]:
            for key in ("recognizer", "name"):
                if one.get(key) == "dlib":
                    one[key] = name
    text["dataset"]["label"] = name
    sample_run.write(folder, RunRecord.model_validate(text))
    return deidbench.open_run(folder)


# How it is drawn


def test_a_curve_for_each_threat_by_who_does_best(run: deidbench.Run) -> None:
    axes = run.plot_roc()
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[0] == "guessing"
    threats = [name.split()[0] for name in names[1:]]
    assert threats == ["T0", "T1", "T1w", "P", "T2", "T3", "T3f", "T4", "T5"]
    line = next(line for line in axes.lines if str(line.get_label()).startswith("T1 by"))
    best = run._reading.ranked("T1", 0.01)[0].recognizer
    (curve,) = (c for c in run.record.curves if (c.threat, c.recognizer) == ("T1", best)
                and c.view == "landmarks" and c.pairs == "cross")  # fmt: skip
    assert line.get_label() == f"T1 by {best}"
    assert [*line.get_xdata()] == curve.fmr  # type: ignore[misc]
    assert [*line.get_ydata()] == curve.tar  # type: ignore[misc]
    assert axes.get_xscale() == "log"


def test_a_det_curve_is_drawn_in_rates(run: deidbench.Run) -> None:
    axes = run.plot_det(recognizer="dlib")
    axes.figure.canvas.draw()
    for line in axes.lines:
        for rates in (line.get_xdata(), line.get_ydata()):
            assert np.all((np.asarray(rates) > 0) & (np.asarray(rates) < 1))
    left, middle, right = axes.transData.transform([(0.1, 0.5), (0.5, 0.5), (0.9, 0.5)])[:, 0]
    assert middle - left == pytest.approx(right - middle)  # deviates of 10 % and 90 % mirror
    assert "50 %" in [text.get_text() for text in axes.get_xticklabels()]


def test_scores_of_the_worst_case_unless_another_is_named(run: deidbench.Run) -> None:
    worst = run.worst_case
    assert worst is not None
    assert run.plot_scores().get_title().startswith(f"{worst.threat} by {worst.recognizer}")
    axes = run.plot_scores(threat="T0", recognizer="sface")
    assert axes.get_title().startswith("T0 by sface")
    (line,) = axes.lines
    assert [*line.get_xdata()] == [0.4, 0.4]  # type: ignore[misc]  # its threshold at FAR 0.01
    heights = [patch.get_data().values.sum() for patch in axes.patches]
    assert heights == [pytest.approx(1)] * 4


def test_it_draws_on_axes_that_it_is_given(run: deidbench.Run) -> None:
    from matplotlib import pyplot

    _, grid = pyplot.subplots(1, 3)
    given = [*grid]
    drawn = [run.plot_roc(given[0]), run.plot_det(given[1]), run.plot_scores(given[2])]
    assert all(one is other for one, other in zip(drawn, given, strict=True))
    assert pyplot.get_fignums() == [1]


def test_what_there_is_not_cannot_be_drawn(run: deidbench.Run) -> None:
    with pytest.raises(deidbench.DeidbenchError, match="no curve of 'nobody'"):
        run.plot_roc(recognizer="nobody")
    with pytest.raises(deidbench.DeidbenchError, match="no scores of T9 by any recognizer"):
        run.plot_scores(threat="T9")


def test_a_report_goes_where_it_is_asked_to(run: deidbench.Run, tmp_path: Path) -> None:
    assert run.report(tmp_path / "page") == tmp_path / "page" / "index.html"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    with pytest.raises(deidbench.DeidbenchError):
        run.report(tmp_path / "mine")
