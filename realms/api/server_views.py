"""Contains the views of the server's endpoints, such as `/_create-realm`."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth import authenticate
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from realms import errors
from realms.access import auth
from realms.addresses import canonical_realm_url
from realms.http import bodies, headers
from realms.http.requests import read_body
from realms.publishing import publish
from reindex.reading.media_types import API

#: The maximum size of the body of a request to a server endpoint. Unit: bytes.
MAX_BODY_BYTES = 64 * 1024

View = Callable[[HttpRequest], HttpResponse]


def endpoint(method: str) -> Callable[[View], View]:
    """Returns a decorator that turns a view into a server endpoint with one HTTP method. Django's
    CSRF check is off, because callers authenticate with an Authorization header or a password, not
    with a cookie."""

    def decorate(view: View) -> View:
        @csrf_exempt
        @wraps(view)
        def answer(request: HttpRequest) -> HttpResponse:
            if request.method == "OPTIONS":
                return preflight()
            if request.method != method:
                raise errors.MethodNotAllowed([method], method=request.method)
            response = view(request)
            headers.add(response, headers.of_server())
            return response

        return answer

    return decorate


def preflight() -> HttpResponse:
    """Returns the answer to a browser's CORS preflight request."""
    response = HttpResponse(status=204)
    response["Access-Control-Allow-Origin"] = "*"
    response["Access-Control-Allow-Methods"] = "*"
    response["Access-Control-Allow-Headers"] = "*, Authorization"
    response["Access-Control-Max-Age"] = "86400"
    return response


@csrf_exempt
def unknown(request: HttpRequest) -> HttpResponse:
    """Answers 404 for every path that begins with `/_` and isn't an endpoint."""
    raise errors.NotFound(url=request.path[:200])


@endpoint("POST")
def server_session(request: HttpRequest) -> HttpResponse:
    """Issues a server token to a caller who sends a username and a password."""
    body = parse(bodies.Session, request)
    account = signed_in(request, body)
    return session(auth.server_token(account.get_username(), body.seconds, account.pk))


@endpoint("POST")
def realm_auth(request: HttpRequest) -> HttpResponse:
    """Issues a realm token for each realm that the caller may read, except published realms."""
    return JsonResponse(auth.realm_tokens(auth.server_caller(request)))


@endpoint("POST")
def create_realm(request: HttpRequest) -> HttpResponse:
    """Creates a source realm for the caller. The realm's URL is `<origin>/<user>/<endpoint>/`, with
    the `endpoint` in the request's body."""
    caller = auth.server_caller(request)
    attributes = parse(bodies.CreateRealm, request).data.attributes
    given = attributes.model_dump(exclude_none=True)
    realm = publish.create_realm(caller, attributes.endpoint, given)
    return _document(
        "realm", realm.url, {**given, "publishable": True, "status": "pending"}, status=202
    )


@endpoint("POST")
def publish_realm(request: HttpRequest) -> HttpResponse:
    """Publishes a source realm. Workers then render the pages of the published realm. The published
    realm's `_readiness-check` reports when the pages are ready."""
    caller = auth.server_caller(request)
    body = parse(bodies.PublishRealm, request)
    done = publish.publish_realm(body.sourceRealmURL, body.publishedRealmURL, caller)
    attributes = {
        "sourceRealmURL": done.source_url,
        "publishedRealmURL": done.url,
        "lastPublishedAt": _ms(done.at),
        "status": "pending",
        "generation": done.generation,
    }
    response = _document("published_realm", done.realm_id, attributes, status=202)
    response["Location"] = f"{done.url}_readiness-check?awaitPrerenderHtml=true"
    response["Retry-After"] = "1"
    headers.add(response, headers.of_publication(done.url, done.generation))
    return response


@endpoint("POST")
def unpublish_realm(request: HttpRequest) -> HttpResponse:
    """Removes a published realm."""
    caller = auth.server_caller(request)
    body = parse(bodies.UnpublishRealm, request)
    realm = publish.unpublish_realm(body.publishedRealmURL, caller)
    attributes = {
        "sourceRealmURL": realm.source.url if realm.source else None,
        "publishedRealmURL": realm.url,
        "lastPublishedAt": _ms(realm.last_published_at),
    }
    return _document("unpublished_realm", str(realm.pk), attributes)


@endpoint("DELETE")
def delete_realm(request: HttpRequest) -> HttpResponse:
    """Deletes a source realm and every realm published from it."""
    caller = auth.server_caller(request)
    url = canonical_realm_url(parse(bodies.DeleteRealm, request).data.id)
    publish.delete_realm(url, caller)
    return HttpResponse(status=204)


def signed_in(request: HttpRequest, body: bodies.Session) -> Any:
    """Returns the account that has the username and password in the request's body. Raises
    Unauthorized."""
    user = authenticate(request, username=body.username, password=body.password)
    # The operator, who may do everything, has no account, but signs tokens with REALM_SECRET_SEED.
    # An account with the operator's name gets no token, so that nobody takes its user for the
    # operator.
    if user is None or user.get_username() == auth.OPERATOR:
        raise errors.Unauthorized(why="the username or the password is wrong")
    return user


def session(token: str) -> HttpResponse:
    """Returns a response with a token in its Authorization header."""
    response = HttpResponse(status=201)
    del response["Content-Type"]
    response["Authorization"] = token
    return response


def parse(model: type[bodies.M], request: HttpRequest) -> bodies.M:
    """Parses a request's JSON body of at most MAX_BODY_BYTES into a model. Raises Malformed,
    TooLarge."""
    return bodies.parse(model, read_body(request, MAX_BODY_BYTES, "Request body"))


def _document(kind: str, key: str, attributes: dict[str, Any], status: int = 200) -> HttpResponse:
    return JsonResponse(
        {"data": {"type": kind, "id": key, "attributes": attributes}},
        status=status,
        content_type=API,
    )


def _ms(moment: Any) -> str | None:
    return str(int(moment.timestamp() * 1000)) if moment else None
