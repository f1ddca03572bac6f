"""Writes the newest result of each benchmark into docs/performance.md, with plots in docs/images/.

Usage: .venv/bin/python -m bench.support.page
"""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.__main__ import FOLDER, NAMES
from bench.support import results, screen
from bench.support.comparing import Bar, Table

PAGE = results.ROOT / "docs" / "performance.md"
IMAGES = results.ROOT / "docs" / "images"
BEGIN, END = "<!-- written by bench.support.page -->", "<!-- end -->"
_HELD = {True: "held", False: "**not held**", None: "not measured"}
_OURS, _PEERS = "#2f6f9f", "#b9c4cc"


def main() -> int:
    """Rewrites the results in docs/performance.md. Returns the exit status."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.stderr.write(f"{PAGE} lacks the line {BEGIN}, or the line {END} below it\n")
        return 1
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(map(section, NAMES)) + f"\n{END}{after}")
    sys.stdout.write(f"written: {PAGE}\n")
    return 0


def section(name: str) -> str:
    """Returns the section of docs/performance.md about one benchmark. Draws the section's plot."""
    described = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or ""
    parts = [f"### {name}", described.strip()]
    result = results.newest(name)
    if result is None:
        return "\n\n".join([*parts, "Not measured yet."]) + "\n"
    parts.append(circumstances(result))
    if result["bars"]:
        parts.append(bars(result["bars"]))
    plotted = [table for table in result["tables"] if table.plotted and len(table.samples) > 1]
    if plotted:
        plot(IMAGES / f"bench-{name}.svg", plotted)
        parts.append(
            f"![{name}: medians, with the lowest and highest run](images/bench-{name}.svg)"
        )
    tables = "\n\n".join(map(tabulated, result["tables"]))
    parts.append(
        f"<details><summary>All figures of the benchmark {name}</summary>\n\n{tables}\n\n</details>"
    )
    return "\n\n".join(parts) + "\n"


def circumstances(result: dict[str, Any]) -> str:
    """Describes in one paragraph the date, commit, machine and versions of a result, and the
    skipped peers."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    said = (
        f"{result['date'][:10]}, commit {result['commit']}, {machine['cpu']}, {machine['cores']} "
        f"cores, {machine['ram_gib']} GiB, Linux {machine['kernel']}; {versions}."
    )
    first = next(iter(result["tables"][0].samples.values()))
    said += f" Runs of each case in the first table: {len(first)}."
    skipped = [f"{name} ({remedy})" for name, remedy in result["skipped"].items()]
    return said + (f" Skipped: {', '.join(skipped)}." if skipped else "")


def bars(found: Sequence[Bar]) -> str:
    """Returns a Markdown table of bars, which are figures with limits."""
    lines = ["| required | measured; limit | |", "|---|---|---|"]
    lines += [f"| {bar.text} | {screen.limits(bar)} | {_HELD[bar.held]} |" for bar in found]
    return "\n".join(lines)


def tabulated(table: Table) -> str:
    """Returns a table of figures in Markdown, with its title."""
    headings = screen.headings(table)
    lines = [
        f"{table.title} ({table.unit}, {table.better} is better):\n",
        f"| {' | '.join(headings)} |",
        "|---" + "|--:" * (len(headings) - 1) + "|",
    ]
    lines += [f"| {' | '.join(row[: len(headings)])} |" for row in screen.rows(table)]
    return "\n".join(lines)


def plot(path: Path, tables: Sequence[Table]) -> None:
    """Draws a plot of each table, one below the other, into the file at `path`. For each case, a
    bar shows the median, and a line goes from the lowest to the highest sample. In each plot, the
    bar of the table's reference has a colour of its own."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 9}
    heights = [len(table.samples) + 2 for table in tables]
    figure = Figure(figsize=(8, 0.26 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, table in zip(axes, tables, strict=True):
        samples = {name: values for name, values in table.samples.items() if values}
        medians = [table.median(name) or 0 for name in samples]
        low = [middle - min(each) for middle, each in zip(medians, samples.values(), strict=True)]
        high = [max(each) - middle for middle, each in zip(medians, samples.values(), strict=True)]
        colours = [_OURS if name == table.reference else _PEERS for name in samples]
        drawn = axis.barh(
            list(samples), medians, xerr=[low, high], color=colours, error_kw={"lw": 1}
        )
        axis.bar_label(drawn, [screen.figure(value) for value in medians], padding=4)
        axis.set_title(f"{table.title} ({table.unit}, {table.better} is better)", loc="left")
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
