"""Pins: signed tokens for reading one realm at exactly one generation.

A pin travels in the header `X-Realm-Pin` of a request to `/_at/<path>`, and is held by workers and
by what builds definitions, never by card code. It names whose access it stands for; the realm's
server checks that access at every read, so a pin ends when the access does.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from django.core import signing

PIN_HEADER = "X-Realm-Pin"
#: Tells who holds a pin of a published realm which source realm it shows.
SOURCE_HEADER = "X-Realm-Source"
#: The title of the error that refuses a pin whose access has ended.
PIN_ENDED = "Pin Ended"
PIN_SECONDS = 3600
#: One token serves the reads of a job for so long.
PIN_STEP_SECONDS = 600
#: The generation that a job records for a realm that it may not read.
UNREADABLE_GENERATION = 0
#: Reads what everyone may read. No reader's key is this.
EVERYONE = "*"
#: Reads the realm whose own pages are made, for as long as the realm stands.
ITSELF = ""

_SALT = "realms.pin"


@dataclass(frozen=True)
class Pin:
    """A realm as of exactly one generation."""

    realm_url: str
    generation: int

    def path_of(self, url: str) -> str:
        """The path in the realm, unescaped, that a public URL of it means."""
        return unquote(url.removeprefix(self.realm_url))


@dataclass(frozen=True)
class Access:
    """On whose behalf realms are read: `own` is the realm whose pages are made, `job` its job, and
    `user` the key of a reader whose rights are used where everyone's don't suffice."""

    own: str = ""
    job: int = 0
    user: str = ""

    def reader_of(self, realm_url: str, *, private: bool = False) -> str:
        """Whose access a pin of a realm stands for."""
        if realm_url == self.own:
            return ITSELF
        return self.user if private and self.user else EVERYONE


@dataclass(frozen=True)
class SignedPin:
    """What a token says: the pin, the job that it was made for, and whose access it stands for."""

    pin: Pin
    job: int
    reader: str


class InvalidPin(Exception):
    """The token is not one of ours, or its time is over."""


def sign(pin: Pin, reader: str = EVERYONE, job: int = 0) -> str:
    """The token of a pin, good for an hour at most."""
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
    """What a token says. Raises InvalidPin."""
    signed, expires = _verified(token)
    if expires <= time.time():
        raise InvalidPin("its time is over")
    return signed


@lru_cache(maxsize=1024)
def _verified(token: str) -> tuple[SignedPin, int]:
    try:
        claims: dict[str, Any] = signing.loads(token, salt=_SALT)
        pin = Pin(str(claims["realm"]), int(claims["generation"]))
        return SignedPin(pin, int(claims["job"]), str(claims["reader"])), int(claims["expires"])
    except (signing.BadSignature, KeyError, TypeError, ValueError) as error:
        raise InvalidPin(str(error)) from error
