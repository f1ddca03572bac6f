"""Tests that an HTTP patch of a card changes the fields in the patch and keeps all other fields."""

import json
from typing import Any

import pytest

from realms.cards import documents, relationships
from realms.models import Realm
from tests.support import make
from tests.support.clients.cards import DRAFT, data, send, stored
from tests.support.cluster import Answer, wait_until
from tests.support.gates import Gate, in_thread
from tests.support.web import Web, waiting_for


def test_a_patch_changes_only_the_fields_that_it_names(web: Web, ada: dict[str, str]) -> None:
    document = {
        "data": {
            "type": "card",
            "attributes": {"a": 1, "deep": {"x": 1, "y": [1, 2]}, "gone": "soon"},
            "relationships": {
                "one": {"links": {"self": "./ada"}},
                "many.0": {"links": {"self": "./ada"}},
                "many.1": {"links": {"self": "./index"}},
                "kept.0": {"links": {"self": "./ada"}},
            },
            "meta": {"adoptsFrom": {"module": "./person.tsx", "name": "Person"}, "extra": True},
        }
    }
    web.upload(f"{DRAFT}c.json", json.dumps(document).encode(), ada)
    change = {
        "type": "card",
        "attributes": {"b": 2, "deep": {"y": [3]}, "gone": None},
        "relationships": {"one": None, "many.0": {"links": {"self": f"{DRAFT}bo"}}},
    }
    card = data(send(web, "PATCH", f"{DRAFT}c", change, ada))
    assert card["attributes"] == {"a": 1, "b": 2, "deep": {"x": 1, "y": [3]}, "gone": None}
    assert card["relationships"] == {
        "kept.0": {"links": {"self": "./ada"}},
        "many.0": {"links": {"self": "./bo"}},
        "many.1": {"links": {"self": "./index"}},
    }
    kept = stored(web, f"{DRAFT}c")
    assert kept["attributes"] == card["attributes"]
    assert kept["meta"] == document["data"]["meta"]
    # A patch may name the card's type, in any spelling. A patch that names another type is refused.
    for module, status in [(f"{DRAFT}person.tsx", 200), ("./post", 400)]:
        meta = {"adoptsFrom": {"module": module, "name": "Person"}}
        assert send(web, "PATCH", f"{DRAFT}c.json", {"type": "card", "meta": meta}, ada).status == (
            status
        )


def test_a_patch_keeps_a_stored_text_that_utf_8_cannot_encode(
    web: Web, ada: dict[str, str]
) -> None:
    meta = {"adoptsFrom": {"module": "./person.tsx", "name": "Person"}}
    document = {"data": {"type": "card", "attributes": {"a": "ö\ud800"}, "meta": meta}}
    assert web.upload(f"{DRAFT}c.json", json.dumps(document).encode(), ada).status == 204
    change = {"type": "card", "attributes": {"b": 1}}
    assert data(send(web, "PATCH", f"{DRAFT}c", change, ada))["attributes"]["b"] == 1
    assert stored(web, f"{DRAFT}c")["attributes"] == {"a": "ö\ud800", "b": 1}


def to(*names: str) -> list[dict[str, Any]]:
    """Returns JSON relationships that link to these cards."""
    return [{"links": {"self": f"./{name}"}} for name in names]


