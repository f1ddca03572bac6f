"""Who may do what in a realm, as its owner reads and changes it."""

from collections.abc import Mapping, Sequence

from django.contrib.auth import get_user_model

from definitions.lookup import DefinitionLookup
from notifications.channels import REGISTRY_KEY, realm_key
from notifications.emit import bump_at_commit
from realms.auth import granted, user_id, username_of
from realms.errors import Malformed, NotFound
from realms.locks import realm_write_lock
from realms.models import EVERYONE, SIGNED_IN, Realm, RealmPermission
from reindex import jobs

_SHARED = (EVERYONE, SIGNED_IN)


def permissions(realm: Realm) -> dict[str, list[str]]:
    """What is granted, by user id; `*` is everyone and `users` everyone who is signed in."""
    rows = RealmPermission.objects.filter(realm=realm).order_by("username")
    return {_wire(row.username): [*granted(row)] for row in rows}


def change_permissions(
    realm: Realm, changes: Mapping[str, Sequence[str] | None]
) -> dict[str, list[str]]:
    """Grants what is named, takes all from whom nothing is named for, and answers what holds then.

    Owners stay owners and are made elsewhere. All of it happens or nothing. Raises Malformed,
    NotFound.
    """
    wanted = {_username(wire): set(actions or ()) for wire, actions in changes.items()}
    for name, actions in wanted.items():
        if "realm-owner" in actions:
            raise _refused(name, "realm-owner can't be granted here")
    known = get_user_model().objects.filter(username__in=wanted).values_list("username", flat=True)
    with realm_write_lock(realm.url):
        if not Realm.objects.filter(pk=realm.pk).exists():
            raise NotFound(url=realm.url)
        rows = {row.username: row for row in RealmPermission.objects.filter(realm=realm)}
        for name, actions in wanted.items():
            row = rows.get(name)
            if row is not None and row.realm_owner:
                raise _refused(name, "an owner's permissions can't be changed here")
            if not actions:
                if row is not None:
                    row.delete()
                continue
            if row is None and name not in (*_SHARED, *known):
                raise _refused(name, "there is no such user")
            RealmPermission.objects.update_or_create(
                realm=realm,
                username=name,
                defaults={"read": "read" in actions, "write": "write" in actions},
            )
        opened = "read" in wanted.get(EVERYONE, ())
        readers_changed(realm, everyone=EVERYONE in wanted, opened=opened)
    return permissions(realm)


def readers_changed(*realms: Realm, everyone: bool = True, opened: bool = True) -> None:
    """Takes away what was made for those who might read these realms until now. `everyone` if it is
    not only single users who may do more or less, `opened` if everyone may read them now. The
    caller holds the realms' locks."""
    for realm in sorted(realms, key=lambda realm: realm.url):
        # Those that were built from it, for whomever, and those that are being built. Before the
        # jobs, as in a publish: two who lock both wait for each other otherwise.
        DefinitionLookup().clear_realm_definitions(realm.url)
        if everyone:
            # What others have rendered from it they may have to do without, or may have again.
            jobs.tell_dependents(realm.url, opened=opened)
    bump_at_commit([REGISTRY_KEY, *(realm_key(realm.url) for realm in realms)])


def _wire(username: str) -> str:
    return username if username in _SHARED else user_id(username)


def _username(wire: str) -> str:
    name = username_of(wire)
    if not name or len(name) > 150:
        raise _refused(wire[:80], f"expected *, users, or a user as {user_id('name')}")
    return name


def _refused(name: str, why: str) -> Malformed:
    return Malformed(what=f"data.attributes.permissions.{name}: {why}")
