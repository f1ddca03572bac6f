"""Prints the tables and notes of commands: fitted to a terminal, or unwrapped if the output is
piped."""

import sys
from typing import TextIO

from django.conf import settings
from django.core.management.base import OutputWrapper
from rich.console import Console, Group, RenderableType
from rich.table import Table

#: So wide that piped output is never cut or wrapped.
_PIPED_WIDTH = 100_000
#: Tables are at least this wide. A narrower terminal wraps their lines itself.
MIN_WIDTH = 60


def table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table without lines. Columns named in `right` are right-aligned."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return made


def show(out: "OutputWrapper | TextIO", *parts: RenderableType) -> None:
    """Prints tables and lines of text."""
    out.write(rendered(out, *parts), ending="") if isinstance(out, OutputWrapper) else out.write(
        rendered(out, *parts)
    )


def rendered(out: "OutputWrapper | TextIO", *parts: RenderableType) -> str:
    """Tables and lines of text, formatted for an output."""
    console = _console(out)
    with console.capture() as text:
        console.print(Group(*parts))
    # Rich pads cells with spaces up to the column's width.
    return "".join(f"{line.rstrip()}\n" for line in text.get().splitlines())


def _console(out: "OutputWrapper | TextIO") -> Console:
    terminal = out.isatty()
    console = Console(force_terminal=terminal, highlight=False, soft_wrap=False)
    console.width = max(console.width, MIN_WIDTH) if terminal else _PIPED_WIDTH
    return console


def note_database() -> None:
    """Writes to stderr that the command uses the embedded database, because the operator may have
    meant another."""
    if not settings.DATABASE_URL:
        folder = settings.DATA_DIR
        sys.stderr.write(f"Database: the embedded one in {folder} (DATABASE_URL is not set).\n")
