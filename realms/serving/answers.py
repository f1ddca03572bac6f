"""Answers to reads: made once, cached with the stamp of everything that they depend on.

HTTP -> registry -> content -> cache. An `Answer` is a whole response but for what the single
request decides (HEAD, If-None-Match). The source cache, the transpiled-module cache and the page
cache are three `StampedCache`s of answers; a read that finds its answer there touches no database.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import format_datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit

from django.conf import settings

from notifications.board import Slots
from notifications.channels import index_key, path_key, realm_key
from notifications.emit import local_board
from notifications.stamped_cache import StampedCache
from realms.addresses import CODE_EXTENSIONS, EXECUTABLE_EXTENSIONS, realm_candidates
from realms.content.blobs import read_blob
from realms.content.files import etag
from realms.content.resolve import Resolved, ResolvedFile, resolve
from realms.errors import Misdirected, NotAcceptable, NotFound, RealmError, error_response
from realms.http import content_types
from realms.models import Realm
from realms.serving import pages
from realms.serving.transpiling import TranspileError, javascript
from reindex.index.shown import Page, find_page
from reindex.reading.references import file_url

Headers: TypeAlias = tuple[tuple[str, str], ...]


class Variant(StrEnum):
    """What of a file is asked for: its source, its JavaScript (or an asset), or its page."""

    SOURCE = "source"
    MODULE = "module"
    HTML = "html"


@dataclass(frozen=True, slots=True)
class Content:
    """The part of a response that only the file or the page decides."""

    status: int
    headers: Headers
    body: bytes
    #: The file that it was made from, if it was made from one.
    made_from: ResolvedFile | None = None
    #: The generation of the page, where that isn't the realm's.
    generation: int | None = None
    #: Whether a page is also for those who would take any type, as there is no such file.
    for_all: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, whose realm it is of, and the generations in which it is known to hold."""

    content: Content
    headers: Headers
    realm_url: str | None
    public: bool
    low: int
    high: int


#: What is sent as it was stored may be asked for in part.
ACCEPT_RANGES = ("accept-ranges", "bytes")
_PROBED = {
    Variant.SOURCE: ("", *EXECUTABLE_EXTENSIONS, ".json"),
    Variant.MODULE: ("", *EXECUTABLE_EXTENSIONS),
    Variant.HTML: ("",),
}
#: Pages of any origin may read what everyone may read.
_OPEN: Headers = (
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "*"),
)
_ENTRY_OVERHEAD = 1024
NO_SCRIPTS = "script-src 'none'; object-src 'none'; base-uri 'none'"
#: Names the generation at which a page could not be rendered; what is shown is its last good one.
RENDER_FAILED = "x-realm-render-failed"


def _new_cache() -> StampedCache[Answer]:
    return StampedCache(
        local_board(),
        max_bytes=settings.REALM_CACHE_BYTES,
        size_of=lambda answer: len(answer.content.body) + _ENTRY_OVERHEAD,
        bound_ns=int(settings.REALM_STALENESS_BOUND * 1e9),
    )


@lru_cache(maxsize=1)
def caches() -> dict[Variant, StampedCache[Answer]]:
    """This process's source cache, transpiled-module cache and page cache."""
    return {variant: _new_cache() for variant in Variant}


def cached(variant: Variant, url: str, at_least: int = 0) -> Answer | None:
    """The answer, if this process holds one that is fresh and reaches the pinned generation."""
    answer = caches()[variant].get(url)
    return answer if answer is not None and answer.high >= at_least else None


def lacks_file(answer: Answer, variant: Variant) -> bool:
    """Whether a realm has no file at the URL that this is the answer at, but may have a page."""
    nothing = variant is Variant.MODULE and answer.content.status == 404
    return nothing and answer.realm_url is not None


