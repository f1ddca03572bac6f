"""Prints a benchmark's result: the tables, the skipped peers, and the bars, which are figures with
limits."""

from collections.abc import Mapping, Sequence

from rich.table import Table as Shown

from bench.support.comparing import Bar, Table
from bench.support.console import console


def figure(value: float) -> str:
    """Formats a number: below 10 with two decimals, below 100 with one, from 100 with none."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def headings(table: Table) -> list[str]:
    """Returns the column headings of a table. If the table has a reference and two or more cases,
    the last column shows each case's ratio to the reference."""
    compared = table.reference and len(table.samples) > 1
    return ["", "median", "min–max", *([f"× {table.reference}"] if compared else [])]


def rows(table: Table) -> list[tuple[str, str, str, str]]:
    """Returns a row for each measured case, with the case's name, median, range, and ratio to the
    table's reference."""
    found = []
    for name, samples in table.samples.items():
        middle = table.median(name)
        if middle is None:
            continue
        ratio = table.ratio(name, table.reference)
        spread = f"{figure(min(samples))}–{figure(max(samples))}"
        found.append((name, figure(middle), spread, str(ratio) if ratio else ""))
    return found


def show(tables: Sequence[Table], bars: Sequence[Bar], skipped: Mapping[str, str]) -> None:
    """Prints a result. For each skipped peer, `skipped` says why, or how to install it."""
    for table in tables:
        shown = Shown(min_width=76, title=f"{table.title} ({table.unit}, {table.better} is better)")
        for heading in headings(table):
            shown.add_column(heading, justify="right" if heading else "left")
        for row in rows(table):
            shown.add_row(*row[: len(shown.columns)])
        console.print(shown)
    for bar in bars:
        console.print(f"{verdict(bar)}: {bar.text} [dim]({limits(bar)})[/]")
    for name, remedy in skipped.items():
        console.print(f"[yellow]skipped[/]: {name} ({remedy})")


def verdict(bar: Bar) -> str:
    """Returns a text that says whether a bar's figure is within its limits, with rich's markup for
    the colour."""
    return {True: "[green]held[/]", False: "[red]not held[/]", None: "[yellow]not measured[/]"}[
        bar.held
    ]


def limits(bar: Bar) -> str:
    """Returns the figure of a bar and its limits as text."""
    measured = "—" if bar.figure is None else str(bar.figure)
    if isinstance(bar.figure, float | int):
        measured = figure(bar.figure)
    if bar.at_least is not None and bar.at_least == bar.at_most:
        return f"{measured}; exactly {bar.at_least:g}"
    low = [] if bar.at_least is None else [f"at least {bar.at_least:g}"]
    high = [] if bar.at_most is None else [f"at most {bar.at_most:g}"]
    return f"{measured}; {' and '.join(low + high)}"
