"""Handles inner realms. The URL of an inner realm lies below the URL of another realm, the outer
realm. A file's URL belongs to the innermost realm around it, even if an outer realm has a file at
this URL.

Creating or removing an inner realm changes which files the outer realm serves. The outer realm's
generation therefore rises.
"""

from django.db import connection

from realms import sql
from realms.addresses import realm_candidates
from realms.content.changes import Change, raise_change
from realms.content.files import advance
from realms.content.locks import lock_realms
from realms.models import Publication, Realm, RealmBorder


def outer_urls(url: str) -> list[str]:
    """Returns a list with the URL of the innermost realm around `url`, or an empty list. Ignores a
    realm at exactly `url`. A transaction that creates or removes a realm at `url` must also lock
    this outer realm."""
    with connection.cursor() as cursor:
        cursor.execute(sql.OUTER_REALM, {"url": url, "candidates": list(realm_candidates(url))})
        return [outer for (outer,) in cursor.fetchall()]


def move_border(url: str, by: str) -> None:
    """Raises the generation of the innermost realm around `url`. The caller creates or removes an
    inner realm at `url`, in the same transaction. `by` is a human-readable description of what
    creates or removes the inner realm."""
    # The caller already holds the outer realm's lock, unless the outer realm was created after the
    # caller had computed which locks it needs.
    lock_realms(outer_urls(url))
    outer = Realm.objects.filter(url__in=outer_urls(url)).first()
    if outer is None:
        return
    shown = outer.publications.at(outer.generation).first()
    by = f"{by} of the inner realm {url.removeprefix(outer.url)}"
    generation = advance(outer, by)
    RealmBorder.objects.update_or_create(
        realm=outer, path=url.removeprefix(outer.url), defaults={"generation": generation}
    )
    if shown is not None:
        # Each generation of a published realm needs its own publication. The new publication shows
        # the same content as the previous one.
        Publication.objects.create(
            realm=outer,
            generation=generation,
            source_id=shown.source_id,
            source_generation=shown.source_generation,
            by=shown.by,
        )
    raise_change(Change.of(outer, by=by, paths=None))
