"""Decides who may create a realm at a URL that has no realm.

At the public origin (REALM_PUBLIC_ORIGIN), a user owns the URLs below the user's own name. At any
other host, the owner of the host's first realm owns the host with all its ports, because browsers
share cookies between the ports of a host. At the hosts of this server, realms are allowed only at
the public origin.
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
    """Raises ForeignDomain for a URL that isn't at a domain in REALM_PUBLISH_DOMAINS or at a
    subdomain of one. Raises OwnHost for a URL at a host of this server, unless the URL is at the
    public origin. The hosts of this server are those of the public origin, the admin and the
    replicas.

    Browsers share cookies between the ports of a host. So authors' scripts must not run at any port
    of these hosts. Realms are allowed at the public origin, because the server sends authors' files
    there with a policy that sandboxes them.
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
    """Returns whether a URL that has no realm is reserved for accounts other than `account`.

    At the public origin, a URL below a username is reserved for the account with this username. Any
    other URL is reserved for the accounts that own realms at the URL's host, with any port. Realms
    of the owners in `also` don't reserve a URL.
    """
    others = Realm.objects.exclude(kind=Realm.Kind.BOOTSTRAP)
    others = others.exclude(owner__in=[account, *also])
    if not _at_public_origin(url):
        return others.filter(_at_host(urlsplit(url).hostname or "")).exists()
    name = first_segment(url)
    if account is None or name != account.get_username() or is_reserved(name):
        return True
    # Another account may have had this username before, and may still have realms below it. Until
    # these realms are deleted, the URLs below the username are reserved for that account.
    since = AccountName.objects.filter(account=account.pk).values("since")
    below = f"{settings.REALM_PUBLIC_ORIGIN}/{name}/"
    return others.filter(url__startswith=below, created_at__lt=Subquery(since)).exists()


def _at_host(host: str) -> Q:
    """Returns the condition for realms at a host, with any scheme and port."""
    condition = Q()
    for scheme in ("http", "https"):
        for end in ("/", ":"):
            condition |= Q(url__startswith=f"{scheme}://{host}{end}")
    return condition


def space_lock(url: str) -> list[str]:
    """Returns the name of the lock for a URL's space, as a list. At the public origin, a space
    consists of all URLs below one username. Elsewhere, it consists of all URLs at one host. The
    first realm in a space can reserve the space for its owner, so transactions that create realms
    in one space must not overlap."""
    host = urlsplit(url).hostname or ""
    return [f"space|{host}/{first_segment(url)}" if _at_public_origin(url) else f"space|{host}"]


def _at_public_origin(url: str) -> bool:
    return url.startswith(f"{settings.REALM_PUBLIC_ORIGIN}/")


def first_segment(url: str) -> str:
    """Returns the first segment of a URL's path. At the public origin, this segment is the owner's
    username."""
    return urlsplit(url).path.split("/")[1]


def _own_hosts() -> set[str]:
    """Returns the host names of the public origin, the replicas and the admin."""
    addresses = Replica.objects.values_list("address", flat=True)
    origins = (
        settings.REALM_PUBLIC_ORIGIN,
        settings.REALM_REPLICA_ADDRESS,
        settings.REALM_ADMIN_ORIGIN,
        *addresses,
    )
    return {urlsplit(origin).hostname or "" for origin in origins if origin}
