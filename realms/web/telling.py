"""Writes the figures of a web worker process to a file, once a second, in a thread. The figures are
counters, such as the number of requests, and the sizes of caches. The replica's sidecar process
reads the files of all web workers and reports the sums (`realms/figures/files.py`)."""

import logging
import threading
from pathlib import Path

from realms.figures.build import build
from realms.figures.counting import Counts, Figures, counts
from realms.figures.files import WorkerFile
from realms.serving import answers

logger = logging.getLogger(__name__)

WRITE_SECONDS = 1.0


class Telling(threading.Thread):
    """A thread that writes this process's figures until the process ends or `stop` is called.
    `board` is the path of the board, a file that the processes of a replica share. The files with
    the figures are in a folder beside the board."""

    def __init__(self, board: Path, counted: Counts = counts) -> None:
        super().__init__(name="figures", daemon=True)
        self._file = WorkerFile(board, build())
        self._counts = counted
        self._caches = list(answers.caches().values())
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            self.tell()
            while not self._stopped.wait(WRITE_SECONDS):
                self.tell()
        except Exception:
            # Only a bug can raise an exception here. The process keeps serving requests, but stops
            # writing its figures.
            logger.exception("this process no longer writes its figures")

    def stop(self) -> None:
        """Tells the thread to end."""
        self._stopped.set()

    def tell(self) -> bool:
        """Writes the current figures to this process's file. Returns whether the write
        succeeded."""
        discards = sum(cache.stale_discards for cache in self._caches)
        gauges: Figures = {
            "entries": sum(map(len, self._caches)),
            "bytes": sum(cache.size for cache in self._caches),
        }
        return self._file.write({**self._counts.figures(), "stale_discards": discards}, gauges)
