"""`manage.py rollback_realm URL`: rolls a published realm back to an earlier publication."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from realms.addresses import canonical_realm_url
from realms.content.history import changed_between
from realms.management.cli import add_caller, add_confirmation, caller, command_errors, confirmed
from realms.management.progress import add_allow_errors, follow
from realms.models import Realm
from realms.publishing.publish import rollback_realm, rollback_target
from realms.publishing.rights import changeable


class Command(BaseCommand):
    help = "Makes a published realm show the content of an earlier publication again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", metavar="URL")
        parser.add_argument(
            "--to",
            type=int,
            metavar="GENERATION",
            help="the published realm's generation to go back to (default: the previous content)",
        )
        parser.add_argument(
            "--no-wait", action="store_true", help="don't wait until the pages are rendered"
        )
        add_allow_errors(parser)
        add_confirmation(parser)
        add_caller(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            url = canonical_realm_url(options["url"])
            realm = changeable(url, caller(options))
            target = rollback_target(realm, options["to"])
            self._describe(realm, target)
            if not confirmed(options, "Roll back?"):
                return
            done = rollback_realm(url, caller(options), target.generation)
        self.stdout.write(f"{done.url} generation {done.generation} shows the earlier content")
        if not options["no_wait"]:
            follow(done.url, done.generation, self.stdout, allow_errors=options["allow_errors"])

    def _describe(self, realm: Realm, target: Any) -> None:
        self.stdout.write(
            f"{realm.url} goes from generation {realm.generation} back to what it showed at "
            f"{target.generation} ({target.at:%Y-%m-%d %H:%M:%S} UTC, by {target.by})"
        )
        now = realm.publications.first()
        if now is not None and now.source_id == target.source_id:
            paths = changed_between(now.source, target.source_generation, now.source_generation)
            self.stdout.write(f"  {len(paths)} file{'s differ' if len(paths) != 1 else ' differs'}")
            for path in paths[:20]:
                self.stdout.write(f"    {path}")
