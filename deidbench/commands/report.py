"""The command that turns finished runs into pages, tables and figures."""

from __future__ import annotations

from pathlib import Path

import click

from deidbench.errors import DeidbenchError

from ._shared import examples


def _formats(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    named = [name.strip() for value in values for name in value.split(",")]
    return tuple(name for name in named if name) or ("html",)


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder of the files; default: RUN/report, of one run.")  # fmt: skip
@click.option("--format", "formats", multiple=True, callback=_formats,
              metavar="html|md|latex|csv|figures|dpia",
              help="What to write, by comma or several times.  [default: html]")  # fmt: skip
@click.option("--script", default="embed", show_default=True, metavar="embed|beside|none|FILE.js",
              help="Where the page finds what moves its charts: within, in a file beside it that "
                   "many pages may share (FILE.js: from the page), or nowhere.")  # fmt: skip
@click.option("--show-faces", is_flag=True, help="Show faces of real people, where a run has them.")
@examples(
    "deidbench report runs/20260101-120000-fadenet-1a2b3c",
    "deidbench report runs/* --out page --format html,csv,latex,figures",
    "deidbench report runs/* --out site/all --script ../plotly.min.js",
    "deidbench report runs/20260101-120000-fadenet-1a2b3c --format dpia --out dpia",
)
def report(
    runs: tuple[Path, ...], out: Path | None, formats: tuple[str, ...], script: str,
    show_faces: bool,
) -> None:  # fmt: skip
    """Write about one or several RUNS: a page that opens offline, tables, figures."""
    if out is None and len(runs) > 1:
        raise DeidbenchError(f"--out is needed for {len(runs)} runs. Name a folder for the files.")
    from deidbench.render.exports import export
    from deidbench.render.interactive import read_script

    written = export(
        runs, out or runs[0] / "report", formats, show_faces=show_faces,
        script=read_script(script),
    )  # fmt: skip
    for path in written:
        click.echo(path)
