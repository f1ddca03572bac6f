"""`manage.py realms`: every realm, its generation, and how far its pages and replicas are."""

import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import Count, Q
from rich.console import Console
from rich.table import Table

from notifications.models import Replica, ReplicaGeneration
from realms.commanding import told_plainly
from realms.models import Realm
from reindex.models import IndexHead


class Command(BaseCommand):
    help = "Lists all realms with their generations: committed, indexed, applied on each replica."

    def handle(self, *args: Any, **options: Any) -> None:
        with told_plainly():
            table = self._table()
        Console(file=sys.stdout).print(table)

    def _table(self) -> Table:
        replicas = list(Replica.objects.all())
        applied = {
            (row.realm_url, row.replica_id): row.generation
            for row in ReplicaGeneration.objects.all()
        }
        heads = dict(IndexHead.objects.values_list("realm_url", "generation"))
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("realm", "kind", "owner", "files", "generation", "pages"):
            table.add_column(name, overflow="fold", justify="right" if name in _NUMBERS else "left")
        for replica in replicas:
            table.add_column(f"{replica.name} ({replica.state if replica.fresh else 'gone'})")
        realms = Realm.objects.select_related("owner", "source").annotate(
            files=Count("versions", filter=Q(versions__until_generation__isnull=True))
        )
        for realm in realms:
            shown = f"shows {realm.source}" if realm.source else str(realm.files)
            table.add_row(
                realm.url,
                realm.kind,
                str(realm.owner or "-"),
                shown,
                str(realm.generation),
                str(heads.get(realm.url, "-")),
                *(str(applied.get((realm.url, replica.name), "-")) for replica in replicas),
            )
        return table


_NUMBERS = ("generation", "pages")
