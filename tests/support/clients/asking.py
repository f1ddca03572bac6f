"""Reads files by calling the views directly, without a socket and without Django's middleware."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from django.http import HttpResponse
from django.test import RequestFactory

from realms.api import routes

SOURCE = "application/vnd.card+source"
_requests = RequestFactory()


@dataclass(frozen=True)
class Asked:
    """The parts of an answer that tests compare. `body` is None if the file is missing, and
    `generation` is None if the realm is missing. `hit` is true if the answer came from a cache."""

    body: bytes | None
    generation: int | None
    hit: bool


def ask(url: str, *, at_least: int = 0, fresh: bool = False) -> Asked:
    """Sends a GET request for a file's source at a public URL, and returns the answer. `at_least`
    is the minimum generation that the answer may have. If `fresh` is true, the answer doesn't come
    from a cache. Raises the exceptions of the view."""
    parts = urlsplit(url)
    headers = {"host": parts.netloc, "accept": SOURCE}
    if at_least:
        headers["x-realm-min-generation"] = str(at_least)
    request = _requests.get(quote(parts.path) + "?noCache" * fresh, headers=headers)
    response = routes.realm(request)
    assert isinstance(response, HttpResponse)
    assert response.status_code in (200, 404), response.content
    generation = response.headers.get("X-Realm-Generation")
    return Asked(
        response.content if response.status_code == 200 else None,
        int(generation) if generation is not None else None,
        response.headers.get("X-Boxel-Cache") == "hit",
    )
