"""Pins: signed tokens that name a realm, an exact generation, and until when they are good.

Module imports can't carry headers, so what a render reads is named by its URL:
`/_at/<token>/<path>`. Relative imports inherit the token, and with it the generation.
"""

import time
from dataclasses import dataclass
from urllib.parse import unquote

import jwt
from django.conf import settings

PIN_SECONDS = 3600
#: The tokens of one pin are the same for so long, so that what was read by one is known by it.
PIN_STEP_SECONDS = 600
#: What a job has in place of the generation of a realm that it may not read.
CLOSED = 0
_KIND = "pin"


@dataclass(frozen=True)
class Pin:
    """A realm as of exactly one generation."""

    realm_url: str
    generation: int

    def path_of(self, url: str) -> str:
        """The path in the realm, unescaped, that a public URL of it means."""
        return unquote(url.removeprefix(self.realm_url))


class InvalidPin(Exception):
    """The token is not one of ours, or its time is over."""


def sign(pin: Pin) -> str:
    """The token of a pin, good for an hour."""
    claims = {
        "kind": _KIND,
        "pinned": pin.realm_url,
        "generation": pin.generation,
        # In steps, so that the processes of one job name the same bytes by the same URL.
        "exp": int(time.time() // PIN_STEP_SECONDS * PIN_STEP_SECONDS) + PIN_SECONDS,
    }
    return jwt.encode(claims, settings.REALM_SECRET_SEED, algorithm="HS256")


def read(token: str) -> Pin:
    """The pin of a token. Raises InvalidPin."""
    try:
        claims = jwt.decode(
            token, settings.REALM_SECRET_SEED, algorithms=["HS256"], options={"require": ["exp"]}
        )
        if claims.get("kind") != _KIND:
            raise InvalidPin("not a pin")
        return Pin(str(claims["pinned"]), int(claims["generation"]))
    except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
        raise InvalidPin(str(error)) from error
