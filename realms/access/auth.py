"""Who asks, and what they may do: tokens, users, permissions.

Two kinds of token, both HS256 with the realm secret seed: a *server token* opens the server's
endpoints, a *realm token* opens one realm's. Neither passes for the other.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Q
from django.http import HttpRequest

from realms.access.usernames import OPERATOR as OPERATOR
from realms.access.usernames import user_id as user_id
from realms.access.usernames import username_of
from realms.errors import Forbidden, Malformed, Unauthorized, Unprocessable
from realms.models import EVERYONE, SIGNED_IN, AccountName, Realm, RealmPermission

DAY_SECONDS = 24 * 3600
#: How long a token is good by which this server itself reads a realm on somebody's behalf.
READING_SECONDS = 60
#: The key of no account.
NOBODY = 0
_READER = re.compile(r"([0-9]{1,18}) in ([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})")

Action = Literal["read", "write", "realm-owner"]


@dataclass(frozen=True)
class Caller:
    """Who a request speaks for. The operator may do everything."""

    username: str
    operator: bool = False
    #: The account's key. Without one it is whoever bears the name, which is what a command means.
    account_id: int | None = None
    #: The key of the only realm in which a token speaks for them; elsewhere they are a stranger.
    realm_id: UUID | None = None
    claimed: tuple[str, ...] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, account: Any) -> "Caller":
        """An account, wherever it asks."""
        return cls(account.get_username(), account_id=account.pk)

    @property
    def account(self) -> AbstractBaseUser | None:
        """The Django user; None for the operator and for a user who is gone or deactivated."""
        if self.operator:
            return None
        named = {"username": self.username} if self.account_id is None else {"pk": self.account_id}
        return get_user_model().objects.filter(is_active=True, **named).first()


def server_token(username: str, lifetime: int = DAY_SECONDS, account_id: int | None = None) -> str:
    """A token for the server's endpoints. Lifetime in seconds.

    With the key of an account it ends with that account. Without one, as clients that have the seed
    mint it, it is good for the account of that name if that has had the name for as long.
    """
    return _sign({"user": user_id(username), "sessionRoom": ""}, lifetime, account_id)


def realm_token(
    username: str,
    realm_url: str,
    permissions: list[str],
    lifetime: int,
    account_id: int | None = None,
) -> str:
    """A token for one realm's endpoints; for the rest as `server_token`."""
    claims = {
        "user": user_id(username),
        "realm": realm_url,
        "permissions": permissions,
        "realmServerURL": f"{settings.REALM_PUBLIC_ORIGIN}/",
    }
    return _sign(claims, lifetime, account_id)


# --- Who asks ----------------------------------------------------------------------------------


def server_caller(request: HttpRequest) -> Caller:
    """Whom a request to a server endpoint speaks for. Raises Unauthorized, Malformed."""
    claims = _claims(request.headers.get("Authorization"))
    caller = _caller(claims)
    if "realm" in claims and not caller.operator:
        raise Unauthorized(why="Token invalid: a realm token does not open this endpoint")
    return _as_assumed(caller, request)


def authorize(request: HttpRequest, realm: Realm, action: Action) -> Caller | None:
    """Whom a realm endpoint answers; None for anyone, where everyone may do that.

    Raises Unauthorized, Forbidden, Malformed.
    """
    if action != "realm-owner" and action in permissions_of(realm, None):
        return None
    caller, allowed = _standing(request, realm)
    if action not in allowed:
        raise Forbidden(user=user_id(caller.username), action=action, url=realm.url)
    return caller


def identified(request: HttpRequest, realm: Realm) -> Caller | None:
    """Who asks a realm where everyone may ask; None for a stranger. An invalid token is treated as
    none."""
    try:
        return _standing(request, realm)[0] if "Authorization" in request.headers else None
    except (Unauthorized, Malformed):
        return None


def may(request: HttpRequest, realm: Realm, action: Action) -> bool:
    """Whether `authorize` would let the request through."""
    try:
        authorize(request, realm, action)
    except (Unauthorized, Forbidden, Malformed):
        return False
    return True


def _standing(request: HttpRequest, realm: Realm) -> tuple[Caller, set[str]]:
    """Whom a request to a realm speaks for, and what they may do in it at present."""
    try:
        caller = _caller(_claims(request.headers.get("Authorization")), realm)
    except Unauthorized as error:
        raise Unauthorized(**error.details, realm=realm.url) from error
    caller = _as_assumed(caller, request, realm)
    allowed = permissions_of(realm, caller)
    claimed = None if caller.operator else caller.claimed
    if claimed is not None and sorted(claimed) != sorted(allowed):
        why = "Token invalid: the permissions have changed; ask for a new session"
        raise Unauthorized(why=why, realm=realm.url)
    return caller, allowed


def _as_assumed(caller: Caller, request: HttpRequest, realm: Realm | None = None) -> Caller:
    """The user of X-Boxel-Assume-User, to whose rights the operator asks to be held; from anyone
    else the header means nothing."""
    wire = request.headers.get("X-Boxel-Assume-User")
    if not caller.operator or wire is None:
        return caller
    name = username_of(wire)
    if name is None:
        raise Malformed(
            what=f"X-Boxel-Assume-User is {wire[:80]!r}; expected a user of this server, "
            f"as {user_id('name')}"
        )
    if name == OPERATOR:
        return caller
    account = get_user_model().objects.filter(username=name).first()
    realm_id = realm.pk if realm is not None else None
    return Caller(name, account_id=account.pk if account else NOBODY, realm_id=realm_id)


# --- What they may do --------------------------------------------------------------------------


