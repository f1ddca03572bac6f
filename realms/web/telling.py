"""Writes the figures of a web worker process for the sidecar, once a second, in a thread."""

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
    """A thread that writes this process's figures to a file beside the board until the process
    ends."""

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
        """Writes the current figures to the file. Returns whether the write succeeded."""
        discards = sum(cache.stale_discards for cache in self._caches)
        gauges: Figures = {
            "entries": sum(map(len, self._caches)),
            "bytes": sum(cache.size for cache in self._caches),
        }
        return self._file.write({**self._counts.figures(), "stale_discards": discards}, gauges)
