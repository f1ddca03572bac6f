"""Passes requests for URLs in realms to the views of files, modules, pages and cards, and to the
views of a realm's endpoints, such as `_info`."""

from collections.abc import Callable
from typing import NamedTuple

from django.db import OperationalError
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from notifications.texts import composed
from realms import errors
from realms.access import auth
from realms.api import (
    card_views,
    definition_views,
    file_views,
    realm_views,
    reindex_views,
    search_views,
)
from realms.api.server_views import preflight
from realms.content.resolve import resolve
from realms.http import headers
from realms.http.accept import accepted, takes_pages
from realms.http.compression import preferred
from realms.http.conditions import Conditions
from realms.http.error_answers import error_response
from realms.http.requests import (
    MIN_GENERATION,
    min_generation,
    requested_method,
    requested_url,
    without_nul,
)
from realms.models import EVERYONE, Realm, RealmPermission
from realms.serving import answers, contents, drafts, pages, pinned_reads, site
from realms.serving.compact import Answer
from realms.serving.contents import Variant
from realms.serving.responses import VARIANTS
from realms.serving.responses import respond as send
from realms.serving.transpiling import TranspilerFailed
from reindex.index.shown import Page
from reindex.reading import pins
from reindex.reading.media_types import ANY, API, BYTES, CARD, JSON, SOURCE

View = Callable[[HttpRequest, Realm], HttpResponseBase]

READING = ("GET", "HEAD")
FILE_METHODS = (*READING, "POST", "DELETE")


@csrf_exempt
def realm(request: HttpRequest) -> HttpResponseBase:
    """Serves every URL in a realm. A URL within several realms belongs to the innermost realm."""
    try:
        url = requested_url(request)
    except UnicodeDecodeError:
        return error_response(errors.NotFound(url="the path, which is not valid UTF-8,"))
    if request.method == "OPTIONS":
        return preflight()
    reads = requested_method(request) in (*READING, "QUERY")
    at_least = min_generation(request.META.get(MIN_GENERATION)) if reads else 0
    answer = _routed(request, url)
    _require_generation(answer, at_least)
    return answer


def _routed(request: HttpRequest, url: str) -> HttpResponseBase:
    """Passes a request to the view for its URL, method and content type."""
    header = request.GET.get("acceptHeader") or request.headers.get("Accept", ANY)
    accept = accepted(header)
    method = requested_method(request)
    content_type = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
    # A GET or HEAD request has no body, so its Content-Type is ignored.
    sends_file = method not in READING and content_type in (SOURCE, BYTES)
    is_file = accept == SOURCE or sends_file
    base, _, name = url.rpartition("/")
    if name in ENDPOINTS and (accept in (API, JSON) or not is_file):
        try:
            realm = Realm.objects.filter(url=f"{base}/").first()
        except OperationalError:
            if name != "_readiness-check":
                raise
            return reindex_views.unready(f"{base}/", "startup", "the database can't be reached")
        if realm is not None:
            return _endpoint(request, realm, name, method)
        if method not in READING:
            raise errors.NotFound(url=f"{base}/")
    if accept == CARD or (
        method not in ("GET", "HEAD") and content_type == CARD and accept != SOURCE
    ):
        return card_views.card(request, url)
    if method in ("GET", "HEAD"):
        return _read(request, url, accept, takes_pages=takes_pages(header))
    if is_file and method == "POST":
        return file_views.write(request, url)
    if is_file and method == "DELETE":
        return file_views.delete(request, url)
    raise errors.MethodNotAllowed(
        FILE_METHODS,
        method=f"{method} with Accept {accept}",
        expected=f"GET or HEAD, or POST and DELETE with Accept {SOURCE}",
    )


@csrf_exempt
def pinned(request: HttpRequest, path: str) -> HttpResponse:
    """Serves files of a realm at exactly one generation, to workers that render pages. The request
    has a pin, a signed token that contains the realm and the generation."""
    if request.method not in READING and (request.method, path) != ("POST", ""):
        raise errors.MethodNotAllowed(READING, method=request.method)
    path = composed(without_nul(path))
    token = request.META.get(pinned_reads.PIN, "")
    if path == "" and "address" in request.GET:
        return pinned_reads.address(token)
    pin = pinned_reads.opened(token)
    accept = accepted(request.headers.get("Accept", ANY))
    if request.method == "POST":
        return pinned_reads.many(request, pin)
    if path == "" and accept == API:
        return pinned_reads.manifest(request, pin)
    if accept == SOURCE:
        return send(request, answers.source_at(pin.realm_url, pin.generation, path), "miss")
    return send(request, _transpiled(lambda: answers.load_at(*_place(pin, path))), "miss")


def _place(pin: pins.Pin, path: str) -> tuple[str, int, str]:
    return pin.realm_url, pin.generation, path


# --- Reading -----------------------------------------------------------------------------------


