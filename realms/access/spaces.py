"""Whose a URL is before a realm stands there: names at the public origin, hosts elsewhere.

A browser tells sites apart by host name when it keeps cookies, and doesn't look at the port. So a
host name with every port belongs to one owner, and the hosts of this server to nobody.
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
    """Raises ForeignDomain for a URL that isn't below a publish domain, dot boundaries kept, and
    OwnHost for one at a host of this server's own.

    A browser keeps cookies by host name, whatever the port: at the host of the admin and of the
    replicas there is nothing but the public origin, where what authors write can't run.
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
    """Whether a free URL lies in somebody else's space: at the public origin below another user's
    name, elsewhere on a host, whatever the port, where another has a realm. `also` are owners whose
    realms there don't matter either."""
    others = Realm.objects.exclude(kind=Realm.Kind.BOOTSTRAP)
    others = others.exclude(owner__in=[account, *also])
    if not _at_public_origin(url):
        return others.filter(_at_host(urlsplit(url).hostname or "")).exists()
    name = first_segment(url)
    if account is None or name != account.get_username() or is_reserved(name):
        return True
    # Somebody else had the name before: the realms below it stay in their owner's company.
    since = AccountName.objects.filter(account=account.pk).values("since")
    below = f"{settings.REALM_PUBLIC_ORIGIN}/{name}/"
    return others.filter(url__startswith=below, created_at__lt=Subquery(since)).exists()


def _at_host(host: str) -> Q:
    """The realms at a host, whatever the scheme and the port."""
    found = Q()
    for scheme in ("http", "https"):
        for end in ("/", ":"):
            found |= Q(url__startswith=f"{scheme}://{host}{end}")
    return found


def space_lock(url: str) -> list[str]:
    """The lock of the space of a URL: whose it is depends on who is in it first, which only a lock
    can tell."""
    host = urlsplit(url).hostname or ""
    return [f"space|{host}/{first_segment(url)}" if _at_public_origin(url) else f"space|{host}"]


def _at_public_origin(url: str) -> bool:
    return url.startswith(f"{settings.REALM_PUBLIC_ORIGIN}/")


def first_segment(url: str) -> str:
    """The name below which a URL lies at the public origin."""
    return urlsplit(url).path.split("/")[1]


def _own_hosts() -> set[str]:
    """The names of the hosts at which this server itself answers, the admin among the rest."""
    addresses = Replica.objects.values_list("address", flat=True)
    origins = (
        settings.REALM_PUBLIC_ORIGIN,
        settings.REALM_REPLICA_ADDRESS,
        settings.REALM_ADMIN_ORIGIN,
        *addresses,
    )
    return {urlsplit(origin).hostname or "" for origin in origins if origin}
