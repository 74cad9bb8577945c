"""The leaderboard in a real browser, from the disk: sort, filter, keyboard, themes, axe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deidbench import entries
from deidbench.render.leaderboard import write_board
from tests import sample_entry

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

METHODS: dict[str, dict[str, Any]] = {
    "alpha": {"apart": 0.2, "lpips": 0.3},
    "beta": {"apart": 1.3, "lpips": 0.2},
    "gamma": {"apart": 2.5, "lpips": 0.05, "trained_against": ("sface",)},
    "identity": {"apart": 4.0, "lpips": 0.0},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board of two rankings, one with four methods, the other with one of a hostile name."""
    folder = tmp_path_factory.mktemp("board")
    for name, changes in METHODS.items():
        sample_entry.write(folder / "r" / f"{name}.json", sample_entry.record(name, **changes))
    hostile = sample_entry.record(
        "<img src=x onerror=alert(1)>\u202e" + "w" * 200, protocol="made-v2", label="folder:other"
    )
    sample_entry.write(folder / "r" / "z.json", hostile, unreliable="<b>masked</b>")
    return _built(folder)


def _built(folder: Path) -> Path:
    rankings, problems = entries.rank((folder / "r").rglob("*.json"), folder / "r")
    assert not problems
    return write_board(rankings, folder / "site")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page that fails the test on a message in the console or a request to anywhere."""

    def __init__(self, browser: Any, **settings: Any) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}} | settings
        )
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", lambda dialog: self.messages.append("a dialog"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path, fragment: str = "") -> Any:
        self.page.goto(f"{path.as_uri()}{fragment}")
        return self.page

    def close(self) -> None:
        self.context.close()
        assert self.messages == []
        assert [url for url in self.requests if not url.startswith("file:")] == []


@pytest.fixture
def watched(browser: Any) -> Iterator[Watched]:
    one = Watched(browser)
    yield one
    one.close()


def names(page: Any) -> list[str]:
    """Of the rows that are shown, from top to bottom."""
    found = page.locator("table.board tbody tr:visible th a").all_inner_texts()
    return [name.strip() for name in found if not name.startswith("<")]


def sorting(page: Any) -> dict[str, str]:
    heads = page.locator("table.board >> nth=0 >> th[aria-sort]")
    return {
        head.get_attribute("data-key"): head.get_attribute("aria-sort")
        for head in heads.all()
        if head.get_attribute("aria-sort") != "none"
    }


def test_every_page_opens_from_the_disk_and_asks_for_nothing(site: Path, watched: Watched) -> None:
    for path in [site, *sorted((site.parent / "methods").glob("*.html"))]:
        page = watched.open(path)
        assert page.locator("h1").count() == 1
        assert page.locator("img, iframe, object, embed, link").count() == 0
    assert len(watched.requests) == 6  # the pages, and nothing else


def test_a_click_on_a_title_sorts_and_a_second_turns_it_round(site: Path, watched: Watched) -> None:
    page = watched.open(site)
    assert names(page) == ["alpha", "beta", "gamma", "identity"]
    assert sorting(page) == {"rank": "ascending"}
    lpips = page.locator("table.board >> nth=0 >> th[data-key=lpips] button")
    lpips.click()
    assert names(page) == ["identity", "gamma", "beta", "alpha"]
    assert sorting(page) == {"lpips": "ascending"}
    lpips.click()
    assert names(page) == ["alpha", "beta", "gamma", "identity"]
    assert sorting(page) == {"lpips": "descending"}
    page.locator("table.board >> nth=0 >> th[data-key=rank] button").click()
    page.locator("table.board >> nth=0 >> th[data-key=rank] button").click()
    assert names(page)[-1] == "identity"  # what has no rank is last either way


def test_the_keyboard_alone_sorts_filters_and_opens_a_method(site: Path, watched: Watched) -> None:
    page = watched.open(site)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the rankings"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('th')?.dataset.key") == "method":
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert sorting(page) == {"method": "descending"}
    assert names(page) == ["identity", "gamma", "beta", "alpha"]
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    page.locator("#tools input").focus()
    page.keyboard.type("BET")
    assert names(page) == ["beta"]
    page.locator("tbody tr:visible th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/methods/beta.html")
    assert page.locator("h1").inner_text() == "beta (strength 0.5)"


def test_filters_choose_sets_protocols_and_words(site: Path, watched: Watched) -> None:
    page = watched.open(site)
    assert page.locator("section.ranking:visible").count() == 2
    page.locator("[name=dataset]").select_option(label="folder:other")
    assert page.locator("section.ranking:visible").count() == 1
    assert page.locator("#told").inner_text() == "1 of 5 entries."
    page.locator("#reset").click()
    page.locator("[name=protocol]").select_option("made-v1")
    assert names(page) == list(METHODS)
    page.locator("[name=q]").fill("trained against")
    assert names(page) == ["gamma"]
    page.locator("[name=q]").fill("nobody")
    assert page.locator("section.ranking:visible").count() == 0
    assert page.locator("#told").inner_text() == "0 of 5 entries."


def test_a_filter_of_attacks_shows_their_numbers_and_leaves_ranks(
    site: Path, watched: Watched
) -> None:
    page = watched.open(site)
    worst = page.locator("tr:has-text('beta') td.worst")
    before = worst.inner_text()
    ranks = page.locator("td.rank").all_inner_texts()
    page.locator("[name=threat]").select_option("T1")
    page.locator("[name=recognizer]").select_option("dlib")
    assert "T1, dlib" in worst.inner_text()
    record = sample_entry.record("beta", **METHODS["beta"])[0]
    row = next(
        r for r in record.rows if (r.metric, r.threat, r.recognizer) == ("tar", "T1", "dlib")
    )
    assert row.value is not None
    shown = float(worst.locator(".number").inner_text().split()[0])
    assert shown == pytest.approx(100 * row.value, rel=0.005)
    assert page.locator("td.rank").all_inner_texts() == ranks
    assert "ranks remain those of the worst case" in page.locator("#told").inner_text()
    assert page.locator("th[data-key=worst]").first.inner_text().startswith("Chosen attacks")
    page.locator("#reset").click()
    assert worst.inner_text() == before


def test_the_address_keeps_the_state(site: Path, watched: Watched) -> None:
    page = watched.open(site)
    page.locator("[name=dataset]").select_option("synthid")
    page.locator("[name=q]").fill("a & b=")
    page.locator("[name=q]").fill("amm")
    page.locator("table.board >> nth=0 >> th[data-key=ssim] button").click()
    address = page.url
    assert address.endswith("#dataset=synthid&q=amm&sort=ssim&order=down")
    other = watched.context.new_page()
    other.goto(address)
    assert names(other) == ["gamma"]
    assert sorting(other) == {"ssim": "descending"}
    other.evaluate("location.hash = '#sort=lpips&order=up&dataset=none%3Cscript%3E&q='")
    other.wait_for_function("document.querySelector('[data-key=lpips]').ariaSort === 'ascending'")
    assert names(other) == ["identity", "gamma", "beta", "alpha"]
    other.goto(f"{site.as_uri()}#sort=constructor&threat=__proto__")
    assert sorting(other) == {"rank": "ascending"}


def test_hostile_names_run_nothing(site: Path, watched: Watched) -> None:
    page = watched.open(site)
    told = page.locator("section.ranking >> nth=0").inner_text() + page.content()
    assert "<img" not in page.content().replace("&lt;img", "")
    assert "&lt;b&gt;masked" in told
    assert page.locator("b:has-text('masked')").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system(site: Path, browser: Any, scheme: str) -> None:
    watched = Watched(browser, color_scheme=scheme)
    page = watched.open(site)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(colour.removeprefix("rgb(").split(",")[0])
    assert (red > 200) == (scheme == "light")
    watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(site: Path, browser: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    watched = Watched(
        browser, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    for path in (site, site.parent / "methods" / "gamma.html"):
        page = watched.open(path)
        for closed in page.locator("details").all():
            closed.evaluate("one => one.open = true")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    watched.close()


def test_a_phone_shows_all_without_scrolling_sideways(site: Path, browser: Any) -> None:
    watched = Watched(browser, viewport={"width": 390, "height": 800})
    for path in (site, site.parent / "methods" / "gamma.html"):
        page = watched.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page = watched.open(site)
    box = page.locator("td.worst .number").first.bounding_box()
    assert box["x"] + box["width"] <= 390  # the number that ranks is seen without scrolling
    watched.close()


def test_print_shows_the_whole_table(site: Path, watched: Watched) -> None:
    page = watched.open(site)
    page.set_viewport_size({"width": 1030, "height": 700})  # A4 across, without its margins
    page.emulate_media(media="print")
    assert not page.locator("#tools").is_visible()
    table = page.locator("table.board >> nth=0").bounding_box()
    assert table["x"] + table["width"] <= 1030
    assert len(page.pdf(prefer_css_page_size=True)) > 10_000


def test_without_script_all_rows_are_there(site: Path, browser: Any) -> None:
    watched = Watched(browser, java_script_enabled=False)
    page = watched.open(site)
    assert names(page) == list(METHODS)
    assert not page.locator("#tools").is_visible()
    watched.close()


@pytest.mark.slow
def test_a_hundred_methods_sort_within_a_tenth_of_a_second(
    tmp_path: Path, watched: Watched
) -> None:
    sample_entry.many(tmp_path / "r", 100, 10)
    page = watched.open(_built(tmp_path))
    assert len(names(page)) == 100
    session = watched.context.new_cdp_session(page)
    # Of the page's own thread: what other programs of the machine take is not counted.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    for key in ("method", "lpips", "worst", "lpips"):
        before = _busy(session)
        page.evaluate(
            """key => {
              document.querySelector(`th[data-key=${key}] button`).click();
              document.body.getBoundingClientRect();
            }""",
            key,
        )
        spent = _busy(session) - before
        assert 0 < spent < 0.1, key
    page.locator("table.board >> nth=0 >> th[data-key=lpips] button").click()
    values = page.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => Number(row.cells[row.cells.length - 5].dataset.v))"
    )
    assert values in (sorted(values), sorted(values, reverse=True))
    assert len(set(values)) > 50


def _busy(session: Any) -> float:
    """Seconds that the page has spent on script, style and layout."""
    told = session.send("Performance.getMetrics")["metrics"]
    kinds = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration")
    return sum(one["value"] for one in told if one["name"] in kinds)
