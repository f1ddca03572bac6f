"""Who asks, and what they may do: tokens, users, permissions.

Two kinds of token, both HS256 with the realm secret seed: a *server token* opens the server's
endpoints, a *realm token* opens one realm's. Neither passes for the other.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser

from realms.errors import Forbidden, Malformed, Unauthorized, Unprocessable
from realms.models import EVERYONE, SIGNED_IN, Realm, RealmPermission

DAY_SECONDS = 24 * 3600
#: How long a token is good by which this server itself reads a realm on somebody's behalf.
READING_SECONDS = 60
OPERATOR = "realm_server"

Action = Literal["read", "write", "realm-owner"]


@dataclass(frozen=True)
class Caller:
    """Who a token speaks for. The operator may do everything."""

    username: str
    operator: bool = False
    claimed: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def account(self) -> AbstractBaseUser | None:
        """The Django user; None for the operator and for a user who is gone."""
        return get_user_model().objects.filter(username=self.username, is_active=True).first()


def user_id(username: str) -> str:
    """A user on the wire: `@<username>:<host>`."""
    return f"@{username}:{settings.REALM_USER_HOST}"


def server_token(username: str, lifetime: int = DAY_SECONDS) -> str:
    """A token for the server's endpoints. Lifetime in seconds."""
    return _sign({"user": user_id(username), "sessionRoom": ""}, lifetime)


def realm_token(username: str, realm_url: str, permissions: list[str], lifetime: int) -> str:
    """A token for one realm's endpoints. Lifetime in seconds."""
    claims = {
        "user": user_id(username),
        "realm": realm_url,
        "permissions": permissions,
        "realmServerURL": f"{settings.REALM_PUBLIC_ORIGIN}/",
    }
    return _sign(claims, lifetime)


def server_caller(header: str | None) -> Caller:
    """Whom the token of a server endpoint speaks for. Raises Unauthorized."""
    claims = _claims(header)
    caller = _caller(claims)
    if "realm" in claims and not caller.operator:
        raise Unauthorized(why="Token invalid: a realm token does not open this endpoint")
    return caller


def authorize(
    realm: Realm, action: Action, header: str | None, assumed: str | None = None
) -> Caller | None:
    """Whom a realm endpoint answers; None for anyone, where everyone may do that.

    `assumed` is the user (of X-Boxel-Assume-User) whose rights the operator asks to be held to;
    from anyone else it means nothing. Raises Unauthorized, Forbidden, Malformed.
    """
    if action != "realm-owner" and action in permissions_of(realm, None):
        return None
    caller, allowed = _standing(realm, header, assumed)
    if action not in allowed:
        raise Forbidden(user=user_id(caller.username), action=action, url=realm.url)
    return caller


def identified(realm: Realm, header: str | None, assumed: str | None = None) -> Caller | None:
    """Who asks a realm, where they may ask whoever they are; None for a stranger. A token that is
    no good makes its bearer one: what everyone may do needs none."""
    try:
        return _standing(realm, header, assumed)[0] if header else None
    except (Unauthorized, Malformed):
        return None


def _standing(realm: Realm, header: str | None, assumed: str | None) -> tuple[Caller, set[str]]:
    """Whom a realm token speaks for, and what they may do in its realm at present."""
    try:
        caller = _caller(_claims(header), realm)
    except Unauthorized as error:
        raise Unauthorized(**error.details, realm=realm.url) from error
    if caller.operator and assumed is not None:
        caller = _assumed(assumed)
    allowed = permissions_of(realm, caller)
    claimed = None if caller.operator else caller.claimed
    if claimed is not None and sorted(claimed) != sorted(allowed):
        why = "Token invalid: the permissions have changed; ask for a new session"
        raise Unauthorized(why=why, realm=realm.url)
    return caller, allowed


def permissions_of(realm: Realm, caller: Caller | None) -> set[str]:
    """What a caller may do in a realm: the union of everyone's, signed-in users' and their own."""
    if caller is not None and caller.operator:
        return {"read", "write", "realm-owner"}
    rows = RealmPermission.objects.filter(realm=realm, username__in=_names(caller))
    return {action for row in rows for action in granted(row)}


def readable(realm_urls: Iterable[str], caller: Caller | None) -> bool:
    """Whether all of these realms are a caller's to read, by the permissions of now."""
    wanted = set(realm_urls)
    if caller is not None and caller.operator:
        return True
    rows = RealmPermission.objects.filter(realm__url__in=wanted, username__in=_names(caller))
    return wanted == set(rows.filter(read=True).values_list("realm__url", flat=True))


def reading_as(caller: Caller) -> Callable[[str], str | None]:
    """Makes the header by which a realm is read on a caller's behalf, by the permissions of the
    moment it is asked for; None for a realm that they may not read."""

    def header(realm_url: str) -> str | None:
        realm = Realm.objects.filter(url=realm_url).first()
        allowed = permissions_of(realm, caller) if realm is not None else set()
        if "read" not in allowed:
            return None
        return realm_token(caller.username, realm_url, sorted(allowed), READING_SECONDS)

    return header


