"""`manage.py verify_coherence`: compares every replica's answers with the database, and measures
how soon all replicas serve a change."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from realms.addresses import canonical_realm_url
from realms.coherence.report import Outcome
from realms.coherence.verifier import NothingToVerify, Verification
from realms.errors import RealmError
from realms.management.cli import positive, some_seconds

NOTHING_VERIFIED = 3
#: The width of tables, so large that no address is cut or wrapped.
_WIDTH = 100_000


class Command(BaseCommand):
    help = (
        "Asks every replica at its own address for a sample of files, and compares the answers "
        "with the database. Also measures how soon all replicas serve a change. Prints a report, "
        "and stores it for the admin and the metrics. Exit status: 0 if all is well, 1 if an "
        "answer of a replica stayed wrong, 2 if a replica could not be reached, 3 if nothing could "
        "be verified. Nothing can be verified without a realm, without a replica that has reported "
        "within a day, or without the database."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        length = parser.add_mutually_exclusive_group()
        length.add_argument(
            "--seconds",
            type=some_seconds,
            default=60.0,
            metavar="N",
            help="check for N seconds (default: 60), then wait until all replicas serve the last "
            "changes, but for at most about a minute",
        )
        length.add_argument(
            "--once",
            action="store_true",
            help="check one sample of files, and don't measure how soon changes are served",
        )
        grace = settings.REALM_STALENESS_BOUND + 1
        parser.add_argument(
            "--grace",
            type=some_seconds,
            default=grace,
            metavar="SECONDS",
            help="the grace period. If an answer is still wrong after this time, it counts as a "
            "violation. If a replica is silent for this time, it counts as unreachable "
            f"(default: staleness bound + 1 = {grace:g})",
        )
        parser.add_argument(
            "--samples",
            type=positive,
            default=50,
            metavar="N",
            help="the number of files in a sample (default: 50). Every replica is asked for each "
            "file as source and as module. If the file is a card of a published realm, every "
            "replica is also asked for the card's page",
        )
        parser.add_argument(
            "--realm",
            action="append",
            metavar="URL",
            help="check only this realm; repeat the option to check several realms",
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            outcome = self._verified(options)
            outcome.save()
        except (NothingToVerify, RealmError) as error:
            raise CommandError(str(error), returncode=NOTHING_VERIFIED) from error
        except DatabaseError as error:
            raise CommandError(f"the database: {error}", returncode=NOTHING_VERIFIED) from error
        if options["json"]:
            self.stdout.write(json.dumps(outcome.as_json(), indent=2))
        else:
            console = Console(force_terminal=self.stdout.isatty(), width=_WIDTH)
            with console.capture() as text:
                console.print(outcome.rendered())
            self.stdout.write(text.get(), ending="")
        if outcome.exit_status:
            raise SystemExit(outcome.exit_status)

    def _verified(self, options: dict[str, Any]) -> Outcome:
        urls = [canonical_realm_url(url) for url in options["realm"] or ()]
        seen = Console(stderr=True)
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=seen, transient=True, disable=not seen.is_terminal) as bar:
            task = bar.add_task("beginning", total=1.0)
            verification = Verification(
                grace=options["grace"],
                samples=options["samples"],
                realms=urls,
                progress=lambda done, text: bar.update(task, completed=done, description=text),
            )
            return verification.run(0 if options["once"] else options["seconds"])
