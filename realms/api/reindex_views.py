"""How far a realm's pages are, and having them made anew: readiness, progress, reindex, cancel."""

from django.http import HttpRequest, HttpResponse, JsonResponse

from realms import errors
from realms.access import auth
from realms.addresses import canonical_realm_url
from realms.api.server_views import MAX_BODY_BYTES, endpoint
from realms.content.locks import realm_write_lock
from realms.errors import error_response
from realms.http.accept import API
from realms.http.requests import read_body
from realms.models import Realm
from reindex.index import shown
from reindex.jobs import queue
from reindex.models import ReindexJob

# --- Readiness ---------------------------------------------------------------------------------


def readiness(request: HttpRequest, realm: Realm) -> HttpResponse:
    """200 once nothing of the realm waits to be indexed; with awaitPrerenderHtml a published
    realm's pages have to be those of now as well. Until then 503, which says what is missing."""
    awaited = request.GET.get("awaitPrerenderHtml") == "true"
    state = shown.readiness(realm.url, realm.generation)
    if not state.ready and _holds_back(realm, state, awaited):
        missing = state.missing if awaited else "index"
        # What went wrong may name files, and is told to readers alone.
        told = state.error if auth.may(request, realm, "read") else ""
        return unready(realm.url, missing, told or "its pages are being rendered")
    response = HttpResponse(status=200, content_type=API)
    response["X-Realm-Generation"] = str(realm.generation)
    return response


def _holds_back(realm: Realm, state: shown.Readiness, awaited: bool) -> bool:
    """A job under way does; pages that will not come only whom they are awaited by."""
    return state.under_way or (awaited and realm.kind == Realm.Kind.PUBLISHED)


def unready(realm_url: str, missing: str, why: str) -> HttpResponse:
    """A 503 that says what of a realm is not there yet: `startup`, `index` or `prerender-html`."""
    response = error_response(errors.Busy(what=f"{realm_url} is not ready: {why}"))
    response["X-Boxel-Not-Ready"] = missing
    return response


# --- Progress ----------------------------------------------------------------------------------


@endpoint("GET")
def publish_progress(request: HttpRequest) -> HttpResponse:
    """How far the newest rendering of a published realm is, for its owner."""
    caller = auth.server_caller(request)
    given = request.GET.get("published_realm_url")
    if not given:
        raise errors.Malformed(what="published_realm_url is missing from the query; expected a URL")
    url = canonical_realm_url(given)
    realm = Realm.objects.select_related("source").filter(url=url, kind="published").first()
    if realm is None or realm.source is None or not auth.owns(realm.source, caller):
        # Who isn't the owner is not told whether there is such a realm.
        user = auth.user_id(caller.username)
        raise errors.Forbidden(user=user, action="see the progress of", url=url)
    job = ReindexJob.objects.filter(realm_url=url).first()
    attributes = shown.progress(job) if job is not None else {"phase": "queued"}
    document = {"data": {"type": "publish-progress", "id": url, "attributes": attributes}}
    return JsonResponse(document, content_type=API)


# --- Reindex and cancel ------------------------------------------------------------------------


def post_reindex(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Owes the realm an index of what has changed."""
    _read(request)
    reindex(realm.url)
    return _done()


def post_full_reindex(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Owes the realm an index of everything."""
    _read(request)
    reindex(realm.url, full=True)
    return _done()


def post_cancel(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Ends what the realm is owed."""
    _read(request)
    queue.cancel(realm.url)
    return _done()


def _read(request: HttpRequest) -> None:
    # A body says nothing that matters here; it is read all the same, so that it can be too long.
    read_body(request, MAX_BODY_BYTES, "Request body")


def _done() -> HttpResponse:
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def reindex(realm_url: str, *, full: bool = False) -> ReindexJob:
    """Owes a realm's index at its present generation: what has changed, or all of it.

    Raises NotFound, and Unprocessable for a realm that has no pages.
    """
    with realm_write_lock(realm_url):
        realm = Realm.objects.filter(url=realm_url).first()
        if realm is None:
            raise errors.NotFound(url=realm_url)
        if realm.kind == Realm.Kind.BOOTSTRAP:
            raise errors.Unprocessable(what=f"{realm_url} is a {realm.kind} realm, without pages")
        draft = realm.kind == Realm.Kind.SOURCE
        return queue.enqueue_job(
            realm.url,
            realm.generation,
            full=full,
            draft=draft,
            owner=realm.owner_key,
        )
