"""What modules define, over HTTP: `GET <realm>/_definition?module=&name=`.

A row of the table answers at once. What has none is built in the request, by one process of the
fleet, and that reads the realm over HTTP, so from these same web workers: were all their threads to
wait for builds, no build could end. So these requests have threads of their own, and only a few of
them wait; further requests get 503 with Retry-After.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import BoundedSemaphore, Lock
from urllib.parse import unquote

from django.http import HttpRequest, HttpResponse, JsonResponse

from definitions.entries import DefinitionCacheEntry, DefinitionCacheEntryQuery
from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from realms import errors
from realms.access import auth
from realms.access.auth import Caller
from realms.addresses import CODE_EXTENSIONS, EXECUTABLE_EXTENSIONS
from realms.content.resolve import resolve
from realms.http.accept import API
from realms.models import Realm
from reindex.prerender.module_builder import ModuleBuilder
from reindex.reading.references import file_url, resolve_module
from reindex.reading.replicas import PinEnded, ReplicaUnavailable, WrongGeneration

logger = logging.getLogger(__name__)

#: How many requests of one process wait for builds at a time. Its lane has a thread more.
MAX_WAITING = 2
_room = BoundedSemaphore(MAX_WAITING)

NANOSECONDS = 1_000_000_000


class Turns:
    """When those who are sent away come again: not all at once, as they may have come, or what they
    cost would leave no time for the build that they wait for."""

    PER_SECOND = 10
    LAST_SECONDS = 30

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken_until = 0

    def take(self, now: int) -> int:
        """In how many whole seconds the next one's turn is, 1 to LAST_SECONDS. The time is the
        monotonic clock's, in nanoseconds."""
        with self._lock:
            turn = max(self._taken_until, now) + NANOSECONDS // self.PER_SECOND
            self._taken_until = min(turn, now + self.LAST_SECONDS * NANOSECONDS)
            return -((now - self._taken_until) // NANOSECONDS)


_turns = Turns()

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MAX_MODULE_CHARACTERS = 2048
MAX_NAME_CHARACTERS = 200


def get_definition(request: HttpRequest, realm: Realm) -> HttpResponse:
    """The definition of one card type of a module, or those of all that it exports."""
    asked = _module_asked_for(request, realm)
    name = _parameter(request, "name", MAX_NAME_CHARACTERS) if "name" in request.GET else None
    caller = auth.identified(request, realm)
    entry = _entry(asked, caller)
    if entry is None:
        raise errors.NotFound(url=asked)
    if entry.definitions is None:
        raise errors.BrokenModule(entry.module_url, entry.error or {})
    if name is not None and name not in entry.definitions:
        raise errors.UnknownDefinition(entry.module_url, name, sorted(entry.definitions))
    resources = [
        {"type": "definition", "id": f"{entry.module_url}/{export}", "attributes": definition}
        for export, definition in entry.definitions.items()
        if name in (None, export)
    ]
    document = {"data": resources if name is None else resources[0], "meta": _meta(entry)}
    response = JsonResponse(document, content_type=API)
    response["X-Realm-Generation"] = str(realm.generation)
    return response


def _meta(entry: DefinitionCacheEntry) -> dict[str, object]:
    return {
        "module": entry.module_url,
        "scope": entry.scope,
        "builtAt": entry.built_at.isoformat() if entry.built_at else None,
        "buildMs": entry.build_ms,
        "dependencies": list(entry.dependencies),
        "realms": list(entry.realms),
    }


# --- What is asked for -------------------------------------------------------------------------


def _parameter(request: HttpRequest, name: str, limit: int) -> str:
    values = request.GET.getlist(name)
    if len(values) != 1:
        raise errors.BadParameter(
            parameter=name, why=f"expected it once, got it {len(values)} times"
        )
    (value,) = values
    if not value or len(value) > limit:
        raise errors.BadParameter(parameter=name, why=f"expected 1 to {limit} characters")
    if _CONTROL.search(unquote(value)):
        raise errors.BadParameter(parameter=name, why="it has a control character")
    return value


def _module_asked_for(request: HttpRequest, realm: Realm) -> str:
    """The URL of the module, as the realm's own cards would spell it."""
    module = _parameter(request, "module", MAX_MODULE_CHARACTERS)
    # What names neither a place nor a package is a path in the realm.
    placed = module.startswith(("./", "../", "/", "http://", "https://", "@"))
    url = resolve_module(module if placed else f"./{module}", realm.url)
    if url is None:
        raise errors.BadParameter(
            parameter="module",
            why=f"{module[:80]!r} is not a module; expected a URL, a path from the realm, or "
            "@realm/base",
        )
    return url


# --- Finding it --------------------------------------------------------------------------------


def _entry(asked: str, caller: Caller | None) -> DefinitionCacheEntry | None:
    """A module's entry, as far as it is the caller's to know; None where there is none for them."""
    found = resolve(unquote(asked), ("", *EXECUTABLE_EXTENSIONS))
    # Whoever may not read a realm isn't told what there is in it.
    if found is None or found.file is None or not auth.readable([found.realm_url], caller):
        return None
    if not found.file.path.endswith(CODE_EXTENSIONS):
        return None
    module = file_url(found.realm_url, found.file.path)
    entry = _stored(module, caller)
    if entry is not None:
        return entry
    with _waiting(module):
        try:
            entry = _lookup(caller).lookup_module(module)
        except (PinEnded, ReplicaUnavailable, WrongGeneration) as error:
            # Which replica failed, and how, is the operator's to know.
            logger.warning("%s can't be read: %s", module, error)
            raise errors.Busy(what=f"{module} can't be read at present") from error
    # It may have taken a while: what was the caller's to read then may not be any more.
    return entry if entry is not None and auth.readable(entry.realms, caller) else None


def _stored(module: str, caller: Caller | None) -> DefinitionCacheEntry | None:
    """What the table has for a caller: everyone's row, or else their own."""
    scopes = [(Definition.Scope.PUBLIC.value, "")]
    if caller is not None:
        scopes.append((Definition.Scope.REALM_AUTH.value, auth.reader_key(caller)))
    for scope, reader in scopes:
        query = DefinitionCacheEntryQuery((module,), scope, reader)
        entry = DefinitionLookup().get_cached_definitions_batch(query).get(module)
        if entry is None or not auth.readable(entry.realms, caller):
            continue
        # What everyone's build is refused a user's own may read.
        if entry.definitions is not None or (scope, reader) == scopes[-1]:
            return entry
    return None


@contextmanager
def _waiting(module: str) -> Iterator[None]:
    """A place among those who wait for builds. Raises Busy where all are taken."""
    if not _room.acquire(blocking=False):
        raise errors.Busy(
            what=f"the definitions of {module} are not made yet",
            retry_after=_turns.take(time.monotonic_ns()),
        )
    try:
        yield
    finally:
        _room.release()


@lru_cache(maxsize=1000)
def _lookup(caller: Caller | None) -> DefinitionLookup:
    """This process's one way to what a caller's builds make, so that their requests share them."""
    if caller is None:
        return DefinitionLookup(ModuleBuilder())
    reader = auth.reader_key(caller)
    return DefinitionLookup(ModuleBuilder(auth.reading_as(caller), reader), reader)
