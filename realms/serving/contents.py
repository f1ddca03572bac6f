"""Makes the content of answers: a file's bytes, a module's JavaScript, a page, a redirect or an
error."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import urlsplit

from definitions.extensions import CODE_EXTENSIONS
from realms.content.blobs import read_blob
from realms.content.files import etag
from realms.content.resolve import Resolved, ResolvedFile, resolve
from realms.errors import NotAcceptable, NotFound, RealmError
from realms.http import content_types
from realms.http.compression import Coding, is_compressible
from realms.http.error_answers import error_response
from realms.http.headers import NO_STORE, REVALIDATED, Headers
from realms.models import Realm
from realms.serving import pages
from realms.serving.transpiling import TranspileError, javascript
from reindex.index.shown import Page, find_page
from reindex.reading.card_paths import file_of, named_card
from reindex.reading.media_types import HTML, JAVASCRIPT
from reindex.reading.references import file_url


class Variant(StrEnum):
    """What a request asks for at a URL. `SOURCE` is the file itself. `MODULE` is the JavaScript of
    a module, or the bytes of any other file. `HTML` is a page, or the file if a file has this
    URL."""

    SOURCE = "source"
    MODULE = "module"
    HTML = "html"


#: An empty mapping, shared by all contents that have not been compressed yet.
_NO_CODED: Mapping[Coding, bytes | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Content:
    """The part of a response that depends on the file or the page alone."""

    status: int
    headers: Headers
    body: bytes
    #: The file that the content was made from, if any.
    made_from: ResolvedFile | None = None
    #: If this isn't None, the answer has this generation instead of the realm's generation. Set for
    #: pages, because a page may have been rendered at an older generation.
    generation: int | None = None
    #: Whether a client that accepts HTML but doesn't prefer HTML (`Accept: */*`) gets this page or
    #: redirect if the URL has no file.
    for_all: bool = False
    #: The compressed bodies so far, by their content coding.
    coded: Mapping[Coding, bytes | None] = field(default_factory=lambda: _NO_CODED, compare=False)

    @property
    def compressible(self) -> bool:
        """Whether the content may be sent in a content coding."""
        headers = dict(self.headers)
        own = "content-encoding" in headers
        return not own and is_compressible(headers.get("content-type", ""), len(self.body))


#: The header that says that clients may request a part of a stored file.
ACCEPT_RANGES = ("accept-ranges", "bytes")
NO_SCRIPTS = "script-src 'none'; object-src 'none'; base-uri 'none'"
#: The name of the header with the generation at which the rendering of a page failed. A response
#: with this header has the page as it was last rendered without an error.
RENDER_FAILED = "x-realm-render-failed"


# --- How each variant is made ------------------------------------------------------------------


def make_source(url: str, found: Resolved) -> Content:
    file = found.file
    if file is None:
        return refusal(NotFound(url=url))
    if found.realm_url + file.path != url:
        location = urlsplit(file_url(found.realm_url, file.path)).path
        return Content(302, (("location", location),), b"")
    return raw(file, "source")


def make_module(url: str, found: Resolved) -> Content:
    file = found.file
    if file is None:
        return refusal(NotFound(url=url))
    if not file.path.endswith(CODE_EXTENSIONS):
        return raw(file, "asset")
    try:
        body = javascript(file.sha256, file_bytes(file), file.path).encode()
    except TranspileError as error:
        refused = NotAcceptable(url=file_url(found.realm_url, file.path), why=error)
        return refusal(refused, made_from=file)
    headers = (
        ("content-type", f"{JAVASCRIPT}; charset=utf-8"),
        ("cache-control", "max-age=0"),
        ("etag", f'"{hashlib.sha256(body).hexdigest()}:module"'),
        ("last-modified", format_datetime(file.modified_at, usegmt=True)),
        ("x-boxel-canonical-path", file_url(found.realm_url, file.path)),
    )
    return Content(200, headers, body, made_from=without_bytes(file))


def make_html(url: str, found: Resolved) -> Content:
    if found.file is not None:
        return raw(found.file, "asset")
    path = url.removeprefix(found.realm_url)
    is_folder = path.endswith("/") or not path
    if found.kind != "published":
        redirect = published_elsewhere(found, path)
        to_folder = redirect.status == 302 and is_folder
        return replace(redirect, for_all=to_folder and (not path or has_card(f"{url}index")))
    page = _page_at(found, path)
    if page.generation is None:
        preparing = _page(503, pages.preparing(found.realm_url), 0)
        # The browser reloads the page after a second. In a sandboxed page, browsers ignore
        # `<meta http-equiv="refresh">`, but obey the Refresh header.
        headers = (*preparing.headers, ("refresh", "1"), ("retry-after", "1"))
        return replace(preparing, headers=headers, for_all=is_folder or has_card(url))
    if page.html is None and page.error is None:
        return folder(found, path, page.generation) or _page(404, *missing(found, page.generation))
    status, shows = 500 if page.html is None else 200, page.shows or page.generation
    made = replace(_page(status, pages.card(page), shows, _policy(found, page)), for_all=True)
    if page.error is None or page.html is None:
        return made
    return replace(made, headers=(*made.headers, (RENDER_FAILED, str(page.generation))))


def _page_at(found: Resolved, path: str) -> Page:
    return find_page(found.realm_url, named_card(path))


def has_card(url: str) -> bool:
    """Returns whether the file `<url>.json` exists. If the file is a card, its page is at `url`."""
    found = resolve(file_of(url))
    return found is not None and found.file is not None


def folder(found: Resolved, path: str, generation: int) -> Content | None:
    """If `path` lacks only the final slash of a folder's path, and the folder has a page, returns a
    redirect to this page. Otherwise returns None."""
    if not path or path.endswith("/"):
        return None
    page = _page_at(found, f"{path}/")
    if page.html is None and page.error is None:
        return None
    location = urlsplit(file_url(found.realm_url, f"{path}/")).path
    headers = (("location", location), ("cache-control", REVALIDATED))
    return Content(302, headers, b"", generation=generation, for_all=True)


def missing(found: Resolved, generation: int) -> tuple[str, int, Headers]:
    """Returns the HTML, generation and policy headers of a published realm's 404 page. The page
    comes from the realm's `404.json`, else from its `404.html`, else from the server."""
    own = find_page(found.realm_url, "404")
    if own.html is not None and own.error is None:
        return pages.card(own), generation, _policy(found, own)
    html = pages.missing(found.realm_url)
    file = resolve(f"{found.realm_url}404.html")
    if file is not None and file.realm_url == found.realm_url and file.file is not None:
        html = file_bytes(file.file).decode(errors="replace")
    return html, generation, ()


