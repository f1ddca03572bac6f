"""Prints the tables and notes of commands. On a terminal, long cells are wrapped to fit its width.
Piped output isn't wrapped."""

import sys
from typing import TextIO

from django.conf import settings
from django.core.management.base import OutputWrapper
from rich.console import Console, Group, RenderableType
from rich.table import Table

#: The width of piped output, so large that no line is cut or wrapped.
_PIPED_WIDTH = 100_000
#: The smallest width of a table. A terminal that is narrower wraps the table's lines itself.
MIN_WIDTH = 60


def table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    """Returns an empty table without border lines. The columns named in `right` are
    right-aligned."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return made


def show(out: "OutputWrapper | TextIO", *parts: RenderableType) -> None:
    """Prints tables and lines of text to `out`."""
    out.write(rendered(out, *parts), ending="") if isinstance(out, OutputWrapper) else out.write(
        rendered(out, *parts)
    )


def rendered(out: "OutputWrapper | TextIO", *parts: RenderableType) -> str:
    """Returns one text with the given tables and lines, formatted for the width of `out`."""
    console = _console(out)
    with console.capture() as text:
        console.print(Group(*parts))
    # `rstrip` removes the spaces with which Rich fills the last column.
    return "".join(f"{line.rstrip()}\n" for line in text.get().splitlines())


def _console(out: "OutputWrapper | TextIO") -> Console:
    terminal = out.isatty()
    console = Console(force_terminal=terminal, highlight=False, soft_wrap=False)
    console.width = max(console.width, MIN_WIDTH) if terminal else _PIPED_WIDTH
    return console


def note_database() -> None:
    """Writes a note to stderr if the command uses the embedded database. The operator may have
    forgotten to set DATABASE_URL."""
    if not settings.DATABASE_URL:
        folder = settings.DATA_DIR
        sys.stderr.write(f"Database: the embedded one in {folder} (DATABASE_URL is not set).\n")