def permissions_of(realm: Realm, caller: Caller | None) -> set[str]:
    """What a caller may do in a realm: the union of everyone's, signed-in users' and their own."""
    if caller is not None and caller.operator:
        return {"read", "write", "realm-owner"}
    if caller is not None and caller.realm_id not in (None, realm.pk):
        caller = None
    rows = RealmPermission.objects.filter(_rows_of(caller), realm=realm)
    return {action for row in rows for action in granted(row)}


def readable(realm_urls: Iterable[str], caller: Caller | None) -> bool:
    """Whether all of these realms are a caller's to read, by the permissions of now."""
    wanted = set(realm_urls)
    if caller is not None and caller.operator:
        return True
    theirs = _rows_of(caller)
    if caller is not None and caller.realm_id is not None:
        theirs = Q(audience=EVERYONE) | (theirs & Q(realm=caller.realm_id))
    rows = RealmPermission.objects.filter(theirs, realm__url__in=wanted, read=True)
    return wanted == set(rows.values_list("realm__url", flat=True))


def reading_as(caller: Caller) -> Callable[[str], str | None]:
    """Makes the header by which a realm is read on a caller's behalf, by the permissions of the
    moment it is asked for; None for a realm that they may not read."""

    def header(realm_url: str) -> str | None:
        realm = Realm.objects.filter(url=realm_url).first()
        if realm is None or caller.realm_id not in (None, realm.pk):
            return None
        allowed = permissions_of(realm, caller)
        if "read" not in allowed:
            return None
        return realm_token(
            caller.username, realm_url, sorted(allowed), READING_SECONDS, caller.account_id
        )

    return header


def reader_key(caller: Caller) -> str:
    """Names a caller as a reader, for what is kept for them: what a token opens in one realm is not
    what another opens."""
    return OPERATOR if caller.operator else f"{caller.account_id} in {caller.realm_id}"


def reader_of_key(key: str) -> Caller | None:
    """The caller of a reader's key; None for what is none."""
    if key == OPERATOR:
        return Caller(OPERATOR, operator=True)
    parts = _READER.fullmatch(key)
    return Caller("", account_id=int(parts[1]), realm_id=UUID(parts[2])) if parts else None


def _rows_of(caller: Caller | None) -> Q:
    """Which rows of permissions are a caller's. Rights are an account's: without one they have
    everyone's."""
    account = caller.account if caller is not None else None
    if account is None:
        return Q(audience=EVERYONE)
    return Q(audience__in=(EVERYONE, SIGNED_IN)) | Q(account=account.pk)


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
    for row in RealmPermission.objects.filter(_rows_of(caller)):
        allowed.setdefault(row.realm_id, set()).update(granted(row))
    return {
        realm.url: realm_token(
            caller.username, realm.url, sorted(allowed[realm.pk]), DAY_SECONDS, caller.account_id
        )
        for realm in realms.filter(pk__in=[pk for pk, held in allowed.items() if "read" in held])
    }


def owns(realm: Realm, caller: Caller) -> bool:
    """Whether the caller's own row makes them an owner of the realm."""
    if caller.operator:
        return True
    named: dict[str, Any] = (
        {"account__username": caller.username}
        if caller.account_id is None
        else {"account": caller.account_id}
    )
    rows = RealmPermission.objects.filter(realm=realm, realm_owner=True, account__is_active=True)
    return rows.filter(**named).exists()


# --- Tokens ------------------------------------------------------------------------------------


def _sign(claims: dict[str, Any], lifetime: int, account_id: int | None) -> str:
    now = int(time.time())
    named = {} if account_id is None else {"account": account_id}
    return jwt.encode(
        {**claims, **named, "iat": now, "exp": now + lifetime},
        settings.REALM_SECRET_SEED,
        algorithm="HS256",
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


def _caller(claims: dict[str, Any], realm: Realm | None = None) -> Caller:
    """Whom claims speak for, everywhere or in a realm. Raises Unauthorized."""
    name = username_of(claims["user"])
    if name is None:
        raise Unauthorized(why=f"Token invalid: {claims['user']} is not a user of this server")
    if name == OPERATOR and "account" not in claims:
        return Caller(OPERATOR, operator=True)
    if realm is None:
        return _bearer(name, claims)
    if "realm" not in claims:
        raise Unauthorized(why="Token invalid: a server token does not open a realm")
    if claims["realm"] != realm.url:
        raise Unauthorized(why=f"Token invalid: it is for {claims['realm']}")
    permissions = claims.get("permissions")
    if not isinstance(permissions, list) or not all(isinstance(p, str) for p in permissions):
        raise Unauthorized(why="Token invalid: it lists no permissions")
    return replace(_bearer(name, claims), realm_id=realm.pk, claimed=tuple(permissions))


def _bearer(name: str, claims: dict[str, Any]) -> Caller:
    """The account that claims speak for: the one that they name by its key, or else the one of that
    name, if it had the name when the token was issued."""
    key, issued = claims.get("account"), claims.get("iat")
    accounts = get_user_model().objects.all()
    if key is not None:
        if not isinstance(key, int) or isinstance(key, bool):
            raise Unauthorized(why="Token invalid: its account is not a number")
        account = accounts.filter(pk=key).first() if 0 < key < 2**63 else None
        if account is None:
            raise Unauthorized(why="Token invalid: its account is gone")
    else:
        account = accounts.filter(username=name).first()
        if account is None:
            return Caller(name, account_id=NOBODY)
        if not isinstance(issued, (int, float)):
            raise Unauthorized(why="Token invalid: it does not say when it was issued")
        named = AccountName.objects.filter(account=account.pk).first()
        # Tokens count in whole seconds.
        if named is None or issued < int(named.since.timestamp()):
            raise Unauthorized(why=f"Token invalid: it is older than the account {claims['user']}")
    if not account.is_active:
        raise Unauthorized(why=f"Token invalid: {claims['user']} may no longer sign in")
    return Caller.of(account)
