"""Manages one run of a benchmark: its options, folder, database, processes and result.

Import Django and the realm server only within `with bench:`, which sets the environment that the
settings read.
"""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import psutil

from bench.support import results, screen
from bench.support.comparing import Bar, Table
from bench.support.console import console
from bench.support.peers import Missing
from tests.support.servers.reaper import mark

T = TypeVar("T")

#: The public origin of a benchmark's realms.
ORIGIN = "http://localhost:4201"


class Bench:
    """A benchmark's name, options, database and results."""

    def __init__(self, name: str, description: str | None, *, runs: int = 3) -> None:
        """`description` is the module's docstring. Add further options to `parser` before the first
        use of `options`."""
        self.name = name
        self.tables: list[Table] = []
        self.bars: list[Bar] = []
        self.skipped: dict[str, str] = {}
        self.folder = Path()
        self._stack = ExitStack()
        self._postgres = ""
        self.parser = argparse.ArgumentParser(
            prog=f"script/bench {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.parser.add_argument(
            "--runs", type=int, default=runs, help=f"runs of each case (default: {runs})"
        )
        self.parser.add_argument(
            "--quick",
            action="store_true",
            help="a smoke test: doesn't judge times, writes no result",
        )

    @cached_property
    def options(self) -> argparse.Namespace:
        """The command line's options. A bad option ends the process."""
        options = self.parser.parse_args()
        for name, value in vars(options).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                self.parser.error(f"--{name.replace('_', '-')} has to be above 0")
        return options

    @property
    def quick(self) -> bool:
        """Whether this is a smoke test."""
        return bool(self.options.quick)

    @property
    def runs(self) -> int:
        """How often each case is measured."""
        return 1 if self.quick else int(self.options.runs)

    def __enter__(self) -> "Bench":
        _ = self.options
        # SIGTERM becomes SystemExit, so that the benchmark ends its processes.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # The mark makes the reaper end these processes even if the benchmark is killed.
        os.environ |= mark()
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="realm-bench-"))
            stack.callback(_end_children)
            self.folder = Path(folder)
            self._postgres = _set_up_django(self.folder, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def start(self, process: AbstractContextManager[T]) -> T | None:
        """Enters the context manager `process`, and returns the value that it yields. The end of
        the benchmark exits the context manager. If the needed program isn't installed, returns None
        and adds the program to `skipped`."""
        try:
            return self._stack.enter_context(process)
        except Missing as missing:
            self.skipped[missing.name] = missing.remedy
            return None

    def add(self, table: Table, *, plot: bool = True) -> None:
        """Adds a table to the result. docs/performance.md shows its plot if `plot` is true."""
        self.tables.append(replace(table, plotted=plot))

    def judge(self, bar: Bar) -> None:
        """Adds a bar to the result. A smoke test adds only bars with `always`."""
        if bar.always or not self.quick:
            self.bars.append(bar)

    def finish(self) -> int:
        """Prints the result, and appends it to the results unless this is a smoke test. Returns the
        exit status: 1 if a bar isn't held, otherwise 0."""
        screen.show(self.tables, self.bars, self.skipped)
        if self.quick:
            console.print(f"[dim]{self.name}: a smoke test; these times mean nothing[/]")
        else:
            path = results.append(self.name, self.tables, self.bars, self.skipped, self._postgres)
            console.print(f"[dim]{self.name}: written to {path}[/]")
        return 1 if any(bar.held is False for bar in self.bars) else 0


def _set_up_django(folder: Path, stack: ExitStack) -> str:
    """Sets up Django and a new database, and returns the version of its Postgres. Leaving the
    `stack` stops this Postgres."""
    os.environ["REALM_DATA_DIR"] = str(folder)
    os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
    os.environ["REALM_PUBLIC_ORIGIN"] = ORIGIN
    os.environ.setdefault("REALM_LOG_LEVEL", "WARNING")
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection, connections

    from realms.publishing.bootstrap import sync_base_realm
    from settings.embedded.server import stop_if_unused

    if not settings.DATABASE_URL:
        stack.callback(stop_if_unused, settings.DATA_DIR)
    stack.callback(connections.close_all)
    call_command("migrate", verbosity=0)
    sync_base_realm()
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0])


def _end_children() -> None:
    """Kills the processes that a benchmark has left running."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)
