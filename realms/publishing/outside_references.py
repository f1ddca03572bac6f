"""What the cards and modules of a realm name outside it, and which cards are broken, at one
generation.

To know it, files are read. A generation never changes, so each process reads a realm once, and from
then on only what has changed since the generation that it knows. Nobody's requests make it read a
realm again and again, and one realm at a time is read.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from django.db.models import Q

from realms.addresses import EXECUTABLE_EXTENSIONS
from realms.content import blobs, history
from realms.errors import Busy
from realms.models import FileVersion, Realm
from reindex.reading.documents import absolute, links_of, module_of, read_document
from reindex.reading.modules import imports_of
from reindex.reading.references import file_url
from reindex.reading.strict_json import BrokenDocument

#: Where a published copy would be, for telling what it has within from what it leans on.
_COPY = "http://copy.invalid/realm/"
#: So many realms are remembered.
MAX_REALMS = 64
#: More changed paths than these are not asked for one by one.
MAX_CHANGED = 1000
#: How long a request waits while another realm is read.
WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class OutsideReferences:
    """What a file holds: the URLs outside its realm that it names, what is wrong with it as a card,
    and whether it is data that could have been one."""

    outside: frozenset[str] = frozenset()
    broken: str = ""
    data: bool = False


#: By path. Files of which there is nothing to say are left out.
Findings = Mapping[str, OutsideReferences]
_NOTHING = OutsideReferences()

_known: OrderedDict[UUID, tuple[int, Findings]] = OrderedDict()
_reading = Lock()


def scan(realm: Realm) -> Findings:
    """What the files of a realm hold. Raises Busy while another request reads."""
    known = _known.get(realm.pk)
    if known is not None and known[0] == realm.generation:
        return known[1]
    if not _reading.acquire(timeout=WAIT_SECONDS):
        raise Busy(what=f"the files of {realm.url} can't be looked through at present")
    try:
        known = _known.get(realm.pk)
        if known is None or known[0] != realm.generation:
            known = realm.generation, _findings(realm, known)
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


def _findings(realm: Realm, known: tuple[int, Findings] | None) -> Findings:
    kinds = Q(path__endswith=".json")
    for extension in EXECUTABLE_EXTENSIONS:
        kinds |= Q(path__endswith=extension)
    versions = history.versions_at(realm, realm.generation).filter(kinds)
    versions = versions.select_related("blob")
    changed = history.difference(realm, known[0], realm.generation) if known else None
    if known is None or changed is None or len(changed) > MAX_CHANGED:
        return dict(_read(versions.iterator(chunk_size=500)))
    kept = {path: found for path, found in known[1].items() if path not in changed}
    return kept | dict(_read(versions.filter(path__in=list(changed))))


def _read(versions: Iterable[FileVersion]) -> Iterator[tuple[str, OutsideReferences]]:
    for version in versions:
        data = blobs.read_blob(version.blob_id, version.blob.data) if version.size else b""
        found = _found(version.path, data)
        if found != _NOTHING:
            yield version.path, found


def _found(path: str, data: bytes) -> OutsideReferences:
    """What a file holds: a card its module and its links, a module its imports."""
    url = file_url(_COPY, path)
    if not path.endswith(".json"):
        return OutsideReferences(_outside(imports_of(url, data)))
    try:
        document = read_document(data, path)
    except BrokenDocument as error:
        return OutsideReferences(broken=str(error))
    if document is None:
        return OutsideReferences(data=True)
    document = absolute(document)
    module = module_of(url, document)
    links = links_of(url.removesuffix(".json"), document)
    return OutsideReferences(_outside([*([module] if module else []), *links]))


def _outside(urls: Iterable[str]) -> frozenset[str]:
    return frozenset(url for url in urls if not url.startswith(_COPY))
