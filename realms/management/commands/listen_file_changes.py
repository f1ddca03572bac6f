"""`manage.py listen_file_changes`: runs the sidecar, the process that tells one replica's caches
which files have changed.

A replica is a web service and its sidecar on one host. They share the board, a file that says which
cached answers are stale. The web service uses its caches only while the board is live. The sidecar
keeps the board live as long as it receives all notifications of changes.
"""

import fcntl
import json
import signal
from argparse import ArgumentParser
from collections.abc import Collection
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from notifications.board import Board, BoardError, now_ns
from notifications.listener import (
    SECOND,
    Listener,
    ListenerGaveUp,
    Told,
    listen_connection,
    ping_connection,
)
from notifications.models import Replica
from notifications.reporter import Reporter
from notifications.tracing import spans
from realms.figures.build import build
from realms.figures.files import Totals
from realms.housekeeping.purging import purging
from realms.management.cli import seconds
from realms.models import Realm


class Command(BaseCommand):
    help = (
        "Receives notifications of changes, and marks what is stale in this replica's caches. Run "
        "one such process next to each web service, and set REALM_BOARD to the same path for both. "
        "Without this process, the web service still gives correct answers, but it reads the "
        "database for every request."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument(
            "--check",
            action="store_true",
            help="only print the state of the running sidecar as JSON, and exit 1 unless the "
            "sidecar keeps the board live",
        )
        instead.add_argument(
            "--purge-edge",
            action="store_true",
            help="purge changed files from the shared caches that REALM_EDGE_PURGE lists, instead "
            "of working for a replica; one such process is enough for all replicas",
        )
        parser.add_argument(
            "--give-up-after",
            type=seconds,
            default=60,
            metavar="SECONDS",
            help="exit 1 if the database can't be reached for this many seconds (default: 60)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["purge_edge"]:
            self._purge(options["give_up_after"])
            return
        try:
            board = Board(settings.REALM_BOARD)
        except BoardError as error:
            raise CommandError(str(error)) from error
        if options["check"]:
            self._check(board)
            return
        self._listen(board, options["give_up_after"])

    def _purge(self, give_up_after: float) -> None:
        try:
            with purging() as board:
                listener = _listener("purge-edge", board, give_up_after)
                _stop_at_signals(listener)
                listener.run()
        except (ImproperlyConfigured, ListenerGaveUp) as error:
            raise CommandError(str(error)) from error

    def _listen(self, board: Board, give_up_after: float) -> None:
        # Two sidecars with one board are a configuration error, which the lock detects. The second
        # sidecar ends with an error message. Even without the lock the board would stay correct,
        # because each sidecar records all committed changes before it makes the board live. If a
        # sidecar is killed, the kernel frees the lock.
        lock = open(f"{board.path}.sidecar", "a")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                f"another listen_file_changes serves the board {board.path} (process "
                f"{board.sidecar_pid}); give each replica a REALM_BOARD of its own"
            ) from error
        listener = _listener(settings.REALM_REPLICA, board, give_up_after)
        totals = Totals(settings.REALM_BOARD)
        reporter = Reporter(
            listener,
            settings.REALM_REPLICA_ADDRESS,
            committed_generations,
            lambda: {"build": build(), **totals.read()},
        )
        _stop_at_signals(listener)
        # Imports the tracing library now, so that no notification waits for the import.
        spans.prepare()
        reporter.start()
        try:
            listener.run()
        except ListenerGaveUp as error:
            raise CommandError(str(error)) from error
        finally:
            reporter.stop()
            reporter.join(timeout=3)
            lock.close()

    def _check(self, board: Board) -> None:
        replica = Replica.objects.filter(name=settings.REALM_REPLICA).first()
        left = (board.live_until - now_ns()) / SECOND
        reported = replica.state if replica else None
        # Only the board says whether the sidecar is live now. The replica's report in the database
        # may be late or missing.
        state = "live" if left > 0 else "not live" if reported == "live" else reported
        shown = {
            "replica": settings.REALM_REPLICA,
            "board": str(board.path),
            "live": left > 0,
            "vouches_for_seconds": round(max(left, 0), 3),
            "sidecar_pid": board.sidecar_pid,
            "state": state,
            "web_answers": replica.web_answers if replica else None,
            "reported_at": replica.reported_at.isoformat() if replica else None,
            "notifications": replica.notifications if replica else None,
            "reconnects": replica.reconnects if replica else None,
            "missed": replica.missed if replica else None,
        }
        self.stdout.write(json.dumps(shown, indent=2))
        if left <= 0:
            raise SystemExit(1)


def _listener(name: str, board: Told, give_up_after: float) -> Listener:
    return Listener(
        replica=name,
        board=board,
        connect=listen_connection,
        connect_as_writers=ping_connection,
        bound_seconds=settings.REALM_STALENESS_BOUND,
        give_up_seconds=give_up_after,
    )


def _stop_at_signals(listener: Listener) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: listener.stop())


def committed_generations(urls: Collection[str] | None = None) -> dict[str, int]:
    """Returns a dictionary that maps the URLs of realms to their committed generations. A realm's
    generation rises with each change of the realm. Without `urls`, all realms are included."""
    if urls is not None and not urls:
        return {}
    realms = Realm.objects.all() if urls is None else Realm.objects.filter(url__in=urls)
    return dict(realms.values_list("url", "generation"))
