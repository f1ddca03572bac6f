"""Converts usernames to user ids and back, and checks for reserved usernames.

In requests and responses a user id is `@<username>:<host>`, where `<host>` is REALM_USER_HOST. In
place of a user id, a permission can have the word `*` (everyone) or `users` (everyone who is signed
in). `RealmPermission` stores these two words as `everyone` and `signed-in`, in the column
`audience`, because they are not accounts.
"""

import re
import unicodedata

from django.conf import settings
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError

#: The username of the operator, who may do everything. Only a client that has REALM_SECRET_SEED can
#: make a token for the operator.
OPERATOR = "realm_server"
#: The reserved names: words used in permissions, the operator's name, first path segments that the
#: server itself uses, and files that clients request at a host's root. Names that begin with `_`
#: are reserved too (`is_reserved`).
RESERVED = frozenset(
    ("*", "users", "everyone", "signed-in", OPERATOR, "base", "system",
     "robots.txt", "sitemap.xml", "favicon.ico")
)  # fmt: skip
#: The maximum length of a username.
MAX_CHARACTERS = 150
_WIRE = re.compile(r"@([^:]+):(.+)", re.DOTALL)


def user_id(username: str) -> str:
    """Returns the id of a user in requests and responses: `@<username>:<host>`."""
    return f"@{username}:{settings.REALM_USER_HOST}"


def username_of(wire: str) -> str | None:
    """Returns the username in a user id of this server, or None for any other text."""
    parts = _WIRE.fullmatch(wire)
    if parts is None or parts[2] != settings.REALM_USER_HOST:
        return None
    name = parts[1]
    return name if name.isprintable() and len(name) <= MAX_CHARACTERS else None


def check_username(username: str) -> None:
    """Raises ValidationError for an invalid or a reserved username."""
    UnicodeUsernameValidator()(username)
    if is_reserved(username):
        raise ValidationError(f"The username {username!r} is reserved.", code="reserved")


def is_reserved(name: str) -> bool:
    """Returns whether a name is reserved. A reserved name can be neither a username nor the first
    path segment of a user's realm."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return plain in RESERVED or plain.startswith("_")