def load(variant: Variant, url: str, *, alone: bool = False) -> Answer:
    """The answer from the database. `url` is absolute and unescaped.

    A load that another request has begun is shared, unless `alone` asks for what is committed now:
    a shared one may have read the database a moment before. What is cached is dropped then.
    """
    cache = caches()[variant]
    extensions = _extensions(variant, url)

    def from_database() -> Answer:
        before = cache.peek(url)
        made_from = before.content.made_from if before else None
        found = resolve(url, extensions, known=made_from.sha256 if made_from else None)
        if _same_bytes(found, made_from) and not _reused(found, before):
            found = resolve(url, extensions)
        answer = _answer(url, found, lambda it: _reused(it, before) or _MAKERS[variant](url, it))
        return _nowhere(url) if _lacks_its_slash(url, answer, found) else answer

    if alone:
        cache.drop(url)
        return from_database()
    return cache.load(url, _watched(variant, url, extensions), from_database)


def committed(variant: Variant, url: str) -> Answer:
    """The answer as the database has it, past every cache: what all replicas must come to."""
    found = resolve(url, _extensions(variant, url))
    return _answer(url, found, lambda it: _MAKERS[variant](url, it))


def load_at(realm_url: str, generation: int, path: str) -> Answer:
    """The module or asset of a realm as of exactly one generation: what a render reads.

    An extensionless spelling is sent to its file, so that a module has one identity.
    """
    url, key = realm_url + path, (realm_url, generation, path)
    cache = caches()[Variant.MODULE]

    def make(found: Resolved) -> Content:
        if found.file is not None and found.file.path != path:
            return Content(302, (("location", found.file.path.rsplit("/", 1)[-1]),), b"")
        return _reused(found, cache.peek(url)) or _module(url, found)

    def from_database() -> Answer:
        found = resolve(url, _extensions(Variant.MODULE, url), at=generation)
        return _answer_of(realm_url, url, found, make)

    return cache.get(key) or cache.load(key, Slots([realm_key(realm_url)]), from_database)


def cached_at(realm_url: str, generation: int, path: str) -> Answer | None:
    """As `load_at`, if this process holds the answer."""
    return caches()[Variant.MODULE].get((realm_url, generation, path))


def source_at(realm_url: str, generation: int, path: str) -> Answer:
    """The stored bytes of a file as of exactly one generation. Its parents' realms don't matter."""
    url = realm_url + path
    found = resolve(url, at=generation)
    return _answer_of(
        realm_url,
        url,
        found,
        lambda it: _raw(it.file, "source") if it.file else _refusal(NotFound(url=url)),
    )


# --- How each variant is made ------------------------------------------------------------------


def _source(url: str, found: Resolved) -> Content:
    file = found.file
    if file is None:
        return _refusal(NotFound(url=url))
    if found.realm_url + file.path != url:
        location = urlsplit(file_url(found.realm_url, file.path)).path
        return Content(302, (("location", location),), b"")
    return _raw(file, "source")


def _module(url: str, found: Resolved) -> Content:
    file = found.file
    if file is None:
        return _refusal(NotFound(url=url))
    if not file.path.endswith(CODE_EXTENSIONS):
        return _raw(file, "asset")
    try:
        body = javascript(file.sha256, file_bytes(file), file.path).encode()
    except TranspileError as error:
        refused = NotAcceptable(url=file_url(found.realm_url, file.path), why=error)
        return _refusal(refused, made_from=file)
    headers = (
        ("content-type", "text/javascript; charset=utf-8"),
        ("cache-control", "max-age=0"),
        ("etag", f'"{hashlib.sha256(body).hexdigest()}:module"'),
        ("last-modified", format_datetime(file.modified_at, usegmt=True)),
        ("x-boxel-canonical-path", file_url(found.realm_url, file.path)),
    )
    return Content(200, headers, body, made_from=_kept(file))


