"""``deidbench compare``: what changed between two runs, and a gate for releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._shared import examples

if TYPE_CHECKING:
    from deidbench.compare import Comparison

EXIT_REGRESSION = 1


@click.command("compare")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", type=click.Path(path_type=Path))
@click.option("--fail-on", multiple=True, metavar="RULE",
              help="Such as 'worst_case.tar > +0.02'; may be given several times.")  # fmt: skip
@click.option("--certain", is_flag=True,
              help="Rules ask for the whole interval beyond their bound.")  # fmt: skip
@click.option("--draws", type=int, help="Bootstrap draws; default: as many as BASE has.")
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder for index.html, comparison.md and comparison.json.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, nothing else.")
@examples(
    "deidbench compare runs/release runs/candidate",
    "deidbench compare runs/release runs/candidate --fail-on 'worst_case.tar > +0.02'",
    "deidbench compare runs/A runs/B --fail-on default --fail-on 'lpips > +5%' --out page",
)
def compare(base: Path, head: Path, out: Path | None, as_json: bool, **options: Any) -> None:
    """Compare the run HEAD with the run BASE, on the same comparisons of the same people.

    Exit code 0: same or better; 1: a regression; 2: the runs cannot be compared. Without
    --fail-on, a regression is an attack or a worst case that is surely more successful.
    """
    from deidbench.compare import compare as run

    found = run(base, head, **options)
    _show(found, out, as_json=as_json)
    if found.exit_code:
        sys.exit(EXIT_REGRESSION)


def _show(found: Comparison, out: Path | None, *, as_json: bool) -> None:
    from rich.console import Console

    from deidbench.render.comparison import read, terminal, write_comparison

    shown = read(found.as_json())
    page = write_comparison(shown, out) if out else None
    if as_json:
        click.echo(shown.model_dump_json(indent=1))
        return
    console = Console(highlight=False)
    console.print(terminal(shown, console.width))
    if page:
        click.echo(f"report: {page}")