A, B, C, NEW = to("a", "b", "c", "new")
NUMBERED = {"many.0": A, "many.1": B, "many.2": C, "other.0": A}
LISTED = {"many": [A, B, C], "many.x.0": A}


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        (NUMBERED, {"many.1": NEW}, {**NUMBERED, "many.1": NEW}),
        (LISTED, {"many.1": NEW}, {**LISTED, "many": [A, NEW, C]}),
        (NUMBERED, {"many.3": NEW}, {**NUMBERED, "many.3": NEW}),
        (LISTED, {"many.3": NEW, "many.4": A}, {**LISTED, "many": [A, B, C, NEW, A]}),
        (NUMBERED, {"many.1": None}, {"many.0": A, "many.1": C, "other.0": A}),
        (LISTED, {"many.0": None, "many.2": NEW}, {**LISTED, "many": [B, NEW]}),
        (LISTED, {"many.0": None, "many.1": None, "many.2": None}, {**LISTED, "many": []}),
        ({"many.0": A}, {"many.0": None}, {"many": []}),
        ({"many": []}, {"many.0": A}, {"many": [A]}),
        ({"many": {"links": {"self": None}}}, {"many.0": A}, {"many.0": A}),
        ({"many": None}, {"many.0": A}, {"many.0": A}),
        ({}, {"many.0": A, "many.1": B}, {"many.0": A, "many.1": B}),
        ({"many.0": A, "many.2": C}, {"many.2": NEW}, {"many.0": A, "many.1": NEW}),
        (NUMBERED, {"many": [NEW]}, {"many": [NEW], "other.0": A}),
        (NUMBERED, {"many": None}, {"other.0": A}),
        (LISTED, {"many.x.0": NEW}, {**LISTED, "many.x.0": NEW}),
    ],
)  # fmt: skip
def test_a_patch_of_one_link_of_a_list_keeps_the_other_links(
    before: dict[str, Any], change: dict[str, Any], after: dict[str, Any]
) -> None:
    assert relationships.merged(before, change) == after


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"many.4": NEW}, "many.4"), ({"many.3": None}, "many.3"), ({"many.01": NEW}, "many.01"),
        ({"many.1": NEW, "many": [A]}, "many.1"), ({"many.1": [NEW]}, "many.1"),
        ({"one.0": NEW}, "one is one link"), ({f"many.{'9' * 5000}": NEW}, "many.999"),
        ({"many.1": A, "many.7": B}, "many.7"),
    ],
)  # fmt: skip
def test_a_patch_of_a_link_at_an_invalid_position_is_refused(
    web: Web, source: Realm, ada: dict[str, str], change: dict[str, Any], named: str
) -> None:
    document = json.loads(make.card("./person", "Person"))
    document["data"]["relationships"] = {**NUMBERED, "one": A}
    make.write(source, c__json=json.dumps(document).encode())
    before = stored(web, f"{DRAFT}c")
    sent = {"type": "card", "relationships": change}
    answer = send(web, "PATCH", f"{DRAFT}c", sent, ada)
    assert answer.status == 400 and named in answer.text
    assert stored(web, f"{DRAFT}c") == before


def test_two_concurrent_patches_of_different_links_both_take_effect(
    web: Web, source: Realm, ada: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads(make.card("./person", "Person"))
    document["data"]["relationships"] = LISTED
    make.write(source, c__json=json.dumps(document).encode())
    gate = Gate()
    monkeypatch.setattr(relationships, "merged", gate.after(relationships.merged))

    def change(number: int, link: str) -> Answer:
        sent = {"type": "card", "relationships": {f"many.{number}": to(link)[0]}}
        return send(web, "PATCH", f"{DRAFT}c", sent, ada)

    first = in_thread(change, 0, "first")
    gate.wait_for_arrival()
    second = in_thread(change, 2, "second")
    wait_until(lambda: waiting_for(DRAFT) == 1, "the second patch waits for the first")
    gate.open()
    assert [first.result().status, second.result().status] == [200, 200]
    assert stored(web, f"{DRAFT}c")["relationships"]["many"] == to("first", "b", "second")


def test_two_concurrent_patches_of_different_fields_both_take_effect(
    web: Web, ada: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    # The first patch waits here after it has read the card and before it writes the card.
    monkeypatch.setattr(documents, "_merged", gate.after(documents._merged))

    def change(field: str) -> Answer:
        sent = {"type": "card", "attributes": {field: "changed"}}
        return send(web, "PATCH", f"{DRAFT}ada", sent, ada)

    first = in_thread(change, "name")
    gate.wait_for_arrival()
    second = in_thread(change, "motto")
    wait_until(lambda: waiting_for(DRAFT) == 1, "the second patch waits for the first")
    gate.open()
    assert [first.result().status, second.result().status] == [200, 200]
    assert stored(web, f"{DRAFT}ada")["attributes"] == {"name": "changed", "motto": "changed"}
