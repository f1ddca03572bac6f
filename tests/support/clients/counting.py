"""Writes growing numbers to a file, and reads the file from a replica to detect old numbers."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from realms.models import Realm
from tests.support import make
from tests.support.cluster import Replica, wait_until
from tests.support.gates import PATIENCE, in_thread

URL = "http://localhost:4201/ada/site/count.ts"
BOUND_SECONDS = 2.0


def count(source: Realm, number: int) -> int:
    """Writes a number to the file at `URL`, and returns the realm's new generation."""
    return make.write(source, count__ts=b"export const n = %d;" % number)


def shown(answer: Any) -> int:
    """Parses an answer that has the file at `URL` as its body. Returns the number in the file."""
    return int(answer.text.split("=")[1].split(";")[0])


class Reader:
    """Reads the file at `URL` from a replica continuously. Records a number as stale if a newer
    number had been written more than BOUND_SECONDS before the request."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._written: list[tuple[float, int]] = [(0.0, 1)]
        self._end = threading.Event()
        self.reads = 0
        self.stale: list[tuple[int, int]] = []

    def wrote(self, number: int) -> None:
        """Records that a number has just been committed."""
        self._written.append((time.monotonic(), number))

    def read(self) -> None:
        began = time.monotonic()
        number = shown(self._replica.get(URL))
        least = max(n for at, n in self._written if at < began - BOUND_SECONDS)
        self.reads += 1
        if number < least:
            self.stale.append((number, least))

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self.read()

    @contextmanager
    def at_work(self) -> "Iterator[Reader]":
        ending = in_thread(self._run)
        try:
            yield self
        finally:
            self._end.set()
            ending.result(PATIENCE)
        assert self.reads > 10
        assert self.stale == []


def wait_for_hits(replica: Replica, number: int) -> None:
    """Waits until both web workers of a replica answer from their caches. Fails if an answer
    contains a number other than `number`."""

    def hits() -> bool:
        answers = replica.each_worker(URL).values()
        assert {shown(answer) for answer in answers} == {number}
        return {answer.cache for answer in answers} == {"hit"}

    wait_until(hits, "cache hits in both web workers")


def end(replica: Replica, role: str, number: int = signal.SIGTERM) -> None:
    """Sends the signal `number` to one of a replica's processes and waits until the process has
    ended."""
    replica.running[role].send_signal(number)
    replica.running[role].wait(20)
