"""Tests which realm and path a reader finds for a URL."""

import pytest

from reindex.reading import reader
from reindex.reading.pins import Pin
from reindex.reading.reader import Reader

REALM = "http://ada.localhost:4201/site/"
CARD = f"{REALM}post"
#: The registry finds the realm of these URLs, but no page may use them.
OTHER_SPELLINGS = (
    "http://ADA.localhost:4201/site/post",
    "https://ada.localhost:4201/site/post",
    "http://127.0.0.1:4301/site/post",
)


@pytest.mark.parametrize("first", [*OTHER_SPELLINGS, CARD])
def test_a_realm_is_found_only_at_its_own_origin_in_any_order(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(reader, "standing_at", lambda url: (REALM, 7))
    reading = Reader({})
    found = {url: reading.locate(url) for url in (first, *OTHER_SPELLINGS, CARD)}
    assert found == {**dict.fromkeys(OTHER_SPELLINGS), CARD: Pin(REALM, 7)}
