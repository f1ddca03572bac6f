"""What has changed in a realm between two generations, as the realm itself tells over HTTP."""

import json

from reindex.reading.pins import Access, Pin
from reindex.reading.replicas import ReplicaUnavailable, get_pinned

API = "application/vnd.api+json"
EXECUTABLE = (".tsx", ".ts", ".jsx", ".js")
#: Files that are modules. Those with further extensions are named with them.
CODE = (*EXECUTABLE, ".mts", ".mjs", ".cts")

#: Answers that are kept, in the order in which they came.
MAX_KEPT = 8


def stem(path: str) -> str:
    """A module's path without its extension; any other path as it is."""
    for extension in EXECUTABLE:
        if path.endswith(extension):
            return path.removesuffix(extension)
    return path


def manifest(pin: Pin, access: Access, since: int | None = None) -> dict[str, str | None] | None:
    """The files of a realm by path, with the hash of their content, or those that are not what they
    were at an earlier generation; None where history doesn't reach back that far.

    Raises ReplicaUnavailable, PinEnded and WrongGeneration.
    """
    query = "" if since is None else f"?since={since}"
    response = get_pinned(pin, "", API, access, query=query)
    if response.status == 410:
        return None
    if response.status != 200:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    files: dict[str, str | None] = json.loads(response.body)["data"]["attributes"]["files"]
    return files


_files: dict[Pin, frozenset[str]] = {}


def files(pin: Pin, access: Access) -> frozenset[str]:
    """The paths of a realm at a generation, which never change. Raises as `manifest`."""
    if pin not in _files:
        found = manifest(pin, access)
        if len(_files) >= MAX_KEPT:
            _files.pop(next(iter(_files)), None)
        _files[pin] = frozenset(found or ())
    return _files[pin]


_changed: dict[tuple[Pin, int], frozenset[str] | None] = {}
#: The generation at which each realm was last read.
_read_at: dict[str, int] = {}


def changed(pin: Pin, since: int, access: Access) -> frozenset[str] | None:
    """The paths at which a realm has other content than at an earlier generation, which never
    changes; None where that can't be told."""
    if (pin, since) not in _changed:
        files = manifest(pin, access, since)
        if len(_changed) >= MAX_KEPT:
            _changed.pop(next(iter(_changed)), None)
        _changed[pin, since] = None if files is None else frozenset(files)
    return _changed[pin, since]


def advance(pin: Pin, access: Access) -> tuple[Pin, frozenset[str]] | None:
    """Takes note that a realm is read at a generation. Answers the one at which it was read before,
    with what has changed since; None if there is none, or that can't be told."""
    before = _read_at.get(pin.realm_url)
    if before is not None and before >= pin.generation:
        return None
    differing = None if before is None else changed(pin, before, access)
    _read_at[pin.realm_url] = pin.generation
    return None if before is None or differing is None else (Pin(pin.realm_url, before), differing)


def forget() -> None:
    """Empties this process's memory of realms."""
    _read_at.clear()
    _changed.clear()
    _files.clear()
