"""`manage.py clear_caches`: makes every replica drop cached files, and deletes definitions.

A replica is one of the web services that answer requests. A shared cache is a cache between clients
and replicas, such as a CDN. A definition describes the card types of a module. Definitions are rows
of the database, which are built again when they are next needed.
"""

import time
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from realms.addresses import canonical_realm_url
from realms.coherence import clearing
from realms.coherence.clearing import Target
from realms.housekeeping.purging import purge_now
from realms.management.cli import (
    add_caller,
    add_confirmation,
    caller,
    command_errors,
    confirmed,
    seconds,
)
from realms.management.output import note_database

POLL_SECONDS = 0.2


class Command(BaseCommand):
    help = (
        "Makes every replica drop its cached files and modules of one realm or of all realms. "
        "Deletes the definitions that describe the card types of these modules. Purges shared "
        "caches. Prints the answer of each replica and of each shared cache. Realms stay "
        "available, and the caches fill again. The exit status is 1 if a replica or a shared cache "
        "doesn't confirm."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("realm", nargs="?", default="", help="the URL of a realm")
        what.add_argument("--all", action="store_true", help="all realms")
        what.add_argument("--definitions", action="store_true", help="all definitions, no files")
        what.add_argument(
            "--module", default="", metavar="URL", help="the definitions of this module, no files"
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=15,
            metavar="SECONDS",
            help="how long to wait for the replicas' answers (default: 15)",
        )
        add_caller(parser)
        add_confirmation(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        note_database()
        with command_errors():
            realm = canonical_realm_url(options["realm"]) if options["realm"] else ""
            target = Target(realm, options["module"], options["definitions"])
            by = caller(options)
            self.stdout.write(f"Clears {target}: {clearing.impact(target)}")
            # The command asks for confirmation only before it clears all realms, because loading
            # all files again takes a long time.
            if options["dry_run"] or (options["all"] and not confirmed(options, "Clear all?")):
                self.stdout.write("Nothing was cleared.")
                return
            since = clearing.clear(target, by)
            # Shared caches hold no definitions, so a clear of definitions doesn't purge them.
            only_definitions = options["module"] or options["definitions"]
            edge = {} if only_definitions else self._purged(realm)
            self._follow(since, options["wait"])
            if any(edge.values()):
                raise CommandError("not every shared cache has confirmed the purge")

    def _purged(self, realm: str) -> dict[str, str]:
        """Purges the shared caches. Returns a dictionary that maps the address of each cache to an
        error text. The text is empty if the cache has confirmed the purge."""
        try:
            edge = purge_now(realm) if settings.REALM_EDGE_PURGE else {}
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        for address, why in edge.items():
            self.stdout.write(f"{address}: {why or 'purged'}")
        return edge

    def _follow(self, since: datetime, seconds: float) -> None:
        """Waits at most `seconds` for the answers of the replicas, and prints each answer when it
        arrives. `since` is the return value of `clear`."""
        deadline = time.monotonic() + seconds
        printed: set[str] = set()
        while True:
            answers = clearing.answers(since)
            over = clearing.complete(answers) or time.monotonic() > deadline
            for each in answers:
                if each.replica not in printed and (over or each.applied is not None):
                    self.stdout.write(f"{each.replica}: {each.says}")
                    printed.add(each.replica)
            if over:
                break
            time.sleep(POLL_SECONDS)
        if not answers:
            self.stdout.write("No replica has reported, so there is nothing to wait for.")
        elif not all(each.applied for each in answers):
            raise CommandError("not every replica has answered")
