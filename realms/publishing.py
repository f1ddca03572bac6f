"""Creating, publishing, rolling back, unpublishing and deleting realms.

Each is one transaction under the realm's write lock: it happens or it doesn't, and a crash at any
line leaves the registry as it was before or as it is after. Rendering comes later, by Celery, from
the job row that the same transaction writes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from definitions.lookup import DefinitionLookup
from notifications.channels import REGISTRY_KEY, realm_changed, realm_key
from notifications.emit import bump_at_commit, emit, notify_all_file_changes
from notifications.locks import address_lock
from realms import errors
from realms.auth import Caller, owns, user_id
from realms.borders import move_border, outer_urls
from realms.content import advance, write_files
from realms.locks import realm_write_lock
from realms.models import (
    EVERYONE,
    AccountName,
    Publication,
    Realm,
    RealmPermission,
    RealmTombstone,
)
from realms.seeds import seed_files
from realms.spaces import belongs_to_another, check_domain, first_segment, space_lock
from realms.urls_and_paths import canonical_realm_url, realm_candidates
from reindex import jobs

Kind = Realm.Kind


@dataclass(frozen=True)
class Published:
    """What a publish or a rollback did."""

    realm_id: str
    source_url: str
    url: str
    generation: int
    source_generation: int
    at: datetime


# --- Creating ----------------------------------------------------------------------------------


def create_realm(caller: Caller, endpoint: str, attributes: dict[str, Any]) -> Realm:
    """Makes a source realm at `<origin>/<user>/<endpoint>/`, with its first two cards.

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
    """Enters a realm in the registry. The caller holds the lock of its URL.

    Its rights go to the account that it is made `by`, without one to its owner. Its generation goes
    on from that of a realm that stood there before. Raises AlreadyExists, Reserved.
    """
    if kind != Kind.BOOTSTRAP:
        check_not_reserved(url)
    if Realm.objects.filter(url=url).exists():
        raise errors.AlreadyExists(url=url)
    grave = RealmTombstone.objects.filter(url=url).first()
    realm = Realm.objects.create(
        url=url,
        kind=kind,
        owner=owner,
        publishable=kind == Kind.SOURCE,
        generation=grave.generation + 1 if grave else 1,
        **more,
    )
    if grave is not None:
        grave.delete()
    holder = by or owner
    if holder is not None:
        RealmPermission.objects.create(
            realm=realm, account=holder, read=True, write=True, realm_owner=True
        )
    move_border(url)
    bump_at_commit([realm_key(url), REGISTRY_KEY])
    return realm


# --- Publishing --------------------------------------------------------------------------------


def publish_realm(source_url: str, published_url: str, caller: Caller) -> Published:
    """Shows a source realm, as it stands now, at a public URL. Section by section:

    checks, the source's generation, the swap, source caches, definitions, the job that is owed,
    commit; then the local board moves and Celery is told. Raises one of `realms.errors`.
    """
    source_url, url = canonical_realm_url(source_url), canonical_realm_url(published_url)
    check_domain(url)
    held = _address_locks(url, source_url)
    around = outer_urls(url)
    with realm_write_lock(url, *space_lock(url), *held, *around, shared=[source_url]):
        source = _source(source_url, caller)
        published = _published_or_free(url, source, caller)
        _check_held(held, url, source_url)
        return _show(source, source.generation, published, url, caller)


def rollback_realm(published_url: str, caller: Caller, publication: int | None = None) -> Published:
    """Shows again what an earlier publication showed: the one before this, or the one of that
    generation of the published realm. Rolling back is a publish like any other."""
    url = canonical_realm_url(published_url)
    held = _address_locks(url)
    with realm_write_lock(url, *held):
        realm = _published(url, caller)
        _check_held(held, url)
        earlier = rollback_target(realm, publication)
        return _show(earlier.source, earlier.source_generation, realm, url, caller)


