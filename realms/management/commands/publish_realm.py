"""`manage.py publish_realm SOURCE PUBLISHED`: shows a source realm at a public URL."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from realms.commanding import add_caller, caller, told_plainly
from realms.progress import follow
from realms.publishing import publish_realm


class Command(BaseCommand):
    help = "Shows a source realm, as it stands now, at a public URL, and follows the rendering."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", help="the source realm's URL")
        parser.add_argument("published", metavar="PUBLISHED", help="where it is to be shown")
        parser.add_argument("--no-wait", action="store_true", help="do not wait for the pages")
        add_caller(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with told_plainly():
            done = publish_realm(options["source"], options["published"], caller(options))
        self.stdout.write(
            f"{done.url} generation {done.generation} shows {done.source_url} "
            f"generation {done.source_generation}"
        )
        if not options["no_wait"]:
            follow(done.url, done.generation, self.stdout)
