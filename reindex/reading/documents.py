"""Cards as documents: what a file's content says, and what that refers to.

Whoever reads a card reads it here: its page, its JSON, the search, and what is checked before a
publish. So a file is a card to all of them, or to none, or wrong in the same words.
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
    """The card in the file at `path`, as it is stored; None for data, which doesn't say that it is
    a card. Raises BrokenDocument for what is not JSON, and for a card that names no type."""
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
    """What is wrong with data in the place of a card."""
    return BrokenDocument(path, f"was a card; {_EXPECTED}; data belongs in a file of another name")


def absolute(document: Document, moved: Callable[[str], str] = lambda url: url) -> Document:
    """A card whose references that begin with `/`, which mean a realm on this server, are URLs: so
    they mean the same to the card library, wherever the card is published. Their characters are
    composed. `moved` says where what is at a URL is to be read."""

    def placed(reference: str) -> str:
        return moved(with_composed(rooted(reference)))

    data = document["data"]
    adopts = data["meta"]["adoptsFrom"]
    meta = {**data["meta"], "adoptsFrom": {**adopts, "module": placed(adopts["module"])}}
    relationships = _placed_links(data.get("relationships"), placed)
    return {**document, "data": {**data, "meta": meta, "relationships": relationships}}


def _placed_links(value: Any, placed: Callable[[str], str]) -> Any:
    match value:
        case {"links": {"self": str(link)}}:
            return {**value, "links": {**value["links"], "self": placed(link)}}
        case dict():
            return {key: _placed_links(each, placed) for key, each in value.items()}
        case list():
            return [_placed_links(each, placed) for each in value]
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
                        found.append(card_at(target))
    return found


# --- What says that it is a card ---------------------------------------------------------------


def _claim(document: Any) -> str | None:
    """The key by which a document without a type says that it is a card; None where none does."""
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
        # What says that it is of another type is somebody else's JSON:API.
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
    """Whether a key may be a misspelling of a name, or is that name."""
    if not isinstance(text, str) or abs(len(text) - len(name)) > 4:
        return False
    plain = text.lower().replace("_", "").replace("-", "")
    return SequenceMatcher(None, plain, name.lower()).ratio() >= 0.75
