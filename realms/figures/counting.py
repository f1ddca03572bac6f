"""Counts the reads, requests, publishes and locks of this process since the process started. Each
web worker process writes its counters to a file (`files.py`).

Counting must stay cheap compared with a cache hit, which takes some microseconds. Most counters
therefore have no lock. A statement such as `counts.hits += 1` is atomic even without a lock,
because the interpreter switches threads only at calls and at backward jumps.
"""

import threading
from bisect import bisect_left
from typing import TypeAlias

#: Counters or gauges by name. The value of `request_buckets` is a dictionary that maps the upper
#: bound of each bucket to a counter.
Figures: TypeAlias = dict[str, float | dict[str, float]]

#: The upper bounds of the buckets in the histogram of request times. Unit: seconds.
BOUNDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
BUCKETS = (*map(str, BOUNDS), "+Inf")


class Timing:
    """Counts the runs of an operation and sums their durations. Thread-safe."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self._lock = threading.Lock()

    def note(self, seconds: float) -> None:
        """Counts one run that took `seconds`."""
        with self._lock:
            self.count += 1
            self.seconds += seconds


class Counts:
    """The counters of one process."""

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        #: Reads that queried the database because the board wasn't live. The board is a file that
        #: says whether cached data is fresh. While it isn't live, no process uses cached data.
        self.bypasses = 0
        self.requests = 0
        #: The total time of the requests that the event loop doesn't answer from a cache. Cache
        #: hits in the event loop aren't timed, because reading the clock twice would make a hit a
        #: few percent slower.
        self.request_seconds = 0.0
        self.buckets = [0] * len(BUCKETS)
        #: Successful publishes and rollbacks. The time includes the wait for locks and the commit.
        self.publishes = Timing()
        #: How long each transaction waited for its write locks (`content/locks.py`), and how long
        #: it then held them. A transaction holds its locks until its commit ends.
        self.lock_waits = Timing()
        self.locks_held = Timing()

    def slow_request(self, seconds: float) -> None:
        """Adds the duration of a request that the event loop doesn't answer from a cache. Only the
        event loop calls this method, so the additions need no lock."""
        self.request_seconds += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1

    def read(self, cache: str, *, live: bool) -> None:
        """Counts a read as a hit, a miss or a bypass. `cache` is `hit` or `miss`, and `live` says
        whether the board is live. For most cache hits, `front.py` increments `hits` itself and
        doesn't call this method."""
        if cache == "hit":
            self.hits += 1
        elif live:
            self.misses += 1
        else:
            self.bypasses += 1

    def figures(self) -> Figures:
        """Returns all counters by name."""
        buckets: dict[str, float] = dict(zip(BUCKETS, self.buckets, strict=True))
        return {
            "hits": self.hits,
            "misses": self.misses,
            "bypasses": self.bypasses,
            "requests": self.requests,
            "request_seconds": self.request_seconds,
            "request_buckets": buckets,
            "publishes": self.publishes.count,
            "publish_seconds": self.publishes.seconds,
            "locks": self.locks_held.count,
            "lock_wait_seconds": self.lock_waits.seconds,
            "lock_held_seconds": self.locks_held.seconds,
        }


#: This process's counters.
counts = Counts()


def added(one: Figures, other: Figures, sign: int = 1) -> Figures:
    """Returns the sums of the figures with the same names. If `sign` is -1, subtracts the figures
    of `other` from the figures of `one`. A missing figure counts as 0, because processes of
    different releases can have different figures."""
    total: Figures = {}
    for name in {**one, **other}:
        left, right = one.get(name, 0), other.get(name, 0)
        if isinstance(left, dict) or isinstance(right, dict):
            left = left if isinstance(left, dict) else {}
            right = right if isinstance(right, dict) else {}
            bounds = {**left, **right}
            total[name] = {b: left.get(b, 0) + sign * right.get(b, 0) for b in bounds}
        else:
            total[name] = left + sign * right
    return total
