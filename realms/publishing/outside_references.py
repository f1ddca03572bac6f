"""Finds a realm's references to URLs outside the realm, and its broken cards, at one generation (a
number that rises with each change of the realm). From these findings, `publishability.py` reports
why the realm can't be published.

A process caches a realm's findings and their generation. When the realm has a newer generation, the
process reads only the files that have changed since the cached generation. In each process, only
one request at a time reads files, even if the requests are for different realms.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from uuid import UUID

from django.db.models import Q

from definitions.extensions import EXECUTABLE_EXTENSIONS
from realms.content import blobs, history
from realms.errors import Busy
from realms.models import FileVersion, Realm
from reindex.reading.card_paths import card_of, is_card_file
from reindex.reading.documents import absolute, links_of, module_of, read_document
from reindex.reading.modules import imports_of
from reindex.reading.references import file_url
from reindex.reading.strict_json import BrokenDocument

#: A stand-in for the unknown URL at which the realm would be published. A relative reference inside
#: the realm resolves to a URL that begins with the stand-in. Every other reference is an outside
#: reference, even if it contains the realm's present URL.
_COPY = "http://copy.invalid/realm/"
#: The findings of at most this many realms are cached in a process.
MAX_REALMS = 64
#: If more files than this have changed since the cached generation, all files are read again.
MAX_CHANGED = 1000
#: How long a request waits while another request reads a realm's files. Unit: seconds.
WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class OutsideReferences:
    """The findings for one file. `outside` has the URLs outside the realm to which the file refers.
    If the file is a broken card, `broken` says why. Otherwise, `broken` is empty. `data` says
    whether the file is JSON data but not a card."""

    outside: frozenset[str] = frozenset()
    broken: str = ""
    data: bool = False


#: The findings for a realm's files, by path. Files without findings are left out.
Findings = Mapping[str, OutsideReferences]
_NOTHING = OutsideReferences()

_known: OrderedDict[UUID, tuple[int, Findings]] = OrderedDict()
_reading = Lock()


def scan(realm: Realm) -> Findings:
    """Returns the findings for a realm's files at the realm's current generation. Raises Busy if
    another request still reads files of any realm after WAIT_SECONDS."""
    known = _known.get(realm.pk)
    if known is not None and known[0] == realm.generation:
        return known[1]
    if not _reading.acquire(timeout=WAIT_SECONDS):
        raise Busy(what=f"another request is checking a realm, so {realm.url} can't be checked now")
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
    """Empties the cache of findings. Only tests need this."""
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
    kept = {path: references for path, references in known[1].items() if path not in changed}
    return kept | dict(_read(versions.filter(path__in=list(changed))))


def _read(versions: Iterable[FileVersion]) -> Iterator[tuple[str, OutsideReferences]]:
    for version in versions:
        data = blobs.read_blob(version.blob_id, version.blob.data) if version.size else b""
        references = _references(version.path, data)
        if references != _NOTHING:
            yield version.path, references


def _references(path: str, data: bytes) -> OutsideReferences:
    """Returns the findings for one file. A card refers to its module and to the cards that it links
    to. A module refers to the modules that it imports."""
    url = file_url(_COPY, path)
    if not is_card_file(path):
        return OutsideReferences(_outside(imports_of(url, data)))
    try:
        document = read_document(data, path)
    except BrokenDocument as error:
        return OutsideReferences(broken=str(error))
    if document is None:
        return OutsideReferences(data=True)
    document = absolute(document)
    module = module_of(url, document)
    links = links_of(card_of(url), document)
    return OutsideReferences(_outside([*([module] if module else []), *links]))


def _outside(urls: Iterable[str]) -> frozenset[str]:
    return frozenset(url for url in urls if not url.startswith(_COPY))
