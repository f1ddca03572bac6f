"""Compares cases, such as several servers. Each run measures every case. So if the machine is slow
for a minute, all cases are slow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.support.console import console


class WrongBytes(Exception):
    """A case doesn't answer with the expected bytes, so its time means nothing."""


@dataclass(frozen=True)
class Case:
    """Something to measure, such as a server. `measure` makes one measurement, and returns the
    figure. `check` raises WrongBytes if the case answers wrongly."""

    name: str
    measure: Callable[[], float]
    check: Callable[[], object] | None = None


@dataclass(frozen=True)
class Ratio:
    """A ratio of two cases. Each run gives one ratio, and this object has the median, the lowest
    and the highest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


@dataclass(frozen=True)
class Table:
    """The samples of each case, one for each run. The table shows the ratio of each case to the
    case `reference`, or no ratios if `reference` is empty. docs/performance.md has a plot of the
    table if `plotted` is true and the table has two or more cases."""

    title: str
    unit: str
    better: Literal["higher", "lower"]
    samples: Mapping[str, Sequence[float]]
    reference: str = ""
    plotted: bool = True

    def ratio(self, case: str, to: str) -> Ratio | None:
        """Returns the ratio of the samples of `case` to the samples of `to`; None if one of the two
        cases isn't measured."""
        if not (self.samples.get(case) and self.samples.get(to)):
            return None
        pairs = zip(self.samples[case], self.samples[to], strict=True)
        return ratio_of([ours / theirs if theirs else float("inf") for ours, theirs in pairs])

    def median(self, case: str) -> float | None:
        """Returns the median of a case's samples; None if the case isn't measured."""
        return median(self.samples[case]) if self.samples.get(case) else None


def ratio_of(values: Sequence[float]) -> Ratio:
    """Returns the median, the lowest and the highest of some values."""
    return Ratio(median(values), min(values), max(values))


@dataclass(frozen=True)
class Bar:
    """A figure with its limits. The figure is None if it wasn't measured. A bar is held if the
    figure is within the limits. Smoke tests judge only the bars with `always`, which must be held
    even on a busy machine."""

    text: str
    figure: Ratio | float | None
    at_least: float | None = None
    at_most: float | None = None
    always: bool = False

    @property
    def held(self) -> bool | None:
        """Whether the figure is within the limits; None if the figure wasn't measured. If the
        figure is a ratio, its median must be within the limits."""
        if self.figure is None:
            return None
        value = self.figure.median if isinstance(self.figure, Ratio) else self.figure
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


@dataclass
class Series:
    """Collects a second figure, such as a latency, while `compare` collects the first. Each
    measurement of a case calls `note` once. `samples` maps each case to its samples."""

    samples: dict[str, list[float]] = field(default_factory=dict)

    def note(self, case: str, value: float) -> None:
        """Adds the value that one run has measured for a case."""
        self.samples.setdefault(case, []).append(value)


def compare(
    title: str,
    *,
    unit: str,
    better: Literal["higher", "lower"],
    runs: int,
    cases: Sequence[Case],
    reference: str = "",
) -> Table:
    """Checks all cases, and then measures each case once in each run. Every second run measures the
    cases in reverse order. The table compares the cases with `reference`, by default with the first
    case. Raises WrongBytes if a case answers wrongly."""
    for case in cases:
        if case.check is not None:
            case.check()
    samples: dict[str, list[float]] = {case.name: [] for case in cases}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(title, total=runs * len(cases))
        for run in range(runs):
            for case in cases if run % 2 == 0 else tuple(reversed(cases)):
                progress.update(task, description=f"{title}: {case.name}, run {run + 1}")
                samples[case.name].append(case.measure())
                progress.advance(task)
    return Table(title, unit, better, samples, reference or next(iter(samples), ""))
