"""Parses strict JSON (RFC 8259, UTF-8), and reports errors with their positions.

Python's own parser accepts more than strict JSON: other encodings, NaN, duplicate keys, and numbers
that JavaScript can't hold. If neither `parse` nor `Parsed.check` finds a fault in a document, the
document means the same to the server and to a card's JavaScript.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from notifications.texts import made_storable

#: The maximum nesting depth of a card. No template needs more, and deeper nesting could exhaust a
#: parser's stack.
MAX_DEPTH = 100

#: JavaScript can hold every integer of at most this many digits without rounding. If an integer has
#: more digits, `Parsed.check` checks it.
_SAFE_DIGITS = 15
#: Integers of more digits than this aren't parsed. JavaScript can't hold more than 309 digits.
_MAX_DIGITS = 400

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_NO_JSON = ("NaN", "Infinity", "-Infinity")


class BrokenDocument(ValueError):
    """A file holds no valid document. The exception's message begins with the file's path, the line
    and the column. `field` is the path of the faulty key in the document, such as
    `data.meta.adoptsFrom`. It is empty if the error names no key."""

    def __init__(
        self, path: str, why: str, text: str = "", position: int = 0, field: str = ""
    ) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - (text.rfind("\n", 0, position) + 1) + 1
        super().__init__(made_storable(f"{path}:{line}:{column}: {why}"))
        self.field = made_storable(field)


@dataclass(frozen=True)
class Parsed:
    """The JSON text of the file at `path`, and the parsed value. `odd` is True if the text may have
    a duplicate key or a number that JavaScript can't hold."""

    path: str
    text: str
    value: Any
    odd: bool

    def check(self) -> None:
        """Raises BrokenDocument for the document's first fault. A fault is a duplicate key, a
        number that JavaScript can't hold, or nesting deeper than MAX_DEPTH."""
        # A text with at most MAX_DEPTH opening brackets can't nest too deep.
        brackets = self.text.count("{") + self.text.count("[")
        if self.odd or brackets > MAX_DEPTH:
            for why, position, key in _oddities(self.text):
                raise BrokenDocument(self.path, why, self.text, position, key)


def parse(data: bytes | str, path: str) -> Parsed:
    """Parses `data`, the content of the file at `path`. Raises BrokenDocument if the content isn't
    JSON. `Parsed.check` finds further faults."""
    text = data if isinstance(data, str) else _decoded(data, path)
    if text.startswith("\ufeff"):
        raise BrokenDocument(path, "begins with a byte order mark, which JSON doesn't have", text)
    notes = _Notes()
    try:
        value = json.loads(
            text,
            parse_int=notes.integer,
            parse_float=notes.float,
            parse_constant=no_number,
            object_pairs_hook=notes.object,
        )
    except json.JSONDecodeError as error:
        raise BrokenDocument(path, f"is not JSON: {error.msg}", text, error.pos) from error
    except RecursionError as error:
        raise BrokenDocument(path, "nests too deep to be read", text) from error
    except ValueError as error:
        tokens = (each.start() for each in _TOKEN.finditer(text) if each[0] in _NO_JSON)
        raise BrokenDocument(path, f"is not JSON: {error}", text, next(tokens, 0)) from error
    return Parsed(path, text, value, notes.odd)


def finite(literal: str) -> float | None:
    """Converts a number literal of a JSON document. Returns None if JavaScript would read the
    number as infinite, because JavaScript serializes an infinite number as null."""
    return value if isfinite(value := float(literal)) else None


def finite_only(literal: str) -> float:
    """Converts a number literal of a JSON document. Raises ValueError for `NaN`, for `Infinity`,
    and for a number that JavaScript would read as infinite."""
    value = finite(literal)
    if value is None:
        raise ValueError(f"{literal} is not a number that JSON can hold")
    return value


def no_number(literal: str) -> None:
    """Raises ValueError for the literal `NaN`, `Infinity` or `-Infinity`, which JSON lacks."""
    raise ValueError(f"{literal} is not a number that JSON has")


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        why = f"is not UTF-8: the byte 0x{data[error.start]:02x} is invalid at this position"
        raise BrokenDocument(path, why, before, len(before)) from error


@dataclass
class _Notes:
    """Converts the numbers and objects of a text during parsing. Sets `odd` if the text has to be
    checked token by token (see `Parsed.odd`)."""

    odd: bool = False

    def integer(self, literal: str) -> int:
        if len(literal) > _SAFE_DIGITS:
            self.odd = True
        return int(literal) if len(literal) <= _MAX_DIGITS else 0

    def float(self, literal: str) -> float | None:
        value = finite(literal)
        if not value:
            self.odd = True
        return value

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self.odd = True
        return found


@dataclass
class _Level:
    """An object or a list that `_oddities` has entered. `key` is the current key of the object, or
    the current index in the list. `names` has the object's keys so far, and is None for a list."""

    names: set[str] | None
    key: str | int = 0
    expects_key: bool = field(init=False)

    def __post_init__(self) -> None:
        self.expects_key = self.names is not None

    def next(self) -> None:
        if isinstance(self.key, int) and self.names is None:
            self.key += 1
        self.expects_key = self.names is not None


def _oddities(text: str) -> Iterator[tuple[str, int, str]]:
    """Yields the faults of a JSON text that `Parsed.check` reports. For each fault, yields a
    message, the position in the text, and the path of the faulty key."""
    levels: list[_Level] = []

    def key() -> str:
        return ".".join(str(level.key) for level in levels)

    for match in _TOKEN.finditer(text):
        token = match[0]
        level = levels[-1] if levels else None
        if token in ("{", "["):
            levels.append(_Level(set() if token == "{" else None))
            if len(levels) > MAX_DEPTH:
                yield f"nests deeper than {MAX_DEPTH} levels", match.start(), ""
        elif token in ("}", "]"):
            levels.pop()
        elif token == "," and level:
            level.next()
        elif token.startswith('"'):
            if level and level.names is not None and level.expects_key:
                name = str(json.loads(token))
                level.key, level.expects_key = name, False
                if name in level.names:
                    yield f"{key()} is a duplicate key", match.start(), key()
                level.names.add(name)
        elif not is_held(token):
            shown = token if len(token) <= 40 else f"{token[:40]}…"
            why = f"{key()} is {shown}, a number that JavaScript can't hold; write it as text"
            yield why, match.start(), key()


def is_held(literal: str) -> bool:
    """Returns whether JavaScript can hold the number that a literal stands for. JavaScript must not
    round an integer. It may round any other number, but must not turn the number into an infinite
    number, or a nonzero number into 0. Returns True if the literal is not a number."""
    if not literal.lstrip("-").isdigit():
        digits = re.split("[eE]", literal)[0]
        nonzero = literal[-1].isdigit() and any(each in "123456789" for each in digits)
        return not nonzero or bool(finite(literal))
    if len(literal) > _MAX_DIGITS:
        return False
    value = finite(literal)
    return value is not None and int(value) == int(literal)
