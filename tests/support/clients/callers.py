"""Makes the headers that identify the callers of an endpoint, and grants permissions."""

from realms.access.auth import OPERATOR, Caller, permissions_of, realm_token, server_token, user_id
from realms.models import Realm, RealmPermission
from tests.support import make
from tests.support.web import ORIGIN

PRIVATE = f"{ORIGIN}/ada/private/"


def let(realm: Realm, name: str, *, write: bool = False) -> None:
    RealmPermission.objects.create(realm=realm, account=make.account(name), read=True, write=write)


def token_of(realm: Realm, name: str) -> dict[str, str]:
    """Returns an Authorization header with a realm token for the account `name`. Like the tokens
    that the server issues, this token contains the account's primary key."""
    caller = Caller.of(make.account(name))
    allowed = sorted(permissions_of(realm, caller))
    token = realm_token(name, realm.url, allowed, 60, caller.account_id)
    return {"Authorization": token}


def operator(realm_url: str | None = None) -> dict[str, str]:
    if realm_url is None:
        return {"Authorization": server_token(OPERATOR)}
    return {"Authorization": realm_token(OPERATOR, realm_url, [], 60)}


def as_user(name: str) -> dict[str, str]:
    return {"X-Boxel-Assume-User": user_id(name)}
