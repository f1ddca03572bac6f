"""Contains the views of a realm's endpoints, such as info, listings, permissions and `_atomic`."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from realms import errors
from realms.access import auth, permissions
from realms.api import info
from realms.api.server_views import parse, session, signed_in
from realms.cards import atomic
from realms.content import listing
from realms.http import bodies, headers
from realms.http.requests import read_body
from realms.models import Realm
from realms.publishing import publishability
from realms.serving.responses import packed_response
from reindex.reading.media_types import API


def get_info(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Returns the realm's name and pictures, who may read the realm, and when it was published."""
    return _listed(info.realm_info(realm))


def get_mtimes(request: HttpRequest, realm: Realm) -> HttpResponseBase:
    """Returns the time of each file's last change."""
    return _packed(request, listing.mtimes(realm))


def get_publishability(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Returns the errors that the realm's pages would have if the realm were published now."""
    return _listed(publishability.report(realm))


def get_permissions(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Returns the realm's permissions by user."""
    return _permissions(realm, permissions.permissions(realm))


def patch_permissions(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Grants and revokes permissions in the realm."""
    changes = parse(bodies.PatchPermissions, request).data.attributes.permissions
    return _permissions(realm, permissions.change_permissions(realm, changes))


def post_session(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Issues a token for this realm to a caller who sends a server token (`access/auth.py`), or a
    username and a password."""
    if request.headers.get("Authorization"):
        caller, lifetime = auth.server_caller(request), auth.DAY_SECONDS
    else:
        body = parse(bodies.Session, request)
        caller, lifetime = auth.Caller.of(signed_in(request, body)), body.seconds
    allowed = sorted(auth.permissions_of(realm, caller))
    return session(
        auth.realm_token(caller.username, realm.url, allowed, lifetime, caller.account_id)
    )


def post_atomic(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Writes several files at one generation. If one of them can't be written, writes none."""
    if realm.kind != Realm.Kind.SOURCE:
        raise errors.MethodNotAllowed(
            (), method=f"POST to _atomic in a {realm.kind} realm", expected="a source realm"
        )
    body = read_body(request, settings.ATOMIC_SIZE_LIMIT_BYTES, "Request body")
    generation, results = atomic.apply(realm, atomic.read_operations(body, realm.url))
    rendered = [
        {"data": {"id": each.url}, "meta": {"created": listing.seconds(each.created_at)}}
        for each in results
    ]
    return _json({"atomic:results": rendered}, generation, status=201)


def _permissions(realm: Realm, held: dict[str, list[str]]) -> HttpResponse:
    data = {"type": "permissions", "id": realm.url, "attributes": {"permissions": held}}
    return _json({"data": data}, realm.generation)


def _listed(listed: listing.Listed) -> HttpResponse:
    return _json(listed.document, listed.generation)


def directory(request: HttpRequest, realm: Realm, path: str) -> HttpResponseBase:
    """Returns the files and folders directly in a folder."""
    return _packed(request, listing.directory(realm, path))


def _packed(request: HttpRequest, packed: listing.Listing) -> HttpResponseBase:
    return packed_response(request, packed.document, API, packed.generation)


def _json(document: dict[str, Any], generation: int, status: int = 200) -> HttpResponse:
    response = JsonResponse(document, status=status, content_type=API)
    headers.add(response, headers.of_generation(generation))
    return response
