"""What `manage.py check --deploy` says of settings that would work, and shouldn't be used so."""

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

import dj_database_url
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from kombu.transport import TRANSPORT_ALIASES

#: A seed of this many characters can't be guessed, if it has enough different ones.
SEED_CHARACTERS, SEED_DIFFERENT = 32, 8
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")


def _id(number: int) -> str:
    return f"realms.{number:03}"


@register(Tags.security, deploy=True)
def seed(**_: Any) -> Iterator[CheckMessage]:
    """Whoever guesses the seed is the operator."""
    value = settings.REALM_SECRET_SEED
    if len(value) < SEED_CHARACTERS or len(set(value)) < SEED_DIFFERENT:
        yield Error(
            f"REALM_SECRET_SEED is weak: {len(value)} characters, {len(set(value))} different.",
            hint="Make one with: python -c 'import secrets; print(secrets.token_hex(32))'",
            id=_id(1),
        )


@register(Tags.security, deploy=True)
def public_origin(**_: Any) -> Iterator[CheckMessage]:
    """Every realm's URL begins with it, and it decides whether cookies are secure."""
    value = settings.REALM_PUBLIC_ORIGIN
    why = _not_an_origin(value)
    if why:
        yield Error(
            f"REALM_PUBLIC_ORIGIN is {value!r}, which {why}.",
            hint="Give scheme and host alone, as https://realms.example.com",
            id=_id(2),
        )
    elif value.startswith("http:") and not _local(_parts(value).hostname):
        yield Warning(
            f"REALM_PUBLIC_ORIGIN is {value!r}: tokens and sessions travel in plain text.",
            hint="Serve it by TLS, and begin the origin with https://",
            id=_id(3),
        )


@register(Tags.security, deploy=True)
def replica_address(**_: Any) -> Iterator[CheckMessage]:
    """Workers and peers reach the replica there, and so does the rest of the fleet."""
    value = settings.REALM_REPLICA_ADDRESS
    why = _not_an_origin(value)
    if why:
        yield Error(
            f"REALM_REPLICA_ADDRESS is {value!r}, which {why}.",
            hint="Give scheme, host and port, as http://10.0.0.5:4201",
            id=_id(4),
        )
    elif _local(_parts(value).hostname) and not _local(
        _parts(settings.REALM_PUBLIC_ORIGIN).hostname
    ):
        yield Warning(
            f"REALM_REPLICA_ADDRESS is {value!r}, at which no other machine finds this replica.",
            hint="Give an address in the network that the workers and the other replicas share.",
            id=_id(5),
        )


@register(Tags.security, deploy=True)
def broker(**_: Any) -> Iterator[CheckMessage]:
    """A message that nobody can take is sent again by the sweeper, for ever."""
    scheme = settings.CELERY_BROKER_URL.partition("://")[0]
    if scheme not in TRANSPORT_ALIASES:
        yield Error(
            f"CELERY_BROKER_URL has the unknown scheme {scheme!r}.",
            hint="Use amqp:// or redis://, or leave it empty for files in the data folder.",
            id=_id(6),
        )
    elif scheme == "memory":
        yield Error(
            "CELERY_BROKER_URL is memory://, which no other process can read from.",
            hint="Use amqp:// or redis://, or leave it empty for files in the data folder.",
            id=_id(7),
        )


@register(Tags.security, deploy=True)
def board(**_: Any) -> Iterator[CheckMessage]:
    """Without the board every read goes to the database."""
    folder = settings.REALM_BOARD.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Error(
            f"REALM_BOARD is in {str(folder)!r}, no folder that this process can write to.",
            hint="Make the folder; the web service and the sidecar share it, replicas don't.",
            id=_id(8),
        )


@register(Tags.security, deploy=True)
def publish_domains(**_: Any) -> Iterator[CheckMessage]:
    """What may be published where: authors' pages run at these hosts."""
    public = _parts(settings.REALM_PUBLIC_ORIGIN).hostname or ""
    for domain in settings.REALM_PUBLISH_DOMAINS:
        host = domain.partition(":")[0]
        labels = host.split(".")
        if "/" in domain or not all(labels) or domain != domain.strip().lower():
            yield Error(
                f"REALM_PUBLISH_DOMAINS has {domain!r}, which is no domain.",
                hint="Give host names in lower case, comma-separated: sites.example.com",
                id=_id(9),
            )
        elif len(labels) == 1 and not _local(host):
            yield Error(
                f"REALM_PUBLISH_DOMAINS has {domain!r}: anybody's host lies below it.",
                hint="Give a domain of your own, as sites.example.com",
                id=_id(10),
            )
        elif public.endswith(f".{host}") and not _local(host):
            yield Warning(
                f"REALM_PUBLISH_DOMAINS has {domain!r}, which the public origin lies below: a page "
                "published there can set cookies for it.",
                hint="Publish at a domain beside the public host, or best at another registered "
                "domain.",
                id=_id(11),
            )


@register(Tags.security, deploy=True)
def user_host(**_: Any) -> Iterator[CheckMessage]:
    """It ends every user id, and is what tells our users from others'."""
    value = settings.REALM_USER_HOST
    if not value or any(not (c.isalnum() or c in ".-") for c in value):
        yield Error(
            f"REALM_USER_HOST is {value!r}, which can't stand behind the colon of a user id.",
            hint="Give a host name, as example.com",
            id=_id(12),
        )


@register(Tags.security, deploy=True)
def listen_database(**_: Any) -> Iterator[CheckMessage]:
    """Notifications of another database are none of ours: every cache would be bypassed."""
    if not settings.LISTEN_DATABASE_URL or not settings.DATABASE_URL:
        return
    named = [
        dj_database_url.parse(url)["NAME"]
        for url in (settings.DATABASE_URL, settings.LISTEN_DATABASE_URL)
    ]
    if named[0] != named[1]:
        yield Error(
            f"LISTEN_DATABASE_URL names the database {named[1]!r}, DATABASE_URL {named[0]!r}.",
            hint="Give a direct connection to the same database.",
            id=_id(13),
        )


def _not_an_origin(value: str) -> str:
    """What is wrong with an origin; nothing if it is one."""
    parts = _parts(value)
    if parts.scheme not in ("http", "https") or not value.startswith(f"{parts.scheme}://"):
        return "does not begin with http:// or https://"
    if not parts.hostname or "@" in parts.netloc:
        return "has no valid host"
    if parts.path or parts.query or parts.fragment:
        return "has more than scheme, host and port"
    if value != value.lower() or parts.port == {"http": 80, "https": 443}[parts.scheme]:
        return "is not spelt as realm URLs are: in lower case, without the scheme's own port"
    return ""


def _parts(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  raises where it is no number
    except ValueError:
        return urlsplit("")
    return parts


def _local(host: str | None) -> bool:
    return host in _LOCAL or (host or "").endswith(".localhost")
