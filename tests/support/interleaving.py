"""Interleaves two functions. Stops the first function before one of its SQL statements, and runs
the second function meanwhile.

A test asserts that each interleaved outcome is also an outcome of running the functions one after
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
#: The state afterwards, and the result of each of the two functions.
Outcome: TypeAlias = tuple[Any, Any, Any]


def outcomes_in_a_row(prepare: Callable[[], tuple[Run, Run]], picture: Run) -> list[Outcome]:
    """Runs two functions one after the other, in both orders, and returns both outcomes."""
    one, two = prepare()
    first = one(), two()
    forwards = (picture(), *first)
    one, two = prepare()
    second = two(), one()
    return [forwards, (picture(), second[1], second[0])]


def outcomes_at_once(
    prepare: Callable[[], tuple[Run, Run]], picture: Run
) -> Iterator[tuple[int, Outcome]]:
    """Runs the two functions repeatedly, and yields the number and the outcome of each run. In run
    n, the first function stops after n steps. A step is a statement or a commit. Meanwhile the
    second function runs. The first function continues when the second function has ended or waits
    for a lock."""
    with _thread() as (one_thread, _), _thread() as (two_thread, pid):
        for stop in count():
            one, two = prepare()
            gate = Gate()
            first = one_thread.submit(_stopped, one, stop, gate)
            if not _comes_to(first, gate.somebody_waits):
                # The first function has ended without a stop, so all stops have been tried.
                first.result(PATIENCE)
                return
            second = two_thread.submit(two)
            _comes_to(second, partial(_waits, pid))
            gate.open()
            answers = first.result(PATIENCE), second.result(PATIENCE)
            yield stop, (picture(), *answers)


def _comes_to(running: "Future[Any]", stands: Callable[[], bool]) -> bool:
    """Waits until a function has ended or has stopped. Returns true if the function has stopped."""
    wait_until(lambda: running.done() or stands(), "an end, or a stop")
    return not running.done()


@contextmanager
def _thread() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Yields a thread with a separate database connection, and the id of the connection's Postgres
    process."""

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
    """Calls a function, and stops it at the gate after `stop` statements and commits."""
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
