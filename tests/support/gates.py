"""Fixes an order between threads: a gate holds a thread until the test has done what must come
between."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")

#: How long anything may wait for its turn. Reached only by a test that fails.
PATIENCE = 10.0


class Gate:
    """Closed until `open`. Whoever comes to it is waited for with `wait_for_arrival`."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._opened = threading.Event()

    def hold(self) -> None:
        """Says that somebody has come, and waits until the gate is opened."""
        self._arrived.set()
        assert self._opened.wait(PATIENCE), "nobody opened the gate"

    def wait_for_arrival(self) -> None:
        """Waits until somebody stands at the gate."""
        assert self._arrived.wait(PATIENCE), "nobody came to the gate"

    def somebody_waits(self) -> bool:
        """Whether somebody has come."""
        return self._arrived.is_set()

    def open(self) -> None:
        """Lets everybody pass, now and later."""
        self._opened.set()

    def before(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, whose first caller waits at this gate before its work."""
        return self._gated(function, first=True)

    def after(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, whose first caller waits at this gate between its work and its return."""
        return self._gated(function, first=False)

    def _gated(self, function: Callable[P, R], *, first: bool) -> Callable[P, R]:
        passes = threading.Semaphore(1)

        def gated(*args: P.args, **kwargs: P.kwargs) -> R:
            held = passes.acquire(blocking=False)
            if held and first:
                self.hold()
            value = function(*args, **kwargs)
            if held and not first:
                self.hold()
            return value

        return gated


def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
    """Calls a function in a thread of its own, which leaves no database connection behind."""
    future: Future[R] = Future()

    def run() -> None:
        try:
            value = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
            connections.close_all()
            future.set_exception(error)
        else:
            connections.close_all()
            future.set_result(value)

    threading.Thread(target=run, daemon=True).start()
    return future
