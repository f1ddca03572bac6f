"""Signs and verifies pins. A pin is a token for reading one realm at exactly one generation.

Each request to `/_at/<path>` has a pin in its header `X-Realm-Pin`. Workers and definition builders
have pins; card code never gets one. Each pin has a reader, which is a user, everyone, or the realm
that a job renders. The server checks the reader's access at every request, so a pin ends when the
access ends.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from django.core import signing

PIN_HEADER = "X-Realm-Pin"
#: A response header with the URL of a published realm's source realm. Only the response to a pinned
#: read of several files has this header.
SOURCE_HEADER = "X-Realm-Source"
#: The title of an error. A replica responds with this error if a pin's reader has lost access.
PIN_ENDED = "Pin Ended"
PIN_SECONDS = 3600
#: Within each period of this length, a job sends the same token for a pin.
PIN_STEP_SECONDS = 600
#: The generation in the pin of a realm that is missing or that the reader may not read.
UNREADABLE_GENERATION = 0
#: A pin with this reader opens public realms only. No user's key has this value.
EVERYONE = "*"
#: A pin with this reader lets a job read the realm that the job renders. The pin needs no user's
#: rights, and is valid while the realm exists.
ITSELF = ""

_SALT = "realms.pin"


@dataclass(frozen=True)
class Pin:
    """A realm at exactly one generation."""

    realm_url: str
    generation: int

    def path_of(self, url: str) -> str:
        """Returns the unescaped path of a public URL within the realm."""
        return unquote(url.removeprefix(self.realm_url))


@dataclass(frozen=True)
class Access:
    """The rights that are used to read realms. A job with the id `job` renders the pages of the
    realm `own`. Private realms are read with the rights of one user, and `user` is this user's
    key."""

    own: str = ""
    job: int = 0
    user: str = ""

    def reader_of(self, realm_url: str, *, private: bool = False) -> str:
        """Returns the reader for a realm's pin: ITSELF, EVERYONE or a user's key."""
        if realm_url == self.own:
            return ITSELF
        return self.user if private and self.user else EVERYONE


@dataclass(frozen=True)
class SignedPin:
    """The content of a token. The token was made for one job, and uses the access of `reader`."""

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