def _read(request: HttpRequest, url: str, accept: str, *, takes_pages: bool) -> HttpResponseBase:
    """Returns the answer to a GET or HEAD request. If no file has this URL, a client that accepts
    HTML gets the page at the URL."""
    variant = Variant.MODULE if site.is_generated(url) else VARIANTS.get(accept)
    if variant is None:
        return _described(request, url, accept)
    if variant is Variant.HTML and drafts.may_preview(request.META):
        draft = drafts.preview(request, url)
        if draft is not None:
            return draft
    at_least = min_generation(request.META.get(MIN_GENERATION))
    loaded = _loaded(request, url, variant, at_least)
    if (
        not isinstance(loaded, HttpResponse)
        and takes_pages
        and answers.lacks_file(loaded.answer, variant)
    ):
        page = _loaded(request, url, Variant.HTML, at_least)
        if isinstance(page, HttpResponse) or page.answer.frame.for_all:
            loaded = page
    if isinstance(loaded, HttpResponse):
        return loaded
    answer = loaded.answer
    if answer.status == 404 and site.is_generated(url):
        return site.generated(request, url)
    if answer.realm_url is None:
        return _no_realm(request, url, loaded.variant)
    if answer.high < at_least:
        return _not_yet(answer, loaded.variant, at_least)
    wanted = preferred(request.META.get("HTTP_ACCEPT_ENCODING", ""))
    coding = answers.coded(loaded.variant, url, answer, wanted)
    response = send(request, answer, loaded.cache, coding)
    if _query(request):
        headers.withhold(response)
    if response.status_code == 302:
        response["Location"] += _query(request)
    return response


class _Loaded(NamedTuple):
    """An answer that the caller may read. `cache` is `hit` if the answer was in the cache, else
    `miss`."""

    answer: Answer
    variant: Variant
    cache: str


def _loaded(
    request: HttpRequest, url: str, variant: Variant, at_least: int
) -> _Loaded | HttpResponse:
    """Returns the answer for a URL if the caller may read the URL's realm. Otherwise returns or
    raises the refusal (`_refusal`)."""
    # With the query parameter `noCache`, the answer is always loaded from the database.
    alone = "noCache" in request.GET
    answer = None if alone else answers.cached(variant, url, at_least)
    cache = "miss" if answer is None else "hit"
    admitted: str | HttpResponse | None = None
    if answer is None:
        admitted = _admit(request, url)
        if isinstance(admitted, HttpResponse):
            return admitted
        answer = _transpiled(lambda: answers.load(variant, url, alone=alone))
    if answer.high < at_least:
        # The answer may come from another request's load, which may have read the database before
        # generation `at_least` was committed. So load the answer again.
        answer = _transpiled(lambda: answers.load(variant, url, alone=True))
    if not answer.public and answer.realm_url not in (None, admitted):
        # The caller's access to this realm is not checked yet. For a cached answer, `_admit` is not
        # called. For a loaded answer, the realm has become private after the call of `_admit`, or
        # the URL has come to belong to another realm.
        refused = _refusal(request, _realm(answer.realm_url or ""), url)
        if refused is not None:
            return refused
    return _Loaded(answer, variant, cache)


def _admit(request: HttpRequest, url: str) -> str | HttpResponse | None:
    """Checks that the caller may read the realm around `url`. Call this function before the answer
    is loaded, and before any response reveals whether the file exists.

    Returns the URL of the realm. Returns None if everyone may read the realm, or if no realm
    contains `url`. If the caller may not read the realm, returns or raises the refusal
    (`_refusal`).
    """
    everyones = RealmPermission.objects.filter(realm=OuterRef("pk"), audience=EVERYONE, read=True)
    realm = Realm.objects.containing(url).annotate(public=Exists(everyones)).first()
    if realm is None or realm.public:
        return None
    return _refusal(request, realm, url) or realm.url


def _refusal(request: HttpRequest, realm: Realm, url: str) -> HttpResponse | None:
    """Returns None if the caller may read `realm`. If the caller may not, but `url` with a final
    slash is the URL of another realm, returns a redirect to that URL. In all other cases, raises
    Unauthorized or Forbidden."""
    try:
        auth.authorize(request, realm, "read")
    except (errors.Unauthorized, errors.Forbidden):
        if Realm.objects.filter(url=f"{url}/").exists():
            return _no_realm(request, url)
        raise
    return None


def _transpiled(load: Callable[[], Answer]) -> Answer:
    try:
        return load()
    except TranspilerFailed as error:
        raise errors.Busy(what=str(error)) from error


def _require_generation(answer: HttpResponseBase, at_least: int) -> None:
    """Checks that an answer is as new as the request's X-Realm-Min-Generation requires. The answer
    states its generation in a header, so the check works for every view. Raises Busy if the answer
    is too old although the realm has reached the required generation. Raises Conflict if the realm
    hasn't reached that generation."""
    given = answer.headers.get(headers.GENERATION)
    if given is None or int(given) >= at_least or answer.status_code == 503:
        return
    realm = _realm(answer.headers[headers.REALM])
    if realm.generation >= at_least:
        raise errors.Busy(what=f"{realm.url} is not ready at generation {at_least}")
    raise _uncommitted(realm.url, realm.generation, at_least)