def rollback_target(realm: Realm, publication: int | None = None) -> Publication:
    """The publication that a rollback would show: the one of that generation, else the one before
    what is shown. A second rollback goes one further back, and not to what the first went from.

    Raises Unprocessable if there is none, or if it is what is shown.
    """
    publications = realm.publications.filter(generation__lte=realm.generation)
    shown = publications.first()
    if shown is None:
        raise errors.Unprocessable(what=f"{realm.url} has no publication before this one")
    same = Q(source=shown.source_id, source_generation=shown.source_generation)
    if publication is not None:
        named = publications.filter(generation=publication).first()
        if named is None:
            raise errors.Unprocessable(
                what=f"{realm.url} has no publication of generation {publication}"
            )
        if publications.filter(same, pk=named.pk).exists():
            raise errors.Unprocessable(
                what=f"{realm.url} shows what it showed at generation {publication} already"
            )
        return named
    # What is shown was first shown here, and everything later is what was rolled back from.
    first = publications.filter(same).last()
    later = Q(source=shown.source_id, source_generation__gte=shown.source_generation)
    before = publications.filter(generation__lt=first.generation if first else 0)
    target = before.exclude(later).first()
    if target is None:
        raise errors.Unprocessable(what=f"{realm.url} has no publication before this one")
    return target


def _show(
    source: Realm, source_generation: int, published: Realm | None, url: str, caller: Caller
) -> Published:
    """The swap and everything that goes with it, in the caller's transaction."""
    now = timezone.now()
    new = published is None
    before = published.source if published is not None else None
    moved = {source.url, *([before.url] if before is not None else [])}
    if published is None:
        published = make_realm(url, Kind.PUBLISHED, source.owner, caller.account,
                               source=source, last_published_at=now)  # fmt: skip
        RealmPermission.objects.create(realm=published, audience=EVERYONE, read=True)
        emit(realm_changed(source.url))
    else:
        Realm.objects.filter(pk=published.pk).update(source=source, last_published_at=now)
        advance(published)
    Publication.objects.create(
        realm=published,
        generation=published.generation,
        source=source,
        source_generation=source_generation,
        by=caller.username,
    )
    published.clear_local_source_caches_and_broadcast()
    DefinitionLookup().clear_realm_definitions(url)
    jobs.owe(
        url,
        published.generation,
        moved=moved if before != source else (),
        opened=new,
        owner=source.owner_key,
    )
    return Published(
        str(published.pk), source.url, url, published.generation, source_generation, now
    )


# --- Taking down -------------------------------------------------------------------------------


def unpublish_realm(published_url: str, caller: Caller) -> Realm:
    """Takes a published realm down and answers what it was. Raises NotPublished, Forbidden."""
    url = canonical_realm_url(published_url)
    held = _address_locks(url, gone=True)
    with realm_write_lock(url, *held, *outer_urls(url)):
        realm = _published(url, caller)
        _check_held(held, url, gone=True)
        gone = Realm.objects.select_related("source").get(pk=realm.pk)
        _tear_down(realm)
    return gone


def delete_realm(realm_url: str, caller: Caller) -> list[str]:
    """Deletes a source realm and everything published from it; answers the URLs that are gone.

    Raises NotFound, Unprocessable, Forbidden.
    """
    url = canonical_realm_url(realm_url)
    copies = sorted(Realm.objects.filter(source__url=url).values_list("url", flat=True))
    around = [outer for each in (url, *copies) for outer in outer_urls(each)]
    with realm_write_lock(url, *copies, *around):
        realm = deletable(url, caller)
        published = list(Realm.objects.filter(source=realm).order_by("url"))
        if {copy.url for copy in published} - set(copies):
            raise errors.Busy(what=f"{url} has just been published somewhere else")
        for each in [*published, realm]:
            _tear_down(each)
    return [realm.url, *(copy.url for copy in published)]


