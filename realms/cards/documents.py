"""Reads, creates, changes and deletes cards as JSON:API documents.

The index of a realm contains its rendered pages. A published realm's cards are read at the
generation of its index, so that the cards and the pages show the same files. A source realm's cards
are read at the realm's current generation, because the author must see each change at once, even in
a card that can't be rendered.
"""

import json
import posixpath
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urljoin

from django.db.models import Sum
from pydantic import BaseModel, ConfigDict, Field

from realms import errors
from realms.addresses import check_path
from realms.cards import relationships
from realms.content.blobs import read_blob
from realms.content.files import check_size, delete_files, write_files
from realms.content.history import MANY_BYTES, versions_at
from realms.content.locks import locked_realm
from realms.http.bodies import READABLE, Text
from realms.models import FileVersion, Realm
from reindex.index.shown import find_page
from reindex.prerender.results import broken_card
from reindex.reading.card_paths import card_of, file_of, named_card
from reindex.reading.documents import read_document
from reindex.reading.references import file_url
from reindex.reading.strict_json import BrokenDocument


@dataclass(frozen=True)
class Card:
    """A card's document as stored at one generation of its realm. `path` is the path of the card's
    file without `.json`."""

    realm_url: str
    path: str
    generation: int
    document: dict[str, Any]
    created_at: datetime
    modified_at: datetime

    @property
    def url(self) -> str:
        return file_url(self.realm_url, self.path)

    @property
    def resource(self) -> dict[str, Any]:
        """The card as the JSON:API resource that clients get."""
        data = self.document["data"]
        return {
            "id": self.url,
            "type": "card",
            "attributes": data.get("attributes") or {},
            "relationships": data.get("relationships") or {},
            "meta": {
                **data["meta"],
                "lastModified": int(self.modified_at.timestamp()),
                "resourceCreatedAt": int(self.created_at.timestamp()),
                "realmURL": self.realm_url,
            },
            "links": {"self": self.url},
        }


#: A function that checks whether a write may proceed. The write calls this function under the
#: realm's lock. The arguments are the path of the file, and the card that the file holds before the
#: write (None if there is none, or if the file is broken). To refuse the write, the function raises
#: an error.
Condition: TypeAlias = Callable[[str, Card | None], None]


# --- Request bodies ----------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _AdoptsFrom(_Part):
    module: Annotated[Text, Field(min_length=1)]
    name: Annotated[Text, Field(min_length=1, max_length=200)]


class _Links(_Part):
    self: Text | None = None


class _Relationship(_Part):
    links: _Links | None = None


class _Meta(_Part):
    adoptsFrom: _AdoptsFrom


class _PatchMeta(_Part):
    adoptsFrom: _AdoptsFrom | None = None


Attributes = Annotated[dict[str, Any], READABLE]
Relationships = Annotated[dict[str, _Relationship | list[_Relationship] | None], READABLE]


class _NewCard(_Part):
    type: Literal["card"]
    lid: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    attributes: Attributes = {}
    relationships: Relationships = {}
    meta: Annotated[_Meta, READABLE]


class CreateCard(_Part):
    """The body of a request that creates a card."""

    data: _NewCard


class _ChangedCard(_Part):
    type: Literal["card"]
    attributes: Attributes = {}
    relationships: Relationships = {}
    meta: _PatchMeta = _PatchMeta()


class PatchCard(_Part):
    """The body of a request that changes a card."""

    data: _ChangedCard


# --- Reading -----------------------------------------------------------------------------------


