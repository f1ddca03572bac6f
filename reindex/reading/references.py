"""Resolves the specifiers of imports and the links of cards to URLs."""

import re
from urllib.parse import quote, unquote, urljoin, urlsplit

from django.conf import settings

from notifications.short_cached import short_cached
from notifications.texts import composed
from reindex.reading.card_paths import card_of

#: The realm of the card library.
BASE_REALM = f"{settings.REALM_PUBLIC_ORIGIN}/base/"
#: The module that cards and modules import as `@realm/base`.
BASE_MODULE = f"{BASE_REALM}mod.ts"

#: Matches each URL that could lie in a realm of this server. If a card or module names any other
#: URL, the server doesn't request it.
SERVABLE = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/[^\s\x00-\x1f\x7f]{0,4000}")

#: Matches a relative reference if its last segment needs no escaping or normalizing. The first
#: group is the folder part of the reference, and the second group is the last segment.
_PLAIN = re.compile(r"(\.\.?/(?:[^?#]*/)?)([A-Za-z0-9_-][A-Za-z0-9._-]*)")

#: The characters besides letters and digits that JavaScript leaves unescaped in a URL's path
#: (WHATWG URL, section 1.3).
UNESCAPED = "/:@!$&'()*+,;=~-._[]|^"

_PLAIN_SEGMENT = re.compile(r"[\w.~!*'():@$&+,;=\[\]|^-]*", re.ASCII)
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")

#: Matches non-ASCII characters, escaped or not, and the ASCII character before them. Unicode NFC
#: may combine this character with the character after it, for example `e` with an accent.
_BEYOND_ASCII = re.compile(
    r"(?:[A-Za-z<=>]|%3[CE])?(?:%[89A-F][0-9A-F]|[^\x00-\x7f])+", re.IGNORECASE
)

#: Matches the specifiers that Python and JavaScript resolve to the same URL: packages, relative
#: references, and URLs in the form that realms have. A backslash doesn't match, because JavaScript
#: reads it as `/`, and Python doesn't.
_ALIKE = re.compile(
    r"@?[A-Za-z][\w./-]*|\.\.?/[^\\\x00-\x20\x7f]*"
    r"|(?:/|https?://[a-z0-9.-]+(?::(?!80/|443/)[0-9]+)?/)(?![/.])(?:(?!/\.)[^\\\x00-\x20\x7f])*"
)

#: JavaScript resolves the path segment `%2e` like `.`, and Python doesn't.
_ESCAPED_DOT = re.compile("%2e", re.IGNORECASE)

#: Matches the beginning of a URL up to the last slash at which the URL of a realm could end.
_REALM_FOLDERS = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]+)?/(?:[A-Za-z0-9~-][A-Za-z0-9._~-]*/)*")


def resolve_module(specifier: str, base: str) -> str | None:
    """Returns the public URL of a module that the module or card at `base` imports. Returns None if
    `specifier` names a package, or if no realm can have the URL."""
    if specifier == "@realm/base":
        return BASE_MODULE
    if specifier.startswith(("./", "../", "/", "http://", "https://")):
        return joined(base, rooted(specifier))
    return None


def is_plain(specifier: str) -> bool:
    """Returns True only if `resolve_module` and JavaScript certainly resolve a specifier to the
    same URL."""
    return bool(_ALIKE.fullmatch(specifier)) and not _ESCAPED_DOT.search(specifier)


def file_url(realm_url: str, path: str) -> str:
    """Returns the URL of a file. The URL is escaped as JavaScript escapes it, so that the server
    and JavaScript use the same URL."""
    return realm_url + quote(path, safe=UNESCAPED)


def realms_for(url: str) -> list[str]:
    """Returns the URLs of all realms that could contain a public URL."""
    folders = _REALM_FOLDERS.match(url)
    if folders is None:
        return []
    ends = (match.end() for match in re.finditer("/", folders[0]))
    return [folders[0][:end] for end in ends][2:]


def card_url(realm_url: str, path: str) -> str:
    """Returns the public URL of the card in the file at `path`."""
    return file_url(realm_url, card_of(path))


def card_at(url: str) -> str:
    """Returns the URL of the card that `url` leads to, without `.json`. `url` has no query. All
    spellings of a path, with and without escapes, lead to the same result. The URL of a folder
    leads to the folder's card `index`. `resolveCardURL` of the card library does the same."""
    origin, path = url[: url.find("/", 8)], url[url.find("/", 8) :]
    path = "/".join(map(_in_one_spelling, card_of(path).split("/")))
    return f"{origin}{path}{'index' if path.endswith('/') else ''}"


def _in_one_spelling(segment: str) -> str:
    if _PLAIN_SEGMENT.fullmatch(segment) or not _ESCAPES.fullmatch(segment):
        return segment
    try:
        return quote(unquote(segment, errors="strict"), safe=UNESCAPED.replace("/", ""))
    except UnicodeDecodeError:
        return segment


def joined(base: str, reference: str) -> str | None:
    """Resolves a reference that the file at `base` contains. Returns the URL without query and
    fragment, or None if no realm can have such a URL."""
    if not reference.startswith(("./", "../")):
        return _joined_once(base, reference)
    # If the reference matches `_PLAIN`, `_joined_once` gets only folders. So one entry of its cache
    # serves all such references from the files of one folder to the files of another folder.
    base = f"{base.rpartition('/')[0]}/"
    plain = _PLAIN.fullmatch(reference)
    if plain is None:
        return _joined_once(base, reference)
    folder = _joined_once(base, plain[1])
    url = f"{folder}{plain[2]}"
    return url if folder and SERVABLE.fullmatch(url) else None


@short_cached(maxsize=50_000)
def _joined_once(base: str, reference: str) -> str | None:
    try:
        parts = urlsplit(urljoin(base, reference))
        # `quote` leaves existing escapes unchanged, because `%` is in `safe`. `with_composed`
        # replaces only the escapes of text that isn't in Unicode NFC.
        path = with_composed(quote(parts.path, safe=f"{UNESCAPED}%"))
    except ValueError:
        return None
    url = f"{parts.scheme}://{parts.netloc}{path}"
    return url if SERVABLE.fullmatch(url) else None


def with_composed(reference: str) -> str:
    """Converts a reference to Unicode NFC, the form in which the paths of files are stored. Also
    converts escaped characters."""
    if reference.isascii() and "%" not in reference:
        return reference
    return _BEYOND_ASCII.sub(_composed_part, reference)


def _composed_part(part: re.Match[str]) -> str:
    try:
        text = unquote(part[0], errors="strict")
    except UnicodeDecodeError:
        return part[0]
    return part[0] if composed(text) == text else quote(composed(text), safe=UNESCAPED)


def rooted(reference: str) -> str:
    """Puts this server's public origin before a reference that begins with `/`. Returns other
    references unchanged."""
    return settings.REALM_PUBLIC_ORIGIN + reference if reference.startswith("/") else reference
