"""Reads and changes the permissions of realms."""

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

#: The words for audiences in requests and responses. An audience is everyone, or everyone who is
#: signed in. All user ids begin with `@`, so no user id is equal to one of these words.
_WORDS = {"*": EVERYONE, "users": SIGNED_IN}
_AUDIENCES = {audience: word for word, audience in _WORDS.items()}


def permissions(realm: Realm) -> dict[str, list[str]]:
    """Returns the actions that a realm's permissions allow. The keys are user ids, `*` for
    everyone, and `users` for everyone who is signed in."""
    rows = RealmPermission.objects.filter(realm=realm).select_related("account")
    actions: dict[str, list[str]] = {_wire(row): [*granted(row)] for row in rows}
    return dict(sorted(actions.items()))


def change_permissions(
    realm: Realm, changes: Mapping[str, Sequence[str] | None]
) -> dict[str, list[str]]:
    """Sets the actions that each user or audience in `changes` may perform. Returns all permissions
    of the realm.

    The keys of `changes` are user ids, `*` or `users`. None or an empty list revokes all actions.
    This function can't add an owner or change an owner's permissions. It makes either all changes
    or none. Raises Malformed, NotFound.
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
    """When the block ends, raises a change of permissions for each realm (`raise_change`). The
    caller holds the realms' locks.

    The change drops all definitions that were built from the realm. If the block opens the realm to
    everyone, pages of other realms that tried to read the realm are rendered again. If the block
    ends everyone's access, pages of other realms that were made from the realm's files are rendered
    again.
    """
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
    """Returns the column values that identify the permission row of a user or an audience. `wire`
    is a user id, `*` or `users`. Returns None if the user doesn't exist. Raises Malformed."""
    if wire in _WORDS:
        return {"audience": _WORDS[wire]}
    name = username_of(wire)
    if name is None:
        raise _refused(wire, f"expected *, users, or a user such as {user_id('name')}")
    account = get_user_model().objects.filter(username=name).first()
    return {"account": account} if account is not None else None


def _refused(wire: str, why: str) -> Malformed:
    return Malformed(what=f"data.attributes.permissions.{wire[:80]}: {why}")
