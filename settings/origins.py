"""Checks the origins and proxies in the settings, and makes the settings of the admin's cookies."""

import re
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def admin_origin(text: str, *realm_origins: str) -> str:
    """Returns `text`, the origin of the admin, in lower case and without a default port. Returns ""
    if `text` is empty, because the admin then shares the public origin.

    Raises ImproperlyConfigured if `text` isn't an origin, or if it has the host and port of one of
    the `realm_origins`, at which realms are served.
    """
    origin = _without_default_port(text)
    if not origin:
        return ""
    if not _ORIGIN.fullmatch(origin):
        raise ImproperlyConfigured(
            f"REALM_ADMIN_ORIGIN is {text!r}; expected a scheme and a host, and the port if it is "
            "not the default port, such as https://admin.example.com"
        )
    taken = [urlsplit(_without_default_port(each)).netloc for each in realm_origins]
    if urlsplit(origin).netloc in taken:
        raise ImproperlyConfigured(
            f"REALM_ADMIN_ORIGIN is {text!r}, where realms are served too; expected a host of its "
            "own, or nothing"
        )
    return origin


def _without_default_port(origin: str) -> str:
    origin = origin.rstrip("/").lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def admin_cookies(origin: str) -> dict[str, Any]:
    """Returns Django's settings for the admin's cookies at `origin`.

    Over https, the names of these cookies begin with `__Host-`. Browsers send such a cookie only
    to the host that set it. So a site at another host of the same domain can't replace the admin's
    cookies.
    """
    secure = origin.startswith("https:")
    prefix = "__Host-" if secure else ""
    return {
        "SESSION_COOKIE_NAME": f"{prefix}realm_session",
        "CSRF_COOKIE_NAME": f"{prefix}realm_csrf",
        "SESSION_COOKIE_SECURE": secure,
        "CSRF_COOKIE_SECURE": secure,
        "SESSION_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_PATH": "/",
        "CSRF_COOKIE_PATH": "/",
        "SESSION_COOKIE_DOMAIN": None,
        "CSRF_COOKIE_DOMAIN": None,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "CSRF_COOKIE_SAMESITE": "Lax",
        "CSRF_TRUSTED_ORIGINS": [origin],
    }


def trusted_proxies(text: str) -> list[str]:
    """Returns the addresses and networks in a comma-separated list. Raises ImproperlyConfigured for
    an entry that is neither an address nor a network."""
    proxies = [each.strip() for each in text.split(",") if each.strip()]
    for each in proxies:
        try:
            ip_network(each)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"REALM_TRUSTED_PROXIES names {each!r}; expected an address or a network, such as "
                "10.0.0.0/8"
            ) from error
    return proxies
