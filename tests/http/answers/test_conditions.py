"""Tests conditional requests. In a conditional request, the client says which version of a file it
has or wants to change."""

import json
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from realms.content import files
from realms.models import FileVersion, Realm
from tests.support import make
from tests.support.cluster import Answer, wait_until
from tests.support.gates import Gate, in_thread
from tests.support.web import API, ORIGIN, SOURCE, Web, everything, waiting_for

SITE = f"{ORIGIN}/ada/site/"
CARD = "application/vnd.card+json"
PATCH = json.dumps({"data": {"type": "card", "attributes": {"name": "Changed"}}}).encode()
#: The method, path, media type and body of each kind of write.
WRITES: dict[str, tuple[str, str, str, bytes]] = {
    "file": ("POST", "ada.json", SOURCE, make.card("./person", "Person", name="New")),
    "delete": ("DELETE", "ada.json", SOURCE, b""),
    "delete by short name": ("DELETE", "ada", SOURCE, b""),
    "patch": ("PATCH", "ada", CARD, PATCH),
    "delete card": ("DELETE", "ada", CARD, b""),
}
NEW_CARD = json.dumps(
    {"data": {"type": "card", "lid": "new",
              "meta": {"adoptsFrom": {"module": "./person", "name": "Person"}}}}
).encode()  # fmt: skip
NEW = {
    "new file": ("POST", "new.md", SOURCE, b"new"),
    "new card": ("POST", "", CARD, NEW_CARD),
    "endpoint": ("POST", "_atomic", API, b'{"atomic:operations": []}'),
}


def write(
    web: Web, kind: tuple[str, str, str, bytes], ada: dict[str, str], **conditions: str
) -> Answer:
    """Sends a write request with the headers in `conditions`. A key of `conditions` is a header's
    name with `_` in place of `-`."""
    method, path, accept, body = kind
    headers = {**ada, "Content-Type": accept}
    headers |= {name.replace("_", "-"): value for name, value in conditions.items()}
    return web.request(method, SITE + path, accept=accept, body=body, headers=headers)


def etag(web: Web, path: str, accept: str) -> str:
    """Returns the current ETag of a path."""
    return web.get(SITE + path, accept).headers["etag"]


def date(seconds: int = 0) -> str:
    """Returns the time of the last change of `ada.json`, plus `seconds`, as an HTTP date."""
    version = FileVersion.objects.get(path="ada.json", until_generation=None)
    return format_datetime(version.modified_at + timedelta(seconds=seconds), usegmt=True)


# --- Writes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_whose_condition_fails_is_a_412_and_changes_nothing(
    web: Web, ada: dict[str, str], kind: str
) -> None:
    known, other = etag(web, "ada.json", SOURCE), etag(web, "index.json", SOURCE)
    before = everything()
    for conditions in (
        {"If_Match": '"x"'}, {"If_Match": other}, {"If_Match": f"W/{known}"}, {"If_Match": ""},
        {"If_Match": known.strip('"')}, {"If_Match": known.upper()}, {"If_None_Match": "*"},
        {"If_None_Match": known}, {"If_None_Match": f'"x", W/{known}'},
        {"If_Match": known, "If_None_Match": "*"},
        {"If_Unmodified_Since": date(-1)}, {"If_Unmodified_Since": date(-9999)},
        # If-Unmodified-Since is ignored if the request has an If-Match.
        {"If_Match": '"x"', "If_Unmodified_Since": date(9)},
    ):  # fmt: skip
        answer = write(web, WRITES[kind], ada, **conditions)
        assert answer.status == 412, conditions
        (error,) = json.loads(answer.body)["errors"]
        assert error["title"] == "Precondition Failed"
        assert next(iter(conditions)).replace("_", "-") in error["message"] or "*" in str(
            conditions
        )
    assert write(web, WRITES[kind], ada, If_Unmodified_Since="soon").status == 400
    assert everything() == before


@pytest.mark.parametrize("kind", WRITES)
def test_a_write_whose_condition_holds_is_carried_out(
    web: Web, source: Realm, ada: dict[str, str], kind: str
) -> None:
    known, asset = etag(web, "ada.json", SOURCE), etag(web, "ada.json", "*/*")
    cases: tuple[dict[str, str | int], ...] = (
        {"If_Match": known}, {"If_Match": f'"x", {known}'}, {"If_Match": "*"}, {"If_Match": asset},
        {"If_None_Match": '"x"'}, {"If_Unmodified_Since": 0}, {"If_Unmodified_Since": 9},
        {"If_Match": known, "If_Unmodified_Since": -9},
    )  # fmt: skip
    for conditions in cases:
        told = {
            name: date(value) if isinstance(value, int) else value
            for name, value in conditions.items()
        }
        assert write(web, WRITES[kind], ada, **told).status in (200, 204), conditions
        make.write_paths(source, {"ada.json": make.SITE["ada.json"]})


