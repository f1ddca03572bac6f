"""Contains the view that reads and writes cards as JSON (`application/vnd.card+json`)."""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from realms import errors
from realms.access import auth
from realms.api.info import realm_info
from realms.cards import documents
from realms.content import files
from realms.http import bodies, headers
from realms.http.conditions import Conditions
from realms.http.requests import MIN_GENERATION, min_generation, read_body, requested_method
from realms.models import EVERYONE, Realm, RealmPermission
from reindex.reading.card_paths import card_of, is_card_file
from reindex.reading.media_types import API, CARD, JSON
from reindex.reading.references import file_url

READING = ("GET", "HEAD")
#: The content types that a body may have. The empty string stands for a request without a content
#: type.
BODY_TYPES = (CARD, API, JSON, "")


def card(request: HttpRequest, url: str) -> HttpResponse:
    """Reads or writes the card at `url`, which is unescaped. In a POST request, `url` is the URL of
    a folder, and the new card is created below this folder."""
    method = requested_method(request)
    realm = Realm.objects.containing(url).first()
    if realm is None:
        raise errors.NotFound(url=url)
    reading = method in READING
    auth.authorize(request, realm, "read" if reading else "write")
    path = url.removeprefix(realm.url)
    if reading:
        return _read(request, realm, path)
    writer = _WRITERS.get(method)
    if writer is None:
        raise errors.MethodNotAllowed((*READING, *_WRITERS), method=method)
    if realm.kind != Realm.Kind.SOURCE:
        raise errors.MethodNotAllowed(
            READING,
            method=f"{method} of a card in a {realm.kind} realm",
            expected="a card in a source realm",
        )
    return writer(request, realm, path)


def _read(request: HttpRequest, realm: Realm, path: str) -> HttpResponse:
    if is_card_file(path) and documents.has_file(realm, path):
        response = HttpResponse(status=302)
        del response["Content-Type"]
        response["Location"] = urlsplit(file_url(realm.url, card_of(path))).path
        return headed(response, realm, realm.generation)
    found = documents.read(realm, path, min_generation(request.META.get(MIN_GENERATION)))
    response = _document(realm, found)
    outcome = Conditions.of(request.META).of_read(response["ETag"], None)
    if outcome == 412:
        raise Conditions.of(request.META).unmet(found.url)
    if outcome == 304:
        response.status_code, response.content = 304, b""
        del response["Content-Type"]
    return response


def _create(request: HttpRequest, realm: Realm, path: str) -> HttpResponse:
    if path and not path.endswith("/"):
        raise errors.MethodNotAllowed(
            (*READING, "PATCH", "DELETE"),
            method="POST to a card",
            expected="POST to a folder, or PATCH",
        )
    made = documents.create(
        realm, path, _body(documents.CreateCard, request), _condition(request, realm)
    )
    response = _document(realm, made, status=201)
    response["Location"] = made.url
    return response


def _patch(request: HttpRequest, realm: Realm, path: str) -> HttpResponse:
    body = _body(documents.PatchCard, request)
    path = _card_path(path)
    return _document(realm, documents.patch(realm, path, body, _condition(request, realm)))


def _delete(request: HttpRequest, realm: Realm, path: str) -> HttpResponse:
    generation = documents.delete(realm, _card_path(path), _condition(request, realm))
    response = HttpResponse(status=204)
    del response["Content-Type"]
    return headed(response, realm, generation)


_WRITERS: dict[str, Callable[[HttpRequest, Realm, str], HttpResponse]] = {
    "POST": _create,
    "PATCH": _patch,
    "DELETE": _delete,
}


def _condition(request: HttpRequest, realm: Realm) -> documents.Condition:
    """Returns a function that checks the request's conditions, such as If-Match, before a write.
    This function raises PreconditionFailed if a condition fails. A condition may contain the ETag
    of the card's current document or of its current file."""
    conditions = Conditions.of(request.META)

    def check(file: str, card: documents.Card | None) -> None:
        if conditions == Conditions():
            return
        etags, modified_at = files.validators(realm, file)
        if card is not None:
            etags.append(_document(realm, card)["ETag"])
        conditions.check_write(realm.url + file, etags, modified_at)

    return check


def _card_path(path: str) -> str:
    if path.endswith("/") or not path:
        raise errors.MethodNotAllowed(
            ("POST",), method="Using this method on a folder", expected="the URL of a card"
        )
    return card_of(path)


def _body(model: type[bodies.M], request: HttpRequest) -> bodies.M:
    content_type = request.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if content_type not in BODY_TYPES:
        raise errors.UnsupportedType(found=content_type[:80], expected=CARD)
    # A body may escape characters that are stored unescaped. So a body can be longer than the card
    # that is stored.
    return bodies.parse(model, read_body(request, 2 * settings.CARD_SIZE_LIMIT_BYTES, "The card"))


def _document(realm: Realm, found: documents.Card, status: int = 200) -> HttpResponse:
    (data,) = resources(realm, [found])
    # `json.dumps` escapes all characters outside ASCII. So half of a surrogate pair, which UTF-8
    # can't encode, is escaped too.
    body = json.dumps({"data": data}).encode()
    response = HttpResponse(body, status=status, content_type=CARD)
    response["ETag"] = f'"{hashlib.sha256(body).hexdigest()}:card"'
    response["Content-Length"] = str(len(body))
    headed(response, realm, found.generation)
    if status == 200:
        public = "X-Boxel-Realm-Public-Readable" in response
        response["Cache-Control"] = headers.scoped(headers.REVALIDATED, public=public)
    return response


def resources(realm: Realm, found: list[documents.Card]) -> list[dict[str, Any]]:
    """Returns cards of a realm as JSON:API resources. Each resource has a description of the realm
    in its `meta`."""
    info = realm_info(realm).document["data"]["attributes"] if found else {}
    return [
        {**card.resource, "meta": {**card.resource["meta"], "realmInfo": info}} for card in found
    ]


def headed(response: HttpResponse, realm: Realm, generation: int) -> HttpResponse:
    """Adds the headers that every answer about a realm's cards has, and returns the response."""
    public = RealmPermission.objects.filter(realm=realm, audience=EVERYONE, read=True).exists()
    headers.add(response, headers.of_card(realm.url, generation, public=public))
    return response
