"""Interleaves two functions that run SQL statements. Stops the first function before one of its
statements or commits, runs the second function, and then continues the first function.

A test asserts that each outcome of such a run is also an outcome of running the functions one after
the other.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import Any, TypeAlias

from django.db import connection, connections

from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate

Run: TypeAlias = Callable[[], Any]
#: The state after a run of two functions, the first function's result, and the second's result.
Outcome: TypeAlias = tuple[Any, Any, Any]


def outcomes_in_a_row(prepare: Callable[[], tuple[Run, Run]], picture: Run) -> list[Outcome]:
    """Runs two functions one after the other, in both orders, and returns the outcome of each
    order. Before each run, `prepare` restores the same state and returns the two functions. After
    each run, `picture` returns the state."""
    one, two = prepare()
    first = one(), two()
    forwards = (picture(), *first)
    one, two = prepare()
    second = two(), one()
    return [forwards, (picture(), second[1], second[0])]


def outcomes_at_once(
    prepare: Callable[[], tuple[Run, Run]], picture: Run
) -> Iterator[tuple[int, Outcome]]:
    """Runs the two functions repeatedly, and yields the number and the outcome of each run. The
    first run has the number 0. `prepare` and `picture` are those of `outcomes_in_a_row`.

    A step is an SQL statement or a commit. In the run with the number n, the first function stops
    after n steps. Then the second function runs. When the second function has ended or waits for a
    lock, the first function continues.
    """
    with _thread() as (one_thread, _), _thread() as (two_thread, pid):
        for stop in count():
            one, two = prepare()
            gate = Gate()
            first = one_thread.submit(_stopped, one, stop, gate)
            if not _comes_to(first, gate.somebody_waits):
                # The first function has ended without a stop, because it has only `stop` steps.
                first.result(PATIENCE)
                return
            second = two_thread.submit(two)
            _comes_to(second, partial(_waits, pid))
            gate.open()
            answers = first.result(PATIENCE), second.result(PATIENCE)
            yield stop, (picture(), *answers)


def _comes_to(running: "Future[Any]", stands: Callable[[], bool]) -> bool:
    """Waits until a function has ended, or until `stands` says that the function has stopped or
    waits for a lock. Returns false if the function has ended."""
    wait_until(lambda: running.done() or stands(), "the function ends, stops or waits for a lock")
    return not running.done()


@contextmanager
def _thread() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yields a thread with its own database connection, and the id of the Postgres process that
    serves this connection."""

    def connect() -> int:
        connection.ensure_connection()
        return int(connection.connection.info.backend_pid)

    with ThreadPoolExecutor(1) as thread:
        yield thread, thread.submit(connect).result(PATIENCE)
        thread.submit(connections.close_all).result(PATIENCE)


def _waits(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT cardinality(pg_blocking_pids(%s))", [pid])
        return bool(cursor.fetchone()[0])


def _stopped(function: Run, stop: int, gate: Gate) -> Any:
    """Calls a function, and counts the statements and commits that the function has run. When the
    count is equal to `stop`, the next statement or commit first waits at the gate."""
    passed = 0

    def step() -> None:
        nonlocal passed
        if passed == stop:
            gate.hold()
        passed += 1

    def execute(run: Any, sql: Any, parameters: Any, many: bool, context: Any) -> Any:
        step()
        return run(sql, parameters, many, context)

    with ExitStack() as stack:
        stack.enter_context(connection.execute_wrapper(execute))
        stack.enter_context(_before_commits(step))
        return function()


@contextmanager
def _before_commits(step: Callable[[], None]) -> Iterator[None]:
    commit = connection.commit

    def stopped() -> None:
        step()
        commit()

    connection.commit = stopped  # type: ignore[method-assign]
    try:
        yield
    finally:
        connection.commit = commit  # type: ignore[method-assign]
