"""The page in a real browser, opened from a disk: what moves, what prints, what it asks for."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri

from deidbench.errors import DeidbenchError
from deidbench.render import interactive
from deidbench.render.exports import export
from deidbench.render.interactive import EMBED, Script, read_script
from deidbench.render.report import write_report
from deidbench.results.schema import RunRecord
from tests import sample_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TWO = ("dlib", sample_run.WHITE_BOX)
EVIL = "</script><script>document.title='evil'</script><!--<img src=x onerror=alert(1)>\"'"
BESIDE = Script("beside", interactive.PLOTLY)
WAYS = {"embed": EMBED, "beside": BESIDE}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    made = {
        "one": sample_run.record(adaptive=True, recognizers=TWO),
        "evil": hostile(sample_run.record(adaptive=True, recognizers=TWO, run_id="evil")),
    }
    for i, strength in enumerate((0.25, 0.5, 1.0)):
        made[f"blur{i}"] = sample_run.record(
            method="gaussian-blur", strength=strength, protection=1.5 - strength, adaptive=True,
            recognizers=TWO, run_id=f"blur{i}", seed=i, trained_against=(),
        )  # fmt: skip
    for name, one in made.items():
        sample_run.write(base / name, one, n_examples=2)
    return {name: base / name for name in made}


def hostile(made: RunRecord) -> RunRecord:
    text = made.model_dump_json().replace('"fadenet"', json.dumps(EVIL))
    return RunRecord.model_validate_json(text.replace('"dlib"', json.dumps(EVIL + "2")))


# Without a browser


def scripts(source: str) -> list[tuple[str, str]]:
    """Attributes and text of each script element, as HTML reads them."""
    return re.findall(r"<script([^>]*)>(.*?)</script>", source, re.S)


@pytest.mark.parametrize("way", WAYS)
def test_a_page_allows_its_own_scripts_by_their_hashes(
    runs: dict[str, Path], tmp_path: Path, way: str
) -> None:
    source = write_report([runs["evil"]], tmp_path, script=WAYS[way]).read_bytes().decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', source)
    assert policy
    rules = policy[1].replace("&#39;", "'")
    assert rules.startswith("default-src 'none'; ") and "unsafe-eval" not in rules
    allowed = re.search(r"script-src ([^;]+)", rules)
    assert allowed and "unsafe" not in allowed[1] and "self" not in allowed[1]
    run = [text for attributes, text in scripts(source) if "json" not in attributes]
    hashes = [f"'sha256-{b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in run]
    assert set(hashes) == {word for word in allowed[1].split() if "sha256" in word}
    assert len(run) == (2 if way == "embed" else 1)
    assert ("'strict-dynamic'" in allowed[1]) == (way == "beside")


def test_plotly_is_in_the_page_once(runs: dict[str, Path], tmp_path: Path) -> None:
    folders = [runs["one"], runs["blur0"], runs["blur1"]]
    source = write_report(folders, tmp_path).read_bytes()
    assert source.count(interactive.BANNER) == 1
    still = write_report(folders, tmp_path / "b", script=Script("none")).read_bytes()
    assert b"<script" not in still and b"script-src" not in still
    assert len(source) - len(still) < 5_300_000


@pytest.mark.parametrize("path", ["plotly.min.js", "../shared/plotly.min.js"])
def test_pages_can_share_a_file_beside_them(
    runs: dict[str, Path], tmp_path: Path, path: str
) -> None:
    out = tmp_path / "pages"
    write_report([runs["one"]], out, script=Script("beside", path))
    file = (out / path).resolve()
    assert file.read_bytes() == interactive.plotly_source().encode()
    stamp = file.stat().st_mtime_ns
    write_report([runs["blur0"]], out / "more", script=Script("beside", f"../{path}"))
    assert file.stat().st_mtime_ns == stamp
    file.write_text("mine")
    with pytest.raises(DeidbenchError, match="was not written by deidbench"):
        write_report([runs["one"]], out, script=Script("beside", path))
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["", "x", "/a.js", "http://x.example/a.js", "a\\b.js", "a\n.js", "//x.example/a.js"]
)
def test_only_a_relative_script_can_be_named(text: str) -> None:
    with pytest.raises(DeidbenchError, match="relative path that ends in"):
        read_script(text)


def test_words_for_scripts_are_understood() -> None:
    assert [read_script(word).way for word in ("embed", "none", "beside", "../a.js")] == [
        "embed", "none", "beside", "beside",
    ]  # fmt: skip
    assert read_script("beside").path == "plotly.min.js"


def test_data_cannot_end_its_element() -> None:
    text = interactive.as_json({"a": EVIL, "b": "\u2028&", "c": [1.5, None]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": EVIL, "b": "\u2028&", "c": [1.5, None]}


def test_curves_are_those_of_the_record(runs: dict[str, Path], tmp_path: Path) -> None:
    source = write_report([runs["one"]], tmp_path).read_text("utf-8")
    (data,) = [json.loads(text) for attributes, text in scripts(source) if "json" in attributes]
    record = sample_run.record(adaptive=True, recognizers=TWO)
    assert len(data["curves"]) == len(record.curves)
    for drawn in data["curves"]:
        name = data["recognizers"][drawn["recognizer"]]
        (curve,) = [c for c in record.curves if (c.recognizer, c.threat) == (name, drawn["threat"])]
        known = np.stack([curve.fmr, curve.tar], 1)
        for point in zip(drawn["fmr"], drawn["tar"], strict=True):
            assert np.abs(known - point).max(1).min() < 1e-4
        rates = [rate for rate in curve.fmr if rate > 0]
        assert drawn["fmr"][0] == pytest.approx(min(rates), rel=1e-4)
        assert drawn["fmr"][-1] == pytest.approx(max(rates), rel=1e-4)


def test_the_deviates_of_the_page_are_those_of_the_normal_distribution() -> None:
    odds, values = interactive._deviates()
    rates = np.array([1e-4, 0.003, 0.01, 0.5, 0.77, 0.995])
    found = np.interp(np.log(rates / (1 - rates)), odds, values)
    np.testing.assert_allclose(found, ndtri(rates), atol=2e-4)


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def pages(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("pages")
    several = [runs[name] for name in ("one", "blur0", "blur1", "blur2")]
    return {
        "embed": write_report([runs["one"]], base / "embed"),
        "beside": write_report([runs["one"]], base / "beside", script=BESIDE),
        "none": write_report([runs["one"]], base / "none", script=Script("none")),
        "several": write_report(several, base / "several"),
        "evil": write_report([runs["one"], runs["evil"]], base / "evil"),
        "dpia": export([runs["evil"]], base / "dpia", ["dpia"])[0],
    }


class Opened:
    """A page from a disk, and all that it complained of or asked for."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, **context}
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def drawn(self) -> Any:
        self.page.wait_for_selector("#plot .main-svg")
        return self.page

    def attribute(self, selector: str, name: str) -> str:
        return str(self.page.locator(selector).first.get_attribute(name))


