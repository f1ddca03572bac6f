"""Makes the responses to errors: JSON:API documents that never have a stack trace."""

import json

from django.http import HttpResponse

from realms.errors import MethodNotAllowed, RealmError, Several, UnsupportedCoding
from realms.http import headers
from reindex.reading.media_types import API

#: The maximum length of an error message. Longer messages quote what the client has sent. Unit:
#: characters.
MAX_MESSAGE = 4000


def error_response(error: RealmError) -> HttpResponse:
    """Returns the error response of a realm's endpoint, with errors as JSON:API objects."""
    problems = error.problems if isinstance(error, Several) else [error]
    response = HttpResponse(
        json.dumps({"errors": [_described(each) for each in problems]}),
        status=error.status,
        content_type=API,
    )
    if error.status == 503:
        response["Retry-After"] = str(error.details.get("retry_after", 1))
    if isinstance(error, UnsupportedCoding):
        response["Accept-Encoding"] = str(error.details["expected"])
    if isinstance(error, MethodNotAllowed):
        response["Allow"] = error.allow
    if error.status == 401:
        response["WWW-Authenticate"] = "Bearer"
        if "realm" in error.details:
            response["X-Boxel-Realm-Url"] = str(error.details["realm"])
    headers.add(response, headers.of_error())
    return response


def server_error_response(error: RealmError) -> HttpResponse:
    """Returns the error response of a server endpoint. The clients of these endpoints expect
    messages as plain strings."""
    response = error_response(error)
    response.content = json.dumps({"errors": [str(error)]}).encode()
    return response


def _described(error: RealmError) -> dict[str, object]:
    message = str(error)
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]} …"
    # Some clients of this protocol read `message`, others `detail`, as JSON:API names it.
    texts = {"status": error.status, "title": error.title, "message": message, "detail": message}
    return {**texts, **_members(error)}


def _members(error: RealmError) -> dict[str, object]:
    """Returns the optional members of a JSON:API error object."""
    members: dict[str, object] = {"id": error.details["url"]} if "url" in error.details else {}
    if "pointer" in error.details:
        members["source"] = {"pointer": error.details["pointer"]}
    if "parameter" in error.details:
        members["source"] = {"parameter": error.details["parameter"]}
    if "meta" in error.details:
        members["meta"] = error.details["meta"]
    if "causes" in error.details:
        members["meta"] = {"causes": error.details["causes"]}
    return members
