"""The tutorial: committed without outputs, and every cell of it runs."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
TUTORIAL = Path(__file__).parents[1] / "examples" / "tutorial.ipynb"
TUTORIAL_S = 3000

if not TUTORIAL.is_file():
    pytest.skip("the examples are not in the package", allow_module_level=True)


def read() -> Any:
    return nbformat.read(TUTORIAL, as_version=4)


def cells(notebook: Any, kind: str) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def shown(notebook: Any, kind: str) -> list[str]:
    """What the cells show in one form, as a browser or a terminal gets it."""
    return [
        "".join(output.data[kind])
        for cell in cells(notebook, "code")
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def printed(notebook: Any) -> str:
    outputs = [output for cell in cells(notebook, "code") for output in cell.outputs]
    return "".join(one.text for one in outputs if one.output_type == "stream")


def test_it_is_committed_as_it_was_written() -> None:
    notebook = read()
    nbformat.validate(notebook)
    for cell in cells(notebook, "code"):
        assert not cell.outputs
        assert cell.execution_count is None
        ast.parse(cell.source)
    assert not any("attachments" in cell for cell in notebook.cells)
    assert TUTORIAL.stat().st_size < 20_000
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_it_shows_nobody_but_the_embedded_faces() -> None:
    for cell in cells(read(), "code"):
        assert "dataset=" not in cell.source
        assert "show_faces" not in cell.source


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of the notebook machinery are its own
def test_every_cell_runs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own shows charts
    notebook = read()
    client = nbclient.NotebookClient(
        notebook, timeout=TUTORIAL_S, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )  # fmt: skip
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()  # raises at the first cell that fails

    assert len(shown(notebook, "image/png")) == 2, "two charts"
    tables = shown(notebook, "text/html")
    runs = [text for text in tables if "All findings" in text]
    assert len(runs) == 2
    assert all("<table" in text and "T2 parrot" in text for text in runs)
    rates = next(text for text in tables if "dataframe" in text)
    assert "too few impostors" in rates
    assert "Did you mean 'gaussian-blur'" in printed(notebook)
    assert (tmp_path / "report" / "index.html").is_file()
    assert len(list((tmp_path / "runs").iterdir())) == 3
    problems = [
        output.text
        for cell in cells(notebook, "code")
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]
    assert not problems, "a reader sees no warning"
