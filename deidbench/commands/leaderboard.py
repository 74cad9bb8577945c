"""``deidbench leaderboard``: make an entry, check one, and build the board."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deidbench.errors import DeidbenchError

from ._shared import examples

if TYPE_CHECKING:
    from deidbench.entries import Verdict

STANDS, FALLS, UNUSABLE = 0, 1, 2
SHOWN = 20
"""Differences that are printed of one entry."""


@click.group()
def leaderboard() -> None:
    """Publish runs as entries that others can check, and rank them."""


@leaderboard.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of entries.")
@click.option("--title", default="", help="Shown instead of the method's name.")
@click.option("--author", default="", help="Who answers for the entry.")
@click.option("--link", help="Where to read more: https://...")
@click.option("--claim", type=click.Path(path_type=Path),
              help="The author's own numbers, a JSON file.")  # fmt: skip
@click.option("--external", is_flag=True, help="You are not the method's author.")
@click.option("--unreliable", metavar="REASON", help="Show the entry, but give it no rank.")
@click.option("--bench", type=click.Path(path_type=Path),
              help="The JSON file of 'deidbench bench'.")  # fmt: skip
@click.option("--replace", "replace_old", is_flag=True, help="Take the place of an older entry.")
@examples(
    "deidbench leaderboard submit runs/20260101-120000-fadenet-1a2b3c --out reports/results",
    "deidbench leaderboard submit runs/A --out reports/results --external --claim paper.json",
)
def submit(
    run: Path, out: Path, claim: Path | None, bench: Path | None, replace_old: bool, **told: Any
) -> None:
    """Make an entry of the run folder RUN: two files, small enough for git.

    All numbers that follow from the run's scores are made again first, and must be the same. Names
    of files and people are left out.
    """
    from deidbench import entries

    about = entries.About(
        **told,
        claim=entries.read_claim(claim) if claim else None,
        bench=entries.read_bench(bench, run) if bench else None,
    )
    path = entries.submit(run, out, about, replace_old=replace_old)
    for file in (path, path.with_suffix(".scores.parquet")):
        click.echo(f"{file} ({file.stat().st_size / 1e6:.2f} MB)")


@leaderboard.command()
@click.argument("paths", metavar="ENTRY...", nargs=-1, required=True,
                type=click.Path(path_type=Path))  # fmt: skip
@click.option("--rerun", is_flag=True, help="Evaluate the method again as well.")
@click.option("--quiet", is_flag=True, help="No progress.")
@examples(
    "deidbench leaderboard verify reports/results/*/*/*.json",
    "deidbench leaderboard verify reports/results/synthid/standard-v1/fadenet.json --rerun",
)
def verify(paths: tuple[Path, ...], rerun: bool, quiet: bool) -> None:
    """Say of each ENTRY, a JSON file, whether its claim stands.

    Numbers and intervals are made again from the entry's scores. With --rerun the whole evaluation
    is repeated, and its headline numbers are compared.

    Exit code 0: all stand; 1: one does not; 2: one cannot be checked.
    """
    from deidbench import entries

    outcome = STANDS
    for path in paths:
        try:
            verdicts = [entries.verify(path)]
            if rerun:
                verdicts.append(entries.rerun(path, quiet=quiet))
        except DeidbenchError as error:
            click.echo(f"{path}: cannot be checked: {error}", err=True)
            outcome = UNUSABLE
            continue
        for how, verdict in zip(("from its scores", "by running it again"), verdicts, strict=False):
            _say(verdict, how)
            outcome = max(outcome, STANDS if verdict.stands else FALLS)
    sys.exit(outcome)


def _say(verdict: Verdict, how: str) -> None:
    if verdict.stands:
        click.echo(
            f"{verdict.path}: stands: {verdict.checked} numbers and curves made again {how}, "
            f"all as claimed; {verdict.unchecked} others were not checked"
        )
        return
    click.echo(f"{verdict.path}: does not stand: {_count(len(verdict.wrong), 'difference')} {how}")
    for line in verdict.wrong[:SHOWN]:
        click.echo(f"  {_plain(line)}")
    if len(verdict.wrong) > SHOWN:
        click.echo(f"  and {len(verdict.wrong) - SHOWN} more")


def _count(number: int, what: str) -> str:
    """'1 entry', '2 entries'."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else many}"


def _plain(text: str) -> str:
    """Names of an entry are a stranger's: no control characters reach the terminal."""
    from deidbench.render.numbers import plain

    return plain(text)


@leaderboard.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the site.")
@examples("deidbench leaderboard build reports/results --out reports/leaderboard")
def build(results: Path, out: Path) -> None:
    """Build the board, a static site, from all entries in the folder RESULTS.

    An entry that cannot be read is one line, and the others are shown. Exit code 2 when none can.
    """
    from deidbench.entries import rank
    from deidbench.render.leaderboard import write_board

    if not results.is_dir():
        raise DeidbenchError(
            f"{results} is no folder; name the one that entries were submitted to."
        )
    rankings, problems = rank(results.rglob("*.json"), results)
    for problem in problems:
        click.echo(f"left out: {_plain(problem)}", err=True)
    if not rankings:
        raise DeidbenchError(
            f"no entry in {results} can be shown; make one with 'deidbench leaderboard submit'."
        )
    page = write_board(rankings, out)
    count = sum(len(ranking.places) for ranking in rankings)
    left = f"; {len(problems)} left out" if problems else ""
    click.echo(f"{page} ({_count(count, 'entry')} in {_count(len(rankings), 'ranking')}{left})")
