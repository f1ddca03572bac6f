"""Reads as the views answer them, without a socket and without Django's middleware."""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from django.http import HttpResponse
from django.test import RequestFactory

from realms.api import routes

SOURCE = "application/vnd.card+source"
_requests = RequestFactory()


@dataclass(frozen=True)
class Asked:
    """What came back: the bytes (None where no file is), at which generation, from a cache or not.

    `generation` is None where there is no realm.
    """

    body: bytes | None
    generation: int | None
    hit: bool


def ask(url: str, *, at_least: int = 0, fresh: bool = False) -> Asked:
    """GETs a file's source at a public URL. `at_least` pins it; `fresh` asks the database itself.

    Raises what the view raises.
    """
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
