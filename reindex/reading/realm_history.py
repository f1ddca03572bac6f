"""Asks replicas over HTTP for the list of a realm's files at a generation, and for the files that
changed between two generations. A pin contains a realm and a generation.
"""

import json

from reindex.reading.media_types import API
from reindex.reading.pins import Access, Pin
from reindex.reading.replicas import ReplicaUnavailable, get_pinned

#: The maximum number of entries in each of the caches `_files` and `_changed`. The oldest entry is
#: evicted first.
MAX_KEPT = 8


def manifest(pin: Pin, access: Access, since: int | None = None) -> dict[str, str | None] | None:
    """Returns the hashes of a realm's files at the pin's generation, by path. With `since`, returns
    only the files that differ between the generation `since` and the pin's generation. The value of
    a deleted file is None. Returns None if the two generations can't be compared, for example
    because the realm's history doesn't reach back to `since`.

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
    """Returns the paths of a realm's files at the pin's generation. These paths never change, so
    they are cached. Raises the errors of `manifest`."""
    if pin not in _files:
        found = manifest(pin, access)
        assert found is not None  # `manifest` returns None only with `since`.
        if len(_files) >= MAX_KEPT:
            _files.pop(next(iter(_files)), None)
        _files[pin] = frozenset(found)
    return _files[pin]


#: The results of `changed`, by its arguments `pin` and `since`.
_changed: dict[tuple[Pin, int], frozenset[str] | None] = {}
#: For each realm's URL, the newest generation that `note_read` has recorded.
_read_at: dict[str, int] = {}


def changed(pin: Pin, since: int, access: Access) -> frozenset[str] | None:
    """Returns the paths of the files that differ between the generation `since` and the pin's
    generation. Returns None if the two generations can't be compared. The difference between two
    generations never changes, so it is cached. Raises the errors of `manifest`."""
    if (pin, since) not in _changed:
        files = manifest(pin, access, since)
        if len(_changed) >= MAX_KEPT:
            _changed.pop(next(iter(_changed)), None)
        _changed[pin, since] = None if files is None else frozenset(files)
    return _changed[pin, since]


def note_read(pin: Pin, access: Access) -> tuple[Pin, frozenset[str]] | None:
    """Records that this process reads a realm at the pin's generation. Returns the pin of the
    generation recorded before, and the paths of the files that have changed since then. Returns
    None if no generation was recorded before, or if the two generations can't be compared. Records
    nothing and returns None if the pin's generation isn't newer than the recorded one."""
    before = _read_at.get(pin.realm_url)
    if before is not None and before >= pin.generation:
        return None
    differing = None if before is None else changed(pin, before, access)
    _read_at[pin.realm_url] = pin.generation
    return None if before is None or differing is None else (Pin(pin.realm_url, before), differing)


def forget() -> None:
    """Empties this process's caches of realm histories."""
    _read_at.clear()
    _changed.clear()
    _files.clear()
