"""Reads a realm's settings from `realm.json`, and warns about settings that have no effect."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urljoin

from reindex.prerender.dead_references import DeadReferences
from reindex.prerender.results import Message
from reindex.reading.card_paths import REALM_CONFIG, card_of
from reindex.reading.dependency_keys import dependency_key
from reindex.reading.documents import Document
from reindex.reading.reader import Reader
from reindex.reading.references import BASE_REALM

#: The fields of `RealmConfig`, the card library's class for the card in `realm.json`.
TEXTS = ("name", "description", "iconURL", "backgroundURL", "stylesheet", "lang")
#: The fields that cause no warning. Only the endpoint `_info` uses those that are not in TEXTS.
_KNOWN = (*TEXTS, "cardInfo", "showAsCatalog", "includePrerenderedDefaultRealmIndex")
#: The fields that contain the URL of a file.
_FILES = ("iconURL", "backgroundURL", "stylesheet")
#: The syntax of a language tag (RFC 5646, section 2.1).
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
#: The language of a realm that sets no valid language.
LANGUAGE = "en"


def read(reader: Reader, realm_url: str) -> Document:
    """Returns those settings of the realm that the templates of cards use, with absolute URLs."""
    texts = {key: each for key, each in _attributes(reader, realm_url).items() if _is_text(each)}
    lang = texts.get("lang", "")
    realm: Document = {"url": realm_url, "name": texts.get("name", ""), "baseURL": BASE_REALM}
    realm |= {"iconURL": None, "stylesheet": None}
    realm["lang"] = lang if _LANGUAGE.fullmatch(lang) else LANGUAGE
    for name in ("iconURL", "stylesheet"):
        with suppress(ValueError):
            realm[name] = urljoin(realm_url, texts[name]) if texts.get(name) else None
    return realm


def checked(reader: Reader, realm_url: str) -> Iterator[Message]:
    """If some settings in `realm.json` have no effect, yields one result for the card in
    `realm.json`. The result has warnings and no page. Raises ReplicaUnavailable and PinEnded."""
    attributes = _attributes(reader, realm_url)
    warnings = list(_warnings(attributes))
    named: list[Message] = []
    for name in _FILES:
        value = attributes.get(name)
        if _is_text(value) and value:
            try:
                named.append({"key": name, "url": urljoin(realm_url, value), "kind": "image"})
            except ValueError:
                warnings.append(_warning(name, f"{value!r}, which is not a URL"))
    dead, keys = DeadReferences(reader, realm_url).warnings(named)
    if warnings or dead:
        yield {
            "type": "card",
            "url": card_of(realm_url + REALM_CONFIG),
            "warnings": [*warnings, *dead],
            "made_from": sorted({*keys, dependency_key(realm_url, REALM_CONFIG)}),
            "cacheable": True,
        }


def _warnings(attributes: Document) -> Iterator[Message]:
    for name, value in attributes.items():
        if name not in _KNOWN:
            message = f"{name} is unknown in {REALM_CONFIG}; expected one of {', '.join(TEXTS)}"
            yield {"key": name, "message": message}
        elif name in TEXTS and value is not None and not _is_text(value):
            yield _warning(name, f"{value!r:.60}, which is not text")
    lang = attributes.get("lang")
    if _is_text(lang) and lang and not _LANGUAGE.fullmatch(lang):
        what = f"{lang!r:.60}, which is no language tag; expected a tag such as de or pt-BR"
        yield _warning("lang", what)


def _warning(name: str, what: str) -> Message:
    return {"key": name, "message": f"{name} is {what}"}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _attributes(reader: Reader, realm_url: str) -> Document:
    match reader.card(card_of(realm_url + REALM_CONFIG)):
        case {"data": {"attributes": dict(attributes)}}:
            return attributes
    return {}