def _names(caller: Caller | None) -> list[str]:
    """The names whose rows are a caller's. Rights are a user's: who has no account has none."""
    if caller is None or caller.account is None:
        return [EVERYONE]
    return [EVERYONE, SIGNED_IN, caller.username]


def granted(row: RealmPermission) -> list[Action]:
    """What a row allows."""
    held: list[tuple[bool, Action]] = [
        (row.read, "read"), (row.write, "write"), (row.realm_owner, "realm-owner")
    ]  # fmt: skip
    return [action for has, action in held if has]


def realm_tokens(caller: Caller) -> dict[str, str]:
    """A token, good for a day, for each realm that the caller may read, by the realm's URL.

    Published realms are left out. Raises Unprocessable for a user that there isn't.
    """
    if not caller.operator and caller.account is None:
        raise Unprocessable(what=f"{user_id(caller.username)} is not a user of this server")
    realms = Realm.objects.exclude(kind=Realm.Kind.PUBLISHED).order_by("-created_at")
    if caller.operator:
        every = sorted(permissions_of(Realm(), caller))
        return {realm.url: realm_token(OPERATOR, realm.url, every, DAY_SECONDS) for realm in realms}
    allowed: dict[UUID, set[str]] = {}
    for row in RealmPermission.objects.filter(username__in=_names(caller)):
        allowed.setdefault(row.realm_id, set()).update(granted(row))
    return {
        realm.url: realm_token(caller.username, realm.url, sorted(allowed[realm.pk]), DAY_SECONDS)
        for realm in realms.filter(pk__in=[pk for pk, held in allowed.items() if "read" in held])
    }


def owns(realm: Realm, caller: Caller) -> bool:
    """Whether the caller's own row makes them an owner of the realm."""
    if caller.operator:
        return True
    rows = RealmPermission.objects.filter(realm=realm, username=caller.username, realm_owner=True)
    return caller.account is not None and rows.exists()


def _sign(claims: dict[str, Any], lifetime: int) -> str:
    now = int(time.time())
    return jwt.encode(
        {**claims, "iat": now, "exp": now + lifetime}, settings.REALM_SECRET_SEED, algorithm="HS256"
    )


def _claims(header: str | None) -> dict[str, Any]:
    token = (header or "").strip()
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    if not token:
        raise Unauthorized(why="Missing Authorization header")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            settings.REALM_SECRET_SEED,
            algorithms=["HS256"],
            options={"require": ["exp"], "verify_aud": False, "verify_iat": False},
        )
    except jwt.ExpiredSignatureError as error:
        raise Unauthorized(why="Token expired") from error
    except jwt.PyJWTError as error:
        raise Unauthorized(why="Token invalid") from error
    if not isinstance(claims.get("user"), str):
        raise Unauthorized(why="Token invalid: it names no user")
    return claims


def username_of(wire: str) -> str | None:
    """The name in a user id of this server, `@<name>:<host>`, or a bare name; None for others'."""
    name, separator, host = wire.removeprefix("@").partition(":")
    return None if separator and host != settings.REALM_USER_HOST else name


def caller_named(wire: str) -> Caller | None:
    """Who a user id of this server means; None for others'."""
    name = username_of(wire)
    return Caller(name, operator=name == OPERATOR and ":" in wire) if name else None


def _assumed(wire: str) -> Caller:
    name = username_of(wire)
    if not name:
        raise Malformed(
            what=f"X-Boxel-Assume-User is {wire[:80]!r}; expected a user of this server, "
            f"as {user_id('name')}"
        )
    return Caller(name, operator=name == OPERATOR and ":" in wire)


def _caller(claims: dict[str, Any], realm: Realm | None = None) -> Caller:
    name = username_of(claims["user"])
    if name is None:
        raise Unauthorized(why=f"Token invalid: {claims['user']} is not a user of this server")
    if name == OPERATOR and ":" in claims["user"]:
        return Caller(OPERATOR, operator=True)
    if get_user_model().objects.filter(username=name, is_active=False).exists():
        raise Unauthorized(why=f"Token invalid: {claims['user']} may no longer sign in")
    if realm is None:
        return Caller(name)
    if "realm" not in claims:
        raise Unauthorized(why="Token invalid: a server token does not open a realm")
    if claims["realm"] != realm.url:
        raise Unauthorized(why=f"Token invalid: it is for {claims['realm']}")
    permissions = claims.get("permissions")
    if not isinstance(permissions, list) or not all(isinstance(p, str) for p in permissions):
        raise Unauthorized(why="Token invalid: it lists no permissions")
    return Caller(name, claimed=tuple(permissions))
