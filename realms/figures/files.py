"""The files in which web worker processes tell the sidecar their figures, and their sum.

Each worker has one file in a folder beside the board. It replaces the file by a new one, so that a
reader finds a whole one. The name has a random part, so a process whose id is that of an ended one,
or that has the same id in another container, has another file. Whether a process has ended is
judged by when it last wrote, on the board's clock.

Serving depends on none of it: who can't write goes on without, and who can't read a file skips it.
"""

import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from notifications.board import now_ns
from realms.figures.counting import Figures, added

logger = logging.getLogger(__name__)

SECOND = 1_000_000_000
#: A process that hasn't written for this long doesn't count as a web worker.
LATELY_SECONDS = 5
#: The file of a process that hasn't written for this long is deleted.
FORGOTTEN_SECONDS = 60
#: How many ended processes are told apart, in case that one of them was only stopped.
ENDED = 200


def folder_of(board: Path) -> Path:
    """The folder of the files of a board's web workers."""
    return board.with_name(f"{board.name}.workers")


class WorkerFile:
    """The file of this process."""

    def __init__(self, board: Path, build: str) -> None:
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.path = folder_of(board) / f"{self._process}.json"
        self._draft = self.path.with_suffix(".draft")
        self._fixed = {
            "process": self._process,
            "pid": os.getpid(),
            "started_at": time.time(),
            "build": build,
        }
        self._failed = False

    def write(self, counters: Figures, gauges: Figures) -> bool:
        """Replaces the file. If that fails, logs why unless the last write failed too, and returns
        False."""
        told = {**self._fixed, "written": now_ns(), "counters": counters, "gauges": gauges}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._draft.write_text(json.dumps(told))
            self._draft.rename(self.path)
        except OSError as error:
            if not self._failed:
                logger.warning("figures can't be written to %s: %s", self.path, error.strerror)
            self._failed = True
            with suppress(OSError):
                self._draft.unlink()
            return False
        self._failed = False
        return True


class Totals:
    """The sums of all web workers of a board, kept by its sidecar.

    Counters count from the first reading and never fall: what an ended process counted stays.
    """

    def __init__(self, board: Path) -> None:
        self._folder = folder_of(board)
        #: By process, what it had counted at the first reading: not counted here.
        self._before: dict[str, Figures] = {}
        #: By process, its counters when they were last read; those read last come last.
        self._last: dict[str, Figures] = {}
        #: What the processes counted that are no longer told apart.
        self._ended: Figures = {}
        self._began = False

    def read(self) -> dict[str, Any]:
        """The sums of the counters, and of the gauges of the workers that have written lately, with
        the number and the builds of those."""
        gauges: Figures = {"entries": 0, "bytes": 0}
        workers, builds = 0, set()
        for process, told, age in self._told():
            if not self._began:
                self._before[process] = told["counters"]
            self._last.pop(process, None)
            self._last[process] = told["counters"]
            if 0 <= age <= LATELY_SECONDS:
                workers += 1
                builds.add(_plain(told.get("build")))
                gauges = added(gauges, told["gauges"])
        self._began = True
        while len(self._last) > ENDED:
            oldest = next(iter(self._last))
            self._ended = added(self._ended, self._since(oldest, self._last.pop(oldest)))
        total = self._ended
        for process, counters in self._last.items():
            total = added(total, self._since(process, counters))
        return {**total, **gauges, "web_workers": workers, "web_builds": sorted(builds)}

    def _since(self, process: str, counters: Figures) -> Figures:
        return added(counters, self._before.get(process, {}), -1)

    def _told(self) -> Iterator[tuple[str, dict[str, Any], float]]:
        """Each process with what its file says and how many seconds ago it wrote that. Deletes the
        files of ended processes."""
        for path in self._files("*.json"):
            try:
                told = json.loads(path.read_bytes())
                age = (now_ns() - int(told["written"])) / SECOND
                told = {
                    **told,
                    "counters": _figures(told["counters"]),
                    "gauges": _figures(told["gauges"]),
                }
            except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
                self._delete_if_old(path)
                continue
            # A moment to come is one of before the machine started.
            if not 0 <= age <= FORGOTTEN_SECONDS and not _deleted(path):
                continue
            yield path.stem, told, age
        for path in self._files("*.draft"):
            self._delete_if_old(path)

    def _files(self, pattern: str) -> list[Path]:
        try:
            return sorted(self._folder.glob(pattern))
        except OSError:
            return []

    def _delete_if_old(self, path: Path) -> None:
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink()


def _deleted(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _figures(told: Any) -> Figures:
    """What another process wrote, perhaps of another release: the numbers in it."""
    figures: Figures = {}
    for name, value in told.items():
        if isinstance(value, dict):
            figures[_plain(name)] = {_plain(key): _number(each) for key, each in value.items()}
        else:
            figures[_plain(name)] = _number(value)
    return figures


def _number(value: Any) -> float:
    # The database takes no others as JSON.
    if not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("not a number")
    return value


def _plain(text: Any) -> str:
    # The database doesn't take every string as JSON.
    return text if isinstance(text, str) and text.isascii() and text.isprintable() else ""
