"""The thread in which a web worker process tells the sidecar its figures, once a second."""

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
    """Writes this process's figures to a file beside the board, until the process ends."""

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
            # A bug of ours: the figures stop, the process goes on serving.
            logger.exception("the figures are no longer written")

    def stop(self) -> None:
        """Ends the thread soon."""
        self._stopped.set()

    def tell(self) -> bool:
        """Writes the file once; False if that failed."""
        discards = sum(cache.stale_discards for cache in self._caches)
        gauges: Figures = {
            "entries": sum(map(len, self._caches)),
            "bytes": sum(cache.size for cache in self._caches),
        }
        return self._file.write({**self._counts.figures(), "stale_discards": discards}, gauges)
