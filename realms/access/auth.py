"""Authenticates users by tokens, and checks their permissions in realms.

Two kinds of token exist, both signed with HS256 and REALM_SECRET_SEED. A *server token* is valid at
the server's own endpoints, a *realm token* at the endpoints of one realm. But every token of the
operator, the user who may do everything, is valid at all endpoints.
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
#: The lifetime of the tokens that this server makes to read realms on behalf of users.
READING_SECONDS = 60
#: The `Caller.account_id` of a caller without an account. No account has this key.
NOBODY = 0
_READER = re.compile(r"([0-9]{1,18}) in ([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})")

Action = Literal["read", "write", "realm-owner"]


@dataclass(frozen=True)
class Caller:
    """The user that a request acts for. The operator may do everything."""

    username: str
    operator: bool = False
    #: The account's key, or NOBODY. None means the account that has `username` at each look-up.
    account_id: int | None = None
    #: The key of the only realm that the caller's token is valid for. In other realms the caller is
    #: anonymous. None means all realms.
    realm_id: UUID | None = None
    #: The permissions that the caller's realm token lists. None for the operator, and for a caller
    #: without a realm token.
    claimed: tuple[str, ...] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, account: Any) -> "Caller":
        """Returns the caller for an account. The caller isn't limited to one realm."""
        return cls(account.get_username(), account_id=account.pk)

    @property
    def account(self) -> AbstractBaseUser | None:
        """The Django user; None for the operator and for a caller without an active account."""
        if self.operator:
            return None
        by = {"username": self.username} if self.account_id is None else {"pk": self.account_id}
        return get_user_model().objects.filter(is_active=True, **by).first()


def server_token(username: str, lifetime: int = DAY_SECONDS, account_id: int | None = None) -> str:
    """Returns a token for the server's own endpoints. `lifetime` is in seconds.

    With `account_id`, the token belongs to this account, and becomes invalid when the account is
    deleted. Without `account_id`, the token belongs to the account that has the username when the
    token is used. The token is valid only if that account already had the username when the token
    was issued. Clients that have REALM_SECRET_SEED may sign tokens without `account_id` themselves.
    """
    return _sign({"user": user_id(username), "sessionRoom": ""}, lifetime, account_id)


def realm_token(
    username: str,
    realm_url: str,
    permissions: list[str],
    lifetime: int,
    account_id: int | None = None,
) -> str:
    """Returns a token for the endpoints of one realm. `lifetime` and `account_id` have the same
    meaning as in `server_token`."""
    claims = {
        "user": user_id(username),
        "realm": realm_url,
        "permissions": permissions,
        "realmServerURL": f"{settings.REALM_PUBLIC_ORIGIN}/",
    }
    return _sign(claims, lifetime, account_id)


# --- Callers -----------------------------------------------------------------------------------


def server_caller(request: HttpRequest) -> Caller:
    """Returns the caller of a server endpoint. Raises Unauthorized, Malformed."""
    claims = _claims(request.headers.get("Authorization"))
    caller = _caller(claims)
    if "realm" in claims and not caller.operator:
        raise Unauthorized(why="Token invalid: a realm token does not open this endpoint")
    return _as_assumed(caller, request)


def authorize(request: HttpRequest, realm: Realm, action: Action) -> Caller | None:
    """Returns the caller of a realm endpoint if the caller may perform `action`, or None if
    everyone may perform `action`.

    Raises Unauthorized, Forbidden, Malformed.
    """
    if action != "realm-owner" and action in permissions_of(realm, None):
        return None
    caller, allowed = _caller_and_rights(request, realm)
    if action not in allowed:
        raise Forbidden(user=user_id(caller.username), action=action, url=realm.url)
    return caller


def identified(request: HttpRequest, realm: Realm) -> Caller | None:
    """Returns the caller of a realm endpoint that is open to everyone, or None for an anonymous
    caller. A caller with an invalid token counts as anonymous."""
    if "Authorization" not in request.headers:
        return None
    try:
        return _caller_and_rights(request, realm)[0]
    except (Unauthorized, Malformed):
        return None


def may(request: HttpRequest, realm: Realm, action: Action) -> bool:
    """Returns whether `authorize` would accept the request."""
    try:
        authorize(request, realm, action)
    except (Unauthorized, Forbidden, Malformed):
        return False
    return True


def _caller_and_rights(request: HttpRequest, realm: Realm) -> tuple[Caller, set[str]]:
    """Returns the caller of a realm endpoint, and the actions that the caller may now perform in
    the realm. Raises Unauthorized if the token is invalid or missing, or if a realm token doesn't
    list exactly these actions. Raises Malformed."""
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
    """Returns the caller that a request acts for. The operator can act as another user with the
    header X-Boxel-Assume-User. For other callers the header has no effect. Raises Malformed."""
    wire = request.headers.get("X-Boxel-Assume-User")
    if not caller.operator or wire is None:
        return caller
    name = username_of(wire)
    if name is None:
        raise Malformed(
            what=f"X-Boxel-Assume-User is {wire[:80]!r}; expected a user of this server, "
            f"such as {user_id('name')}"
        )
    if name == OPERATOR:
        return caller
    account = get_user_model().objects.filter(username=name).first()
    realm_id = realm.pk if realm is not None else None
    return Caller(name, account_id=account.pk if account else NOBODY, realm_id=realm_id)


# --- Permissions -------------------------------------------------------------------------------


def permissions_of(realm: Realm, caller: Caller | None) -> set[str]:
    """Returns the actions that a caller may perform in a realm. The operator may perform every
    action. Every other caller has the permissions of everyone. A caller with an account also has
    the permissions of signed-in users and of the account. But a caller with a token for another
    realm has only the permissions of everyone."""
    if caller is not None and caller.operator:
        return {"read", "write", "realm-owner"}
    if caller is not None and caller.realm_id not in (None, realm.pk):
        caller = None
    rows = RealmPermission.objects.filter(_rows_of(caller), realm=realm)
    return {action for row in rows for action in granted(row)}