def read(realm: Realm, path: str, at_least: int = 0) -> Card:
    """Returns the card at `path`, a path without `.json`. For a folder, returns the folder's
    `index` card.

    Raises NotFound and NotACard. Raises Busy if the generation to read is older than `at_least`.
    Raises BrokenCard if the card's file is broken. In a published realm, also raises BrokenCard if
    the rendering of the card failed.
    """
    generation = realm.generation
    failed: Mapping[str, Any] | None = None
    path = named_card(path)
    if realm.kind == Realm.Kind.PUBLISHED:
        page = find_page(realm.url, path)
        generation = realm.generation if page.generation is None else page.generation
        failed = page.error
    if generation < at_least:
        raise errors.Busy(what=f"{realm.url} is not ready at generation {at_least}")
    if failed is not None:
        raise errors.BrokenCard(file_url(realm.url, path), failed)
    try:
        for version in _versions(realm, generation, [path]):
            if card := _card(realm, generation, version):
                return card
    except BrokenDocument as error:
        raise errors.BrokenCard(file_url(realm.url, path), broken_card(error)) from error
    if versions_at(realm, generation).filter(path__in=[path, file_of(path)]).exists():
        raise errors.NotACard(url=file_url(realm.url, path))
    raise errors.NotFound(url=file_url(realm.url, path))


def read_many(realm: Realm, generation: int, paths: list[str]) -> list[Card]:
    """Returns the cards at `paths` as of a generation, in the order of `paths`. Raises InvalidQuery
    if the cards are too large for one response."""
    versions = versions_at(realm, generation).filter(path__in=[file_of(path) for path in paths])
    size = versions.aggregate(size=Sum("size"))["size"] or 0
    if size > MANY_BYTES:
        raise errors.InvalidQuery(
            pointer="/page/size",
            why=f"the {len(paths)} cards have {size} bytes; expected a page of at most "
            f"{MANY_BYTES} bytes",
        )
    cards: dict[str, Card] = {}
    for version in _versions(realm, generation, paths):
        # An index that an older release has made may list files that this release doesn't accept
        # as cards. Leave these files out.
        with suppress(BrokenDocument):
            if card := _card(realm, generation, version):
                cards[card.path] = card
    return [cards[path] for path in paths if path in cards]


def has_file(realm: Realm, path: str) -> bool:
    """Returns whether the realm has a file at `path` at its current generation."""
    return versions_at(realm, realm.generation).filter(path=path).exists()


def _versions(realm: Realm, generation: int, paths: Iterable[str]) -> Iterable[FileVersion]:
    files = [file_of(path) for path in paths]
    return versions_at(realm, generation).filter(path__in=files).select_related("blob")


def _card(realm: Realm, generation: int, version: FileVersion) -> Card | None:
    """Returns the card in a file, or None if the file is not a card. Raises BrokenDocument."""
    document = read_document(_data(version), version.path)
    if document is None:
        return None
    path = card_of(version.path)
    return Card(realm.url, path, generation, document, version.created_at, version.modified_at)


def _data(version: FileVersion) -> bytes:
    return b"" if version.size == 0 else read_blob(version.blob_id, version.blob.data)


# --- Writing -----------------------------------------------------------------------------------


def create(realm: Realm, folder: str, body: CreateCard, condition: Condition) -> Card:
    """Creates a card below `folder`, in a subfolder that has the name of the card's type.

    `folder` ends in `/`, or is empty for the realm's root. References in the body are relative to
    `folder`. Raises Malformed, InvalidPath, Conflict, TooLarge.
    """
    sent = body.data
    name = sent.lid or str(uuid.uuid4())
    adopts = sent.meta.adoptsFrom
    for what, segment in (("data.lid", name), ("data.meta.adoptsFrom.name", adopts.name)):
        if "/" in segment:
            raise errors.Malformed(what=f"{what} is {segment!r}; a file's name can't contain /")
    path = check_path(file_of(f"{folder}{adopts.name}/{name}"), realm.url)
    base = file_url(realm.url, folder)
    data = {
        "type": "card",
        "attributes": sent.attributes,
        "relationships": _relationships(sent.relationships, base, realm.url, path),
        "meta": {"adoptsFrom": _adopts(adopts, base, realm.url, path)},
    }
    with locked_realm(realm) as current:
        if has_file(current, path):
            raise errors.Conflict(what=f"{realm.url}{path} already exists")
        condition(path, None)
        return _write(current, path, {"data": data})