def moving(page: str) -> bool:
    return page not in ("none", "dpia")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["embed", "beside", "none", "several", "evil", "dpia"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_opens_from_a_disk_in_silence(
    browser: Any, pages: dict[str, Path], which: str, width: int
) -> None:
    with Opened(browser, pages[which], viewport={"width": width, "height": 800}) as opened:
        if moving(which):
            opened.drawn()
            opened.page.wait_for_selector("#live-trade .main-svg")
        assert opened.said == []
        assert all(url.startswith("file:") for url in opened.asked)
        assert len(opened.asked) == 1 + (which == "beside")
        wide, room = opened.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert wide <= room
        assert opened.page.title() != "evil"


@pytest.mark.slow
def test_a_page_without_its_script_says_so_and_stands_still(
    browser: Any, runs: dict[str, Path], tmp_path: Path
) -> None:
    page = write_report([runs["one"]], tmp_path, script=BESIDE)
    (tmp_path / interactive.PLOTLY).unlink()
    with Opened(browser, page) as opened:
        opened.page.wait_for_selector("#no-plotly:visible")
        assert not opened.page.locator("#explorer").is_visible()
        assert opened.page.locator("#trade-off svg.chart").first.is_visible()


@pytest.mark.slow
def test_without_scripts_the_page_stands_still(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["embed"], java_script_enabled=False) as opened:
        assert opened.page.locator("#curves svg.chart").first.is_visible()
        assert opened.page.locator("#trade-off svg.chart").first.is_visible()
        for hidden in ("#explorer", "#theme", "#live-trade"):
            assert not opened.page.locator(hidden).is_visible()
        assert opened.said == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["roc", "det"])
