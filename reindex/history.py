"""What has changed in a realm between two generations, and since when its modules are the same.

A module is imported under the URL of a generation, and whoever has imported it once needn't fetch
it again under that URL. So modules are imported at an earlier generation for as long as they are
what they were then.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from reindex.pins import PIN_SECONDS, Pin
from reindex.replicas import ReplicaUnavailable, get_pinned

API = "application/vnd.api+json"
EXECUTABLE = (".tsx", ".ts", ".jsx", ".js")


def stem(path: str) -> str:
    """A module's path without its extension; any other path as it is."""
    for extension in EXECUTABLE:
        if path.endswith(extension):
            return path.removesuffix(extension)
    return path


def manifest(pin: Pin, since: int | None = None) -> dict[str, str | None] | None:
    """The files of a realm by path, with the hash of their content, or those that are not what they
    were at an earlier generation; None where history doesn't reach back that far.

    Raises ReplicaUnavailable and WrongGeneration.
    """
    query = "" if since is None else f"?since={since}"
    response = get_pinned(pin, "", API, query=query)
    if response.status == 410:
        return None
    if response.status != 200:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    files: dict[str, str | None] = json.loads(response.body)["data"]["attributes"]["files"]
    return files


@lru_cache(maxsize=8)
def changed(pin: Pin, since: int) -> frozenset[str] | None:
    """The paths at which a realm has other content than at an earlier generation, which never
    changes; None where that can't be told."""
    files = manifest(pin, since)
    return None if files is None else frozenset(files)


@dataclass(frozen=True)
class Code:
    """An earlier generation of a realm whose modules are those of the `latest`: between the two
    nothing but other files have changed, `differing`. It was the newest at `since`."""

    generation: int
    latest: int
    since: float
    differing: frozenset[str] = frozenset()

    def after(self, generation: int, differing: frozenset[str]) -> "Code":
        """As of a later generation, given what has changed since the latest."""
        old = time.monotonic() - self.since > CODE_SECONDS
        if old or any(path.endswith(EXECUTABLE) for path in differing):
            return Code(generation, generation, time.monotonic())
        return replace(self, latest=generation, differing=self.differing | differing)


#: By realm. What is imported at a generation is there for longer than this after it was the newest.
_code: dict[str, Code] = {}
CODE_SECONDS = PIN_SECONDS / 2


def advance(pin: Pin) -> tuple[Pin, frozenset[str]] | None:
    """Takes note that a realm is read at a generation. Answers the one at which it was read before,
    with what has changed since; None if there is none, or that can't be told."""
    code = _code.get(pin.realm_url)
    if code is not None and code.latest >= pin.generation:
        return None
    differing = None if code is None else changed(pin, code.latest)
    if code is None or differing is None:
        _code[pin.realm_url] = Code(pin.generation, pin.generation, time.monotonic())
        return None
    _code[pin.realm_url] = code.after(pin.generation, differing)
    return Pin(pin.realm_url, code.latest), differing


def code_generation(realm_url: str, generation: int) -> int:
    """The generation at which the modules of a realm are imported for this one, if nothing that
    they import has changed that isn't a module."""
    code = _code.get(realm_url)
    young = code is not None and time.monotonic() - code.since < CODE_SECONDS
    return code.generation if code and young and code.latest == generation else generation


def expected_pins(pins: Mapping[str, int], realm_url: str, own: frozenset[str]) -> dict[str, int]:
    """The pins at which modules will most likely be imported, given what has changed in one of the
    realms."""
    expected = {url: _code[url].generation if url in _code else pin for url, pin in pins.items()}
    if realm_url in _code:
        expected[realm_url] = _code[realm_url].after(pins[realm_url], own).generation
    return expected


def is_among_changed(pin: Pin, url: str) -> bool:
    """Whether what is at a URL of the realm has changed since the generation of its modules."""
    code = _code.get(pin.realm_url)
    return code is not None and pin.path_of(url) in code.differing


def forget() -> None:
    """Empties this process's memory of realms."""
    _code.clear()
    changed.cache_clear()
