"""What references mean: the specifiers of imports, and the links of cards, as URLs of realms."""

import re
from urllib.parse import quote, unquote, urljoin, urlsplit

from django.conf import settings

from notifications.paths import composed
from notifications.short_cached import short_cached

#: How `@realm/base` is spelt as a URL.
BASE_REALM = f"{settings.REALM_PUBLIC_ORIGIN}/base/"
BASE_MODULE = f"{BASE_REALM}mod.ts"

#: What the fleet could serve. Nothing else is ever asked for on a card's behalf.
SERVABLE = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?/[^\s\x00-\x1f\x7f]{0,4000}")

#: A relative reference that ends in a name which every spelling of a URL has in the same way.
_PLAIN = re.compile(r"(\.\.?/(?:[^?#]*/)?)([A-Za-z0-9_-][A-Za-z0-9._-]*)")

#: What stands unescaped in the path of a URL, as JavaScript writes it (WHATWG URL, section 1.3).
UNESCAPED = "/:@!$&'()*+,;=~-._[]|^"

_PLAIN_SEGMENT = re.compile(r"[\w.~!*'():@$&+,;=\[\]|^-]*", re.ASCII)
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*")

#: Characters beyond ASCII, escaped or not, with what stands before them: they may compose with it.
_BEYOND_ASCII = re.compile(
    r"(?:[A-Za-z<=>]|%3[CE])?(?:%[89A-F][0-9A-F]|[^\x00-\x7f])+", re.IGNORECASE
)

#: What Python and JavaScript take to mean the same: packages, relative references, and what is
#: spelt out as URLs of realms are. A browser's URLs have more ways to say `..` and `/`.
_ALIKE = re.compile(
    r"@?[A-Za-z][\w./-]*|\.\.?/[^\\\x00-\x20\x7f]*"
    r"|(?:/|https?://[a-z0-9.-]+(?::(?!80/|443/)[0-9]+)?/)(?![/.])(?:(?!/\.)[^\\\x00-\x20\x7f])*"
)

_ESCAPED_DOT = re.compile("%2e", re.IGNORECASE)

#: The beginning of a URL, up to a slash, that could be a realm's.
_REALM_FOLDERS = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]+)?/(?:[A-Za-z0-9~-][A-Za-z0-9._~-]*/)*")


def resolve_module(specifier: str, base: str) -> str | None:
    """The public URL that a specifier means in the module or card at `base`; None for packages."""
    if specifier == "@realm/base":
        return BASE_MODULE
    if specifier.startswith(("./", "../", "/", "http://", "https://")):
        return joined(base, rooted(specifier))
    return None


def is_plain(specifier: str) -> bool:
    """Whether `resolve_module` is sure to say what JavaScript will make of a specifier."""
    return bool(_ALIKE.fullmatch(specifier)) and not _ESCAPED_DOT.search(specifier)


def file_url(realm_url: str, path: str) -> str:
    """The URL of a file, spelt as card code spells it. A path has one spelling everywhere."""
    return realm_url + quote(path, safe=UNESCAPED)


def realms_for(url: str) -> list[str]:
    """The URLs at which a realm could come to stand that a public URL would lie in."""
    folders = _REALM_FOLDERS.match(url)
    if folders is None:
        return []
    ends = (match.end() for match in re.finditer("/", folders[0]))
    return [folders[0][:end] for end in ends][2:]


def card_url(realm_url: str, path: str) -> str:
    """The public URL of the card in a file."""
    return file_url(realm_url, path.removesuffix(".json"))


def card_at(url: str) -> str:
    """The URL of the card that a URL without a query means, in the one spelling that it has. A
    folder stands for its `index`. As `resolveCardURL` of the card library has it."""
    origin, path = url[: url.find("/", 8)], url[url.find("/", 8) :]
    path = "/".join(map(_in_one_spelling, path.removesuffix(".json").split("/")))
    return f"{origin}{path}{'index' if path.endswith('/') else ''}"


def _in_one_spelling(segment: str) -> str:
    if _PLAIN_SEGMENT.fullmatch(segment) or not _ESCAPES.fullmatch(segment):
        return segment
    try:
        return quote(unquote(segment, errors="strict"), safe=UNESCAPED.replace("/", ""))
    except UnicodeDecodeError:
        return segment


def joined(base: str, reference: str) -> str | None:
    """The URL that a reference means, without query and fragment; None where nothing can be."""
    if not reference.startswith(("./", "../")):
        return _joined_once(base, reference)
    # All files of a folder mean the same by it, and where a plain name leads, its folder tells.
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
        # What is escaped already stays as it is, if its characters are composed.
        path = with_composed(quote(parts.path, safe=f"{UNESCAPED}%"))
    except ValueError:
        return None
    url = f"{parts.scheme}://{parts.netloc}{path}"
    return url if SERVABLE.fullmatch(url) else None


def with_composed(reference: str) -> str:
    """A reference with its characters composed, as the paths of files are, the escaped ones too."""
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
    """The reference; where it begins with `/` it means a realm of this server."""
    return settings.REALM_PUBLIC_ORIGIN + reference if reference.startswith("/") else reference
