"""The words of a text, as the index keeps them and as a search asks for them.

Postgres would make one word of `north/south`, and one of every sentence in a language that is
written without spaces. Here whatever is no letter, mark or digit parts two words; and of writing
without spaces every character is a word, and every two that stand side by side. That needs no
extension of Postgres: the embedded one has none for it.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: Postgres holds a text's words in 1 MiB at the most. With each word it keeps up to six bytes.
MAX_BYTES = 1_000_000
_BYTES_A_WORD = 6

#: Characters of writing without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese.
_UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf\u0f40-\u0fbc\u1000-\u103f\u1050-\u109d"
    "\u1780-\u17d3\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaa7f\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_UNSPACED}]+")
#: A part of what is searched for: perhaps with a `-`, perhaps in quotes.
_PART = re.compile(r'(-*)(?:"([^"]*)"?|([^\s"]+))')


class _Parting(dict[int, int | str]):
    """What `str.translate` makes of characters: a space of what is part of no word."""

    def __missing__(self, code: int) -> int | str:
        of_a_word = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if of_a_word else " "
        return self[code]


_parting = _Parting()


@dataclass(frozen=True)
class _Words:
    """Words in their order, and runs of characters that are written without spaces."""

    spaced: list[str]
    runs: list[str]


def _words(text: str) -> _Words:
    parted = unicodedata.normalize("NFKC", text).casefold().translate(_parting)
    return _Words(_RUN.sub(" ", parted).split(), _RUN.findall(parted))


def searchable(document: dict[str, Any]) -> dict[str, Any]:
    """A search document whose text is its words, as Postgres is to index them."""
    if not isinstance(document.get("_text"), str):
        return document
    words = _words(document["_text"])
    pairs = [run[at : at + size] for run in words.runs for size in (1, 2) for at in range(len(run))]
    return {**document, "_text": " ".join(_fitting([*words.spaced, *dict.fromkeys(pairs)]))}


def _fitting(words: Iterable[str]) -> Iterable[str]:
    """The first of the words, as many as Postgres can hold."""
    left = MAX_BYTES
    for word in words:
        left -= len(word.encode()) + _BYTES_A_WORD
        if left < 0:
            return
        yield word


def ts_query(asked: str) -> str:
    """What is searched for, in the language of `to_tsquery`: all words; not those after `-`; those
    in quotes, or joined by a sign, in a row; `or` between two of them asks for either."""
    groups: list[list[str]] = [[]]
    for minus, quoted, bare in _PART.findall(asked):
        if bare.lower() == "or" and not minus:
            groups.append([])
            continue
        wanted = _wanted(_words(quoted or bare))
        if wanted:
            groups[-1].append(f"!({wanted})" if minus else wanted)
    return " | ".join(f"({' & '.join(group)})" for group in groups if group)


def _wanted(words: _Words) -> str:
    """The condition that a text has these words, those that are written with spaces in a row."""
    parts = [" <-> ".join(f"'{word}'" for word in words.spaced)] if words.spaced else []
    for run in words.runs:
        parts += [f"'{run[at : at + 2]}'" for at in range(max(1, len(run) - 1))]
    return " & ".join(f"({part})" for part in parts)
