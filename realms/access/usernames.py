"""Usernames: how they are spelt on the wire, and which ones no account may have.

On the wire a user is `@<username>:<host>`. The words `*` and `users` stand beside these in
permissions; they are no usernames, and a row of permissions holds them in a column of their own.
"""

import re
import unicodedata

from django.conf import settings
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError

#: The all-powerful user: whoever has the realm secret seed.
OPERATOR = "realm_server"
#: Words of permissions, the operator, the first path segments that aren't a user's, and the files
#: that a host has at its root.
RESERVED = frozenset(
    ("*", "users", "everyone", "signed-in", OPERATOR, "base", "system",
     "robots.txt", "sitemap.xml", "favicon.ico")
)  # fmt: skip
#: As long as a username may be.
MAX_CHARACTERS = 150
_WIRE = re.compile(r"@([^:]+):(.+)", re.DOTALL)


def user_id(username: str) -> str:
    """A user on the wire: `@<username>:<host>`."""
    return f"@{username}:{settings.REALM_USER_HOST}"


def username_of(wire: str) -> str | None:
    """The username in a user id of this server; None for anything else."""
    parts = _WIRE.fullmatch(wire)
    if parts is None or parts[2] != settings.REALM_USER_HOST:
        return None
    name = parts[1]
    return name if name.isprintable() and len(name) <= MAX_CHARACTERS else None


def check_username(username: str) -> None:
    """Raises ValidationError for a name that means something else than an account."""
    UnicodeUsernameValidator()(username)
    if is_reserved(username):
        raise ValidationError(f"The username {username!r} is reserved.", code="reserved")


def is_reserved(name: str) -> bool:
    """Whether a username or the first path segment of a realm's URL is nobody's."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return plain in RESERVED or plain.startswith("_")
