"""Adds checks to `manage.py check --deploy`. The checks find settings that are wrong or unsafe in
production.

A replica is a web service and its sidecar, the process `manage.py listen_file_changes`. The sidecar
tells the web service about changes through a file, the board.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import dj_database_url
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from kombu.transport import TRANSPORT_ALIASES

#: The minimum length of REALM_SECRET_SEED, and the minimum number of different characters in it.
SEED_CHARACTERS, SEED_DIFFERENT = 32, 8
_LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")


def _id(number: int) -> str:
    return f"realms.{number:03}"


@register(Tags.security, deploy=True)
def seed(**_: Any) -> Iterator[CheckMessage]:
    """Reports a weak REALM_SECRET_SEED. The seed signs tokens, so anyone who guesses it can act as
    the operator."""
    value = settings.REALM_SECRET_SEED
    if len(value) < SEED_CHARACTERS or len(set(value)) < SEED_DIFFERENT:
        yield Error(
            f"REALM_SECRET_SEED is weak: {len(value)} characters, {len(set(value))} different.",
            hint="Make a seed with: python -c 'import secrets; print(secrets.token_hex(32))'",
            id=_id(1),
        )


@register(Tags.security, deploy=True)
def public_origin(**_: Any) -> Iterator[CheckMessage]:
    """Reports a REALM_PUBLIC_ORIGIN that is not a valid origin. Also reports an origin without TLS,
    unless it is local. Realm URLs begin with this origin."""
    value = settings.REALM_PUBLIC_ORIGIN
    why = _not_an_origin(value)
    if why:
        yield Error(
            f"REALM_PUBLIC_ORIGIN is {value!r}, which {why}.",
            hint="Give only scheme and host, such as https://realms.example.com",
            id=_id(2),
        )
    elif value.startswith("http:") and not _local(_parts(value).hostname):
        yield Warning(
            f"REALM_PUBLIC_ORIGIN is {value!r}: tokens and sessions travel in plain text.",
            hint="Serve the origin over TLS, and set REALM_PUBLIC_ORIGIN to an https:// origin.",
            id=_id(3),
        )


@register(Tags.security, deploy=True)
def replica_address(**_: Any) -> Iterator[CheckMessage]:
    """Reports a REALM_REPLICA_ADDRESS that workers and other replicas can't reach."""
    value = settings.REALM_REPLICA_ADDRESS
    why = _not_an_origin(value)
    if why:
        yield Error(
            f"REALM_REPLICA_ADDRESS is {value!r}, which {why}.",
            hint="Give scheme, host and port, such as http://10.0.0.5:4201",
            id=_id(4),
        )
    elif _local(_parts(value).hostname) and not _local(
        _parts(settings.REALM_PUBLIC_ORIGIN).hostname
    ):
        yield Warning(
            f"REALM_REPLICA_ADDRESS is {value!r}, which other machines can't reach.",
            hint="Give an address that the workers and the other replicas can reach.",
            id=_id(5),
        )


@register(Tags.security, deploy=True)
def broker(**_: Any) -> Iterator[CheckMessage]:
    """Reports a CELERY_BROKER_URL that workers can't read from. With this broker, messages about
    jobs would reach no worker."""
    scheme = settings.CELERY_BROKER_URL.partition("://")[0]
    if scheme not in TRANSPORT_ALIASES:
        yield Error(
            f"CELERY_BROKER_URL has the unknown scheme {scheme!r}.",
            hint="Use amqp:// or redis://. With an empty value, messages go through files in the "
            "data folder.",
            id=_id(6),
        )
    elif scheme == "memory":
        yield Error(
            "CELERY_BROKER_URL is memory://, which no other process can read from.",
            hint="Use amqp:// or redis://. With an empty value, messages go through files in the "
            "data folder.",
            id=_id(7),
        )