def _uncommitted(realm_url: str, generation: int, at_least: int) -> errors.Conflict:
    return errors.Conflict(
        what=f"{realm_url} is at generation {generation}; generation {at_least} "
        "has not been committed"
    )


def _not_yet(answer: Answer, variant: Variant, at_least: int) -> HttpResponse:
    failed = dict(answer.headers).get(contents.RENDER_FAILED)
    if failed is not None and int(failed) >= at_least:
        return HttpResponse(pages.card(Page(int(failed))), status=500)
    if variant is Variant.HTML:
        return reindex_views.unready(
            answer.realm_url or "", "prerender-html", "its pages are being rendered"
        )
    raise _uncommitted(answer.realm_url or "", answer.high, at_least)


def _no_realm(request: HttpRequest, url: str, variant: Variant | None = None) -> HttpResponse:
    """Returns a redirect if `url` with a final slash is the URL of a realm. Otherwise returns the
    404 for a URL outside any realm."""
    if Realm.objects.filter(url=f"{url}/").exists():
        response = HttpResponse(status=302)
        response["Location"] = f"{url}/{_query(request)}"
        return response
    if variant is Variant.HTML:
        return HttpResponse(
            pages.nowhere(), status=404, headers={"Cache-Control": headers.NO_STORE}
        )
    return error_response(errors.NotFound(url=url))


def _query(request: HttpRequest) -> str:
    query = request.META.get("QUERY_STRING", "")
    return f"?{query}" if query else ""


def _described(request: HttpRequest, url: str, accept: str) -> HttpResponseBase:
    admitted = _admit(request, url)
    if isinstance(admitted, HttpResponse):
        return admitted
    found = resolve(url)
    if found is None or (found.file is None and Realm.objects.filter(url=f"{url}/").exists()):
        return _no_realm(request, url)
    if accept == API and url.endswith("/"):
        realm = _realm(found.realm_url)
        listing = realm_views.directory(request, realm, url.removeprefix(realm.url))
        return _with_headers(realm, listing)
    raise errors.NotFound(url=f"{url} as {accept}")


# --- Endpoints ---------------------------------------------------------------------------------


def _endpoint(request: HttpRequest, realm: Realm, name: str, method: str) -> HttpResponseBase:
    """Returns the answer of a realm's endpoint, such as `_info`, after checking the caller's
    permission."""
    views = ENDPOINTS[name]
    method = "GET" if method == "HEAD" else method
    if method not in views:
        allow = [*views, *(["HEAD"] if "GET" in views else [])]
        raise errors.MethodNotAllowed(allow, method=f"{method} of {name}")
    action, view = views[method]
    if action is not None:
        _may(realm, action, request)
    if method not in (*READING, "QUERY"):
        # Endpoints that accept writes have neither an ETag nor a modification date. So a write with
        # If-Match or If-Unmodified-Since fails.
        Conditions.of(request.META).check_write(realm.url + name, [], None)
    return _with_headers(realm, view(request, realm))


def _with_headers(realm: Realm, response: HttpResponseBase) -> HttpResponseBase:
    """Adds the headers that every answer of a realm has, and returns the response."""
    public = "read" in auth.permissions_of(realm, None)
    length = len(response.content) if isinstance(response, HttpResponse) else None
    headers.add_missing(response, headers.of_endpoint(realm.url, length, public=public))
    return response


def _realm(url: str) -> Realm:
    realm = Realm.objects.filter(url=url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    return realm


def _may(realm: Realm, action: auth.Action, request: HttpRequest) -> None:
    auth.authorize(request, realm, action)


#: The endpoints of realms, by name and method. Each value is a pair: the permission that a caller
#: needs, or None if callers need no permission, and the view.
ENDPOINTS: dict[str, dict[str, tuple[auth.Action | None, View]]] = {
    "_readiness-check": {"GET": (None, reindex_views.readiness)},
    "_session": {"POST": (None, realm_views.post_session)},
    "_info": {"GET": ("read", realm_views.get_info), "QUERY": ("read", realm_views.get_info)},
    "_mtimes": {"GET": ("read", realm_views.get_mtimes)},
    "_publishability": {"GET": ("read", realm_views.get_publishability)},
    "_permissions": {
        "GET": ("realm-owner", realm_views.get_permissions),
        "PATCH": ("realm-owner", realm_views.patch_permissions),
    },
    "_atomic": {"POST": ("write", realm_views.post_atomic)},
    "_definition": {"GET": ("read", definition_views.get_definition)},
    "_search": {"GET": ("read", search_views.search), "QUERY": ("read", search_views.search)},
    "_reindex": {"POST": ("write", reindex_views.post_reindex)},
    "_full-reindex": {"POST": ("write", reindex_views.post_full_reindex)},
    "_cancel-indexing-job": {"POST": ("write", reindex_views.post_cancel)},
}