def test_pointing_at_a_line_shows_its_numbers(
    browser: Any, pages: dict[str, Path], kind: str
) -> None:
    with Opened(browser, pages["embed"]) as opened:
        page = opened.drawn()
        page.check(f"input[name=curve][value={kind}]")
        for threat in ("T0", "T1w", "P", "T2", "T3f", "T4", "T5"):
            if page.locator(f"input[name=threat][value={threat}]").count():
                page.uncheck(f"input[name=threat][value={threat}]")
        page.locator("#plot").scroll_into_view_if_needed()
        place = page.evaluate(
            """() => { const plot = document.getElementById("plot"), i = 30;
            const line = plot.data.find(one => one.name?.startsWith("T3"));
            const at = plot._fullLayout, box = plot.getBoundingClientRect();
            return [box.x + at._size.l + at.xaxis.d2p(line.x[i]),
                    box.y + at._size.t + at.yaxis.d2p(line.y[i]), line.text[i]]; }"""
        )
        page.mouse.move(place[0] - 3, place[1])
        page.mouse.move(place[0], place[1])
        page.wait_for_selector("#plot .hoverlayer .hovertext")
        text = page.locator("#plot .hoverlayer .hovertext").first.text_content() or ""
        for words in ("T3 adapted", sample_run.WHITE_BOX, "false match rate", "accepted (TAR)",
                      "missed (FNMR)", "AUC"):  # fmt: skip
            assert words in text
        assert opened.said == []


@pytest.mark.slow
def test_names_in_the_moving_parts_are_text(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["evil"]) as opened:
        page = opened.drawn()
        names = page.locator("#pick option").all_text_contents()
        assert any(name.startswith("</script>") for name in names)
        page.select_option("#pick", index=len(names) - 1)
        page.locator("#live-trade").scroll_into_view_if_needed()
        place = page.evaluate(
            """() => { const plot = document.getElementById("live-trade");
            const dots = plot.data[plot.data.length - 1];
            const at = plot._fullLayout, box = plot.getBoundingClientRect();
            return [box.x + at._size.l + at.xaxis.d2p(dots.x[1]),
                    box.y + at._size.t + at.yaxis.d2p(dots.y[1])]; }"""
        )
        page.mouse.move(place[0] - 2, place[1] - 1)
        page.mouse.move(*place)
        page.wait_for_selector("#live-trade .hoverlayer .hovertext")
        text = page.locator("#live-trade .hoverlayer .hovertext").first.text_content() or ""
        assert "</script>" in text
        assert page.locator("#live-trade image, #live-trade a, #plot a").count() == 0
        assert page.evaluate("document.querySelectorAll('script').length") == 3
        assert page.title().endswith("face de-identification report")
        assert opened.said == []


@pytest.mark.slow
def test_the_rate_is_chosen_by_keys_and_read_in_the_table(
    browser: Any, pages: dict[str, Path]
) -> None:
    record = sample_run.record(adaptive=True, recognizers=TWO)
    with Opened(browser, pages["embed"]) as opened:
        page = opened.drawn()
        page.focus("#rate")
        rows = {
            row.locator("th").text_content(): row.locator("td").first.text_content()
            for row in page.locator("#at-rate tr").all()
        }
        name = page.locator("#pick option:checked").text_content()
        for curve in record.curves:
            if curve.recognizer == name:
                best = max(t for f, t in zip(curve.fmr, curve.tar, strict=True) if f <= 0.01)
                (told,) = [v for k, v in rows.items() if (k or "").split()[0] == curve.threat]
                if 0.0005 <= best <= 0.9994 or best in (0, 1):
                    assert float((told or "").removesuffix(" %")) == pytest.approx(
                        100 * best, abs=0.051
                    )
        before = page.locator("#said").text_content()
        assert "0.01 (1 in 100)" in (before or "") and "T0" not in (before or "")
        page.keyboard.press("ArrowRight")
        assert page.locator("#said").text_content() != before
        assert opened.attribute("#rate", "aria-valuetext") == "1 in 89"


@pytest.mark.slow
def test_every_control_is_reached_by_the_tab_key(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["several"]) as opened:
        page = opened.drawn()
        met = []
        for _ in range(80):
            page.keyboard.press("Tab")
            met.append(page.evaluate(
                "document.activeElement.id || document.activeElement.name || "
                "document.activeElement.className"))  # fmt: skip
        for wanted in ("skip", "theme", "pick", "curve", "threat", "run", "rate"):
            assert wanted in met
        assert met[0] == "skip"
        shown = page.evaluate(
            """() => { document.getElementById("theme").focus();
            return getComputedStyle(document.activeElement).outlineStyle }"""
        )
        assert shown != "none"


