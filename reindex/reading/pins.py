"""Signs and verifies pins. A pin is a token for reading one realm at exactly one generation. In the
code, a `Pin` has only the realm and the generation. A `token` is the signed text that is sent.

A pinned read is a request to `/_at/<path>` with a pin in the header `X-Realm-Pin`. Workers send
pinned reads when they render pages. Processes that build definitions send them too. Card code never
gets a pin.

Each pin has a reader, which is a user, everyone (EVERYONE), or the realm itself (ITSELF). At every
request the server checks that the reader may still read the realm. So a pin ends when the reader
loses access.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from django.core import signing

PIN_HEADER = "X-Realm-Pin"
#: A response header. A published realm shows the files of its source realm. If a request asks for
#: several files of a published realm, the answer has the source realm's URL in this header.
SOURCE_HEADER = "X-Realm-Source"
#: The title of the error with which the server answers if a pin's reader has lost access.
PIN_ENDED = "Pin Ended"
#: A pin is valid for at most this many seconds after it was signed.
PIN_SECONDS = 3600
#: Within each period of this length, `sign` returns the same token for the same arguments. So a
#: process verifies the token's signature only once, and caches the result.
PIN_STEP_SECONDS = 600
#: This number takes the place of the generation if a realm is missing or may not be read.
UNREADABLE_GENERATION = 0
#: A pin with this reader opens its realm only while the realm is public. If the reader is a user,
#: the pin has the user's key instead (`reader_key` in `realms/access/auth.py`). No key is `*`.
EVERYONE = "*"
#: A pin with this reader opens its realm as long as the realm exists, and needs no user's rights. A
#: job uses such a pin to read the realm that it renders, and to ask for the address of any realm.
ITSELF = ""

_SALT = "realms.pin"


@dataclass(frozen=True)
class Pin:
    """A realm and the one generation at which the realm is read."""

    realm_url: str
    generation: int

    def path_of(self, url: str) -> str:
        """Returns the path that a public URL of the realm has within the realm, unescaped."""
        return unquote(url.removeprefix(self.realm_url))


@dataclass(frozen=True)
class Access:
    """The rights with which a job or a build of definitions reads realms. Both may read all public
    realms. A job with the id `job` may also read the realm `own`, which it renders. A build may
    also read the private realms that one user may read. `user` is the key of this user."""

    own: str = ""
    job: int = 0
    user: str = ""

    def reader_of(self, realm_url: str, *, private: bool = False) -> str:
        """Returns the reader for a realm's pin: ITSELF, EVERYONE or a user's key. `private` says
        that the realm isn't public."""
        if realm_url == self.own:
            return ITSELF
        return self.user if private and self.user else EVERYONE


@dataclass(frozen=True)
class SignedPin:
    """The content of a token. A request with the token has the access of `reader`. `job` is the id
    of the job that made the token, or 0 if no job made it."""

    pin: Pin
    job: int
    reader: str


class InvalidPin(Exception):
    """The token has a wrong signature or has expired."""


def sign(pin: Pin, reader: str = EVERYONE, job: int = 0) -> str:
    """Returns a signed token for a pin. The token is valid for at most an hour."""
    return _sign(pin, reader, job, int(time.time() // PIN_STEP_SECONDS))


@lru_cache(maxsize=256)
def _sign(pin: Pin, reader: str, job: int, step: int) -> str:
    claims = {
        "realm": pin.realm_url,
        "generation": pin.generation,
        "job": job,
        "reader": reader,
        "expires": step * PIN_STEP_SECONDS + PIN_SECONDS,
    }
    return signing.dumps(claims, salt=_SALT)


def read(token: str) -> SignedPin:
    """Verifies and decodes a token. Raises InvalidPin."""
    signed, expires = _verified(token)
    if expires <= time.time():
        raise InvalidPin("the token has expired")
    return signed


@lru_cache(maxsize=1024)
def _verified(token: str) -> tuple[SignedPin, int]:
    try:
        claims: dict[str, Any] = signing.loads(token, salt=_SALT)
        pin = Pin(str(claims["realm"]), int(claims["generation"]))
        return SignedPin(pin, int(claims["job"]), str(claims["reader"])), int(claims["expires"])
    except (signing.BadSignature, KeyError, TypeError, ValueError) as error:
        raise InvalidPin(str(error)) from error
