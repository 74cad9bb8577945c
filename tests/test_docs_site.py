"""The documentation site: builds without a warning, is whole, and asks nobody for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import deidbench

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SETTINGS = ROOT / "mkdocs.yml"
CHROMIUM = Path("/usr/bin/chromium")
ASSETS = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src",
    "audio": "src", "embed": "src", "object": "data", "link": "href", "use": "href",
}  # fmt: skip

if not SETTINGS.is_file():
    pytest.skip("the documents are not in the package", allow_module_level=True)


class Page(HTMLParser):
    """What a page loads, what it links to, and the places in it that have a name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.assets: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.names.add(given.get("id", ""))
        if tag in ASSETS and given.get(ASSETS[tag]):
            self.assets.append(given[ASSETS[tag]])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])


def nav() -> list[str]:
    """The Markdown files of the navigation, in its order."""
    text = SETTINGS.read_text("utf-8").partition("\nnav:\n")[2]
    return re.findall(r"(?m)^ +- [^:\n]+: (\S+\.md)$", text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The site, and what was said while it was built."""
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return folder, said


@pytest.fixture
def site(built: tuple[Path, str]) -> Path:
    return built[0]


def test_every_document_is_in_the_navigation() -> None:
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert written == set(nav())
    assert len(nav()) == len(set(nav()))


@pytest.mark.parametrize(
    ("text", "folder", "repository", "wanted"),
    [
        ("see [a](../x/README.md).", "", None, "see `a`."),
        ("see [`a`](../x/README.md#b).", "", None, "see `a`."),
        ("see [a](../../x.md)", "api", None, "see `a`"),
        (
            "see [a](../x)",
            "",
            "https://example.org/r/",
            "see [a](https://example.org/r/blob/HEAD/x)",
        ),
        ("see [a](../../x)", "", "https://example.org/r", "see `a`"),
        ("see [a](../x.md)", "api", None, "see [a](../x.md)"),
        ("see [a](x.md#b)", "", None, "see [a](x.md#b)"),
        ("see [a](#b)", "", None, "see [a](#b)"),
        ("see [a](https://example.org/../x)", "", None, "see [a](https://example.org/../x)"),
        ("![a](../x.png)", "", None, "![a](../x.png)"),  # a picture that is missing is an error
    ],
)
def test_links_that_leave_the_documents_become_names(
    text: str, folder: str, repository: str | None, wanted: str
) -> None:
    from docs_links import inside

    assert inside(text, folder=folder, repository=repository) == wanted


@pytest.mark.slow
def test_it_builds_without_a_warning(built: tuple[Path, str]) -> None:
    lines = [line for line in built[1].splitlines() if re.match(r"(WARNING|ERROR)\b", line)]
    assert not lines
    assert "Documentation built" in built[1]


@pytest.mark.slow
def test_every_entry_of_the_navigation_is_a_page(site: Path) -> None:
    for name in nav():
        page = site / Path(name).with_suffix(".html")
        assert page.is_file(), name
        assert "<h1" in page.read_text("utf-8"), name


@pytest.mark.slow
def test_every_public_name_is_documented(site: Path) -> None:
    shown = Page(site / "api" / "deidbench.html").names
    errors = Page(site / "api" / "errors.html").names
    for name in set(deidbench.__all__) - {"__version__"}:
        known = {f"deidbench.{name}", f"deidbench.errors.{name}"}
        assert known & (shown | errors), name
    public = [name for name in vars(deidbench.Run) if not name.startswith("_")]
    assert {"scores", "plot_roc", "worst_case", "report"} <= set(public)
    for name in [*public, *deidbench.Run.__annotations__]:
        assert f"deidbench.Run.{name}" in shown, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("types", ["Method", "Recognizer", "Threat", "Dataset", "Sample"]),
        ("schema", ["RunRecord", "MetricRow"]),
        ("store", ["read_run", "write_run", "validate"]),
        ("statistics", ["roc_curve", "interval"]),
    ],
)
def test_contracts_and_formats_are_documented(site: Path, page: str, names: list[str]) -> None:
    found = {full.rpartition(".")[2] for full in Page(site / "api" / f"{page}.html").names}
    assert set(names) <= found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["metrics", "threats", "recognizers", "methods"])
def test_every_part_that_is_installed_is_documented(site: Path, kind: Any) -> None:
    from deidbench import plugins

    pages = {"methods": ["baselines", "fadenet"]}.get(kind, [kind])
    names = {name for page in pages for name in Page(site / "api" / f"{page}.html").names}
    for name in plugins.names(kind):
        value = plugins.require(kind, name).value.replace(":", ".")
        if value.startswith(("deidbench.metrics", "deidbench.threats", "deidbench.recognizers",
                             "deidbench_baselines", "fadenet")):  # fmt: skip
            assert value in names, f"{kind} {name}: add {value} to docs/api/{pages[0]}.md"


@pytest.mark.slow
def test_links_lead_somewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for link in page.links:
            target, _, name = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            file = (path.parent / target).resolve() if target else path
            assert file.exists(), f"{path.name}: {link}"
            assert not name or file.suffix != ".html" or name in pages[file].names, link


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        for asset in Page(path).assets:
            assert not re.match(r"(?i)([a-z]+:)?//", asset), f"{path.name}: {asset}"
    for path in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import\s*)[\"']?((?:https?:)?//[^)\"']+)", path.read_text())
        assert not found, f"{path.name}: {found}"


@pytest.mark.slow
def test_a_browser_asks_nobody_else(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    asked: list[str] = []
    wrong: list[str] = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        for name in ("index.html", "numbers.html", "api/deidbench.html", "api/metrics.html"):
            page.goto((site / name).as_uri())
            page.wait_for_timeout(500)
        browser.close()
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not wrong
