"""Creates, publishes, rolls back, unpublishes and deletes realms.

A source realm has files of its own. A published realm has none, but shows the files that a source
realm had at one generation. A realm's generation is a number that rises with each change of the
realm's content.

Each operation is one transaction, which holds the write locks of all realms that it changes
(`content/locks.py`). The operation passes each change of a realm to `raise_change`. At the end of
the transaction, `effects.py` gets the changes. It notifies the replicas, drops outdated definitions
of modules, and queues the jobs that render the affected pages. If the process crashes at any line,
the operation has taken effect either completely or not at all.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from notifications.tracing import spans
from realms import errors
from realms.access.auth import Caller, user_id
from realms.access.spaces import belongs_to_another, check_domain, space_lock
from realms.addresses import canonical_realm_url
from realms.content.borders import move_border, outer_urls
from realms.content.changes import Change, raise_change
from realms.content.files import advance, write_files
from realms.content.locks import realm_write_lock
from realms.figures.counting import counts
from realms.models import (
    EVERYONE,
    Publication,
    Realm,
    RealmPermission,
)
from realms.publishing.locking import Held, Locks, address_locks, with_locks, with_outer_urls
from realms.publishing.rights import (
    changeable,
    check_not_reserved,
    deletable,
    published_or_free,
    source_to_publish,
)
from realms.publishing.seeds import seed_files

logger = logging.getLogger(__name__)

Kind = Realm.Kind
#: The text in `Realm.bumped_by` of a new realm. If a publish creates the realm, the text describes
#: the publish instead.
CREATION = "creation"


@dataclass(frozen=True)
class Published:
    """The result of a publish or a rollback."""

    realm_id: str
    source_url: str
    url: str
    generation: int
    source_generation: int
    at: datetime


# --- Creating ----------------------------------------------------------------------------------


def create_realm(caller: Caller, endpoint: str, attributes: dict[str, Any]) -> Realm:
    """Creates a source realm at the URL `<REALM_PUBLIC_ORIGIN>/<username>/<endpoint>/`. Writes the
    realm's first two cards (`seed_files`).

    Raises AlreadyExists, InvalidURL, Forbidden, Reserved.
    """
    url = canonical_realm_url(f"{settings.REALM_PUBLIC_ORIGIN}/{caller.username}/{endpoint}/")
    owner = caller.account
    with realm_write_lock(url, *space_lock(url), *outer_urls(url)):
        check_not_reserved(url)
        if owner is None or belongs_to_another(url, owner):
            raise errors.Forbidden(user=user_id(caller.username), action="create", url=url)
        realm = make_realm(url, Kind.SOURCE, owner)
        write_files(realm, seed_files(attributes))
    return realm


def make_realm(url: str, kind: Kind, owner: Any, by: Any = None, **more: Any) -> Realm:
    """Creates an empty realm, and passes its creation to `raise_change`. `_insert_realm` describes
    the parameters."""
    realm = _insert_realm(url, kind, owner, by, **more)
    raise_change(Change.of(realm, by=CREATION, exists_before=False))
    return realm


def _insert_realm(
    url: str, kind: Kind, owner: Any, by: Any = None, how: str = CREATION, **more: Any
) -> Realm:
    """Inserts a realm into the table of realms. The caller holds the lock of `url`, and passes the
    creation of the realm to `raise_change`.

    The account `by` gets all permissions. If `by` is None, the owner gets them. `how` is a
    human-readable description of what creates the realm. `more` contains values of further fields.
    If an earlier realm at this URL was deleted, the new realm's first generation is one more than
    the last generation of the earlier realm. Raises AlreadyExists, Reserved.
    """
    if kind != Kind.BOOTSTRAP:
        check_not_reserved(url)
    if Realm.objects.filter(url=url).exists():
        raise errors.AlreadyExists(url=url)
    realm = Realm.objects.create(
        url=url,
        kind=kind,
        owner=owner,
        publishable=kind == Kind.SOURCE,
        bumped_at=timezone.now(),
        bumped_by=how,
        **more,
    )
    # A trigger may have raised the generation of the new row, because of an earlier realm.
    realm.refresh_from_db(fields=["generation"])
    account = by or owner
    if account is not None:
        RealmPermission.objects.create(
            realm=realm, account=account, read=True, write=True, realm_owner=True
        )
    move_border(url, how)
    return realm


# --- Publishing --------------------------------------------------------------------------------


def publish_realm(source_url: str, published_url: str, caller: Caller) -> Published:
    """Publishes the current generation of a source realm at a public URL.

    First checks the domain of `published_url`, and computes which locks the publish needs. Then one
    transaction takes these locks, checks the caller's rights, and writes the publication. Raises a
    RealmError.
    """
    source_url, url = canonical_realm_url(source_url), canonical_realm_url(published_url)
    check_domain(url)

    def required() -> Locks:
        written = (*with_outer_urls(url), *space_lock(url), *address_locks(url, source_url))
        return Locks(frozenset(written), frozenset([source_url]))

    def publish(held: Held) -> Published:
        source = source_to_publish(source_url, caller)
        published = published_or_free(url, source, caller)
        by = f"publish by {caller.username}"
        with spans.span("show"):
            return _show(source, source.generation, published, url, caller, held, by)

    with spans.trace("publish", realm=url):
        return _timed(lambda: with_locks(url, required, publish))


def rollback_realm(published_url: str, caller: Caller, publication: int | None = None) -> Published:
    """Makes a published realm show the content of an earlier publication again. `rollback_target`
    finds the earlier publication, and describes `publication`. The rollback itself makes a new
    publication."""
    url = canonical_realm_url(published_url)

    def required() -> Locks:
        written = frozenset([url, *address_locks(url)])
        realm = Realm.objects.published().filter(url=url).first()
        try:
            source = rollback_target(realm, publication).source if realm is not None else None
        except errors.Unprocessable:
            source = None
        return Locks(written, frozenset([source.url] if source is not None else []))

    def roll_back(held: Held) -> Published:
        realm = changeable(url, caller)
        earlier = rollback_target(realm, publication)
        by = f"rollback by {caller.username}"
        with spans.span("show"):
            return _show(earlier.source, earlier.source_generation, realm, url, caller, held, by)

    with spans.trace("rollback", realm=url):
        return _timed(lambda: with_locks(url, required, roll_back))


def _timed(act: Callable[[], Published]) -> Published:
    """Calls `act`. If `act` succeeds, records its duration for the metrics."""
    began = perf_counter()
    published = act()
    counts.publishes.note(perf_counter() - began)
    return published


def rollback_target(realm: Realm, publication: int | None = None) -> Publication:
    """Returns the publication that a rollback would show again. `publication` is the published
    realm's generation at which that publication was made. If `publication` is None, returns the
    newest publication that is older than all publications of the realm's present content. So a
    second rollback doesn't undo the first rollback, but goes back further.

    Raises Unprocessable if the publication doesn't exist, or if the realm already shows the
    publication's content.
    """
    publications = realm.publications.select_related("source")
    publications = publications.filter(generation__lte=realm.generation)
    shown = publications.first()
    if shown is None:
        raise errors.Unprocessable(what=f"{realm.url} has no publication before this one")
    same = Q(source=shown.source_id, source_generation=shown.source_generation)
    if publication is not None:
        named = publications.at(publication).first()
        if named is None:
            raise errors.Unprocessable(
                what=f"{realm.url} has no publication of generation {publication}"
            )
        if publications.filter(same, pk=named.pk).exists():
            raise errors.Unprocessable(
                what=f"{realm.url} already shows what it showed at generation {publication}"
            )
        return named
    # `first` is the oldest stored publication of the content that the realm shows now. Newer
    # publications are skipped, because the realm has returned to this content since then. Later
    # generations of the same source realm are also skipped, because a rollback has undone them.
    # Their publications can be older than `first`, because the garbage collector may have deleted
    # the publication to which the rollback returned.
    first = publications.filter(same).last()
    later = Q(source=shown.source_id, source_generation__gte=shown.source_generation)
    before = publications.filter(generation__lt=first.generation if first else 0)
    target = before.exclude(later).first()
    if target is None:
        raise errors.Unprocessable(what=f"{realm.url} has no publication before this one")
    return target


def _show(
    source: Realm, source_generation: int, published: Realm | None, url: str, caller: Caller,
    held: Held, by: str = "publish",
) -> Published:  # fmt: skip
    """Makes the realm `published` show the realm `source` as of the generation `source_generation`,
    and passes the change to `raise_change`. Runs in the caller's transaction. If `published` is
    None, creates the published realm at `url`. `by` is a human-readable description of what caused
    the publication."""
    now = timezone.now()
    new = published is None
    before = published.source if published is not None else None
    if published is None:
        published = _insert_realm(url, Kind.PUBLISHED, source.owner, caller.account, by,
                                  source=source, last_published_at=now)  # fmt: skip
        RealmPermission.objects.create(realm=published, audience=EVERYONE, read=True)
    else:
        advance(published, by, source=source, published_at=now)
    Publication.objects.create(
        realm=published,
        generation=published.generation,
        source=source,
        source_generation=source_generation,
        by=caller.username,
        lock_waited=held.waited,
        locked_at=held.since_on_database,
    )
    _log("published %s as of its generation %d", source.url, source_generation, realm=published)
    raise_change(
        Change.of(
            published,
            by=by,
            owner=source.owner_key,
            paths=None,
            shows_before=before.url if before is not None else None,
            shows_after=source.url,
            readable_after=True if new else None,
            exists_before=not new,
        )
    )
    return Published(
        str(published.pk), source.url, url, published.generation, source_generation, now
    )


# --- Taking down -------------------------------------------------------------------------------


def unpublish_realm(published_url: str, caller: Caller) -> Realm:
    """Removes a published realm. Returns the realm as it was before the removal. Raises
    NotPublished, Forbidden."""
    url = canonical_realm_url(published_url)

    def unpublish(held: Held) -> Realm:
        realm = changeable(url, caller)
        gone = Realm.objects.select_related("source").get(pk=realm.pk)
        _tear_down(realm, f"unpublish by {caller.username}")
        return gone

    def required() -> Locks:
        return Locks({*with_outer_urls(url), *address_locks(url, gone=True)})

    with spans.trace("unpublish", realm=url):
        return with_locks(url, required, unpublish)


def delete_realm(realm_url: str, caller: Caller) -> list[str]:
    """Deletes a source realm and all realms published from it. Returns the deleted URLs.

    Raises NotFound, Unprocessable, Forbidden.
    """
    url = canonical_realm_url(realm_url)

    def required() -> Locks:
        # Lock the realms that show this source realm now, and the realms that showed it earlier,
        # because the deletion also removes the earlier publications of this source realm.
        showed = Q(source__url=url) | Q(publications__source__url=url)
        copies = Realm.objects.filter(showed).distinct().order_by()
        return Locks(frozenset(with_outer_urls(url, *copies.values_list("url", flat=True))))

    def delete(held: Held) -> list[str]:
        realm = deletable(url, caller)
        published = list(Realm.objects.filter(source=realm).order_by("url"))
        for each in [*published, realm]:
            _tear_down(each, f"deletion by {caller.username}")
        return [url, *(copy.url for copy in published)]

    with spans.trace("delete", realm=url):
        return with_locks(url, required, delete)


def _tear_down(realm: Realm, by: str = "removal") -> None:
    """Removes a realm, in the caller's transaction. `by` is a human-readable description of why the
    realm is removed."""
    source = realm.source.url if realm.source is not None else None
    _log("removed the %s realm", realm.kind, realm=realm)
    move_border(realm.url, by)
    raise_change(Change.of(realm, by=by, paths=None, shows_before=source, exists_after=False))
    realm.delete()


def _log(message: str, *args: object, realm: Realm) -> None:
    """Logs a change of a realm when the transaction commits."""
    fields = {"realm": realm.url, "generation": realm.generation}
    line = f"%s, generation %d: {message}"
    transaction.on_commit(lambda: logger.info(line, *fields.values(), *args, extra=fields))
