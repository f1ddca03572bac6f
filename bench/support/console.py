"""The terminal on which benchmarks print."""

import sys

from rich.console import Console

#: Prints progress and tables. If the output isn't a terminal, a line has at most 120 characters.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
