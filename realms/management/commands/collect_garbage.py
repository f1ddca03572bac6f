"""`manage.py collect_garbage`: removes content that nothing uses any more, and database rows of
finished work, such as old jobs."""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console
from rich.progress import Progress

from realms.housekeeping.garbage import GRACE_HOURS, KEPT_PUBLICATIONS, collect_garbage
from realms.management.cli import command_errors
from realms.models import Realm


def _hours(text: str) -> timedelta:
    try:
        hours = float(text)
        if hours < 0:
            raise ValueError
        return timedelta(hours=hours)
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"{text!r} is not a number of hours, such as 24 or 0.5") from error


class Command(BaseCommand):
    help = (
        f"Removes old publications, except the last {KEPT_PUBLICATIONS} of each realm. Removes "
        "replaced and deleted file versions after the retention time (REALM_RETENTION_SECONDS), "
        "unless a publication or a job needs them. Removes content that no file version uses, and "
        "database rows of finished work. While the command runs, realms can be written to and "
        "published."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be removed, but remove nothing"
        )
        parser.add_argument(
            "--grace",
            type=_hours,
            default=timedelta(hours=GRACE_HOURS),
            metavar="HOURS",
            help="keep unused content that was stored within the last HOURS hours, because a "
            f"running write may need it (default: {GRACE_HOURS})",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run: bool = options["dry_run"]
        seen = Console(stderr=True)
        with (
            command_errors(),
            Progress(console=seen, transient=True, disable=not seen.is_terminal) as progress,
        ):
            total = 4 if dry_run else Realm.objects.count() + 2
            task = progress.add_task("looking", total=total)
            done = collect_garbage(
                grace=options["grace"],
                dry_run=dry_run,
                progress=lambda what: progress.update(task, description=what, advance=1),
            )
        self.stdout.write(f"{'would remove' if dry_run else 'removed'} {done.summary()}")
        for url in done.busy:
            self.stderr.write(f"{url} is skipped until the next run, because it was being changed")
