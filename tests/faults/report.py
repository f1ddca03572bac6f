"""Runs a fault campaign and prints its results."""

import argparse
import statistics
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.faults.campaign import EDGE_SECONDS, Outcome, Plan, run
from tests.faults.clients import EDGE
from tests.faults.judge.checker import Violation
from tests.faults.judge.history import History, Operation, Read

SHOWN_VIOLATIONS = 5
#: If a read shows a violation, the report also lists what happened in the AROUND seconds before the
#: read. If this list has more than SHOWN_LINES lines, only the newest lines are printed.
AROUND = 3.0
SHOWN_LINES = 25


def campaign(folder: Path, asked: argparse.Namespace) -> int:
    """Runs a campaign with a progress bar and prints the results. Returns 1 if a promise was
    broken."""
    console = Console(soft_wrap=True, highlight=False)
    plan = Plan(asked.seconds, asked.seed, asked.replicas, asked.broken, edge=asked.edge)
    again = (
        f"script/faults --seconds {plan.seconds:g} --seed {plan.seed} --replicas {plan.replicas}"
    )
    again += f" --break {plan.broken}" if plan.broken else ""
    console.print(f"[bold]{again}" + ("" if plan.edge else " --no-edge"))
    if asked.missing:
        console.print(asked.missing)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=plan.seconds, told="")

        def progress(passed: float, history: History) -> None:
            told = f"{len(history.reads):,} reads, {len(history.faults)} faults"
            bar.update(task, completed=passed, told=told)

        def tell(line: str) -> None:
            bar.update(task, description=line)
            if not console.is_terminal:
                console.print(f"· {line}")

        outcome = run(plan, folder, tell, progress)
    show(console, outcome)
    return 1 if outcome.verdict.violations else 0


def show(console: Console, outcome: Outcome) -> None:
    """Prints a campaign's operations, faults, reads and violations. Also prints for how long the
    answers to unpinned reads, which name no generation, had been outdated."""
    history, verdict = outcome.history, outcome.verdict
    operations = Counter(each.kind for each in history.operations)
    done = Counter(each.kind for each in history.operations if each.acknowledged)
    _counts(console, "Operations", {k: f"{done[k]} of {n}" for k, n in sorted(operations.items())})
    faults = Counter(kind for _, _, kind in history.faults)
    _counts(console, f"{faults.total()} faults", {k: str(n) for k, n in sorted(faults.items())})
    checked = verdict.checked
    _counts(
        console, f"{checked.total():,} checked", {k: f"{n:,}" for k, n in sorted(checked.items())}
    )
    lost = sum(history.unanswered.values())
    console.print(
        f"Reads by status: {_listed(verdict.statuses)}; reads without an answer: {lost:,}"
        + (f" ({_listed(Counter(history.unanswered))})" if lost else "")
    )
    table = Table("Staleness of unpinned reads", "reads", "stale", "p50", "p99", "p99.9", "most")
    for name, ages in (
        ("during a fault", verdict.stale_in_faults),
        ("without a fault", verdict.stale_in_peace),
        ("through the edge", verdict.stale_at_edge),
    ):
        table.add_row(name, f"{len(ages):,}", *_distribution(ages))
    console.print(table)
    if outcome.plan.edge:
        kept = Counter(each.cache for each in history.reads if each.replica == EDGE)
        console.print(
            f"Reads through nginx, which caches answers for {EDGE_SECONDS} s: {kept['HIT']:,} from "
            f"its cache, {kept['MISS']:,} passed to a replica, {kept.total():,} in all"
        )
    if outcome.back_to_hits:
        console.print(
            f"After {len(outcome.back_to_hits)} stalls of LISTEN connections, replicas used their "
            f"caches again within {statistics.median(outcome.back_to_hits):.2f} s (median), "
            f"{max(outcome.back_to_hits):.2f} s (maximum; other faults may have delayed them)"
        )
    if outcome.settled is not None:
        console.print(
            f"All replicas were up to date {outcome.settled:.1f} s after the last fault and write"
        )
    if not verdict.violations:
        console.print("[bold green]no promise was broken")
        return
    console.print(f"[bold red]{len(verdict.violations)} violations")
    for promise, number in sorted(Counter(v.promise for v in verdict.violations).items()):
        console.print(f"  {promise}: {number}")
    for violation in verdict.violations[:SHOWN_VIOLATIONS]:
        _show_violation(console, violation, history)


def _show_violation(console: Console, violation: Violation, history: History) -> None:
    console.print(f"\n[bold red]{violation.promise}[/]: {violation.what}")
    read = violation.shown_by
    if not isinstance(read, Read):
        if read is not None:
            console.print(f"  {read}", markup=False)
        return
    lines: list[tuple[float, str]] = [
        (start, f"fault that lasts {end - start:.2f} s: {kind}")
        for start, end, kind in history.faults
        if start < read.end and end > read.start - AROUND
    ]
    for operation in history.operations:
        if _near(operation, read):
            said = f" generation {operation.generation}" if operation.generation else ""
            lines.append((
                operation.start,
                f"{operation.kind} {operation.realm}{operation.path} {operation.mark} → "
                f"{operation.status or operation.said}{said}, after "
                f"{operation.end - operation.start:.3f} s",
            ))  # fmt: skip
    lines += [
        (
            each.start,
            f"{each.worker} {each.variant} {each.pin}{each.pinned or ''} {each.path or '/'} → "
            f"{each.status} {each.cache} generation {each.generation} {' '.join(each.marks)}",
        )
        for each in history.reads
        if each.realm == read.realm
        and each.path == read.path
        and read.start - AROUND < each.start <= read.end
        and each.replica == read.replica
    ]
    for at, line in sorted(lines)[-SHOWN_LINES:]:
        console.print(f"  {at - read.start:+8.3f} s  {line}", markup=False)


def _near(operation: Operation, read: Read) -> bool:
    user = read.realm.split("//")[1].split(".")[0] if ".localhost" in read.realm else ""
    return (
        (operation.realm == read.realm or (bool(user) and f"/{user}/" in operation.realm))
        and operation.start < read.end
        and operation.end > read.start - AROUND
    )


def _counts(console: Console, title: str, counts: dict[str, str]) -> None:
    table = Table(title, "", min_width=44)
    for name, count in counts.items():
        table.add_row(name, count)
    console.print(table)


def _listed(counts: "Counter[int] | Counter[str]") -> str:
    return ", ".join(f"{name}: {n:,}" for name, n in sorted(counts.items(), key=lambda it: -it[1]))


def _distribution(ages: list[float]) -> tuple[str, ...]:
    if not ages:
        return ("-",) * 5
    ordered = sorted(ages)
    stale = sum(age > 0 for age in ordered)
    quantiles = [ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.99, 0.999)]
    return (
        f"{stale:,}",
        *(f"{q * 1000:.1f} ms" for q in quantiles),
        f"{ordered[-1] * 1000:.1f} ms",
    )
