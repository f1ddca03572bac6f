"""Controls the order of threads in a test. A gate stops a thread until the test opens the gate."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
R = TypeVar("R")

#: A test fails if a thread waits longer than this at a gate, or for a thread to come to the gate.
#: Unit: seconds.
PATIENCE = 10.0


class Gate:
    """Stops threads until `open` is called."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._opened = threading.Event()

    def hold(self) -> None:
        """Records that the calling thread has arrived, and stops the thread until the gate
        opens."""
        self._arrived.set()
        assert self._opened.wait(PATIENCE), "no thread opened the gate"

    def wait_for_arrival(self) -> None:
        """Waits until a thread has arrived and is stopped at the gate."""
        assert self._arrived.wait(PATIENCE), "no thread came to the gate"

    def somebody_waits(self) -> bool:
        """Returns whether a thread has arrived at the gate."""
        return self._arrived.is_set()

    def open(self) -> None:
        """Lets all waiting threads pass, and all threads that arrive later."""
        self._opened.set()

    def before(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function. Only the first call waits at this gate, before it runs the function."""
        return self._gated(function, first=True)

    def after(self, function: Callable[P, R]) -> Callable[P, R]:
        """Wraps a function. Only the first call waits at this gate, after the function has run."""
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
    """Calls a function in a new thread, and returns a future for the function's result. The thread
    closes its database connections at the end."""
    future: Future[R] = Future()

    def run() -> None:
        try:
            value = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  the future raises it again
            connections.close_all()
            future.set_exception(error)
        else:
            connections.close_all()
            future.set_result(value)

    threading.Thread(target=run, daemon=True).start()
    return future
