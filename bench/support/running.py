"""Manages one run of a benchmark: its options, folder, database, processes and result.

`with bench:` sets the environment variables that the Django settings read. So import Django and
the realm server only inside this block.
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
    """A run of a benchmark. `with bench:` prepares the database and a temporary folder. The end of
    this block ends all processes of the run."""

    def __init__(self, name: str, description: str | None, *, runs: int = 3) -> None:
        """`description` is the docstring of the benchmark's module, which `--help` prints. `runs`
        is the default of `--runs`. A benchmark adds its own options to `parser` before it first
        reads `options`, `quick` or `runs`."""
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
            "--runs", type=int, default=runs, help=f"how often a case is measured (default: {runs})"
        )
        self.parser.add_argument(
            "--quick",
            action="store_true",
            help="runs a smoke test, which judges no times and writes no result",
        )

    @cached_property
    def options(self) -> argparse.Namespace:
        """The options of the command line. An invalid option ends the process."""
        options = self.parser.parse_args()
        for name, value in vars(options).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                self.parser.error(f"--{name.replace('_', '-')} has to be above 0")
        return options

    @property
    def quick(self) -> bool:
        """Whether this run is a smoke test, because of the option `--quick`."""
        return bool(self.options.quick)

    @property
    def runs(self) -> int:
        """How often each case is measured."""
        return 1 if self.quick else int(self.options.runs)

    def __enter__(self) -> "Bench":
        _ = self.options
        # SIGTERM raises SystemExit, which leaves the `with` block. So the benchmark ends its
        # processes before it exits.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # `mark` starts the reaper. When the benchmark has ended, even by `kill -9`, the reaper
        # kills all processes that have the environment variable that `mark` returns.
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
        """Enters the context manager `process`, and returns the value that it yields. The context
        manager is exited at the end of `with bench:`. If it raises Missing, because a program isn't
        installed, returns None and adds the program to `skipped`."""
        try:
            return self._stack.enter_context(process)
        except Missing as missing:
            self.skipped[missing.name] = missing.remedy
            return None

    def add(self, table: Table, *, plot: bool = True) -> None:
        """Adds a table to the result. If `plot` is true, docs/performance.md also plots the
        table."""
        self.tables.append(replace(table, plotted=plot))

    def judge(self, bar: Bar) -> None:
        """Adds a bar, which is a figure with its limits, to the result. A smoke test ignores bars
        without `always`, because their figures mean nothing in such a short run."""
        if bar.always or not self.quick:
            self.bars.append(bar)

    def finish(self) -> int:
        """Prints the result. Unless the run is a smoke test, also writes the result to a file.
        Returns the exit status: 1 if a figure is outside the limits of its bar, otherwise 0."""
        screen.show(self.tables, self.bars, self.skipped)
        if self.quick:
            console.print(f"[dim]{self.name}: this was a smoke test, so the times mean nothing[/]")
        else:
            path = results.append(self.name, self.tables, self.bars, self.skipped, self._postgres)
            console.print(f"[dim]{self.name}: the result was written to {path}[/]")
        return 1 if any(bar.held is False for bar in self.bars) else 0


def _set_up_django(folder: Path, stack: ExitStack) -> str:
    """Sets up Django and the tables of the realm server, and returns the version of Postgres. The
    database is the one of DATABASE_URL. Without DATABASE_URL, it is in a new embedded Postgres,
    which stops when `stack` is exited."""
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
    """Kills all child processes that still run, and their children."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)
