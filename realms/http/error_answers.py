"""Makes the responses to errors. Such a response is a JSON document and never has a stack trace."""

import json

from django.http import HttpResponse

from realms.errors import MethodNotAllowed, RealmError, Several, UnsupportedCoding
from realms.http import headers
from reindex.reading.media_types import API

#: The maximum length of an error message in a JSON:API document. Longer messages are cut. Only a
#: message that quotes the client's request can get so long. Unit: characters.
MAX_MESSAGE = 4000


def error_response(error: RealmError) -> HttpResponse:
    """Returns the response to an error. Its body is a JSON:API document. For the error `Several`,
    the document lists the error's `problems`."""
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
    """Returns the response to an error of one of the server's own endpoints, such as
    `_create-realm`. The clients of these endpoints expect messages as plain strings."""
    response = error_response(error)
    response.content = json.dumps({"errors": [str(error)]}).encode()
    return response


def _described(error: RealmError) -> dict[str, object]:
    message = str(error)
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]} …"
    # Some clients read `message`. Others read `detail`, the name that JSON:API defines.
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
