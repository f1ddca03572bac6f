"""Tests that a request to `_atomic` writes several files in one step, or none of them."""

import json
from typing import Any

import pytest

from notifications.channels import REALM_FILE_CHANGES
from realms.cards import atomic
from realms.content import files
from realms.content.blobs import Stored
from realms.models import FileVersion, Realm
from tests.support import make
from tests.support.cluster import Answer, wait_until
from tests.support.gates import Gate, in_thread
from tests.support.listening.hearing import ear
from tests.support.web import API, ORIGIN, SOURCE, Web, everything, waiting_for


def text(op: str, href: str, content: str) -> dict[str, Any]:
    """Returns an `_atomic` operation that writes a text file."""
    data = {"type": "source", "attributes": {"content": content}, "meta": {}}
    return {"op": op, "href": href, "data": data}


def card(op: str, href: str, **attributes: Any) -> dict[str, Any]:
    """Returns an `_atomic` operation that writes a card."""
    meta = {"adoptsFrom": {"module": "./post", "name": "Post"}, "lastModified": 3}
    return {
        "op": op,
        "href": href,
        "data": {"type": "card", "attributes": attributes, "meta": meta},
    }


def send(web: Web, realm: Realm, *operations: Any, query: str = "", name: str = "ada") -> Answer:
    headers = {**make.realm_login(realm, name), "Content-Type": API}
    return web.post(f"{realm.url}_atomic{query}", {"atomic:operations": operations}, headers)


def problems(answer: Answer) -> list[tuple[int, str]]:
    assert answer.headers["content-type"] == API
    return [(each["status"], each["detail"]) for each in json.loads(answer.text)["errors"]]


def test_all_files_are_written_in_one_generation_in_the_order_sent(web: Web, source: Realm) -> None:
    made = FileVersion.objects.get(realm=source, path="index.json").created_at
    with ear() as listening:
        answer = send(
            web,
            source,
            text("add", "z/ä ö.md", "Grüße"),
            text("update", f"{source.url}index.json", "{}"),
            card("add", "./new.json", title="New"),
            text("add", "/ada/site/a%20b.tsx", "export const a = 1;"),
            query="?waitForIndex=true",
        )
        heard = listening.heard()
    assert answer.status == 201
    results = json.loads(answer.text)["atomic:results"]
    paths = ["z/%C3%A4%20%C3%B6.md", "index.json", "new.json", "a%20b.tsx"]
    assert [each["data"]["id"] for each in results] == [source.url + path for path in paths]
    assert results[1]["meta"]["created"] == made.timestamp()
    assert answer.headers["x-realm-generation"] == "3"
    assert set(
        FileVersion.objects.filter(realm=source, from_generation__gt=2).values_list(
            "from_generation", flat=True
        )
    ) == {3}
    assert web.get(f"{source.url}z/%C3%A4%20%C3%B6.md", SOURCE).text == "Grüße"
    assert json.loads(web.get(f"{source.url}new.json", SOURCE).text) == {
        "data": {
            "type": "card",
            "attributes": {"title": "New"},
            "meta": {"adoptsFrom": {"module": "./post", "name": "Post"}},
        }
    }
    told = {payload for channel, payload in heard if channel == REALM_FILE_CHANGES}
    names = ["z/ä ö.md", "index.json", "new.json", "a b.tsx"]
    assert told == {f"{source.url}:{name}" for name in names}


def test_every_impossible_operation_is_named_and_nothing_is_written(
    web: Web, source: Realm
) -> None:
    make.source(f"{source.url}inner/", source.owner, {})
    before = everything()
    outside = f"{ORIGIN}/bob/site/x.md"
    answer = send(
        web,
        source,
        text("add", "fine.md", "x"),
        text("add", "index.json", "{}"),
        text("update", "none.md", "x"),
        text("add", "inner/x.md", "x"),
        text("update", "ada.json", "{}"),
    )
    assert answer.status == 404, "the lowest status of the errors"
    assert problems(answer) == [
        (409, "Resource index.json already exists"),
        (404, "Resource none.md does not exist: there is no such file"),
        (
            404,
            f"Resource inner/x.md does not exist: its URL belongs to the realm {source.url}inner/",
        ),
    ]
    assert send(web, source, text("add", "index.json", "{}")).status == 409
    answer = send(web, source, text("add", outside, "x"), text("add", "fine.md", "x"))
    assert problems(answer) == [
        (404, f"Resource {outside} does not exist: it is outside {source.url}")
    ]
    assert everything() == before