def _html(url: str, found: Resolved) -> Content:
    if found.file is not None:
        return _raw(found.file, "asset")
    path = url.removeprefix(found.realm_url)
    is_folder = path.endswith("/") or not path
    if found.kind != "published":
        elsewhere = _elsewhere(found, path)
        leads = elsewhere.status == 302 and is_folder
        return replace(elsewhere, for_all=leads and (not path or _has_card(f"{url}index")))
    page = _page_at(found, path)
    if page.generation is None:
        waits = _page(503, pages.preparing(found.realm_url), 0)
        # In a header: a sandboxed page may not ask for it itself.
        headers = (*waits.headers, ("refresh", "1"))
        return replace(waits, headers=headers, for_all=is_folder or _has_card(url))
    if page.html is None and page.error is None:
        return _folder(found, path, page.generation) or _page(
            404, *_missing(found, page.generation)
        )
    status, shows = 500 if page.html is None else 200, page.shows or page.generation
    made = replace(_page(status, pages.card(page), shows, _policy(found, page)), for_all=True)
    if page.error is None or page.html is None:
        return made
    # Older than the realm, and truthful about it.
    return replace(made, headers=(*made.headers, (RENDER_FAILED, str(page.generation))))


def _page_at(found: Resolved, path: str) -> Page:
    return find_page(found.realm_url, f"{path}index" if path.endswith("/") or not path else path)


def _has_card(url: str) -> bool:
    """Whether a file could be the card whose page is at a URL."""
    found = resolve(f"{url}.json")
    return found is not None and found.file is not None


def _folder(found: Resolved, path: str, generation: int) -> Content | None:
    """The way to a folder that has a page, from its address without the final slash."""
    if not path or path.endswith("/"):
        return None
    page = _page_at(found, f"{path}/")
    if page.html is None and page.error is None:
        return None
    location = urlsplit(file_url(found.realm_url, f"{path}/")).path
    headers = (("location", location), ("cache-control", "max-age=0, must-revalidate"))
    return Content(302, headers, b"", generation=generation, for_all=True)


def _missing(found: Resolved, generation: int) -> tuple[str, int, Headers]:
    """A published realm's own 404 page, from `404.json` or `404.html`, or the server's."""
    own = find_page(found.realm_url, "404")
    if own.html is not None and own.error is None:
        return pages.card(own), generation, _policy(found, own)
    html = pages.missing(found.realm_url)
    file = resolve(f"{found.realm_url}404.html")
    if file is not None and file.realm_url == found.realm_url and file.file is not None:
        html = file_bytes(file.file).decode(errors="replace")
    return html, generation, ()


def _elsewhere(found: Resolved, path: str) -> Content:
    """A source realm is edited at its URL; its pages are where it was published first."""
    shown = Realm.first_showing(source_id=found.realm_id)
    if shown is None:
        return _page(200, pages.source_realm(found.realm_url), found.high)
    location = file_url(shown.url, path)
    return Content(302, (("location", location), ("cache-control", "no-store")), b"")


_MAKERS: dict[Variant, Callable[[str, Resolved], Content]] = {
    Variant.SOURCE: _source,
    Variant.MODULE: _module,
    Variant.HTML: _html,
}


# --- Pieces ------------------------------------------------------------------------------------


def _extensions(variant: Variant, url: str) -> tuple[str, ...]:
    return ("",) if url.endswith(("/", *EXECUTABLE_EXTENSIONS)) else _PROBED[variant]


def _watched(variant: Variant, url: str, extensions: tuple[str, ...]) -> Slots:
    """Everything whose change could change the answer: every realm that could stand above the URL
    or at it, every file that could be meant by it, and for a page the indexes of those realms."""
    realms = realm_candidates(url)
    keys = [realm_key(realm) for realm in (*realms, f"{url}/")]
    keys += [path_key(url + extension) for extension in extensions]
    if variant is Variant.HTML:
        keys += [index_key(realm) for realm in realms]
        # Of a folder in a source realm, whether it leads everyone to its page.
        keys.append(path_key(f"{url}index.json"))
    return Slots(keys)


def _same_bytes(found: Resolved | None, made_from: ResolvedFile | None) -> bool:
    file = found.file if found is not None else None
    return file is not None and made_from is not None and file.sha256 == made_from.sha256


def _reused(found: Resolved | None, before: Answer | None) -> Content | None:
    """The stale content, if it was made from the very file that stands there now: the same bytes
    under another name, or written again later, make other headers."""
    if before is None or found is None or found.file is None:
        return None
    if before.content.made_from != _kept(found.file):
        return None
    return before.content


