"""`manage.py reindex_realm URL`: renders the outdated pages of a realm again, or all its pages."""

from argparse import ArgumentParser, BooleanOptionalAction
from typing import Any

from django.core.management.base import BaseCommand

from realms.addresses import canonical_realm_url
from realms.api.reindex_views import reindex
from realms.management.cli import command_errors
from realms.management.progress import add_allow_errors, follow


class Command(BaseCommand):
    help = (
        "Renders those cards of a realm that are affected by changes since the last rendering, and "
        "shows the progress."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", metavar="URL", help="a published or a source realm")
        parser.add_argument("--full", action="store_true", help="render every card, changed or not")
        parser.add_argument(
            "--wait", action=BooleanOptionalAction, default=True, help="wait until all is rendered"
        )
        add_allow_errors(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            job = reindex(canonical_realm_url(options["url"]), full=options["full"])
        self.stdout.write(f"{job.realm_url} is being rendered at generation {job.generation}")
        if options["wait"]:
            follow(
                job.realm_url,
                job.generation,
                self.stdout,
                job=job.pk,
                allow_errors=options["allow_errors"],
            )
