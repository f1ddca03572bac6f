"""The headers of each kind of answer, as they are sent."""

import pytest
from django.http import HttpResponse

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


def test_only_what_everyone_may_read_is_kept_by_shared_caches() -> None:
    assert headers.scoped("max-age=0", public=True) == "public, max-age=0"
    assert headers.scoped("max-age=0", public=False) == "private, max-age=0"


def test_headers_replace_those_of_a_response_or_give_way_to_them() -> None:
    response = HttpResponse(headers={"Vary": "Cookie"})
    headers.add_missing(response, (VARY, GENERATION))
    assert (response["Vary"], response["X-Realm-Generation"]) == ("Cookie", "7")
    headers.add(response, (VARY, ("x-realm-generation", "8")))
    assert (response["Vary"], response["X-Realm-Generation"]) == ("Accept", "8")


def test_an_error_says_what_a_client_can_do_about_it() -> None:
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
