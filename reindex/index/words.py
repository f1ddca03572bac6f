"""Splits the texts of cards and of searches into words.

Postgres itself would treat `north/south` as one word. In scripts without spaces, Postgres would
treat a whole sentence as one word. In this module, any character that is not a letter, number or
combining mark separates words. In scripts without spaces, each character is a word, and each pair
of neighbouring characters is another word.

The module uses no Postgres extension such as pg_trgm. If DATABASE_URL isn't set, the server starts
its embedded Postgres, which has no such extension.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

#: The maximum size of the words of a text, in bytes. For each word, _BYTES_A_WORD is added to the
#: bytes of its characters. Postgres stores at most 1 MiB for each text.
MAX_BYTES = 1_000_000
_BYTES_A_WORD = 6
_MAX_BYTES_A_CHARACTER = 4

#: Characters of scripts without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u0f40-\u0fbc\u1000-\u103f\u1050-\u109d"
    "\u1780-\u17d3\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaa7f\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
#: A term of a search, optionally with a `-` before it, and optionally in quotes.
_PART = re.compile(r'(-*)(?:"([^"]*)"?|([^\s"]+))')


class _Parting(dict[int, int | str]):
    """A table for `str.translate` that maps word separators to spaces."""

    def __missing__(self, code: int) -> int | str:
        of_a_word = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if of_a_word else " "
        return self[code]


_parting = _Parting()


@dataclass(frozen=True)
class _Words:
    """The words of a text. `spaced` lists the words in scripts with spaces, in the order of the
    text. `runs` lists the unbroken sequences of characters in scripts without spaces."""

    spaced: list[str]
    runs: list[str]


def _words(text: str) -> _Words:
    parted = unicodedata.normalize("NFKC", text).casefold().translate(_parting)
    return _Words(_RUN.sub(" ", parted).split(), _RUN.findall(parted))


def searchable(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of a search document, which holds the searchable data of a card. In the copy,
    `_text` isn't the card's text, but the words that Postgres indexes."""
    if not isinstance(document.get("_text"), str):
        return document
    words = _words(document["_text"])
    pairs = [run[at : at + size] for run in words.runs for size in (1, 2) for at in range(len(run))]
    return {**document, "_text": " ".join(_fitting([*words.spaced, *dict.fromkeys(pairs)]))}


def _fitting(words: list[str]) -> Iterable[str]:
    """Returns the words. If Postgres can't store all of them, returns only the first words that
    fit."""
    if sum(map(len, words)) * _MAX_BYTES_A_CHARACTER + len(words) * _BYTES_A_WORD <= MAX_BYTES:
        return words
    return _first_fitting(words)


def _first_fitting(words: list[str]) -> Iterator[str]:
    left = MAX_BYTES
    for word in words:
        left -= len(word.encode()) + _BYTES_A_WORD
        if left < 0:
            return
        yield word


def ts_query(text: str) -> str:
    """Converts the text of a search to the syntax of Postgres's `to_tsquery`. The word `or` divides
    the terms of a search into groups. A card matches a search if it matches one of the groups. To
    match a group, the card must contain all of its terms without a `-`, and none of its terms with
    a `-`. A term in quotes, or a term such as `north/south`, has several words (see `_wanted`)."""
    groups: list[list[str]] = [[]]
    for minus, quoted, bare in _PART.findall(text):
        if bare.lower() == "or" and not minus:
            groups.append([])
            continue
        wanted = _wanted(_words(quoted or bare))
        if wanted:
            groups[-1].append(f"!({wanted})" if minus else wanted)
    return " | ".join(f"({' & '.join(group)})" for group in groups if group)


def _wanted(words: _Words) -> str:
    """Returns a `to_tsquery` condition that requires all words of a term. The words in `spaced`
    must follow each other. The pairs of characters in `runs` may be anywhere in the text."""
    parts = [" <-> ".join(f"'{word}'" for word in words.spaced)] if words.spaced else []
    for run in words.runs:
        parts += [f"'{run[at : at + 2]}'" for at in range(max(1, len(run) - 1))]
    return " & ".join(f"({part})" for part in parts)
