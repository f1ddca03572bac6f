"""Shows drafts, and queues the jobs that render them. A draft is a rendered page of a source realm.
Only the realm's owner can see the drafts. The jobs store the drafts in the realm's index, which
searches in the source realm also use."""

from collections.abc import Mapping

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from realms.access import auth
from realms.content.locks import realm_write_lock
from realms.content.resolve import resolve
from realms.http import headers
from realms.models import Realm
from realms.serving import origins, pages
from reindex.index.shown import find_page
from reindex.jobs import queue
from reindex.models import IndexHead, ReindexJob
from reindex.reading.card_paths import named_card


def ask_for_index(realm_url: str) -> None:
    """Queues a job that renders a source realm's current generation and makes its index. Does
    nothing if the job isn't needed (`_behind`)."""
    if not _behind(realm_url):
        return
    with realm_write_lock(realm_url):
        realm = _behind(realm_url)
        if realm is not None:
            queue.enqueue_job(realm.url, realm.generation, draft=True, owner=realm.owner_key)


def _behind(realm_url: str) -> Realm | None:
    """Returns the source realm at `realm_url` if a job must render its current generation. Returns
    None if the realm's index has this generation, if a job of the realm is queued or rendering, or
    if a job for this generation has failed."""
    realm = Realm.objects.sources().filter(url=realm_url).first()
    if realm is None:
        return None
    head = IndexHead.objects.filter(realm_url=realm_url).first()
    if head is not None and head.generation >= realm.generation:
        return None
    jobs = ReindexJob.objects.filter(realm_url=realm_url)
    if jobs.live().exists():
        return None
    failed = jobs.filter(status=ReindexJob.Status.FAILED, generation__gte=realm.generation)
    return None if failed.exists() else realm


def may_preview(meta: Mapping[str, str]) -> bool:
    """Returns whether a request has an Authorization header or a session cookie, so that it might
    come from a realm's owner. `meta` has the headers under their WSGI names."""
    cookies = meta.get("HTTP_COOKIE", "")
    return "HTTP_AUTHORIZATION" in meta or f"{settings.SESSION_COOKIE_NAME}=" in cookies


def preview(request: HttpRequest, url: str) -> HttpResponse | None:
    """Returns the draft at `url`, or a page that says why there is no draft. Returns None if a file
    has this URL, or if `url` lies in no source realm that the caller owns."""
    found = resolve(url)
    if found is None or found.kind != Realm.Kind.SOURCE or found.file is not None:
        return None
    realm = Realm.objects.filter(pk=found.realm_id).first()
    if realm is None or not _is_owner(request, realm):
        return None
    path = url.removeprefix(realm.url)
    ask_for_index(realm.url)
    page = find_page(realm.url, named_card(path))
    if page.generation is None:
        response = HttpResponse(pages.preparing(realm.url), status=503)
    elif page.error is not None:
        response = HttpResponse(pages.broken(page.error), status=500)
    elif page.html is None:
        response = HttpResponse(pages.missing(realm.url), status=404)
    else:
        response = HttpResponse(pages.card(page))
    if page.generation is None or page.generation < realm.generation:
        # This header makes the browser reload the page in 2 s.
        response["Refresh"] = "2"
    headers.add(response, headers.of_draft(realm.url, page.generation or 0))
    headers.add(response, origins.draft_policy(request.META.get("HTTP_HOST", ""), realm.url))
    return response


def _is_owner(request: HttpRequest, realm: Realm) -> bool:
    """Returns whether the request's session or token belongs to an owner of the realm."""
    if request.user.is_authenticated:
        return auth.owns(realm, auth.Caller.of(request.user))
    return auth.may(request, realm, "realm-owner")
