"""Realms within realms. The longest URL wins: what lies below a realm's URL is that realm's, and
not of the realm around it, whatever files that one has there.

So a realm that comes or goes changes what the realm around it serves, and gives that one its next
generation.
"""

from realms.content.changes import Change, raise_change
from realms.content.files import advance
from realms.content.history import publication_at
from realms.content.locks import lock_realms
from realms.content.resolve import realms_around
from realms.models import Publication, RealmBorder


def outer_urls(url: str) -> list[str]:
    """The URL of the realm in which a realm at `url` stands, or would stand; none where it is in no
    other. Who makes or removes the realm holds the lock of that one as well."""
    outer = realms_around(url).exclude(url=url).first()
    return [] if outer is None else [outer.url]


def move_border(url: str) -> None:
    """Takes note, in the caller's transaction, that a realm comes or goes at `url`: in the realm
    around it files are hidden, or shown again."""
    # Held already, but where that realm came to be just now.
    lock_realms(outer_urls(url))
    outer = realms_around(url).exclude(url=url).first()
    if outer is None:
        return
    shown = publication_at(outer, outer.generation)
    generation = advance(outer)
    RealmBorder.objects.update_or_create(
        realm=outer, path=url.removeprefix(outer.url), defaults={"generation": generation}
    )
    if shown is not None:
        # Every generation of a published realm is a publication.
        Publication.objects.create(
            realm=outer,
            generation=generation,
            source_id=shown.source_id,
            source_generation=shown.source_generation,
            by=shown.by,
        )
    raise_change(Change.of(outer, paths=None))