def patch(realm: Realm, path: str, body: PatchCard, condition: Condition) -> Card:
    """Merges the fields in `body` into a card. Concurrent changes of other fields are kept.

    Raises NotFound, NotACard, BrokenCard, TooLarge. Raises Malformed if a reference in `body` is
    invalid, or if `body` would change the card's type.
    """
    sent, file = body.data, check_path(file_of(path), realm.url)
    base = file_url(realm.url, path)
    with locked_realm(realm) as current:
        card = read(current, path)
        condition(file, card)
        document = card.document
        data = document["data"]
        if sent.meta.adoptsFrom is not None:
            adopts = _adopts(sent.meta.adoptsFrom, base, realm.url, file)
            stored = data["meta"]["adoptsFrom"]
            if adopts != {**stored, "module": _rebased(stored["module"], base, realm.url, file)}:
                raise errors.Malformed(what="data.meta.adoptsFrom: a card's type can't be changed")
        data["attributes"] = _merged(data.get("attributes") or {}, sent.attributes)
        changed = _relationships(sent.relationships, base, realm.url, file)
        data["relationships"] = relationships.merged(data.get("relationships") or {}, changed)
        return _write(current, file, document)


def delete(realm: Realm, path: str, condition: Condition) -> int:
    """Deletes a card, even a broken one, and returns the realm's new generation. Raises NotFound,
    NotACard."""
    file = check_path(file_of(path), realm.url)
    with locked_realm(realm) as current:
        card = None
        with suppress(errors.BrokenCard):
            card = read(current, path)
        condition(file, card)
        return delete_files(current, [file])


def _write(realm: Realm, path: str, document: dict[str, Any]) -> Card:
    # UTF-8 can't encode half of a surrogate pair, so it is written as an escape like `\ud800`.
    text = json.dumps(document, indent=2, ensure_ascii=False)
    data = text.encode(errors="backslashreplace") + b"\n"
    check_size(path, data)
    written = write_files(realm, {path: data})[path]
    return Card(
        realm.url,
        card_of(path),
        written.generation,
        document,
        written.created_at,
        written.modified_at,
    )


def _merged(stored: Any, sent: Any) -> Any:
    """Returns the stored object with the sent object merged into it, also in nested objects. If one
    of the two values is not an object, returns the sent value."""
    if not isinstance(stored, dict) or not isinstance(sent, dict):
        return sent
    return {**stored, **{key: _merged(stored.get(key), value) for key, value in sent.items()}}


# --- References --------------------------------------------------------------------------------


def _adopts(adopts: _AdoptsFrom, base: str, realm_url: str, path: str) -> dict[str, Any]:
    document = adopts.model_dump()
    if adopts.module.startswith(("./", "../", "/", "http://", "https://")):
        document["module"] = _rebased(adopts.module, base, realm_url, path)
    return document


def _relationships(sent: dict[str, Any], base: str, realm_url: str, path: str) -> dict[str, Any]:
    def stored(link: _Relationship) -> dict[str, Any]:
        document = link.model_dump(exclude_unset=True)
        if link.links is not None and link.links.self:
            document["links"]["self"] = _rebased(link.links.self, base, realm_url, path)
        return document

    return {
        key: [stored(each) for each in link] if isinstance(link, list) else link and stored(link)
        for key, link in sent.items()
    }


def _rebased(reference: str, base: str, realm_url: str, path: str) -> str:
    """Converts a reference, which is relative to the URL `base`, to the form that the file at
    `path` stores. A reference to a URL in the realm becomes relative to the file, so that it also
    works in a published copy of the realm."""
    if reference.startswith("@"):
        return reference
    try:
        target = urljoin(base, reference)
    except ValueError as error:
        raise errors.Malformed(what=f"{reference[:200]!r} is not a URL") from error
    if not target.startswith(realm_url):
        return reference if reference.startswith("/") else target
    relative = posixpath.relpath(
        target.removeprefix(realm_url) or ".", posixpath.dirname(file_url("", path)) or "."
    )
    return relative if relative.startswith("../") else f"./{relative}"