def published_elsewhere(found: Resolved, path: str) -> Content:
    """Returns a redirect from `path` in a source realm to the same path in the oldest realm that is
    published from the source realm. If the source realm isn't published, returns a page that says
    so."""
    shown = Realm.first_showing(source_id=found.realm_id)
    if shown is None:
        return _page(200, pages.source_realm(found.realm_url), found.high)
    location = file_url(shown.url, path)
    return Content(302, (("location", location), ("cache-control", NO_STORE)), b"")


MAKERS: dict[Variant, Callable[[str, Resolved], Content]] = {
    Variant.SOURCE: make_source,
    Variant.MODULE: make_module,
    Variant.HTML: make_html,
}


def raw(file: ResolvedFile, variant: str) -> Content:
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
    return Content(200, headers, data, made_from=without_bytes(file))


def refusal(error: RealmError, made_from: ResolvedFile | None = None) -> Content:
    response = error_response(error)
    content_type = ("content-type", response["content-type"])
    kept = without_bytes(made_from) if made_from else None
    return Content(error.status, (content_type,), response.content, made_from=kept)


def without_bytes(file: ResolvedFile) -> ResolvedFile:
    """Returns a copy of `file` without its bytes. An answer needs only the file's other values."""
    return replace(file, data=None)


def _policy(found: Resolved, page: Page) -> Headers:
    """Returns the security policy headers that a page adds to the policy of the requested host. If
    code from a realm of another owner helped to render the page, the headers forbid all scripts.
    That owner's scripts must not run at this realm's origin. For any other page, returns no
    headers."""
    if not page.strangers:
        return ()
    owner = Realm.objects.filter(pk=found.realm_id).values("owner")
    own = Realm.objects.filter(url__in=page.strangers, owner__in=owner).count()
    return () if own == len(page.strangers) else (("content-security-policy", NO_SCRIPTS),)


def _page(status: int, html: str, generation: int, policy: Headers = ()) -> Content:
    body = html.encode()
    headers = (
        ("content-type", f"{HTML}; charset=utf-8"),
        ("cache-control", REVALIDATED),
        ("etag", f'"{hashlib.sha256(body).hexdigest()}:html"'),
        *policy,
    )
    return Content(status, headers, body, generation=generation)


def file_bytes(file: ResolvedFile) -> bytes:
    """Returns a file's bytes, from its database row or from the storage."""
    return b"" if file.size == 0 else read_blob(file.sha256, file.data)
