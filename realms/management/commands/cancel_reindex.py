"""`manage.py cancel_reindex URL`: cancels a realm's queued or running rendering."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from realms.addresses import canonical_realm_url
from realms.management.cli import command_errors
from realms.models import Realm
from reindex.jobs import queue


class Command(BaseCommand):
    help = "Cancels the rendering of a realm. Visitors still get the realm's current pages."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", metavar="URL", help="the URL of a realm")

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            url = canonical_realm_url(options["url"])
            if not Realm.objects.filter(url=url).exists():
                raise CommandError(f"there is no realm at {url}")
            ended = queue.cancel(url)
        if ended:
            self.stdout.write(f"the rendering of {url} is cancelled; the old pages stay visible")
        else:
            self.stdout.write(f"{url} has no rendering to cancel")
