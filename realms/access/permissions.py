"""Reads and changes the permissions of a realm, for its owner."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model

from realms.access.auth import granted
from realms.access.usernames import user_id, username_of
from realms.content.changes import Change, raise_change
from realms.content.locks import locked_realm
from realms.errors import Malformed
from realms.models import EVERYONE, SIGNED_IN, Realm, RealmPermission

#: The words for audiences in requests and responses. All user ids begin with `@`, so they can't be
#: mistaken for these words.
_WORDS = {"*": EVERYONE, "users": SIGNED_IN}
_AUDIENCES = {audience: word for word, audience in _WORDS.items()}


def permissions(realm: Realm) -> dict[str, list[str]]:
    """Returns the actions that each user may do, by user id. The key `*` is everyone, and `users`
    is everyone who is signed in."""
    rows = RealmPermission.objects.filter(realm=realm).select_related("account")
    actions: dict[str, list[str]] = {_wire(row): [*granted(row)] for row in rows}
    return dict(sorted(actions.items()))


def change_permissions(
    realm: Realm, changes: Mapping[str, Sequence[str] | None]
) -> dict[str, list[str]]:
    """Sets the actions of each user or audience in `changes`, and returns all permissions.

    None or an empty list revokes all actions. Owners can't be added or changed with this function.
    Either all changes are made or none. Raises Malformed, NotFound.
    """
    wanted = {wire: set(actions or ()) for wire, actions in changes.items()}
    for wire, actions in wanted.items():
        if "realm-owner" in actions:
            raise _refused(wire, "realm-owner can't be granted here")
    columns_of = {wire: _columns(wire) for wire in wanted}
    for wire, actions in wanted.items():
        if columns_of[wire] is None and actions:
            raise _refused(wire, "there is no such user")
    with locked_realm(realm), readers_change(realm):
        for wire, actions in wanted.items():
            columns = columns_of[wire]
            if columns is None:
                continue
            rows = RealmPermission.objects.filter(realm=realm, **columns)
            if rows.filter(realm_owner=True).exists():
                raise _refused(wire, "an owner's permissions can't be changed here")
            if not actions:
                rows.delete()
                continue
            RealmPermission.objects.update_or_create(
                realm=realm,
                **columns,
                defaults={"read": "read" in actions, "write": "write" in actions},
            )
    return permissions(realm)


@contextmanager
def readers_change(*realms: Realm) -> Iterator[None]:
    """Registers a change of permissions for each realm (`raise_change`) when the block ends. The
    change drops the definitions that were built for former readers. If everyone may now read a
    realm, the pages that could not read the realm before are also rendered again. The caller holds
    the realms' locks."""
    before = _open_to_everyone(realms)
    yield
    after = _open_to_everyone(realms)
    raise_change(
        *(
            Change.of(
                realm,
                by="change of permissions",
                rights=True,
                readable_before=realm.pk in before,
                readable_after=realm.pk in after,
            )
            for realm in realms
        )
    )


def _open_to_everyone(realms: Iterable[Realm]) -> set[UUID]:
    rows = RealmPermission.objects.filter(realm__in=realms, audience=EVERYONE, read=True)
    return set(rows.values_list("realm_id", flat=True))


def _wire(row: RealmPermission) -> str:
    return _AUDIENCES[row.audience] if row.audience else user_id(row.whom)


def _columns(wire: str) -> dict[str, Any] | None:
    """Returns the column values that identify the permission row of a user id or an audience word,
    or None for a user who doesn't exist. Raises Malformed."""
    if wire in _WORDS:
        return {"audience": _WORDS[wire]}
    name = username_of(wire)
    if name is None:
        raise _refused(wire, f"expected *, users, or a user such as {user_id('name')}")
    account = get_user_model().objects.filter(username=name).first()
    return {"account": account} if account is not None else None


def _refused(wire: str, why: str) -> Malformed:
    return Malformed(what=f"data.attributes.permissions.{wire[:80]}: {why}")
