"""Contains the views about the rendering of a realm's pages: readiness, progress, reindex, cancel.

A reindex job renders the pages of a realm at one generation, and stores them in the realm's index.
"""

from django.http import HttpRequest, HttpResponse, JsonResponse

from realms import errors
from realms.access import auth
from realms.addresses import canonical_realm_url
from realms.api.server_views import MAX_BODY_BYTES, endpoint
from realms.content.locks import realm_write_lock
from realms.http import headers
from realms.http.error_answers import error_response
from realms.http.requests import read_body
from realms.models import Realm
from reindex.index import shown
from reindex.jobs import queue
from reindex.models import ReindexJob
from reindex.reading.media_types import API

# --- Readiness ---------------------------------------------------------------------------------


def readiness(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Responds with 200 if the realm is ready, else with 503 and the name of the missing part. A
    realm is ready if its index shows the current generation, or if no job is making its index. With
    `awaitPrerenderHtml=true`, a published realm is ready only if its index shows the current
    generation."""
    awaited = request.GET.get("awaitPrerenderHtml") == "true"
    state = shown.readiness(realm.url, realm.generation)
    if not state.ready and _holds_back(realm, state, awaited):
        missing = state.missing if awaited else "index"
        # The error may name files, so only readers of the realm get it.
        error = state.error if auth.may(request, realm, "read") else ""
        return unready(realm.url, missing, error or "its pages are being rendered")
    response = HttpResponse(status=200, content_type=API)
    headers.add(response, headers.of_generation(realm.generation))
    return response


def _holds_back(realm: Realm, state: shown.Readiness, awaited: bool) -> bool:
    """Returns whether a realm with outdated pages counts as not ready (see `readiness`). `awaited`
    says whether the request has awaitPrerenderHtml."""
    return state.under_way or (awaited and realm.kind == Realm.Kind.PUBLISHED)


def unready(realm_url: str, missing: str, why: str) -> HttpResponse:
    """Returns a 503 answer with `missing` in the header X-Boxel-Not-Ready: `startup` if the
    database can't be reached, or `index` or `prerender-html` if the realm's pages are not rendered
    yet (`shown.Readiness`)."""
    response = error_response(errors.Busy(what=f"{realm_url} is not ready: {why}"))
    response["X-Boxel-Not-Ready"] = missing
    return response


# --- Progress ----------------------------------------------------------------------------------


@endpoint("GET")
def publish_progress(request: HttpRequest) -> HttpResponse:
    """Returns the progress of a published realm's newest reindex job. Only an owner of the realm's
    source realm may see the progress."""
    caller = auth.server_caller(request)
    given = request.GET.get("published_realm_url")
    if not given:
        raise errors.Malformed(what="published_realm_url is missing from the query; expected a URL")
    url = canonical_realm_url(given)
    realm = Realm.objects.published().select_related("source").filter(url=url).first()
    if realm is None or realm.source is None or not auth.owns(realm.source, caller):
        # A missing realm and another owner's realm get the same answer.
        user = auth.user_id(caller.username)
        raise errors.Forbidden(user=user, action="see the progress of", url=url)
    job = ReindexJob.objects.filter(realm_url=url).first()
    attributes = shown.progress(job) if job is not None else {"phase": "queued"}
    document = {"data": {"type": "publish-progress", "id": url, "attributes": attributes}}
    return JsonResponse(document, content_type=API)


# --- Reindex and cancel ------------------------------------------------------------------------


def post_reindex(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Queues a job that renders the outdated cards of the realm."""
    _read(request)
    reindex(realm.url)
    return _done()


def post_full_reindex(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Queues a job that renders all cards of the realm again."""
    _read(request)
    reindex(realm.url, full=True)
    return _done()


def post_cancel(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Cancels the realm's unfinished jobs, including a failed job that would be retried."""
    _read(request)
    queue.cancel(realm.url)
    return _done()


def _read(request: HttpRequest) -> None:
    # The body is ignored; reading it enforces the size limit.
    read_body(request, MAX_BODY_BYTES, "Request body")


def _done() -> HttpResponse:
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return response


def reindex(realm_url: str, *, full: bool = False) -> ReindexJob:
    """Queues a job that renders a realm's cards at the current generation. Without `full`, the job
    renders only the cards that changes affect, and keeps the pages of the other cards.

    Raises NotFound. Raises Unprocessable for a bootstrap realm, which has no pages.
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
