"""Cards as documents: what a file's content says, and what that refers to."""

import json
from math import isfinite
from typing import Any, TypeAlias

from reindex.references import joined, resolve_module, rooted

Document: TypeAlias = dict[str, Any]

#: A document that nests deeper is not a card: no template means it, and a parser's stack is finite.
MAX_DEPTH = 100


def parse_card(data: bytes | str) -> Document | None:
    """A file's content as a card document, or None if it isn't one.

    References that begin with `/` mean a realm on this server, wherever the card is published, and
    are made absolute here; so is what they say to the card library.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        document = json.loads(text, parse_float=finite, parse_constant=no_number)
    except (ValueError, RecursionError):
        return None
    # Hardly any has to be looked at: what opens fewer brackets can't be deeper.
    brackets = text.count("{") + text.count("[")
    if brackets > MAX_DEPTH and _deeper_than(MAX_DEPTH, document):
        return None
    match document:
        case {"data": {"meta": {"adoptsFrom": {"module": str(), "name": str()} as adopts} as meta}}:
            meta = {**meta, "adoptsFrom": {**adopts, "module": rooted(adopts["module"])}}
            relationships = _rooted_links(document["data"].get("relationships"))
            data_ = {**document["data"], "meta": meta, "relationships": relationships}
            return {**document, "data": data_}
    return None


def finite(literal: str) -> float | None:
    """A number of a JSON document; None for one beyond the range, as JavaScript writes it."""
    return value if isfinite(value := float(literal)) else None


def no_number(literal: str) -> None:
    """Refuses what JSON has no name for. Raises ValueError."""
    raise ValueError(f"{literal} is Python's, not JSON's")


def _deeper_than(depth: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(depth - 1, each) for each in inner)


def _rooted_links(value: Any) -> Any:
    match value:
        case {"links": {"self": str(link)}}:
            return {**value, "links": {**value["links"], "self": rooted(link)}}
        case dict():
            return {key: _rooted_links(each) for key, each in value.items()}
        case list():
            return [_rooted_links(each) for each in value]
    return value


def module_of(url: str, document: Document) -> str | None:
    """The URL of the module that a card adopts from."""
    return resolve_module(specifier_of(document), url)


def specifier_of(document: Document) -> str:
    """The module that a card adopts from, as the card spells it."""
    return str(document["data"]["meta"]["adoptsFrom"]["module"])


def links_of(url: str, document: Document) -> list[str]:
    """The public URLs of the cards that a card links to."""
    relationships = document["data"].get("relationships")
    found: list[str] = []
    if not isinstance(relationships, dict):
        return found
    for value in relationships.values():
        for each in value if isinstance(value, list) else [value]:
            match each:
                case {"links": {"self": str(link)}} if link:
                    target = joined(url, link)
                    if target is not None:
                        found.append(target.removesuffix(".json"))
    return found
