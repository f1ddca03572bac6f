"""`manage.py unpublish_realm URL`: removes a published realm, but not its source realm."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from realms.addresses import canonical_realm_url
from realms.management.cli import add_caller, add_confirmation, caller, command_errors, confirmed
from realms.publishing.publish import unpublish_realm
from realms.publishing.rights import changeable


class Command(BaseCommand):
    help = "Removes a published realm with its pages. The source realm keeps its files."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", metavar="URL")
        add_confirmation(parser)
        add_caller(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            url = canonical_realm_url(options["url"])
            realm = changeable(url, caller(options))
            self.stdout.write(f"{url} shows {realm.source} and is at generation {realm.generation}")
            if confirmed(options, "Take it down?"):
                unpublish_realm(url, caller(options))
                self.stdout.write(f"{url} is no longer published")
