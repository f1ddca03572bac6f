"""Tests that word search finds each word of a text and no other words, with any punctuation and in
any writing system."""

from typing import Any

import pytest

from reindex.index.query import Query
from reindex.index.search import search
from reindex.index.words import MAX_BYTES, searchable
from tests.support.data.indexed import put_index, search_document

SITE = "http://ada.localhost:4201/"
TEXTS = {
    "signs": "Mill/Weir foam-topped v1.5 don't at_home",
    "fog": "Fog and rain",
    "lighthouse": "灯台の夜 at ΣΊΣΥΦΟΣ",
    "gas": "ガス灯 e\u0301tude",
    "thai": "ประภาคารกลางคืน",
    "hindi": "हिन्दी दीपस्तंभ",
}
FOUND: list[tuple[str, str]] = [
    ("mill", "signs"),
    ("WEIR topped", "signs"),
    ("mill/weir v1.5", "signs"),
    ("weir/mill", ""),
    ("don't", "signs"),
    ("home", "signs"),
    ("mill -foam-topped", ""),
    ("mill -topped-foam", "signs"),
    ('"weir foam topped"', "signs"),
    ('-"fog rain" rain', "fog"),
    ("fog or mill", "signs fog"),
    ("fog or", "fog"),
    ("&|!()<->:*'\"\\", ""),
    ("fog:* & rain", "fog"),
    ("灯台", "lighthouse"),
    ("灯台の夜", "lighthouse"),
    ("台の夜", "lighthouse"),
    ("灯", "lighthouse gas"),
    ("灯夜", ""),
    ("灯 -灯台", "gas"),
    ("灯 -灯台の夜", "gas"),
    ("灯台sisyphos", ""),
    ("at 夜", "lighthouse"),
    ("กลางคืน", "thai"),
    ("ｶﾞｽ", "gas"),
    ("दीपस्तंभ", "hindi"),
    ("σίσυφος", "lighthouse"),
    ("\xe9tude", "gas"),
]


@pytest.fixture
def index(transactional_db: None) -> None:
    cards = {
        path: search_document(SITE + path, f"{SITE}note", "Note", {"text": "string"}, text=text)
        for path, text in TEXTS.items()
    }
    put_index(SITE, 1, cards)


def found(asked: str) -> set[str]:
    result = search(SITE, Query.model_validate({"filter": {"matches": asked}}), known=no_type)
    assert result is not None
    return set(result.paths)


def no_type(module: str, name: str) -> Any:
    return None


def test_each_word_of_a_text_is_found_with_any_punctuation(index: None) -> None:
    wrong = {asked: found(asked) for asked, paths in FOUND if found(asked) != set(paths.split())}
    assert wrong == {}


def test_a_long_text_in_four_byte_characters_fits_into_the_index(index: None) -> None:
    # Each pair of neighbouring characters is a word of the index. No pair occurs twice in this
    # text, and each character takes four bytes. So the words of this text take the most space.
    text = "".join(chr(0x20000 + at * 7919 % 60_000) for at in range(100_000))
    document = search_document(f"{SITE}long", f"{SITE}note", "Note", {"text": "string"}, text=text)
    assert len(searchable(document)["_text"].encode()) <= MAX_BYTES
    put_index(SITE, 2, {"long": document})
    assert found(text[:2]) == {"long"}
