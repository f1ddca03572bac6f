"""Decides who may create a realm at a free URL. At the public origin, a user owns the URLs below
the username; elsewhere, the owner of a host's first realm owns the host.

Browsers share cookies between all ports of a host. So a host name with all its ports has one owner,
and nobody may own the hosts of this server.
"""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import Q, Subquery

from notifications.models import Replica
from realms import errors
from realms.access.usernames import is_reserved
from realms.models import AccountName, Realm


def check_domain(url: str) -> None:
    """Raises ForeignDomain for a URL that isn't at a publish domain or a subdomain of one, and
    OwnHost for a URL at a host of this server.

    Browsers share cookies between the ports of a host. So at the hosts of the admin and the
    replicas, realms are only allowed at the public origin, where authors' code can't run.
    """
    parts = urlsplit(url)
    hosts = (parts.hostname or "", parts.netloc)
    if not any(
        host == domain or host.endswith(f".{domain}")
        for domain in settings.REALM_PUBLISH_DOMAINS
        for host in hosts
    ):
        raise errors.ForeignDomain(url=url, domains=", ".join(settings.REALM_PUBLISH_DOMAINS))
    if hosts[0] in _own_hosts() and not _at_public_origin(url):
        raise errors.OwnHost(url=url, origin=settings.REALM_PUBLIC_ORIGIN)


def belongs_to_another(url: str, account: Any, *also: Any) -> bool:
    """Whether a free URL lies in another account's space: at the public origin below another
    username, elsewhere on a host (with any port) where another account has a realm. Realms of the
    owners in `also` are ignored."""
    others = Realm.objects.exclude(kind=Realm.Kind.BOOTSTRAP)
    others = others.exclude(owner__in=[account, *also])
    if not _at_public_origin(url):
        return others.filter(_at_host(urlsplit(url).hostname or "")).exists()
    name = first_segment(url)
    if account is None or name != account.get_username() or is_reserved(name):
        return True
    # While a former owner of the username has realms below it, the space still belongs to that
    # owner.
    since = AccountName.objects.filter(account=account.pk).values("since")
    below = f"{settings.REALM_PUBLIC_ORIGIN}/{name}/"
    return others.filter(url__startswith=below, created_at__lt=Subquery(since)).exists()


def _at_host(host: str) -> Q:
    """The condition for realms at a host, with any scheme and port."""
    condition = Q()
    for scheme in ("http", "https"):
        for end in ("/", ":"):
            condition |= Q(url__startswith=f"{scheme}://{host}{end}")
    return condition


def space_lock(url: str) -> list[str]:
    """The lock for the space of a URL. The first realm in a space decides who owns the space, so
    two creations in one space must not overlap."""
    host = urlsplit(url).hostname or ""
    return [f"space|{host}/{first_segment(url)}" if _at_public_origin(url) else f"space|{host}"]


def _at_public_origin(url: str) -> bool:
    return url.startswith(f"{settings.REALM_PUBLIC_ORIGIN}/")


def first_segment(url: str) -> str:
    """The first path segment of a URL: at the public origin, its owner's username."""
    return urlsplit(url).path.split("/")[1]


def _own_hosts() -> set[str]:
    """The host names of this server: public origin, replicas and admin."""
    addresses = Replica.objects.values_list("address", flat=True)
    origins = (
        settings.REALM_PUBLIC_ORIGIN,
        settings.REALM_REPLICA_ADDRESS,
        settings.REALM_ADMIN_ORIGIN,
        *addresses,
    )
    return {urlsplit(origin).hostname or "" for origin in origins if origin}
