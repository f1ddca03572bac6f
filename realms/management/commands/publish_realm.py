"""`manage.py publish_realm SOURCE PUBLISHED`: publishes a source realm at a public URL."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from realms.access.spaces import belongs_to_another
from realms.addresses import canonical_realm_url
from realms.management.cli import add_caller, add_confirmation, caller, command_errors, confirmed
from realms.management.progress import add_allow_errors, follow
from realms.models import Realm
from realms.publishing.publish import publish_realm
from realms.publishing.rights import publishable


class Command(BaseCommand):
    help = (
        "Publishes a source realm's current content at a public URL, and shows the progress while "
        "its pages are rendered."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", help="the source realm's URL")
        parser.add_argument("published", metavar="PUBLISHED", help="the public URL")
        parser.add_argument(
            "--no-wait", action="store_true", help="don't wait until the pages are rendered"
        )
        add_allow_errors(parser)
        add_confirmation(parser)
        add_caller(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            by = caller(options)
            source_url, url = map(canonical_realm_url, (options["source"], options["published"]))
            source = publishable(source_url, url, by)
            taken = self._taken(source, url)
            if taken:
                self.stdout.write(taken)
            if options["dry_run"]:
                self.stdout.write(f"{url} would show {source} generation {source.generation}")
                return
            if taken and not confirmed(options, "Publish anyway?"):
                return
            done = publish_realm(source_url, url, by)
        self.stdout.write(
            f"{done.url} generation {done.generation} shows {done.source_url} "
            f"generation {done.source_generation}"
        )
        if not options["no_wait"]:
            follow(done.url, done.generation, self.stdout, allow_errors=options["allow_errors"])

    def _taken(self, source: Realm, url: str) -> str:
        """Returns a warning if `url` now shows a source realm other than `source`. If `url` has no
        realm, returns a warning if it is reserved for a user other than the owner of `source`
        (`belongs_to_another`). Otherwise, returns an empty text."""
        current = Realm.objects.select_related("source__owner").filter(url=url).first()
        if current is None:
            if belongs_to_another(url, source.owner):
                return f"{url} is reserved for another user, not for {source.owner}"
            return ""
        if current.source is None or current.source == source:
            return ""
        owner = current.source.owner
        return f"{url} now shows {owner}'s realm {current.source}, not {source}"
