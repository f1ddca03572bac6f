"""Tests the HTTP headers of each kind of answer."""

from typing import Any

import pytest
from django.http import HttpResponse

from notifications.channels import surrogate_key
from realms.errors import Busy, MethodNotAllowed, NotFound, Unauthorized
from realms.http import headers
from realms.http.error_answers import error_response, server_error_response
from realms.http.headers import Headers

REALM = "http://localhost:4201/ada/site/"
URL = ("x-boxel-realm-url", REALM)
GENERATION = ("x-realm-generation", "7")
VARY = ("vary", "Accept")
NO_STORE = ("cache-control", "no-store")
PUBLIC = ("x-boxel-realm-public-readable", "true")
CORS = (("access-control-allow-origin", "*"), ("access-control-expose-headers", "*"))
STRICT = ("cache-control", "no-store, no-cache, must-revalidate")
LENGTH = ("content-length", "9")
PRIVATE = ("cache-control", "private, no-store")


@pytest.mark.parametrize(
    ("made", "sent"),
    [
        (headers.of_server(), (*CORS, NO_STORE)),
        (headers.of_error(), (NO_STORE, *CORS)),
        (headers.of_generation(7), (GENERATION,)),
        (
            headers.of_file(REALM, 7, public=True, compressible=False),
            (URL, GENERATION, VARY, *CORS, PUBLIC),
        ),
        (
            headers.of_file(REALM, 7, public=False, compressible=True),
            (URL, GENERATION, ("vary", "Accept, Accept-Encoding"), *CORS),
        ),
        (headers.of_card(REALM, 7, public=True), (URL, GENERATION, VARY, NO_STORE, *CORS, PUBLIC)),
        (headers.of_card(REALM, 7, public=False), (URL, GENERATION, VARY, NO_STORE, *CORS)),
        (headers.of_write(REALM, 7), (URL, GENERATION, NO_STORE, *CORS)),
        (headers.of_endpoint(REALM, 9, public=True), (URL, VARY, STRICT, *CORS, LENGTH, PUBLIC)),
        (headers.of_endpoint(REALM, None, public=False), (URL, VARY, STRICT, *CORS)),
        (headers.of_publication(REALM, 7), (URL, PUBLIC, GENERATION)),
        (headers.of_pin(7), (GENERATION, PRIVATE)),
        (
            headers.of_draft(REALM, 7),
            (
                GENERATION,
                URL,
                PRIVATE,
                ("vary", "Accept, Authorization, Cookie"),
                ("x-robots-tag", "noindex"),
            ),
        ),
    ],
)
def test_each_kind_of_answer_has_exactly_its_headers(made: Headers, sent: Headers) -> None:
    assert made == sent


def test_only_public_answers_have_a_public_cache_control() -> None:
    assert headers.scoped("max-age=0", public=True) == "public, max-age=0"
    assert headers.scoped("max-age=0", public=False) == "private, max-age=0"


KEYS = ("realms", surrogate_key(REALM), f"{surrogate_key(REALM)}-7")


@pytest.mark.parametrize("own", ["max-age=0", "max-age=60, must-revalidate", None])
def test_a_shared_cache_keeps_an_answer_as_long_as_the_edge_may(
    settings: Any, own: str | None
) -> None:
    settings.REALM_EDGE_SECONDS = 5
    given: Headers = (("etag", '"x"'), *((("cache-control", own),) if own else ()))
    made = headers.of_content(given, REALM, 7, public=True, shared=True)
    assert made == (
        ("etag", '"x"'),
        (
            "cache-control",
            f"public, {own or headers.REVALIDATED}, s-maxage=5, stale-while-revalidate=0, "
            "stale-if-error=0",
        ),
        ("surrogate-key", " ".join(KEYS)),
        ("cache-tag", ",".join(KEYS)),
    )
    file = dict(headers.of_file(REALM, 7, public=True, compressible=True))
    assert file["vary"] == "Accept, Accept-Encoding, X-Realm-Min-Generation"
    response = HttpResponse(headers={"Cache-Control": dict(made)["cache-control"]})
    headers.withhold(response)
    image = ", s-maxage=0" if own and "60" in own else ""
    assert response["Cache-Control"] == f"public, {own or headers.REVALIDATED}{image}"


@pytest.mark.parametrize(
    ("seconds", "public", "shared", "own"),
    [(0, True, True, "max-age=0"), (5, False, True, "max-age=0"), (5, True, False, "max-age=0"),
     (5, True, True, "no-store"), (5, False, False, None), (0, True, True, None)],
)  # fmt: skip
def test_no_shared_cache_may_keep_a_private_answer(
    settings: Any, seconds: int, public: bool, shared: bool, own: str | None
) -> None:
    settings.REALM_EDGE_SECONDS = seconds
    given: Headers = (("cache-control", own),) if own else ()
    made = headers.of_content(given, REALM, 7, public=public, shared=shared)
    scope = "public" if public else "private"
    assert made == (("cache-control", f"{scope}, {own or headers.REVALIDATED}"),)


@pytest.mark.parametrize(("seconds", "shared"), [(0, True), (5, False)])
def test_only_browsers_may_keep_an_image_without_revalidating(
    settings: Any, seconds: int, shared: bool
) -> None:
    settings.REALM_EDGE_SECONDS = seconds
    own: Headers = (("cache-control", "max-age=60, must-revalidate"),)
    for public, kept in ((True, "public, max-age=60, must-revalidate, s-maxage=0"),
                         (False, "private, max-age=60, must-revalidate")):  # fmt: skip
        made = headers.of_content(own, REALM, 7, public=public, shared=shared)
        assert made == (("cache-control", kept),)


def test_headers_replace_those_of_a_response_or_fill_gaps() -> None:
    response = HttpResponse(headers={"Vary": "Cookie"})
    headers.add_missing(response, (VARY, GENERATION))
    assert (response["Vary"], response["X-Realm-Generation"]) == ("Cookie", "7")
    headers.add(response, (VARY, ("x-realm-generation", "8")))
    assert (response["Vary"], response["X-Realm-Generation"]) == ("Accept", "8")


def test_an_error_response_has_the_headers_of_its_kind() -> None:
    common = {"content-type": "application/vnd.api+json", **dict((NO_STORE, *CORS))}

    def more(response: HttpResponse) -> dict[str, str]:
        sent = {name.lower(): value for name, value in response.items()}
        assert sent.items() >= common.items()
        return {name: value for name, value in sent.items() if name not in common}

    assert more(error_response(NotFound(url=REALM))) == {}
    assert more(error_response(Busy(what="later"))) == {"retry-after": "1"}
    assert more(error_response(MethodNotAllowed(["GET"], method="PUT"))) == {
        "allow": "GET, OPTIONS"
    }
    refused = more(error_response(Unauthorized(why="no token", realm=REALM)))
    assert refused == {"www-authenticate": "Bearer", "x-boxel-realm-url": REALM}
    assert more(server_error_response(NotFound(url=REALM))) == {}
