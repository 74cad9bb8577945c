"""What commands have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import cleandoc
from typing import Any, TypeVar

import click

from deidbench import plugins
from deidbench.config import parse_value
from deidbench.errors import DeidbenchError

F = TypeVar("F", bound=Callable[..., Any])


def examples(*lines: str) -> Callable[[F], F]:
    """Examples at the end of a command's help, one to a line."""

    def add(function: F) -> F:
        shown = "\n".join(f"  {line}" for line in lines)
        function.__doc__ = f"{cleandoc(function.__doc__ or '')}\n\n\b\nExamples:\n{shown}\n"
        return function

    return add


def split_names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def settings(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, bool | int | float | str], ...]:
    pairs = [value.partition("=") for value in values]
    for name, sign, value in pairs:
        if not (name.strip() and sign):
            raise DeidbenchError(f"--set expects NAME=VALUE, but got '{name}{sign}{value}'.")
        if name.strip() in ("strength", "weights"):
            raise DeidbenchError(
                f"--set {name.strip()} has an option of its own. Use --{name.strip()}."
            )
    return tuple((name.strip(), parse_value(value)) for name, _, value in pairs)


def names(kind: plugins.Kind) -> Callable[..., list[str]]:
    """Shell completion of the installed names of a kind."""

    def complete(_: Any, __: Any, typed: str) -> list[str]:
        done, comma, last = typed.rpartition(",")
        found = [name for name in plugins.names(kind) if name.startswith(last)]
        return [f"{done}{comma}{name}" for name in found]

    return complete


def show_markdown(text: str) -> None:
    """Rendered on a terminal; as it is for a file or another program."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text))


def show_rows(told: list[tuple[str, str]]) -> None:
    """A table on a terminal, however narrow; a line for each row elsewhere."""
    if not sys.stdout.isatty():
        click.echo("\n".join(f"{heading}: {text}" for heading, text in told))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for heading, text in told:
        table.add_row(Text(heading, "bold"), Text(text, overflow="fold"))
    Console().print(table)
