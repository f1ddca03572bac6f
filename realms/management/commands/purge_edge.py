"""`manage.py purge_edge`: tells shared caches what has changed."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from notifications.channels import EVERY_REALM, surrogate_key
from notifications.listener import Listener, ListenerGaveUp, listen_connection, ping_connection
from realms.addresses import canonical_realm_url
from realms.housekeeping.purging import Purge, PurgeFailed, Purger, ToPurge, purge_function
from realms.management.cli import command_errors


class Command(BaseCommand):
    help = (
        "Receives the fleet's notifications and purges the shared caches at REALM_EDGE_PURGE of "
        "the realms that change, until each cache confirms it. Run one for the fleet. Without it "
        "answers run out after REALM_EDGE_SECONDS. With a realm or --all: purges once, now; the "
        "exit status is 1 unless every cache has confirmed it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("realm", nargs="?", default="", help="the URL of a realm")
        what.add_argument("--all", action="store_true", help="all realms")
        parser.add_argument(
            "--give-up-after",
            type=float,
            default=60,
            metavar="SECONDS",
            help="exit 1 when the database has been unreachable for this long (default: 60)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.REALM_EDGE_PURGE:
            raise CommandError("REALM_EDGE_PURGE is empty: name the caches, comma-separated")
        try:
            purge = purge_function()
        except ImportError as error:
            raise CommandError(
                f"REALM_EDGE_PURGER is {settings.REALM_EDGE_PURGER!r}, which can't be imported: "
                f"{error}"
            ) from error
        if options["realm"] or options["all"]:
            with command_errors():
                url = canonical_realm_url(options["realm"]) if options["realm"] else ""
            self._once(purge, surrogate_key(url) if url else EVERY_REALM)
        else:
            self._listen(purge, options["give_up_after"])

    def _once(self, purge: Purge, key: str) -> None:
        failed = 0
        for address in settings.REALM_EDGE_PURGE:
            try:
                purge(address, [key])
                self.stdout.write(f"{address}: purged {key}")
            except PurgeFailed as error:
                failed += 1
                self.stderr.write(f"{address}: {error}")
        if failed:
            raise CommandError(f"{failed} of {len(settings.REALM_EDGE_PURGE)} have not confirmed")

    def _listen(self, purge: Purge, give_up_after: float) -> None:
        purgers = [
            Purger(address, purge, settings.REALM_STALENESS_BOUND)
            for address in settings.REALM_EDGE_PURGE
        ]
        listener = Listener(
            replica="purge_edge",
            board=ToPurge(purgers),
            connect=listen_connection,
            connect_as_writers=ping_connection,
            bound_seconds=settings.REALM_STALENESS_BOUND,
            give_up_seconds=give_up_after,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: listener.stop())
        for each in purgers:
            each.start()
        try:
            listener.run()
        except ListenerGaveUp as error:
            raise CommandError(str(error)) from error
        finally:
            for each in purgers:
                each.stop()
