"""Parses the cards in files, and resolves the references in cards to URLs.

Pages, the JSON API, the search and the check before a publish all use this parser. So they agree on
which files are cards, and report the same errors.
"""

import json
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from reindex.reading.references import card_at, joined, resolve_module, rooted, with_composed
from reindex.reading.strict_json import BrokenDocument, parse

Document: TypeAlias = dict[str, Any]

_EXPECTED = (
    'data.meta.adoptsFrom should name the card\'s type: {"module": "./post", "name": "Post"}'
)


def read_document(data: bytes | str, path: str) -> Document | None:
    """Parses the card in the file at `path`. Returns None for JSON data that isn't a card. Raises
    BrokenDocument for invalid JSON, and for a card without a type."""
    parsed = parse(data, path)
    match parsed.value:
        case {"data": {"meta": {"adoptsFrom": {"module": str(), "name": str()}}}}:
            parsed.check()
            return dict(parsed.value)
    claim = _claim(parsed.value)
    if claim is None:
        return None
    position = max(parsed.text.find(json.dumps(claim)), 0)
    raise BrokenDocument(path, _EXPECTED, parsed.text, position, "data.meta.adoptsFrom")


def no_longer_a_card(path: str) -> BrokenDocument:
    """Returns the error for a file that held a card earlier and now holds plain data."""
    return BrokenDocument(path, f"was a card before; {_EXPECTED}; rename the file if it is data")


def absolute(document: Document, moved: Callable[[str], str] = lambda url: url) -> Document:
    """Returns a copy of a card with changed references. A reference that begins with `/` becomes an
    absolute URL on this server, because the card's realm may be published at another host. All
    references are converted to Unicode NFC. Each absolute URL is passed to `moved`, and is replaced
    by the URL that `moved` returns."""

    def placed(reference: str) -> str:
        url = with_composed(rooted(reference))
        # A relative reference leads into the card's own realm, so `moved` isn't called.
        return moved(url) if "://" in url else url

    data = document["data"]
    adopts = data["meta"]["adoptsFrom"]
    meta = {**data["meta"], "adoptsFrom": {**adopts, "module": placed(adopts["module"])}}
    relationships = _placed_links(data.get("relationships"), placed)
    return {**document, "data": {**data, "meta": meta, "relationships": relationships}}


def _placed_links(value: Any, placed: Callable[[str], str]) -> Any:
    # A `match` statement would take twice as long, and this function runs for every link of every
    # card.
    if isinstance(value, dict):
        links = value.get("links")
        if isinstance(links, dict) and isinstance(link := links.get("self"), str):
            return {**value, "links": {**links, "self": placed(link)}}
        return {key: _placed_links(each, placed) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed_links(each, placed) for each in value]
    return value


def module_of(url: str, document: Document) -> str | None:
    """Returns the URL of the module that a card adopts from."""
    return resolve_module(specifier_of(document), url)


def specifier_of(document: Document) -> str:
    """Returns the import specifier of the module that a card adopts from, as written in the
    card."""
    return str(document["data"]["meta"]["adoptsFrom"]["module"])


def links_of(url: str, document: Document) -> list[str]:
    """Returns the public URLs of the cards that a card links to."""
    relationships = document["data"].get("relationships")
    targets: list[str] = []
    if not isinstance(relationships, dict):
        return targets
    for value in relationships.values():
        for each in value if isinstance(value, list) else [value]:
            match each:
                case {"links": {"self": str(link)}} if link:
                    target = joined(url, link)
                    if target is not None:
                        targets.append(card_at(target))
    return targets


# --- Recognizing broken cards ------------------------------------------------------------------


def _claim(document: Any) -> str | None:
    """Decides whether a document without a valid `adoptsFrom` is a broken card or plain data. For a
    broken card, returns the key by which the card was recognized, such as a misspelt `adoptsFrom`.
    For plain data, returns None."""
    if not isinstance(document, dict):
        return None
    wrapped = list(_objects(document, "data"))
    for each in (document, *wrapped):
        for place in (each, *_objects(each, "meta")):
            for key in place:
                if _resembles(key, "adoptsFrom"):
                    return str(key)
    for each in wrapped:
        if each.get("type") == "card":
            return "type"
        # If `type` doesn't resemble `card`, the document is another kind of JSON:API document.
        if _resembles(each.get("type", "card"), "card"):
            return next((key for key in ("attributes", "relationships") if key in each), None)
    if document.get("type") == "card" and isinstance(document.get("attributes"), dict):
        return "type"
    return None


def _objects(value: Document, name: str) -> Iterator[Document]:
    for key, each in value.items():
        if isinstance(each, dict) and _resembles(key, name):
            yield each


def _resembles(text: Any, name: str) -> bool:
    """Returns whether a text equals a name or may be a misspelling of the name."""
    if not isinstance(text, str) or abs(len(text) - len(name)) > 4:
        return False
    plain = text.lower().replace("_", "").replace("-", "")
    return SequenceMatcher(None, plain, name.lower()).ratio() >= 0.75