def deletable(url: str, caller: Caller) -> Realm:
    """The source realm that the caller may delete. Raises NotFound, Unprocessable, Forbidden."""
    realm = Realm.objects.filter(url=url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    if realm.kind != Kind.SOURCE:
        raise errors.Unprocessable(what=f"{url} is a {realm.kind} realm and can't be deleted")
    if not owns(realm, caller) or not (caller.operator or _below_own_name(realm, caller)):
        raise errors.Forbidden(user=user_id(caller.username), action="delete", url=url)
    return realm


def _below_own_name(realm: Realm, caller: Caller) -> bool:
    """Whether a realm stands below its owner's name: that of now, or one of before."""
    account = caller.account
    if account is None or realm.owner_id != account.pk:
        return False
    renamed = AccountName.objects.filter(account=account.pk, since__gt=realm.created_at)
    return first_segment(realm.url) == account.get_username() or renamed.exists()


def _tear_down(realm: Realm) -> None:
    """Removes rows, pages and definitions, and tells the peers, in the caller's transaction."""
    RealmTombstone.objects.update_or_create(
        url=realm.url, defaults={"generation": realm.generation}
    )
    DefinitionLookup().clear_realm_definitions(realm.url)
    move_border(realm.url)
    jobs.forget(realm.url, moved=[realm.source.url] if realm.source is not None else [])
    notify_all_file_changes(realm.url)
    bump_at_commit([realm_key(realm.url), REGISTRY_KEY])
    if realm.source is not None:
        emit(realm_changed(realm.source.url))
    realm.delete()


# --- Checks ------------------------------------------------------------------------------------


def _address_locks(url: str, *source_urls: str, gone: bool = False) -> list[str]:
    """What is locked because it may change where source realms are published: nothing for a URL
    that shows the same realm before and after."""
    publications = Publication.objects.filter(realm__url=url).order_by()
    shown = set(publications.values_list("source__url", flat=True).distinct())
    stays = not gone and len(shown) == 1 and shown.issuperset(source_urls)
    return [] if stays else [address_lock(each) for each in sorted({*shown, *source_urls})]


def _check_held(held: list[str], url: str, *source_urls: str, gone: bool = False) -> None:
    """Raises Busy if more would have to be locked by now."""
    if not set(held).issuperset(_address_locks(url, *source_urls, gone=gone)):
        raise errors.Busy(what=f"{url} has just been published from another realm")


def check_not_reserved(url: str) -> None:
    """Raises Reserved for a URL within a bootstrap realm: files there would hide the library's own,
    or seem to be of it."""
    within = Realm.objects.filter(kind=Kind.BOOTSTRAP, url__in=realm_candidates(url)[1:]).first()
    if within is not None:
        raise errors.Reserved(url=url, within=within.url)


def _source(url: str, caller: Caller) -> Realm:
    source = Realm.objects.filter(url=url).first()
    if source is None or source.kind != Kind.SOURCE:
        raise errors.NotARealm(url=url)
    if not owns(source, caller):
        raise errors.Forbidden(user=user_id(caller.username), action="publish", url=url)
    if not source.publishable:
        raise errors.NotPublishable(url=url)
    return source


def _published(url: str, caller: Caller) -> Realm:
    realm = Realm.objects.select_related("source").filter(url=url, kind=Kind.PUBLISHED).first()
    if realm is None or realm.source is None:
        raise errors.NotPublished(url=url)
    if not owns(realm.source, caller):
        raise errors.Forbidden(user=user_id(caller.username), action="change", url=url)
    return realm


def _published_or_free(url: str, source: Realm, caller: Caller) -> Realm | None:
    """The published realm at a URL if it is the caller's, None if the URL is free to take."""
    standing = Realm.objects.select_related("source").filter(url=url).first()
    if standing is not None and standing.kind == Kind.PUBLISHED:
        if standing.source is not None and owns(standing.source, caller):
            return standing
        raise errors.Forbidden(user=user_id(caller.username), action="publish to", url=url)
    if standing is not None:
        raise errors.IsASourceRealm(url=url, kind=standing.kind)
    if not caller.operator and belongs_to_another(url, caller.account, source.owner):
        raise errors.Forbidden(user=user_id(caller.username), action="publish to", url=url)
    return None
