"""Checks whether a caller may publish, change or delete a realm, and which URLs are reserved.

The operations call these checks under their locks. The commands also call them beforehand, so that
a dry run gives the error that the operation would give.
"""

from realms import errors
from realms.access.auth import Caller, owns, user_id
from realms.access.spaces import belongs_to_another, check_domain, first_segment
from realms.addresses import realm_candidates
from realms.models import AccountName, Realm

Kind = Realm.Kind


def check_not_reserved(url: str) -> None:
    """Raises Reserved for a URL within a bootstrap realm. Files at such a URL would hide files of
    the card library, or look like part of it."""
    within = Realm.objects.filter(kind=Kind.BOOTSTRAP, url__in=realm_candidates(url)[1:]).first()
    if within is not None:
        raise errors.Reserved(url=url, within=within.url)


def source_to_publish(url: str, caller: Caller) -> Realm:
    """Returns the source realm at `url`. Raises NotARealm, NotPublishable, and Forbidden if the
    caller may not publish the realm."""
    source = Realm.objects.filter(url=url).first()
    if source is None or source.kind != Kind.SOURCE:
        raise errors.NotARealm(url=url)
    if not owns(source, caller):
        raise errors.Forbidden(user=user_id(caller.username), action="publish", url=url)
    if not source.publishable:
        raise errors.NotPublishable(url=url)
    return source


def publishable(source_url: str, url: str, caller: Caller) -> Realm:
    """Returns the source realm that the caller would publish at `url`. Raises the error that
    `publish_realm` would raise. `source_url` and `url` are canonical."""
    check_domain(url)
    source = source_to_publish(source_url, caller)
    if published_or_free(url, source, caller) is None:
        check_not_reserved(url)
    return source


def changeable(url: str, caller: Caller) -> Realm:
    """Returns the published realm at `url`. Raises NotPublished, and Forbidden if the caller may
    not change the realm."""
    realm = Realm.objects.published().select_related("source").filter(url=url).first()
    if realm is None or realm.source is None:
        raise errors.NotPublished(url=url)
    if not owns(realm.source, caller):
        raise errors.Forbidden(user=user_id(caller.username), action="change", url=url)
    return realm


def published_or_free(url: str, source: Realm, caller: Caller) -> Realm | None:
    """Returns the published realm at `url`, or None if the URL is free. Raises Forbidden if the
    caller may not publish there."""
    realm = Realm.objects.select_related("source").filter(url=url).first()
    if realm is not None and realm.kind == Kind.PUBLISHED:
        # `source_to_publish` has checked that the caller owns `source`.
        own = realm.source_id == source.pk
        if own or (realm.source is not None and owns(realm.source, caller)):
            return realm
        raise errors.Forbidden(user=user_id(caller.username), action="publish to", url=url)
    if realm is not None:
        raise errors.IsASourceRealm(url=url, kind=realm.kind)
    if not caller.operator and belongs_to_another(url, caller.account, source.owner):
        raise errors.Forbidden(user=user_id(caller.username), action="publish to", url=url)
    return None


def deletable(url: str, caller: Caller) -> Realm:
    """Returns the source realm at `url` after checking that the caller may delete it. Raises
    NotFound, Unprocessable, Forbidden."""
    realm = Realm.objects.filter(url=url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    if realm.kind != Kind.SOURCE:
        raise errors.Unprocessable(what=f"{url} is a {realm.kind} realm and can't be deleted")
    if not owns(realm, caller) or not (caller.operator or _below_own_name(realm, caller)):
        raise errors.Forbidden(user=user_id(caller.username), action="delete", url=url)
    return realm


def _below_own_name(realm: Realm, caller: Caller) -> bool:
    """Returns whether the caller owns `realm` and the realm's URL lies below the caller's current
    username or a former one."""
    account = caller.account
    if account is None or realm.owner_id != account.pk:
        return False
    renamed = AccountName.objects.filter(account=account.pk, since__gt=realm.created_at)
    return first_segment(realm.url) == account.get_username() or renamed.exists()