def readable(realm_urls: Iterable[str], caller: Caller | None) -> bool:
    """Returns whether a caller may now read all realms in `realm_urls`."""
    wanted = set(realm_urls)
    if caller is not None and caller.operator:
        return True
    applicable = _rows_of(caller)
    if caller is not None and caller.realm_id is not None:
        applicable = Q(audience=EVERYONE) | (applicable & Q(realm=caller.realm_id))
    rows = RealmPermission.objects.filter(applicable, realm__url__in=wanted, read=True)
    return wanted == set(rows.values_list("realm__url", flat=True))


def reading_as(caller: Caller) -> Callable[[str], str | None]:
    """Returns a function that makes an Authorization header for a realm's URL. With the header,
    this server reads the realm on the caller's behalf. The function checks the permissions at each
    call, and returns None if the caller may not read the realm."""

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
    """Returns a caller's key. Definitions that were built for the caller are stored under this key.
    The key of a caller with a realm token includes the token's realm, because builds for this
    caller can read no other private realm."""
    return OPERATOR if caller.operator else f"{caller.account_id} in {caller.realm_id}"


def reader_of_key(key: str) -> Caller | None:
    """Returns the caller for a key that `reader_key` has made, if the caller is the operator or has
    a realm token. Returns None for any other text."""
    if key == OPERATOR:
        return Caller(OPERATOR, operator=True)
    parts = _READER.fullmatch(key)
    return Caller("", account_id=int(parts[1]), realm_id=UUID(parts[2])) if parts else None


def _rows_of(caller: Caller | None) -> Q:
    """Returns the condition for the permission rows that apply to a caller. Only the rows for
    everyone apply to a caller without an account."""
    account = caller.account if caller is not None else None
    if account is None:
        return Q(audience=EVERYONE)
    return Q(audience__in=(EVERYONE, SIGNED_IN)) | Q(account=account.pk)


def granted(row: RealmPermission) -> list[Action]:
    """Returns the actions that a permission row allows."""
    flags: list[tuple[bool, Action]] = [
        (row.read, "read"), (row.write, "write"), (row.realm_owner, "realm-owner")
    ]  # fmt: skip
    return [action for is_set, action in flags if is_set]


def realm_tokens(caller: Caller) -> dict[str, str]:
    """Returns a realm token for each realm that the caller may read, except for published realms.
    The keys are the realms' URLs. The tokens are valid for a day. Raises Unprocessable for a user
    who doesn't exist."""
    if not caller.operator and caller.account is None:
        raise Unprocessable(what=f"{user_id(caller.username)} is not a user of this server")
    realms = Realm.objects.with_own_files().order_by("-created_at")
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
        for realm in realms.filter(pk__in=[pk for pk, some in allowed.items() if "read" in some])
    }


def owns(realm: Realm, caller: Caller) -> bool:
    """Returns whether the caller is the operator or an owner of the realm. An owner is an active
    account with the permission `realm-owner`."""
    if caller.operator:
        return True
    by: dict[str, Any] = (
        {"account__username": caller.username}
        if caller.account_id is None
        else {"account": caller.account_id}
    )
    rows = RealmPermission.objects.filter(realm=realm, realm_owner=True, account__is_active=True)
    return rows.filter(**by).exists()


# --- Tokens ------------------------------------------------------------------------------------


def _sign(claims: dict[str, Any], lifetime: int, account_id: int | None) -> str:
    now = int(time.time())
    account = {} if account_id is None else {"account": account_id}
    return jwt.encode(
        {**claims, **account, "iat": now, "exp": now + lifetime},
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
        raise Unauthorized(why="Token invalid: it identifies no user")
    return claims


def _caller(claims: dict[str, Any], realm: Realm | None = None) -> Caller:
    """Returns the caller that a token's `claims` identify. `realm` is the realm that the request
    asks for, or None at the server's own endpoints. Raises Unauthorized."""
    name = username_of(claims["user"])
    if name is None:
        raise Unauthorized(why=f"Token invalid: {claims['user']} is not a user of this server")
    if name == OPERATOR and "account" not in claims:
        return Caller(OPERATOR, operator=True)
    if realm is None:
        return _account_caller(name, claims)
    if "realm" not in claims:
        raise Unauthorized(why="Token invalid: a server token does not open a realm")
    if claims["realm"] != realm.url:
        raise Unauthorized(why=f"Token invalid: it is for {claims['realm']}")
    permissions = claims.get("permissions")
    if not isinstance(permissions, list) or not all(isinstance(p, str) for p in permissions):
        raise Unauthorized(why="Token invalid: it lists no permissions")
    return replace(_account_caller(name, claims), realm_id=realm.pk, claimed=tuple(permissions))


def _account_caller(name: str, claims: dict[str, Any]) -> Caller:
    """Returns the caller that a token's `claims` identify. Raises Unauthorized.

    If the claims contain an account's key, the caller has this account. Without a key, the caller
    has the account with the username `name`, or no account if there is none with this name.
    `server_token` says when a token without a key is valid.
    """
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
        account_name = AccountName.objects.filter(account=account.pk).first()
        # Times in tokens are whole seconds, so `since` is rounded down to whole seconds.
        if account_name is None or issued < int(account_name.since.timestamp()):
            raise Unauthorized(why=f"Token invalid: it is older than the account {claims['user']}")
    if not account.is_active:
        raise Unauthorized(why=f"Token invalid: {claims['user']} may no longer sign in")
    return Caller.of(account)
