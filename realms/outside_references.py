"""What the cards and modules of a realm name outside it, at one generation.

To know it, files are read. A generation never changes, so each process reads a realm once, and from
then on only what has changed since the generation that it knows. Nobody's requests make it read a
realm again and again, and one realm at a time is read.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock
from uuid import UUID

from django.db.models import Q

from realms import content
from realms.errors import Busy
from realms.models import FileVersion, Realm
from realms.urls_and_paths import EXECUTABLE_EXTENSIONS, file_url
from reindex.documents import links_of, module_of, parse_card
from reindex.reader import imports_of

#: Where a published copy would be, for telling what it has within from what it leans on.
_COPY = "http://copy.invalid/realm/"
#: So many realms are remembered.
MAX_REALMS = 64
#: More changed paths than these are not asked for one by one.
MAX_CHANGED = 1000
#: How long a request waits while another realm is read.
WAIT_SECONDS = 1.0

References = Mapping[str, frozenset[str]]

_known: OrderedDict[UUID, tuple[int, References]] = OrderedDict()
_reading = Lock()


def outside_references(realm: Realm) -> References:
    """By path the URLs outside the realm that a file names; files that name none are left out.

    Raises Busy while another request reads.
    """
    known = _known.get(realm.pk)
    if known is not None and known[0] == realm.generation:
        return known[1]
    if not _reading.acquire(timeout=WAIT_SECONDS):
        raise Busy(what=f"the files of {realm.url} can't be looked through at present")
    try:
        known = _known.get(realm.pk)
        if known is None or known[0] != realm.generation:
            known = realm.generation, _references(realm, known)
            _known[realm.pk] = known
            _known.move_to_end(realm.pk)
            while len(_known) > MAX_REALMS:
                _known.popitem(last=False)
        return known[1]
    finally:
        _reading.release()


def forget() -> None:
    """Empties what is remembered; for tests."""
    _known.clear()


def _references(realm: Realm, known: tuple[int, References] | None) -> References:
    kinds = Q(path__endswith=".json")
    for extension in EXECUTABLE_EXTENSIONS:
        kinds |= Q(path__endswith=extension)
    versions = content.versions_at(realm, realm.generation).filter(kinds)
    versions = versions.select_related("blob")
    changed = content.difference(realm, known[0], realm.generation) if known else None
    if known is None or changed is None or len(changed) > MAX_CHANGED:
        return dict(_read(versions.iterator(chunk_size=500)))
    kept = {path: urls for path, urls in known[1].items() if path not in changed}
    return kept | dict(_read(versions.filter(path__in=list(changed))))


def _read(versions: Iterable[FileVersion]) -> Iterator[tuple[str, frozenset[str]]]:
    for version in versions:
        data = content.read_blob(version.blob_id, version.blob.data) if version.size else b""
        named = _named(file_url(_COPY, version.path), data)
        outside = frozenset(url for url in named if not url.startswith(_COPY))
        if outside:
            yield version.path, outside


def _named(url: str, data: bytes) -> Iterator[str]:
    """The URLs that a file names: a card its module and its links, a module its imports."""
    if not url.endswith(".json"):
        yield from imports_of(url, data)
        return
    document = parse_card(data)
    if document is not None:
        module = module_of(url, document)
        yield from [module] if module else []
        yield from links_of(url.removesuffix(".json"), document)
