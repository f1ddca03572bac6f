"""Asks realms over HTTP which of their files changed between two generations."""

import json

from reindex.reading.media_types import API
from reindex.reading.pins import Access, Pin
from reindex.reading.replicas import ReplicaUnavailable, get_pinned

#: The maximum number of cached responses of each kind. The oldest response is evicted first.
MAX_KEPT = 8


def manifest(pin: Pin, access: Access, since: int | None = None) -> dict[str, str | None] | None:
    """Returns the hashes of a realm's files, by path. With `since`, returns only files that changed
    since that generation. Returns None if the realm's history doesn't reach back that far.

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
    """Returns the paths of a realm's files at a generation. The paths at a generation never change,
    so they are cached. Raises the errors of `manifest`."""
    if pin not in _files:
        found = manifest(pin, access)
        assert found is not None  # None is only possible with `since`
        if len(_files) >= MAX_KEPT:
            _files.pop(next(iter(_files)), None)
        _files[pin] = frozenset(found)
    return _files[pin]


_changed: dict[tuple[Pin, int], frozenset[str] | None] = {}
#: For each realm, the generation that this process read last.
_read_at: dict[str, int] = {}


def changed(pin: Pin, since: int, access: Access) -> frozenset[str] | None:
    """Returns the paths of the files that changed since an earlier generation; None if the realm's
    history doesn't reach back that far. The result never changes, so it is cached."""
    if (pin, since) not in _changed:
        files = manifest(pin, access, since)
        if len(_changed) >= MAX_KEPT:
            _changed.pop(next(iter(_changed)), None)
        _changed[pin, since] = None if files is None else frozenset(files)
    return _changed[pin, since]


def note_read(pin: Pin, access: Access) -> tuple[Pin, frozenset[str]] | None:
    """Records that this process reads a realm at a generation. Returns the generation that the
    process read before, and the paths of the files that changed since. Returns None if no earlier
    generation was read, or if the paths are unknown."""
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
