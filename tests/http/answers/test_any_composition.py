"""Tests that the composed (NFC) and the decomposed (NFD) form of a path lead to the same file."""

import json
import unicodedata
from typing import Any
from urllib.parse import quote

import pytest

from realms.models import FileVersion, Realm
from reindex.reading.pins import PIN_HEADER, Pin, sign
from tests.support import make
from tests.support.web import API, ORIGIN, SOURCE, Web

CARD = "application/vnd.card+json"

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("written", "asked"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)], ids=["NFD", "NFC"]
)
@pytest.mark.parametrize(
    "pattern",
    [
        "{}.json",
        "{}/dot.png",
        "a/{}.ts",
        "\u1e9b\u0323{}",
        "\u1112\u1161\u11ab{}",
        "\u212b\u212a{}",
        "\u0958{}",
    ],
)
def test_a_path_names_one_file_in_every_unicode_composition(
    web: Web, source: Realm, ada: dict[str, str], pattern: str, written: str, asked: str
) -> None:
    there, here = (source.url + quote(pattern.format(each)) for each in (written, asked))
    kept = unicodedata.normalize("NFC", pattern.format(written))
    assert web.upload(there, b"1", ada).status == 204
    assert web.upload(here, b"2", ada).status == 204
    stored = FileVersion.objects.filter(realm=source, until_generation=None)
    assert set(stored.values_list("path", flat=True)) - set(make.SITE) == {kept}
    for _ in range(2):
        assert [web.get(url, SOURCE).body for url in (there, here)] == [b"2", b"2"]
    assert web.request("HEAD", here).status == 200
    listed = json.loads(web.get(f"{source.url}_mtimes", API).text)["data"]["attributes"]["mtimes"]
    assert source.url + quote(kept) in listed
    assert web.request("DELETE", here, accept=SOURCE, headers=ada).status == 204
    assert web.get(there, SOURCE).status == 404


def test_a_card_can_be_changed_and_deleted_under_any_composition(
    web: Web, source: Realm, ada: dict[str, str]
) -> None:
    there, here = (f"{source.url}Post/{quote(each)}" for each in (COMPOSED, DECOMPOSED))
    sent = {"type": "card", "lid": DECOMPOSED, "attributes": {"title": "One"},
            "meta": {"adoptsFrom": {"module": "./post", "name": "Post"}}}  # fmt: skip

    def ask(method: str, url: str, data: Any = None) -> int:
        body = None if data is None else json.dumps({"data": data}).encode()
        headers = {**ada, "Content-Type": CARD}
        return web.request(method, url, accept=CARD, body=body, headers=headers).status

    assert ask("POST", source.url, sent) == 201
    assert ask("POST", source.url, {**sent, "lid": COMPOSED}) == 409
    assert ask("GET", there) == ask("GET", here) == 200
    assert ask("PATCH", here, {"type": "card", "attributes": {"title": "Two"}}) == 200
    assert ask("DELETE", here) == 204
    assert ask("GET", there) == 404


def test_a_pinned_read_finds_a_file_under_any_composition(web: Web, source: Realm) -> None:
    generation = make.write_paths(source, {f"{COMPOSED}.json": b"1"})
    pin = {PIN_HEADER: sign(Pin(source.url, generation))}
    for name in (COMPOSED, DECOMPOSED):
        for _ in range(2):
            answer = web.get(f"{ORIGIN}/_at/{quote(name)}.json", **pin)
            assert (answer.status, answer.body) == (200, b"1")
    paths = [f"{COMPOSED}.json", f"{DECOMPOSED}.json", "missing"]
    told = web.post(f"{ORIGIN}/_at/", {"paths": paths}, pin)
    lines = [json.loads(line) for line in told.text.splitlines()]
    assert [(each["path"], each["content"]) for each in lines] == list(
        zip(paths, ["1", "1", None], strict=True)
    )
