"""Checks whether a caller may publish, change or delete a realm, and which URLs are reserved.

The operations in `publish.py` call these checks while they hold their locks. The management
commands call the same checks before an operation, so that a dry run ends with the error that the
operation would raise.
"""

from realms import errors
from realms.access.auth import Caller, owns, user_id
from realms.access.spaces import belongs_to_another, check_domain, first_segment
from realms.addresses import realm_candidates
from realms.models import AccountName, Realm

Kind = Realm.Kind


def check_not_reserved(url: str) -> None:
    """Raises Reserved if `url` lies within a bootstrap realm, which contains this server's card
    library. The files of a realm at `url` would hide files of the library, or look like a part of
    the library."""
    within = Realm.objects.filter(kind=Kind.BOOTSTRAP, url__in=realm_candidates(url)[1:]).first()
    if within is not None:
        raise errors.Reserved(url=url, within=within.url)


def source_to_publish(url: str, caller: Caller) -> Realm:
    """Returns the source realm at `url`. Raises NotARealm if no source realm has this URL,
    Forbidden if the caller may not publish the realm, and NotPublishable if nobody may publish the
    realm."""
    source = Realm.objects.filter(url=url).first()
    if source is None or source.kind != Kind.SOURCE:
        raise errors.NotARealm(url=url)
    if not owns(source, caller):
        raise errors.Forbidden(user=user_id(caller.username), action="publish", url=url)
    if not source.publishable:
        raise errors.NotPublishable(url=url)
    return source


def publishable(source_url: str, url: str, caller: Caller) -> Realm:
    """Returns the source realm at `source_url`, which the caller wants to publish at `url`. Raises
    the error that `publish_realm` would raise for these two URLs. Both URLs are canonical."""
    check_domain(url)
    source = source_to_publish(source_url, caller)
    if published_or_free(url, source, caller) is None:
        check_not_reserved(url)
    return source


def changeable(url: str, caller: Caller) -> Realm:
    """Returns the published realm at `url`. Raises NotPublished if no published realm has this URL,
    and Forbidden if the caller may not change the realm."""
    realm = Realm.objects.published().select_related("source").filter(url=url).first()
    if realm is None or realm.source is None:
        raise errors.NotPublished(url=url)
    if not owns(realm.source, caller):
        raise errors.Forbidden(user=user_id(caller.username), action="change", url=url)
    return realm


def published_or_free(url: str, source: Realm, caller: Caller) -> Realm | None:
    """Returns the published realm at `url`, or None if no realm has this URL. Raises IsASourceRealm
    if a realm of another kind has the URL. Raises Forbidden if the caller may not publish `source`
    at `url`."""
    realm = Realm.objects.select_related("source").filter(url=url).first()
    if realm is not None and realm.kind == Kind.PUBLISHED:
        # If `realm` already shows `source`, the caller may publish here again, because
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
    """Returns the source realm at `url`. Raises NotFound if no realm has this URL, Unprocessable if
    the realm isn't a source realm, and Forbidden if the caller may not delete the realm."""
    realm = Realm.objects.filter(url=url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    if realm.kind != Kind.SOURCE:
        raise errors.Unprocessable(what=f"{url} is a {realm.kind} realm and can't be deleted")
    if not owns(realm, caller) or not (caller.operator or _below_own_name(realm, caller)):
        raise errors.Forbidden(user=user_id(caller.username), action="delete", url=url)
    return realm


def _below_own_name(realm: Realm, caller: Caller) -> bool:
    """Returns True if the caller's account is the owner of `realm`, and the realm's URL lies below
    the account's current username or a former one. Former usernames aren't stored. So if the
    account was renamed after the realm was created, any URL counts as below a former username."""
    account = caller.account
    if account is None or realm.owner_id != account.pk:
        return False
    renamed = AccountName.objects.filter(account=account.pk, since__gt=realm.created_at)
    return first_segment(realm.url) == account.get_username() or renamed.exists()
