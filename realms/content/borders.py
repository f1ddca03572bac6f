"""Realms within realms: a URL belongs to the innermost realm, even if an outer realm has a file
there.

So creating or removing a realm changes what the realm around it serves, and gives the outer realm
its next generation.
"""

from realms.content.changes import Change, raise_change
from realms.content.files import advance
from realms.content.locks import lock_realms
from realms.models import Publication, Realm, RealmBorder


def outer_urls(url: str) -> list[str]:
    """The URL of the realm around a realm at `url`, existing or not; empty if there is none.
    Creating or removing the inner realm takes the outer realm's lock as well."""
    outer = Realm.objects.containing(url).exclude(url=url)
    return list(outer.values_list("url", flat=True)[:1])


def move_border(url: str, by: str) -> None:
    """Records, in the caller's transaction, that a realm is created or removed at `url`, which
    hides files of the realm around it or shows them again. `by` says what did so."""
    # The caller has this lock, unless the outer realm was created only just now.
    lock_realms(outer_urls(url))
    outer = Realm.objects.containing(url).exclude(url=url).first()
    if outer is None:
        return
    shown = outer.publications.at(outer.generation).first()
    by = f"{by} at {url.removeprefix(outer.url)} within it"
    generation = advance(outer, by)
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
    raise_change(Change.of(outer, by=by, paths=None))
