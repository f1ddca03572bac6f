"""Checks and normalizes realm URLs and file paths, and converts the addresses in requests to realm
URLs and file paths.

A stored realm URL has the scheme of REALM_PUBLIC_ORIGIN, a lower-case host and a final slash. It
has no query, and omits the default port of its scheme. The segments of its path need no escaping.
File paths are stored unescaped and in Unicode's composed form (NFC).
"""

import re
from urllib.parse import unquote, urlsplit

from django.conf import settings

from definitions.extensions import MODULE_ENDINGS
from notifications.short_cached import short_cached
from notifications.texts import MAX_PATH_BYTES, composed, wrong_with_path
from realms.errors import InvalidPath, InvalidURL
from reindex.reading.card_paths import CARD_EXTENSION

_SEGMENT = re.compile(r"[A-Za-z0-9~-][A-Za-z0-9._~-]*")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_AUTHORITY = re.compile(r"^(\[[^]]*\]|[^:]*):?(.*)$")
_DEFAULT_PORT = {"http": 80, "https": 443}

#: The extensions that the URL of a source file may omit.
SOURCE_ENDINGS = (*MODULE_ENDINGS, CARD_EXTENSION)


def canonical_realm_url(text: object) -> str:
    """Returns a realm URL in its canonical form. Raises InvalidURL with the reason."""
    if not isinstance(text, str):
        raise InvalidURL(url=repr(text), why="is not a string")
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise InvalidURL(url=text, why=f"can't be parsed: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise InvalidURL(url=text, why="does not start with http:// or https://")
    host = (parts.hostname or "").lower()
    if not _HOST.fullmatch(host) or parts.username is not None or parts.password is not None:
        raise InvalidURL(url=text, why="has no valid host")
    segments = parts.path.removesuffix("/").split("/")[1:]
    for segment in segments:
        if not _SEGMENT.fullmatch(segment):
            raise InvalidURL(
                url=text,
                why=f"has the path segment {segment!r}; expected letters, digits and . _ ~ -, "
                "not starting with . or _",
            )
    scheme = urlsplit(settings.REALM_PUBLIC_ORIGIN).scheme
    default = port in (None, _DEFAULT_PORT[parts.scheme], _DEFAULT_PORT[scheme])
    authority = host if default else f"{host}:{port}"
    url = f"{scheme}://{authority}/" + "".join(f"{segment}/" for segment in segments)
    if len(url) > MAX_PATH_BYTES:
        raise InvalidURL(url=f"{url[:60]}…", why=f"is longer than {MAX_PATH_BYTES} bytes")
    return url


def check_path(path: str, realm_url: str = "") -> str:
    """Returns the path in Unicode's composed form. Raises InvalidPath with the reason if no file
    of the realm may have this path."""
    path = composed(path)
    why = wrong_with_path(path, realm_url)
    if why:
        raise InvalidPath(path=path if len(path) <= 200 else f"{path[:60]}…", why=why)
    return path


def same_name(one: str, other: str) -> str:
    """Returns the error message for two names that differ only in Unicode composition. In the
    message, non-ASCII characters are escaped, because the two names look the same."""
    return f"{one!a} and {other!a} name one file, because they differ only in Unicode composition"


def file_path(href: str, realm_url: str) -> str | None:
    """Converts `href` to a file's path within a realm. `href` is a URL, an absolute path with a
    leading slash, or a path relative to the realm. Returns None if `href` refers to a URL outside
    the realm. Raises InvalidPath."""
    if href.startswith(("http://", "https://")):
        scheme_free, realm_free = href.split("://", 1)[1], realm_url.split("://", 1)[1]
        if not scheme_free.startswith(realm_free):
            return None
        href = scheme_free.removeprefix(realm_free)
    elif href.startswith("/"):
        prefix = urlsplit(realm_url).path
        if not href.startswith(prefix):
            return None
        href = href.removeprefix(prefix)
    try:
        path = unquote(href.removeprefix("./"), errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidPath(path=href[:200], why="it is not valid UTF-8") from error
    return check_path(path, realm_url)


@short_cached(maxsize=4096)
def public_origin(host: str) -> str:
    """Returns the public origin of the realms that a request with the Host header `host` asks for.

    A client may send requests directly to one replica, at REALM_REPLICA_ADDRESS. If `host` is the
    replica's own host and port, the result is REALM_PUBLIC_ORIGIN. If `host` is another host with
    the replica's port, the port of REALM_PUBLIC_ORIGIN replaces the replica's port. For example, if
    the replica's port is 8000 and REALM_PUBLIC_ORIGIN is `http://localhost:4201`, the result for
    `ada.localhost:8000` is `http://ada.localhost:4201`.
    """
    public = urlsplit(settings.REALM_PUBLIC_ORIGIN)
    name, port = _authority(host)
    own_name, own_port = _authority(urlsplit(settings.REALM_REPLICA_ADDRESS).netloc)
    if (name, port) == (own_name, own_port):
        return settings.REALM_PUBLIC_ORIGIN
    if port and port == own_port:
        port = str(public.port or "")
    if port == str(_DEFAULT_PORT[public.scheme]):
        port = ""
    return f"{public.scheme}://{name}:{port}" if port else f"{public.scheme}://{name}"


def is_within_reach(realm_url: str) -> bool:
    """Returns whether a realm's URL has this server's public scheme and port, so that visitors can
    reach the realm. A realm that was created under another REALM_PUBLIC_ORIGIN may have another
    scheme or port."""
    public, own = urlsplit(settings.REALM_PUBLIC_ORIGIN), urlsplit(realm_url)
    return (own.scheme, own.port) == (public.scheme, public.port)


def _authority(text: str) -> tuple[str, str]:
    """Splits `text`, such as `localhost:4201`, into the host and the port. The port is empty if
    `text` has no port. The host may be an IPv6 address in brackets, which contains colons."""
    name, port = _AUTHORITY.findall(without_final_dot(text).lower())[0]
    return name, port


def without_final_dot(host: str) -> str:
    """Returns a Host header without the final dot of the host: `localhost.:4201` is the same host
    as `localhost:4201`."""
    name, colon, port = host.rpartition(":") if ":" in host else (host, "", "")
    return name.removesuffix(".") + colon + port


def realm_candidates(url: str) -> list[str]:
    """Returns every URL that the realm of `url` may have, the longest first. These URLs are the
    prefixes of `url` that include the origin and end with a slash."""
    start = url.find("://") + 3
    # A realm URL is ASCII and has at most MAX_PATH_BYTES bytes. `url` may be longer.
    ends = [at for at in range(start, min(len(url), MAX_PATH_BYTES)) if url[at] == "/"]
    return [url[: end + 1] for end in reversed(ends)]
