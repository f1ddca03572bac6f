"""Decides which host serves which paths, and sets the security policy headers of every answer.

A browser gives a page's scripts access to the host from which it loaded the page. An author's
scripts must run only at their realm's own host. So at every other host (the public origin, a
replica's address, another realm's host) each answer except the admin's has a sandbox policy. In a
page with this policy, the browser runs no scripts. The policy affects only pages. Images, style
sheets and scripts that have it can still be loaded by other pages.

The front (`realms/front.py`) answers some requests without Django, and calls `policy` for each
answer that it sends. `OriginMiddleware` calls `policy` for each answer that Django sends, except
the admin's. A view sets a policy of its own only if its answer needs a stricter one, for example
`preview` in `drafts.py`.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from notifications.short_cached import short_cached
from realms.addresses import public_origin, without_final_dot
from realms.errors import NotFound
from realms.http.error_answers import error_response
from realms.http.headers import Headers

CSP = "content-security-policy"
_NOSNIFF = ("x-content-type-options", "nosniff")
_NO_FRAMES = ("x-frame-options", "DENY")
_SANDBOX = (CSP, "sandbox allow-popups allow-forms")
#: First path segments of the admin and its static files.
_ADMIN = ("_admin", "_static")
_DEFAULT_PORT = {"http": ":80", "https": ":443"}


@short_cached(maxsize=4096)
def policy(host: str, realm_url: str | None) -> Headers:
    """Returns the security policy headers of the answer to a request with this Host header.
    `realm_url` is the answer's realm; None for the server's own answers."""
    if realm_url is None:
        return (_NOSNIFF, _NO_FRAMES, _SANDBOX)
    return (_NOSNIFF,) if _is_own_host(host, realm_url) else (_NOSNIFF, _SANDBOX)


def joined(name: str, value: str, more: str | None) -> str:
    """Returns the value of the policy header `name`. If the header is Content-Security-Policy,
    appends `more`, the answer's own policy, to `value`. The browser then enforces both policies."""
    return f"{value}, {more}" if name == CSP and more else value


def with_policy(headers: Headers, host: str, realm_url: str | None) -> list[tuple[str, str]]:
    """Returns an answer's headers together with the policy headers. The result is the same as if
    `OriginMiddleware` had set the policy headers."""
    added = dict(policy(host, realm_url))
    own = dict(headers).get(CSP)
    kept = [each for each in headers if each[0] not in added]
    return [*kept, *((name, joined(name, value, own)) for name, value in added.items())]


def _is_own_host(host: str, realm_url: str) -> bool:
    """Returns whether a host is the realm's own host and not a shared host.

    The hosts of REALM_PUBLIC_ORIGIN, REALM_ADMIN_ORIGIN and REALM_REPLICA_ADDRESS are shared hosts.
    Their port doesn't matter, because browsers send a host's cookies to all its ports.
    """
    parts = urlsplit(realm_url)
    shared = (settings.REALM_PUBLIC_ORIGIN, settings.REALM_ADMIN_ORIGIN)
    names = [urlsplit(each).hostname for each in (*shared, settings.REALM_REPLICA_ADDRESS)]
    return parts.hostname not in names and _authority(host, parts.scheme) == parts.netloc


def _authority(host: str, scheme: str) -> str:
    return without_final_dot(host).lower().removesuffix(_DEFAULT_PORT[scheme])


@short_cached(maxsize=4096)
def is_admin_host(host: str) -> bool:
    """Returns whether a Host header is the host of REALM_ADMIN_ORIGIN. Returns False if that
    setting is empty. Returns False for the same host with a final dot, because browsers treat this
    host as another origin."""
    origin = urlsplit(settings.REALM_ADMIN_ORIGIN)
    named = host.lower().removesuffix(_DEFAULT_PORT.get(origin.scheme, ""))
    return bool(origin.netloc) and named == origin.netloc


def draft_policy(host: str, realm_url: str) -> Headers:
    """Returns the policy headers that the preview of a draft adds to the headers of `policy`. The
    preview may show private content. So that other hosts can't get this content, the preview may
    load only images, styles, fonts and media of its own realm."""
    parts = urlsplit(realm_url)
    # A relative reference in the page leads to the requested host. An absolute reference to a file
    # of the realm leads to the realm's own host. In a policy, an `http:` URL also allows the same
    # URL with `https:`.
    own = " ".join(f"http://{each}{parts.path}" for each in dict.fromkeys((host, parts.netloc)))
    directives = (
        "sandbox",
        "default-src 'none'",
        f"img-src data: {own}",
        f"style-src 'unsafe-inline' {own}",
        f"font-src data: {own}",
        f"media-src data: {own}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return (
        (CSP, "; ".join(directives)),
        ("referrer-policy", "no-referrer"),
        ("x-dns-prefetch-control", "off"),
    )


class OriginMiddleware:
    """Sets the security policy of every answer of Django. It is the first middleware, so every
    answer passes through it.

    If REALM_ADMIN_ORIGIN is set, the admin and its static files are served only at that origin, and
    nothing else is served there. If REALM_ADMIN_ORIGIN is empty, the admin and its static files are
    served at the public origin and at this replica's own address.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        host = request.META.get("HTTP_HOST", "")
        if _answers(host, request.path_info):
            response = self._get_response(request)
        else:
            response = error_response(NotFound(url=request.path_info[:200]))
        match = request.resolver_match
        if match is not None and "admin" in match.app_names:
            headers: Headers = (_NOSNIFF, _NO_FRAMES)
        else:
            headers = policy(host, response.headers.get("X-Boxel-Realm-Url"))
        for name, value in headers:
            response[name] = joined(name, value, response.headers.get(CSP))
        return response


def _answers(host: str, path: str) -> bool:
    """Returns whether a host serves a path."""
    is_admin = path.split("/", 2)[1:2] in [[each] for each in _ADMIN]
    if settings.REALM_ADMIN_ORIGIN:
        return is_admin == is_admin_host(host)
    return not is_admin or public_origin(host) == settings.REALM_PUBLIC_ORIGIN
