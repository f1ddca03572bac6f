"""Tests that all parts of the server that read a broken card file report the same error."""

import json

import pytest

from realms.models import Realm
from reindex.reading.documents import read_document
from reindex.reading.strict_json import MAX_DEPTH, BrokenDocument
from tests.support import make
from tests.support.data.documents import API, CARD, FILES, NOTE, URL, Sent, publish, said
from tests.support.rendering import index_of
from tests.support.web import Web

#: Card files with a mistake that an author may make, and a part of the error message of each file.
BROKEN = {
    "comma": (b'{"data": {\n  "type": "card",\n}}', "3:1: "),
    "cut": (NOTE[:40], "1:"),
    "empty": (b"", "1:1: "),
    "latin": (b'{"data":\n  "caf\xe9"}', "2:7: is not UTF-8"),
    "utf-16": ("{}".encode("utf-16"), "1:1: is not UTF-8"),
    "mark": (b"\xef\xbb\xbf" + NOTE, "1:1: "),
    "nan": (NOTE.replace(b'"one"', b"NaN"), "1:"),
    "two": (NOTE + b"{}", f"1:{len(NOTE) + 1}: "),
    "misspelt": (NOTE.replace(b"adoptsFrom", b"adoptFrom"), "data.meta.adoptsFrom"),
    "case": (NOTE.replace(b"adoptsFrom", b"adoptsfrom"), "data.meta.adoptsFrom"),
    "meta": (NOTE.replace(b'"meta"', b'"mata"'), "data.meta.adoptsFrom"),
    "data": (NOTE.replace(b'"data"', b'"Data"'), "data.meta.adoptsFrom"),
    "module": (NOTE.replace(b'"module": "./note"', b'"module": 5'), "data.meta.adoptsFrom"),
    "name": (NOTE.replace(b'"name"', b'"nam"'), "data.meta.adoptsFrom"),
    "untyped": (b'{"data": {"type": "card", "attributes": {}}}', "data.meta.adoptsFrom"),
    "bare": (b'{"type": "card", "attributes": {}}', "data.meta.adoptsFrom"),
    "twice": (NOTE.replace(b'"title": "one"', b'"title": "one",\n "title": "two"'), "2:2: "),
    "large": (NOTE.replace(b'"one"', b"12345678901234567890"), "attributes.title"),
    "infinite": (NOTE.replace(b'"one"', b"1e400"), "attributes.title"),
    "digits": (NOTE.replace(b'"one"', b"9" * 5000), "attributes.title"),
    "deep": (NOTE.replace(b'"one"', b"[" * 100 + b"]" * 100), f"deeper than {MAX_DEPTH}"),
}  # fmt: skip
#: JSON files that don't look like cards. Such a file causes no error, unless it was a card before.
DATA = {
    "list": b"[1, 2]",
    "text": b'"data"',
    "rows": b'{"data": [{"type": "card", "meta": {"adoptsFrom": {}}}]}',
    "other-api": b'{"data": {"type": "articles", "id": "1", "attributes": {"title": "x"}}}',
    "number": b'{"n": 12345678901234567890, "m": 1e400}',
    "twice": b'{"a": 1, "a": 2}',
    "nested": b"[" * 500 + b"]" * 500,
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_error_of_a_document_names_file_line_and_column(name: str) -> None:
    data, said = BROKEN[name]
    with pytest.raises(BrokenDocument) as caught:
        read_document(data, "notes/x.json")
    message = str(caught.value)
    assert message.startswith("notes/x.json:") and said in message, message
    line, column = map(int, message.split(": ")[0].split(":")[1:])
    assert 1 <= line <= data.count(b"\n") + 1 and column >= 1


@pytest.mark.parametrize("name", DATA)
def test_json_that_does_not_look_like_a_card_is_ignored(name: str) -> None:
    assert read_document(DATA[name], "x.json") is None


@pytest.mark.django_db(transaction=True)
def test_a_broken_card_is_an_error_and_keeps_its_last_good_page(
    web: Web, site: Realm, sent: Sent
) -> None:
    make.write_paths(
        site,
        {"index.json": NOTE[:-1] + b",}", **{f"b/{k}.json": v for k, (v, _) in BROKEN.items()}},
    )
    job = publish(site, sent)
    assert job.errors == len(BROKEN) + 1
    rows = index_of(URL)
    for path in ("index", *(f"b/{name}" for name in BROKEN)):
        error = rows[path].error
        assert error["status"] == 422, path
        assert error["message"].startswith(f"{path}.json:"), error
        assert error["card"] == URL + path
    page = web.get(URL, "text/html")
    assert (page.status, "<p>one</p>" in page.text) == (200, True)
    assert {kind["count"] for kind in job.summary["errors"]} == {1}
    assert "data" not in rows and "good" in rows

    make.write_paths(site, {"index.json": NOTE})
    make.remove(site, *(f"b/{name}.json" for name in BROKEN))
    assert publish(site, sent).errors == 0
    assert set(index_of(URL)) == {"index", "good"}


@pytest.mark.django_db(transaction=True)
def test_a_card_that_turns_into_data_is_an_error_until_it_is_removed(
    web: Web, site: Realm, sent: Sent
) -> None:
    make.write_paths(site, {"good.json": b"{}", "new.json": b"{}"})
    for _ in range(2):
        assert publish(site, sent).errors == 1
        rows = index_of(URL)
        assert set(rows) == {"index", "good"}
        assert "data.meta.adoptsFrom" in rows["good"].error["message"]
        assert rows["good"].html["isolated"] == "<p>one</p>"
        make.write_paths(site, {"other.json": b"[]"})
    make.remove(site, "good.json")
    assert publish(site, sent).errors == 0
    assert set(index_of(URL)) == {"index"}


@pytest.mark.django_db(transaction=True)
def test_a_broken_realm_json_is_an_error_of_its_own(web: Web, site: Realm, sent: Sent) -> None:
    make.write_paths(site, {"realm.json": b'{"data": }'})
    job = publish(site, sent)
    assert (job.errors, index_of(URL)["realm"].error["status"]) == (1, 422)
    assert job.summary["errors"][0]["message"].startswith("realm.json:1:10: ")
    make.write_paths(site, {"realm.json": FILES["realm.json"]})
    assert publish(site, sent).errors == 0
    assert set(index_of(URL)) == {"index", "good"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["comma", "misspelt", "nan", "latin"])
def test_every_reader_of_a_broken_card_gets_the_same_message(
    web: Web, site: Realm, sent: Sent, name: str
) -> None:
    make.write_paths(site, {"good.json": BROKEN[name][0]})
    with pytest.raises(BrokenDocument) as caught:
        read_document(BROKEN[name][0], "good.json")
    message = str(caught.value)
    login = make.realm_login(site, "ada")

    report = json.loads(web.get(f"{site.url}_publishability", API, **login).body)["data"]
    assert report["attributes"]["publishable"] is False
    (violation,) = report["attributes"]["violations"]
    assert violation == {
        "kind": "error-document",
        "resource": f"{site.url}good.json",
        "message": message,
    }
    for method in ("GET", "PATCH"):
        body = b'{"data": {"type": "card"}}' if method == "PATCH" else None
        answer = web.request(
            method, f"{site.url}good", accept=CARD, body=body,
            headers={**login, "Content-Type": CARD},
        )  # fmt: skip
        assert (answer.status, said(answer.body)) == (422, message)
    publish(site, sent)
    assert index_of(URL)["good"].error["message"] == message
    answer = web.get(f"{URL}good", CARD)
    assert (answer.status, said(answer.body)) == (422, message)
    deleted = web.request("DELETE", f"{site.url}good", accept=CARD, headers=login)
    assert deleted.status == 204
