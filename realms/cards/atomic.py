"""Carries out requests to `_atomic`, which write several files at one generation, or write none.

All operations of a request are checked before the first file is written. `read_operations` checks
the operations themselves. `apply` then checks whether the realm's files permit the operations.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from realms.addresses import file_path, same_name
from realms.content.files import check_size, write_files
from realms.content.locks import locked_realm
from realms.errors import AlreadyThere, Malformed, Missing, Problems, RealmError
from realms.http import bodies
from realms.models import Realm
from reindex.reading.card_paths import is_card_file
from reindex.reading.references import file_url

#: The fields that the server adds to a card's `meta` in its answers. If a client sends a card with
#: these fields, the server doesn't store the fields.
_ADDED_BY_SERVER = ("lastModified", "resourceCreatedAt", "realmInfo", "realmURL")


@dataclass(frozen=True)
class Operation:
    """A file to create (`add`) or to replace (`update`)."""

    op: str
    href: str
    path: str
    data: bytes


@dataclass(frozen=True)
class Result:
    """A file that was written."""

    url: str
    created_at: datetime


def read_operations(body: bytes, realm_url: str) -> list[Operation]:
    """Returns the operations in the body of an `_atomic` request. Raises Malformed if the body
    can't be parsed. If operations are invalid, raises one `Several` error for all of them."""
    sent = bodies.parse(bodies.Atomic, body).operations
    problems = Problems()
    operations: list[Operation] = []
    names: dict[str, str] = {}
    for number, each in enumerate(sent):
        try:
            operation = _operation(each, f"atomic:operations.{number}", realm_url)
            name = _name(operation)
            if names.setdefault(operation.path, name) != name:
                raise Malformed(what=same_name(names[operation.path], name))
            operations.append(operation)
        except RealmError as error:
            problems.add(error)
            operations.clear()
    problems.raise_any()
    return operations


def _operation(value: Any, place: str, realm_url: str) -> Operation:
    sent = bodies.checked(bodies.Operation, value, place)
    path = file_path(sent.href, realm_url)
    if path is None:
        raise Missing(href=sent.href, why=f"it is outside {realm_url}")
    if isinstance(sent.data, bodies.SourceResource):
        data = sent.data.attributes.content.encode()
    elif is_card_file(path):
        data = _card(sent.data)
    else:
        raise Malformed(what=f"{place}.href: a card's file ends in .json; got {sent.href}")
    check_size(path, data)
    return Operation(sent.op, sent.href, path, data)


def _name(operation: Operation) -> str:
    """Returns the path in an operation's `href` as the client spelt it, before Unicode composition.
    Two operations on the same file must spell the path in the same way."""
    segments = unquote(operation.href).split("/")
    return "/".join(segments[-1 - operation.path.count("/") :])


def _card(card: bodies.CardResource) -> bytes:
    meta = card.meta.model_dump()
    resource = {
        "type": "card",
        "attributes": card.attributes,
        **({"relationships": card.relationships} if card.relationships else {}),
        "meta": {key: value for key, value in meta.items() if key not in _ADDED_BY_SERVER},
    }
    return json.dumps({"data": resource}, indent=2, ensure_ascii=False).encode()


def apply(realm: Realm, operations: Sequence[Operation]) -> tuple[int, list[Result]]:
    """Carries out all operations. Returns the realm's generation after the write, and a result for
    each operation, in the order of `operations`. If two operations write the same file, the file
    gets the content of the later operation.

    If an operation is impossible (`_check`), raises `Several` and carries out no operation.
    """
    with locked_realm(realm) as current:
        _check(current, operations)
        written = write_files(current, {each.path: each.data for each in operations})
    results = [
        Result(file_url(realm.url, each.path), written[each.path].created_at) for each in operations
    ]
    return current.generation, results


def _check(realm: Realm, operations: Sequence[Operation]) -> None:
    """Raises one `Several` error for all impossible operations. An operation is impossible if it
    adds a file that exists, updates a file that doesn't exist, or writes below the URL of an inner
    realm. The caller holds the realm's lock."""
    named = realm.versions.open().filter(path__in=[each.path for each in operations])
    existing = set(named.values_list("path", flat=True))
    # The URLs of realms inside this realm. A file below such a URL belongs to the inner realm.
    inner = tuple(
        Realm.objects.filter(url__startswith=realm.url)
        .exclude(pk=realm.pk)
        .values_list("url", flat=True)
    )
    problems = Problems()
    for each in operations:
        within = next((url for url in inner if (realm.url + each.path).startswith(url)), None)
        if within is not None:
            problems.add(Missing(href=each.href, why=f"its URL belongs to the realm {within}"))
        elif each.op == "add" and each.path in existing:
            problems.add(AlreadyThere(href=each.href))
        elif each.op == "update" and each.path not in existing:
            problems.add(Missing(href=each.href, why="there is no such file"))
    problems.raise_any()