@register(Tags.security, deploy=True)
def board(**_: Any) -> Iterator[CheckMessage]:
    """Reports a REALM_BOARD that can't be created in its folder. Without a board, the web service
    bypasses its caches and reads the database for every request."""
    folder = settings.REALM_BOARD.parent
    if folder == Path(settings.DATA_DIR):
        # If the data folder is missing, check its nearest parent that exists, because the first
        # process that needs the data folder creates it.
        folder = next(each for each in (folder, *folder.parents) if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Error(
            f"REALM_BOARD is in {str(folder)!r}, which is not a folder writable by this process.",
            hint="Make the folder, or let this process write to it. A replica's web service and "
            "sidecar share one board; each replica needs a board of its own.",
            id=_id(8),
        )


@register(Tags.security, deploy=True)
def publish_domains(**_: Any) -> Iterator[CheckMessage]:
    """Reports values in REALM_PUBLISH_DOMAINS that are not domains. Also reports publish domains
    that share cookies with other owners' hosts or with the public origin. Authors' code runs in the
    pages at publish domains, and could set these cookies."""
    public = _parts(settings.REALM_PUBLIC_ORIGIN).hostname or ""
    for domain in settings.REALM_PUBLISH_DOMAINS:
        host = domain.partition(":")[0]
        labels = host.split(".")
        if "/" in domain or not all(labels) or domain != domain.strip().lower():
            yield Error(
                f"REALM_PUBLISH_DOMAINS has {domain!r}, which is not a domain.",
                hint="Give host names in lower case, comma-separated, such as sites.example.com",
                id=_id(9),
            )
        elif len(labels) == 1 and not _local(host):
            yield Error(
                f"REALM_PUBLISH_DOMAINS has {domain!r}, a top-level domain. "
                "Hosts below a top-level domain belong to many different owners.",
                hint="Give a domain of your own, such as sites.example.com",
                id=_id(10),
            )
        elif public.endswith(f".{host}") and not _local(host):
            yield Warning(
                f"REALM_PUBLISH_DOMAINS has {domain!r}, which is a parent domain of the public "
                "origin. Pages at this domain can set cookies for the public origin.",
                hint="Publish at another registered domain, or at least at a domain that is not a "
                "parent of the public host.",
                id=_id(11),
            )


@register(Tags.security, deploy=True)
def user_host(**_: Any) -> Iterator[CheckMessage]:
    """Reports an invalid REALM_USER_HOST. Every user id ends in this host, so that the ids of
    different servers differ."""
    value = settings.REALM_USER_HOST
    if not value or any(not (c.isalnum() or c in ".-") for c in value):
        yield Error(
            f"REALM_USER_HOST is {value!r}, which is not a valid host for user ids.",
            hint="Give a host name, such as example.com",
            id=_id(12),
        )


@register(Tags.security, deploy=True)
def listen_database(**_: Any) -> Iterator[CheckMessage]:
    """Reports a LISTEN_DATABASE_URL and a DATABASE_URL with different database names. A sidecar
    that listens to another database receives no notifications of changes, so its replica bypasses
    its caches."""
    if not settings.LISTEN_DATABASE_URL or not settings.DATABASE_URL:
        return
    name, listen_name = [
        dj_database_url.parse(url)["NAME"]
        for url in (settings.DATABASE_URL, settings.LISTEN_DATABASE_URL)
    ]
    if name != listen_name:
        yield Error(
            f"LISTEN_DATABASE_URL is for the database {listen_name!r}, but DATABASE_URL is for "
            f"{name!r}.",
            hint="Set LISTEN_DATABASE_URL to a direct connection to the database of DATABASE_URL.",
            id=_id(13),
        )


def _not_an_origin(value: str) -> str:
    """Returns the reason why a value is not a valid origin, or an empty text for a valid origin."""
    parts = _parts(value)
    if parts.scheme not in ("http", "https") or not value.startswith(f"{parts.scheme}://"):
        return "does not begin with http:// or https://"
    if not parts.hostname or "@" in parts.netloc:
        return "has no valid host"
    if parts.path or parts.query or parts.fragment:
        return "has more than scheme, host and port"
    if value != value.lower() or parts.port == {"http": 80, "https": 443}[parts.scheme]:
        return "has upper-case letters or the scheme's default port; realm URLs have neither"
    return ""


def _parts(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018  raises ValueError if the port is invalid
    except ValueError:
        return urlsplit("")
    return parts


def _local(host: str | None) -> bool:
    return host in _LOCAL or (host or "").endswith(".localhost")
