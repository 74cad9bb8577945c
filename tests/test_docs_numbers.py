"""docs/numbers.md explains every number of docs/protocol.md, with a figure that is there."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FIGURES = DOCS / "images" / "protocol"
PARTS = ("It says", "They say"), ("How to read",), ("What it does not", "What they do not")
LARGEST = 60_000  # bytes

if not DOCS.is_dir():
    pytest.skip("the documents are not in the package", allow_module_level=True)


def names() -> list[str]:
    """Rows of the tables of numbers: '`head-pose-yaw`, `-pitch`' are two names."""
    text = (DOCS / "protocol.md").read_text("utf-8")
    chapters = re.split(r"(?m)^## ", text)
    tables = [one for one in chapters if one.startswith(("Numbers\n", "Utility\n"))]
    assert len(tables) == 2
    found = []
    for row in re.findall(r"(?m)^\|\s*(`[^|]*)\|", "\n".join(tables)):
        first, *others = re.findall(r"`([^`]+)`", row)
        stem = first.rsplit("-", 1)[0]
        found += [first, *(stem + name if name.startswith("-") else name for name in others)]
    return found


def sections() -> dict[str, str]:
    text = (DOCS / "numbers.md").read_text("utf-8")
    return dict(re.findall(r"(?ms)^## (.*?)\n(.*?)(?=^##? |\Z)", text))


def explained() -> dict[str, str]:
    """Each name in a heading, with its section."""
    return {
        name: body
        for heading, body in sections().items()
        for name in re.findall(r"`(.*?)`", heading)
    }


def pictures(text: str) -> list[Path]:
    return [DOCS / path for path in re.findall(r"!\[[^\]]+\]\((.*?)\)", text)]


def test_the_tables_are_read() -> None:
    assert {"auc", "fmr", "fnmr", "lpips", "psnr", "head-pose-yaw", "head-pose-roll", "fid"} <= set(
        names()
    )


@pytest.mark.parametrize("name", names())
def test_every_number_has_its_section_with_a_figure(name: str) -> None:
    assert name in explained(), f"add a section on {name} to docs/numbers.md"
    body = explained()[name]
    assert len(pictures(body)) == 1
    for part in PARTS:
        assert any(f"**{words}" in body for words in part), f"{name}: {part[0]} is missing"


@pytest.mark.parametrize("heading", sections())
def test_every_section_has_one_figure_of_its_own(heading: str) -> None:
    (figure,) = pictures(sections()[heading])
    assert figure.is_file()
    shared = [other for other, body in sections().items() if figure in pictures(body)]
    assert shared == [heading]


def test_no_figure_is_left_over() -> None:
    used = {path for body in sections().values() for path in pictures(body)}
    assert set(FIGURES.iterdir()) == used


@pytest.mark.parametrize("path", sorted(FIGURES.iterdir()), ids=lambda path: path.name)
def test_figures_are_small_and_hold_nothing_but_a_picture(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    if path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert not picture.info.keys() & {"Software", "exif", "Comment"}
        return
    text = path.read_text("utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"<script|href=\"(?!#)|url\((?!#)|@import", text)
    assert "<text" in text  # letters, not outlines: they can be searched and read aloud


def test_drawing_again_gives_the_same_charts() -> None:
    import protocol_figures

    for name in ("dodging-psr", "rank-k"):
        draw = protocol_figures.CHARTS[name]
        assert protocol_figures.svg(draw) == protocol_figures.svg(draw)


def test_all_figures_come_from_the_tool() -> None:
    import protocol_faces
    import protocol_figures

    drawn = {f"{name}.svg" for name in protocol_figures.CHARTS}
    drawn |= {f"{name}.png" for name in protocol_faces.PANELS}
    assert {path.name for path in FIGURES.iterdir()} == drawn