def test_a_cards_own_etag_is_a_condition_on_writing_the_card(web: Web, ada: dict[str, str]) -> None:
    known = etag(web, "ada", CARD)
    answer = write(web, WRITES["patch"], ada, If_Match=known)
    assert answer.status == 200
    assert write(web, WRITES["patch"], ada, If_Match=known).status == 412
    assert write(web, WRITES["delete card"], ada, If_Match=known).status == 412
    assert write(web, WRITES["delete card"], ada, If_Match=answer.headers["etag"]).status == 204


def test_an_upload_returns_the_etag_for_the_next_upload(web: Web, ada: dict[str, str]) -> None:
    first = web.upload(f"{SITE}a.md", b"1", {**ada, "If-None-Match": "*"}).headers["etag"]
    assert first == etag(web, "a.md", SOURCE)
    assert web.upload(f"{SITE}a.md", b"2", {**ada, "If-None-Match": "*"}).status == 412
    assert web.upload(f"{SITE}a.md", b"2", {**ada, "If-Match": first}).status == 204
    assert web.upload(f"{SITE}a.md", b"3", {**ada, "If-Match": first}).status == 412
    assert web.get(f"{SITE}a.md", SOURCE).body == b"2"


@pytest.mark.parametrize("kind", NEW)
def test_a_condition_on_a_missing_file_fails(web: Web, ada: dict[str, str], kind: str) -> None:
    before = everything()
    for conditions in (
        {"If_Match": "*"}, {"If_Match": '"x"'}, {"If_Unmodified_Since": date(99)},
    ):  # fmt: skip
        assert write(web, NEW[kind], ada, **conditions).status == 412, conditions
    assert everything() == before
    answer = write(web, NEW[kind], ada, If_None_Match="*")
    assert answer.status in (201, 204), answer.body


def test_a_condition_does_not_change_the_status_of_other_refusals(
    web: Web, ada: dict[str, str]
) -> None:
    for method, path, accept, status in (
        ("DELETE", "none.md", SOURCE, 404), ("DELETE", "none", CARD, 404),
        ("POST", "_nothing/", CARD, 400), ("PUT", "ada.json", SOURCE, 405),
    ):  # fmt: skip
        answer = write(web, (method, path, accept, b"{}"), ada, If_Match='"x"')
        assert answer.status == status
    assert write(web, WRITES["file"], {}, If_Match='"x"').status == 401


@pytest.mark.parametrize("first", WRITES)
@pytest.mark.parametrize("second", ["file", "patch"])
def test_one_of_two_writers_with_the_same_etag_succeeds(
    web: Web, ada: dict[str, str], monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    known = etag(web, "ada.json", SOURCE)
    gate = Gate()
    # The first writer reads the file's ETags, and stops at the gate before it writes. Meanwhile the
    # first writer holds the realm's write lock, so the second writer must wait.
    monkeypatch.setattr(files, "validators", gate.after(files.validators))
    winner = in_thread(write, web, WRITES[first], ada, If_Match=known)
    gate.wait_for_arrival()
    loser = in_thread(write, web, WRITES[second], ada, If_Match=known)
    wait_until(lambda: waiting_for(SITE) == 1, "the second writer waits for the first")
    gate.open()
    assert winner.result(20).status in (200, 204)
    gone = first.startswith("delete") and second == "patch"
    assert loser.result(20).status == (404 if gone else 412)
    assert FileVersion.objects.filter(path="ada.json").count() == (1 if "delete" in first else 2)


# --- Reads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [SOURCE, "*/*"])
@pytest.mark.parametrize("path", ["ada.json", "person.tsx"])
def test_a_read_obeys_dates_unless_an_etag_is_given(
    web: Web, live: None, source: Realm, path: str, accept: str
) -> None:
    answer = web.get(SITE + path, accept)
    tag = answer.headers["etag"]
    cases: list[tuple[dict[str, Any], int]] = [
        ({"If-Modified-Since": date()}, 304),
        ({"If-Modified-Since": date(60)}, 304),
        ({"If-Modified-Since": date(-1)}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": date(), "If-None-Match": '"x"'}, 200),
        ({"If-Modified-Since": date(-9), "If-None-Match": tag}, 304),
        ({"If-Match": tag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Match": tag, "If-Unmodified-Since": date(-9)}, 200),
        ({"If-Unmodified-Since": date()}, 200),
        ({"If-Unmodified-Since": date(-1)}, 412),
        ({"If-Unmodified-Since": "yesterday"}, 200),
        ({"If-Match": tag, "If-None-Match": tag}, 304),
    ]
    for headers, status in cases:
        for query in ("", "?noCache"):
            answer = web.get(SITE + path + query, accept, **headers)
            assert answer.status == status, (headers, query)
            assert (answer.body == b"") == (status == 304)
            assert ("etag" in answer.headers) == (status != 412)
        web.get(SITE + path, accept)
    assert web.get(f"{SITE}none", accept, **{"If-Modified-Since": date()}).status == 404
