"""Tests that the server refuses a card whose file it couldn't read back."""

import json
from typing import Any

import pytest

from tests.support.clients.cards import CARD, DRAFT, data, send
from tests.support.web import API, Web

LONG = 12345678901234567890
PERSON = {"module": "./person.tsx", "name": "Person"}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: Each part has a number that JavaScript can't hold, nests too deep, or has a character that can't
#: be stored.
UNREADABLE: dict[str, dict[str, Any]] = {
    "number": {"attributes": {"n": LONG}},
    "depth": {"attributes": {"n": nested(98)}},
    "character": {"attributes": {"n": "\ud800"}},
    "number in a link": {"relationships": {"a": {"links": {"self": "./x"}, "meta": {"n": LONG}}}},
    "depth of a link": {"relationships": {"a": {"links": {"self": "./x"}, "meta": nested(97)}}},
    "character of a link": {"relationships": {"a": {"links": {}, "meta": {"n": "\ud800"}}}},
    "number in the type": {"meta": {"adoptsFrom": {**PERSON, "n": LONG}}},
    "depth of the type": {"meta": {"adoptsFrom": {**PERSON, "n": nested(97)}}},
    "character of the type": {"meta": {"adoptsFrom": {**PERSON, "n": "\x00"}}},
}


def test_the_deepest_card_that_is_accepted_can_be_read_back(web: Web, ada: dict[str, str]) -> None:
    card = {"type": "card", "attributes": {"n": nested(97)}, "meta": {"adoptsFrom": PERSON}}
    made = data(send(web, "POST", DRAFT, card, ada))
    assert data(web.get(made["id"], CARD))["attributes"] == {"n": nested(97)}


@pytest.mark.parametrize("way", ["POST", "PATCH", "atomic"])
@pytest.mark.parametrize("part", UNREADABLE)
def test_a_card_that_could_not_be_read_back_is_refused(
    web: Web, ada: dict[str, str], part: str, way: str
) -> None:
    card = {"type": "card", "meta": {"adoptsFrom": PERSON}}
    web.upload(f"{DRAFT}c.json", json.dumps({"data": card}).encode(), ada)
    sent = {**card, **UNREADABLE[part]}
    if way == "PATCH":
        answer = send(web, "PATCH", f"{DRAFT}c", sent, ada)
    elif way == "POST":
        answer = send(web, "POST", DRAFT, sent, ada)
    else:
        operation = {"op": "update", "href": "c.json", "data": sent}
        body = json.dumps({"atomic:operations": [operation]}).encode()
        answer = web.request(
            "POST", f"{DRAFT}_atomic", accept=API, body=body, headers={**ada, "Content-Type": API}
        )
    assert answer.status == 400, answer.text
    assert data(web.get(f"{DRAFT}c", CARD))["meta"]["adoptsFrom"] == PERSON
