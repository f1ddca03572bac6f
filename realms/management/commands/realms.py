"""`manage.py realms`: lists all realms. A realm's generation is a number that rises with each
change of the realm. For each realm, the command shows the committed generation, and up to which
generation each replica has applied the changes."""

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import Count, Q
from rich.table import Table

from notifications.models import Replica, ReplicaGeneration
from realms.management.cli import command_errors
from realms.management.output import note_database, show, table
from realms.models import Publication, Realm
from reindex.models import IndexHead


class Command(BaseCommand):
    help = (
        "Lists all realms. The realms that are published from a source realm come directly below "
        "it. Each row shows the realm's generation, the generation of its pages, and up to which "
        "generation each replica has applied the changes. The column 'files' shows the number of "
        "files of a source realm. For a published realm, the column shows which generation of the "
        "source realm is published."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        note_database()
        with command_errors():
            replicas = list(Replica.objects.all())
            listed = self._table(replicas)
        show(self.stdout, listed)
        for replica in replicas:
            if not replica.fresh:
                self.stdout.write(f"replica {replica.name} has not reported for a while")
            elif replica.state != "live":
                self.stdout.write(f"replica {replica.name} is {replica.state}")

    def _table(self, replicas: list[Replica]) -> Table:
        applied = {
            (row.realm_url, row.replica_id): row.generation
            for row in ReplicaGeneration.objects.all()
        }
        heads = dict(IndexHead.objects.values_list("realm_url", "generation"))
        newest = Publication.objects.order_by("realm", "-generation").distinct("realm")
        shown = dict(newest.values_list("realm", "source_generation"))

        names = [replica.name for replica in replicas]
        numbers = ("files", "gen", "pages", *names)
        listed = table("realm", "owner", *numbers, right=numbers)
        for realm in _sources_first():
            address = realm.url.partition("://")[2]
            listed.add_row(
                f"  {address}" if realm.source_id else address,
                str(realm.owner or "-"),
                f"as of {shown.get(realm.pk, '-')}" if realm.source_id else str(realm.files),
                str(realm.generation),
                str(heads.get(realm.url, "-")),
                *(str(applied.get((realm.url, replica.name), "-")) for replica in replicas),
            )
        return listed


def _sources_first() -> Iterator[Any]:
    """Yields all realms. Each source realm is followed by the realms published from it."""
    files = Count("versions", filter=Q(versions__until_generation__isnull=True))
    # Without `order_by`, the order would be random, because Django ignores the default order of a
    # model in a query that counts.
    realms = Realm.objects.select_related("owner").annotate(files=files).order_by("url")
    copies: dict[Any, list[Any]] = {}
    for realm in realms:
        copies.setdefault(realm.source_id, []).append(realm)
    for source in copies.get(None, []):
        yield source
        yield from copies.get(source.pk, [])
