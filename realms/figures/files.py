"""Writes the figures of each web worker process to a file, and sums the figures of all files.

Figures are counters and gauges. The sidecar, a process beside the web workers of a replica, reads
the files and reports the sums. The sidecar also keeps the board up to date. The board is a file
that tells the workers which cached data is fresh.

Each worker has one file in a folder beside the board file. The worker writes a draft and renames it
to the file's name, so that readers never see a partial file. The file's name has a random part,
because two processes can have the same process ID, one after the other or in two containers. A
process counts as ended if it hasn't written for some time, by the board's clock (`now_ns`). All
processes of a machine share this clock.

Serving doesn't depend on these files. If a worker can't write its file, it goes on serving. If a
file is unreadable, the sidecar skips it.
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
#: A process that hasn't written for this long no longer counts as a web worker.
LATELY_SECONDS = 5
#: The file of a process that hasn't written for this long is deleted.
FORGOTTEN_SECONDS = 60
#: `Totals` keeps the counters of at most this many processes separately, ended processes included.
#: If there are more, `Totals` merges the counters of those that it read least recently into one
#: sum. A process that seems to have ended may only be suspended, and may later write its counters
#: again. If its old counters were merged by then, they would be counted twice.
ENDED = 200


def folder_of(board: Path) -> Path:
    """Returns the folder with the files of all web workers that use the board file `board`."""
    return board.with_name(f"{board.name}.workers")


class WorkerFile:
    """The file with this process's figures."""

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
        """Replaces the file's content. Returns whether the write succeeded. Logs only the first of
        several failures in a row."""
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
    """The sums of the figures of all web workers that use a board, for the sidecar.

    The sums of counters start at 0 at the first call of `read`, because an earlier sidecar may have
    reported the counts up to this time. The sums never fall, because they include the counts of
    ended processes.
    """

    def __init__(self, board: Path) -> None:
        self._folder = folder_of(board)
        #: Each process's counters at the first call of `read`. The sums exclude these counts.
        self._before: dict[str, Figures] = {}
        #: The latest known counters of each process. The processes are in the order in which
        #: `read` last found their files.
        self._last: dict[str, Figures] = {}
        #: The sums of the counters of processes that are no longer in `_last`.
        self._ended: Figures = {}
        self._began = False

    def read(self) -> dict[str, Any]:
        """Returns the sums of all counters, the sums of the gauges of running workers, and the
        number and the builds of running workers. A worker counts as running if it has written its
        file in the last LATELY_SECONDS."""
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
        """Yields each process's name, the content of its file, and the content's age in seconds. If
        a file is older than FORGOTTEN_SECONDS, deletes the file and yields its content for the last
        time."""
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
            # The clock starts at 0 with the machine. So a negative age means that the file was
            # written before the machine's last start.
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
    """Checks and returns the figures in a worker's file. They may have an unexpected form, because
    the worker may run a different release of the server than this process."""
    figures: Figures = {}
    for name, value in told.items():
        if isinstance(value, dict):
            figures[_plain(name)] = {_plain(key): _number(each) for key, each in value.items()}
        else:
            figures[_plain(name)] = _number(value)
    return figures


def _number(value: Any) -> float:
    # The sums are stored as JSON in Postgres, which rejects infinity and NaN.
    if not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("not a number")
    return value


def _plain(text: Any) -> str:
    # The text is stored as JSON in Postgres, which rejects some characters.
    return text if isinstance(text, str) and text.isascii() and text.isprintable() else ""
