"""Measures times, summarizes them by medians and other quantiles, and prints tables of them."""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table

#: If the output isn't a terminal, lines may have 160 characters.
CONSOLE = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def quantile(values: Iterable[float], share: float) -> float:
    """Returns the value below which about the given `share` of the values lie. For example, the
    share 0.5 returns the median. Raises ValueError if there are no values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there are no values")
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float], unit: float = 1, digits: int = 2) -> str:
    """Summarizes repeated measurements as the text `median (lowest to highest)`. Multiplies each
    figure by `unit`, for example by 1000 to convert seconds to milliseconds."""
    if not values:
        return "-"
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle * unit:,.{digits}f} ({low * unit:,.{digits}f} to {high * unit:,.{digits}f})"


def shares(values: Sequence[float], unit: float = 1000, digits: int = 1) -> str:
    """Summarizes many values, such as the times of requests, as the text `p50 / p99 / highest`. p50
    is the median, and p99 is the 99th percentile. Multiplies each figure by `unit`."""
    if not values:
        return "-"
    found = (quantile(values, 0.5), quantile(values, 0.99), max(values))
    return " / ".join(f"{each * unit:,.{digits}f}" for each in found)


def timed(action: Callable[[], object], repeat: int) -> list[float]:
    """Calls a function `repeat` times and returns the time of each call. Unit: seconds."""
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table. Below the title, prints the number of cores and the load of the machine,
    because other work on the machine changes the figures."""
    load = os.getloadavg()[0]
    made = Table(title=f"{title}\n{os.cpu_count()} cores, load {load:.1f}", title_justify="left")
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left")
    for row in rows:
        made.add_row(*(str(each) for each in row))
    CONSOLE.print(made)


def say(text: str) -> None:
    """Prints a text in a dim style, for example a note on a measurement."""
    CONSOLE.print(text, style="dim")