@pytest.mark.slow
def test_runs_and_attackers_are_chosen_by_boxes(browser: Any, pages: dict[str, Path]) -> None:
    with Opened(browser, pages["several"]) as opened:
        page = opened.drawn()
        count = page.locator("#at-rate tr").count()
        page.uncheck("input[name=run][value='1']")
        assert page.locator("#at-rate tr").count() < count
        assert not [t for t in page.locator("#at-rate th").all_text_contents() if t[0] == "B"]
        page.check("input[name=threat][value=T5]")
        heads = page.locator("#at-rate th").all_text_contents()
        assert "A T5 linkage" in heads
        joined = page.evaluate("document.getElementById('live-trade').data[0].x")
        assert len(joined) == 3  # the three strengths of one method
        while page.locator("input[type=checkbox]:checked").count():
            page.locator("input[type=checkbox]:checked").first.uncheck()
        assert page.locator("#at-rate tr").count() == 0
        assert opened.said == []


@pytest.mark.slow
@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(
    browser: Any, pages: dict[str, Path], system: str
) -> None:
    def ground(page: Any) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = "rgb(246, 245, 241)", "rgb(18, 22, 28)"
    with Opened(browser, pages["embed"], color_scheme=system) as opened:
        page = opened.drawn()
        assert ground(page) == (light if system == "light" else dark)
        page.click("#theme")
        assert (ground(page), page.locator("#theme").text_content()) == (light, "Theme: light")
        page.click("#theme")
        assert (ground(page), page.locator("#theme").text_content()) == (dark, "Theme: dark")
        lines = page.evaluate("document.getElementById('plot').data[1].line.color")
        page.reload()
        opened.drawn()
        assert ground(page) == dark
        page.click("#theme")
        page.emulate_media(color_scheme="light")
        for _ in range(50):  # the page's policy forbids the browser's own way of waiting
            if page.evaluate("document.getElementById('plot').data[1].line.color") != lines:
                break
            page.wait_for_timeout(100)
        else:
            pytest.fail("the lines kept the colours of the dark")
        assert ground(page) == light
        assert opened.said == []


@pytest.mark.slow
def test_a_page_that_may_keep_nothing_still_changes_its_theme(
    browser: Any, pages: dict[str, Path]
) -> None:
    with Opened(browser, pages["embed"]) as opened:
        opened.page.add_init_script(
            "Object.defineProperty(window, 'localStorage', "
            "{ get() { throw new Error('refused') } })"
        )
        opened.page.reload()
        page = opened.drawn()
        page.click("#theme")
        assert page.locator("#theme").text_content() == "Theme: light"
        assert opened.said == []


@pytest.mark.slow
@pytest.mark.parametrize("which", ["embed", "several"])
def test_paper_has_the_still_charts_on_white(
    browser: Any, pages: dict[str, Path], which: str
) -> None:
    with Opened(browser, pages[which], color_scheme="dark") as opened:
        page = opened.drawn()
        page.click("#theme")
        page.click("#theme")  # dark, chosen
        assert not page.locator("#trade-off svg.chart").first.is_visible()
        page.emulate_media(media="print", color_scheme="dark")
        for hidden in ("#explorer", "#plot", "#live-trade", "#theme"):
            assert not page.locator(hidden).is_visible()
        assert page.locator("#trade-off svg.chart").first.is_visible()
        assert page.locator("#curves svg.chart").first.is_visible()
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == "rgb(255, 255, 255)"
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate("document.querySelectorAll('details.printed:not([open])').length") == 0
        cut = page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter("
            "one => one.offsetParent && getComputedStyle(one).overflowX !== 'visible').length"
        )
        assert cut == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("document.querySelectorAll('details[open]').length") == 0


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["embed", "none", "several", "dpia"])
def test_axe_finds_nothing_serious(
    browser: Any, pages: dict[str, Path], which: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with Opened(browser, pages[which], color_scheme=scheme, bypass_csp=True) as opened:
        if moving(which):
            opened.drawn()
        opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        found = axe.Axe().run(opened.page).response["violations"]
        serious = [
            (one["id"], [node["target"] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
