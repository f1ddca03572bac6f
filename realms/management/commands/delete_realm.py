"""`manage.py delete_realm URL`: deletes a source realm and every realm published from it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from realms.addresses import canonical_realm_url
from realms.management.cli import add_caller, add_confirmation, caller, command_errors, confirmed
from realms.models import Realm
from realms.publishing.publish import delete_realm
from realms.publishing.rights import deletable


class Command(BaseCommand):
    help = "Deletes a source realm, its history, and every realm published from it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", metavar="URL")
        add_confirmation(parser)
        add_caller(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        with command_errors():
            url = canonical_realm_url(options["url"])
            realm = deletable(url, caller(options))
            files = realm.versions.open().count()
            self.stdout.write(f"{url}: {files} files, generation {realm.generation}")
            for copy in Realm.objects.filter(source=realm):
                self.stdout.write(f"  published at {copy.url}")
            if confirmed(options, "Delete all of this?"):
                for deleted in delete_realm(url, caller(options)):
                    self.stdout.write(f"deleted {deleted}")
