"""Starts the replica that a benchmark measures: a web service and its sidecar.

The sidecar is the process that receives notifications of changes from Postgres. It records the
changes on the board, a file that tells the web service which cached answers are outdated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.support.peers import free_port, process

if TYPE_CHECKING:
    from notifications.board import Board


@dataclass(frozen=True)
class Replica:
    """A running replica. `pid` is the process id of the web service. The web workers are children
    of this process."""

    port: int
    pid: int
    board: "Board"

    @property
    def worker(self) -> psutil.Process:
        """The process of the web worker. Raises ValueError if the replica has several."""
        (worker,) = psutil.Process(self.pid).children()
        return worker

    def change_everything(self, realm_url: str) -> None:
        """Notifies the replica that all files of a realm have changed. Waits until the sidecar has
        changed the realm's slot on the board, which makes all cached answers of the realm stale."""
        from django.db import transaction

        from notifications.board import Slots
        from notifications.channels import realm_key
        from notifications.emit import notify_all_file_changes
        from tests.support.cluster import wait_until

        slots = Slots([realm_key(realm_url)])
        before = self.board.stamp(slots)
        with transaction.atomic():
            notify_all_file_changes(realm_url)
        wait_until(lambda: not self.board.unchanged(slots, before), "the notification arrived")


@contextmanager
def replica(folder: Path, *, workers: int = 1, **environment: str) -> Iterator[Replica]:
    """Starts a replica on the benchmark's database. Waits until the sidecar declares that the board
    is up to date, because a replica doesn't use its caches before. `environment` has further
    environment variables for the replica's processes."""
    from notifications.board import Board
    from settings import processes
    from settings.web import web_command
    from tests.support.cluster import database_url, wait_until

    port = free_port()
    web, sidecar = processes.replica("bench", port, folder)
    settings = {"DATABASE_URL": database_url(), **web.environment, **environment}
    with (
        process(web_command("127.0.0.1", port, workers=workers), settings, port=port) as running,
        process(sidecar.command, settings),
    ):
        board = Board(Path(settings["REALM_BOARD"]))
        wait_until(board.live, "the sidecar vouches for the board")
        yield Replica(port, running.pid, board)
