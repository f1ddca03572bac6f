"""Finds the realm and the file at a URL, and the realm's generation, in one SQL statement.

A realm's generation is a number that rises with each change of the realm's content. One statement
reads one snapshot of the database. So the generation and the content belong together, even if
another transaction commits meanwhile. If several realms contain the URL, the statement chooses the
realm with the longest URL.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from uuid import UUID

from realms import sql
from realms.addresses import realm_candidates
from realms.content.planned import array, first_row
from realms.models import Realm

_array_once = lru_cache(maxsize=64)(array)


@dataclass(frozen=True)
class ResolvedFile:
    """A file of a realm at one generation. `data` is the file's content. `data` is None for large
    content, which isn't in the database, for content that the caller already has, and for empty
    content."""

    path: str
    sha256: str
    size: int
    created_at: datetime
    modified_at: datetime
    data: bytes | None


@dataclass(frozen=True)
class Resolved:
    """The realm and the file at a URL. `file` is the same in all generations from `low` to `high`.

    `whole` is False if the realm is published and its publication at the requested generation has
    been deleted. The files at this generation are then unknown. For any other realm, `whole` is
    always True. A request reads an earlier generation only with a pin, which is a token for one
    generation, and the garbage collector keeps the file versions that a pin needs.
    """

    realm_id: UUID
    realm_url: str
    kind: str
    generation: int
    public: bool
    file: ResolvedFile | None
    low: int
    high: int
    whole: bool = True


def realms_within(realm_url: str, paths: Iterable[str]) -> dict[str, str]:
    """Finds those of a realm's `paths` that belong to a realm nested inside it. Returns a
    dictionary that maps each of these paths to the URL of the innermost nested realm."""
    inner = set(
        Realm.objects.filter(url__startswith=realm_url)
        .exclude(url=realm_url)
        .values_list("url", flat=True)
    )
    realm_of: dict[str, str] = {}
    for path in paths if inner else ():
        around = realm_candidates(realm_url + path)
        within = next((url for url in around if url in inner), None)
        if within is not None:
            realm_of[path] = within
    return realm_of


def resolve(
    url: str,
    extensions: Sequence[str] = ("",),
    *,
    known: str | None = None,
    at: int | None = None,
) -> Resolved | None:
    """Finds the realm that contains `url` (unescaped), and the file at `url`. Appends each of the
    extensions to `url` in turn, and takes the first file that exists. Returns None if no realm
    contains `url`.

    `known` is the SHA-256 of content that the caller already has and that isn't fetched again. `at`
    is the generation to read; None stands for the current generation. A generation that isn't
    committed yet has no files.
    """
    parameters = {
        "candidates": array(realm_candidates(url)),
        "url": url,
        "extensions": _array_once(tuple(extensions)),
        "known": known,
        "at": at,
    }
    row = first_row(sql.RESOLVE, parameters)
    if row is None:
        return None
    (
        realm_id, realm_url, kind, generation, published_at, public,
        path, sha256, size, created_at, modified_at, from_generation, data,
    ) = row  # fmt: skip
    exists = path is not None and (at is None or at <= generation)
    file = (
        ResolvedFile(path, sha256, size, created_at, modified_at, bytes(data) if data else None)
        if exists
        else None
    )
    high = generation if at is None else at
    low = (published_at if kind == "published" else from_generation) if exists else high
    whole = kind != "published" or published_at is not None or at is None or at > generation
    return Resolved(realm_id, realm_url, kind, generation, public, file, low or high, high, whole)