@pytest.mark.parametrize("op", ["add", "update"])
def test_the_last_of_several_operations_on_a_file_wins(web: Web, source: Realm, op: str) -> None:
    name = "twice.md" if op == "add" else "index.json"
    answer = send(
        web, source, text(op, name, "first"), text(op, f"./{name}", "second"),
        text(op, source.url + name, "third"),
    )  # fmt: skip
    assert answer.status == 201
    results = json.loads(answer.text)["atomic:results"]
    assert [each["data"]["id"] for each in results] == [source.url + name] * 3
    assert web.get(source.url + name, SOURCE).text == "third"
    assert answer.headers["x-realm-generation"] == "3"


def test_writing_existing_content_changes_nothing(web: Web, source: Realm) -> None:
    before = everything()
    index = make.SITE["index.json"].decode()
    assert send(web, source, text("update", "index.json", index)).status == 201
    assert send(web, source).status == 201
    assert everything() == before


def test_a_file_that_is_too_large_refuses_all_operations(
    web: Web, source: Realm, settings: Any
) -> None:
    before = everything()
    settings.FILE_SIZE_LIMIT_BYTES, settings.CARD_SIZE_LIMIT_BYTES = 1000, 500
    answer = send(
        web,
        source,
        text("add", "fine.md", "x"),
        text("add", "large.md", "x" * 1001),
        text("add", "ä.md", "ä" * 501),
        card("add", "card.json", title="x" * 500),
    )
    assert answer.status == 413
    assert [status for status, _ in problems(answer)] == [413] * 3
    assert all("exceeds maximum allowed size" in detail for _, detail in problems(answer))
    settings.ATOMIC_SIZE_LIMIT_BYTES = 100
    assert send(web, source, text("add", "fine.md", "x" * 100)).status == 413
    assert everything() == before


def test_a_crash_between_two_files_writes_neither(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything()
    original = files._open

    def half(realm: Realm, stored: dict[str, Stored], *others: Any) -> None:
        original(realm, dict([*stored.items()][:1]), *others)
        raise RuntimeError("the process ends here")

    monkeypatch.setattr(files, "_open", half)
    answer = send(web, source, text("add", "one.md", "1"), text("update", "index.json", "{}"))
    assert answer.status == 500
    assert "the process ends here" not in answer.text
    monkeypatch.undo()
    assert everything() == before


def test_the_second_of_two_adds_of_a_file_is_refused(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    monkeypatch.setattr(atomic, "_check", gate.after(atomic._check))
    first = in_thread(send, web, source, text("add", "new.md", "first"))
    gate.wait_for_arrival()
    second = in_thread(
        send, web, source, text("add", "other.md", "x"), text("add", "new.md", "second")
    )
    wait_until(lambda: waiting_for(source.url) == 1, "the second request waits for the first")
    gate.open()
    assert (first.result(20).status, second.result(20).status) == (201, 409)
    assert problems(second.result()) == [(409, "Resource new.md already exists")]
    assert web.get(f"{source.url}new.md", SOURCE).text == "first"
    assert web.get(f"{source.url}other.md", SOURCE).status == 404


def test_operations_that_waited_for_a_delete_are_a_404(web: Web, source: Realm) -> None:
    from realms.access.auth import Caller
    from realms.content.locks import realm_write_lock
    from realms.publishing.publish import _tear_down
    from realms.publishing.rights import deletable

    with realm_write_lock(source.url):
        write = in_thread(send, web, source, text("add", "late.md", "x"))
        wait_until(lambda: waiting_for(source.url) == 1, "the write waits for the lock")
        _tear_down(deletable(source.url, Caller("ada")))
    assert write.result(20).status == 404
    assert not Realm.objects.filter(url=source.url).exists()


def test_a_caller_who_may_not_write_may_not_use_atomic(web: Web, source: Realm) -> None:
    make.user("bob")
    before = everything()
    assert send(web, source, text("add", "x.md", "x"), name="bob").status == 403
    body = {"atomic:operations": [text("add", "x.md", "x")]}
    assert web.post(f"{source.url}_atomic", body).status == 401
    page = make.publish(source, "http://ada.localhost:4201/")
    before = everything()
    answer = send(web, Realm.objects.get(url=page.url), text("add", "x.md", "x"))
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS")
    assert everything() == before


def test_two_names_that_compose_to_one_are_refused_and_both_named(web: Web, source: Realm) -> None:
    before = everything()
    answer = send(
        web, source, text("add", "caf\u00e9.md", "1"), text("add", "./cafe%CC%81.md", "2")
    )
    assert answer.status == 400
    ((_, told),) = problems(answer)
    assert "'caf\\xe9.md'" in told
    assert "'cafe\\u0301.md'" in told
    assert everything() == before
    # Two operations may write the same file if both use the same characters for its name.
    assert send(web, source, text("add", "a.md", "1"), text("add", "./a.md", "2")).status == 201
