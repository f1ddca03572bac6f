"""The terminal on which benchmarks print."""

import sys

from rich.console import Console

#: Prints progress and tables. If the output isn't a terminal, tables may have 120 columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