def _raw(file: ResolvedFile, variant: str) -> Content:
    data = file_bytes(file)
    is_image = content_types.media_type(file.path).startswith("image/")
    headers = (
        *content_types.described(file.path, data, as_stored=variant == "source"),
        ("cache-control", "max-age=60, must-revalidate" if is_image else "max-age=0"),
        ("etag", etag(file.sha256, variant)),
        ("last-modified", format_datetime(file.modified_at, usegmt=True)),
        ("x-created", format_datetime(file.created_at, usegmt=True)),
        ACCEPT_RANGES,
    )
    return Content(200, headers, data, made_from=_kept(file))


def _refusal(error: RealmError, made_from: ResolvedFile | None = None) -> Content:
    response = error_response(error)
    content_type = ("content-type", response["content-type"])
    kept = _kept(made_from) if made_from else None
    return Content(error.status, (content_type,), response.content, made_from=kept)


def _kept(file: ResolvedFile) -> ResolvedFile:
    """A file without its bytes, which are elsewhere by then."""
    return replace(file, data=None)


def _policy(found: Resolved, page: Page) -> Headers:
    """What holds for a page besides the policy of its host: scripts of another owner's code, which
    it may have, don't run at this realm's origin."""
    if not page.strangers:
        return ()
    owner = Realm.objects.filter(pk=found.realm_id).values("owner")
    own = Realm.objects.filter(url__in=page.strangers, owner__in=owner).count()
    return () if own == len(page.strangers) else (("content-security-policy", NO_SCRIPTS),)


def _page(status: int, html: str, generation: int, policy: Headers = ()) -> Content:
    body = html.encode()
    headers = (
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "max-age=0, must-revalidate"),
        ("etag", f'"{hashlib.sha256(body).hexdigest()}:html"'),
        *policy,
    )
    return Content(status, headers, body, generation=generation)


def file_bytes(file: ResolvedFile) -> bytes:
    """A resolved file's content, from its row or from the storage."""
    return b"" if file.size == 0 else read_blob(file.sha256, file.data)


def _nowhere(url: str) -> Answer:
    """The answer where no realm is."""
    nothing = _refusal(NotFound(url=url))
    return Answer(nothing, nothing.headers + _OPEN, None, True, 0, 0)


def _lacks_its_slash(url: str, answer: Answer, found: Resolved | None) -> bool:
    """Whether a URL that names nothing in the realm around it is itself a realm's, but for the
    final slash: it lies in no realm then, and leads to that one."""
    if found is None or found.file is not None or url.endswith("/"):
        return False
    shown = found.kind == "published" and answer.content.status in (200, 500)
    return not shown and Realm.objects.filter(url=f"{url}/").exists()


def _answer_of(
    realm_url: str, url: str, found: Resolved | None, make: Callable[[Resolved], Content]
) -> Answer:
    """As `_answer`, for a reader who takes the URL for one of this realm."""
    if found is not None and found.realm_url != realm_url and found.realm_url.startswith(realm_url):
        return replace(_nowhere(url), content=_refusal(Misdirected(url=url, realm=found.realm_url)))
    return _answer(url, found if found and found.realm_url == realm_url else None, make)


def _answer(url: str, found: Resolved | None, make: Callable[[Resolved], Content]) -> Answer:
    """Content with what every answer says: whose it is, at which generation, who may keep it."""
    if found is None:
        return _nowhere(url)
    content = make(found)
    low, high = found.low, found.high
    if content.generation is not None:
        low = high = content.generation
    scope = "public" if found.public else "private"
    headers = [
        (name, f"{scope}, {value}" if name == "cache-control" else value)
        for name, value in content.headers
    ]
    headers += [
        ("x-boxel-realm-url", found.realm_url),
        ("x-realm-generation", str(high)),
        ("vary", "Accept"),
        *_OPEN,
    ]
    if found.public:
        headers.append(("x-boxel-realm-public-readable", "true"))
    return Answer(content, tuple(headers), found.realm_url, found.public, low, high)
