"""Contains the view at `<realm>/_definition?module=&name=`, which returns the definitions of a
module. A definition describes a card type that the module exports, with the type's fields.

If the definitions are stored in the database, the request is answered at once. Otherwise one
process of the fleet builds the definitions while the request waits. A build reads files over HTTP
from the fleet's web processes. If all threads of the web processes waited for builds, no build
could read files, and so no build would end. Requests for definitions therefore have threads of
their own, and only a few requests may wait for a build. Any further request that needs a build gets
503 with Retry-After.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import BoundedSemaphore, Lock
from urllib.parse import unquote

from django.http import HttpRequest, HttpResponse, JsonResponse

from definitions.entries import DefinitionCacheEntry, DefinitionCacheEntryQuery
from definitions.extensions import CODE_EXTENSIONS, MODULE_ENDINGS
from definitions.lookup import DefinitionLookup
from definitions.models import Definition
from notifications.texts import has_control_character
from realms import errors
from realms.access import auth
from realms.access.auth import Caller
from realms.content.resolve import resolve
from realms.http import headers
from realms.models import Realm
from reindex.prerender.module_builder import ModuleBuilder
from reindex.reading.media_types import API
from reindex.reading.references import file_url, resolve_module
from reindex.reading.replicas import PinEnded, ReplicaUnavailable, WrongGeneration

logger = logging.getLogger(__name__)

#: How many requests of one process may wait for builds at a time. Requests for definitions have
#: MAX_WAITING + 1 threads (`Lane.DEFINITION` in `realms/web/lanes.py`). So while MAX_WAITING
#: threads wait for builds, one thread is free to refuse further requests.
MAX_WAITING = 2
_places = BoundedSemaphore(MAX_WAITING)

NANOSECONDS = 1_000_000_000


class Turns:
    """Spreads the retries of refused requests over time. If all clients retried at once, this
    process would be too busy with the retries to finish the build that the clients wait for."""

    PER_SECOND = 10
    LAST_SECONDS = 30

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken_until = 0

    def take(self, now: int) -> int:
        """Returns the Retry-After of the next refused request, in whole seconds from 1 to
        LAST_SECONDS. `now` is the monotonic clock's time in nanoseconds."""
        with self._lock:
            turn = max(self._taken_until, now) + NANOSECONDS // self.PER_SECOND
            self._taken_until = min(turn, now + self.LAST_SECONDS * NANOSECONDS)
            return -((now - self._taken_until) // NANOSECONDS)


_turns = Turns()

MAX_MODULE_CHARACTERS = 2048
MAX_NAME_CHARACTERS = 200


def get_definition(request: HttpRequest, realm: Realm) -> HttpResponse:
    """Returns the definition of one card type of a module, or of every card type that the module
    exports."""
    module = _module_url(request, realm)
    name = _parameter(request, "name", MAX_NAME_CHARACTERS) if "name" in request.GET else None
    caller = auth.identified(request, realm)
    entry = _entry(module, caller)
    if entry is None:
        raise errors.NotFound(url=module)
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
    headers.add(response, headers.of_generation(realm.generation))
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


# --- Parameters --------------------------------------------------------------------------------


def _parameter(request: HttpRequest, name: str, limit: int) -> str:
    values = request.GET.getlist(name)
    if len(values) != 1:
        raise errors.BadParameter(
            parameter=name, why=f"expected it once, got it {len(values)} times"
        )
    (value,) = values
    if not value or len(value) > limit:
        raise errors.BadParameter(parameter=name, why=f"expected 1 to {limit} characters")
    if has_control_character(unquote(value)):
        raise errors.BadParameter(parameter=name, why="it has a control character")
    return value


def _module_url(request: HttpRequest, realm: Realm) -> str:
    """Returns the absolute URL of the module in the parameter `module`. The parameter is a path in
    the realm, such as `post.tsx`, or a reference that a card at the realm's root may contain, such
    as `./post.tsx` or `@realm/base`."""
    module = _parameter(request, "module", MAX_MODULE_CHARACTERS)
    is_explicit = module.startswith(("./", "../", "/", "http://", "https://", "@"))
    url = resolve_module(module if is_explicit else f"./{module}", realm.url)
    if url is None:
        raise errors.BadParameter(
            parameter="module",
            why=f"{module[:80]!r} is not a module; expected a URL, a path in the realm, or "
            "@realm/base",
        )
    return url


# --- Lookup ------------------------------------------------------------------------------------


def _entry(url: str, caller: Caller | None) -> DefinitionCacheEntry | None:
    """Returns a module's definitions, or None if the module doesn't exist or the caller may not
    read it."""
    found = resolve(unquote(url), MODULE_ENDINGS)
    # A missing module and a module that the caller may not read get the same answer.
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
            # The error's text identifies a replica, so the text goes to the log only.
            logger.warning("%s can't be read: %s", module, error)
            raise errors.Busy(what=f"{module} can't be read at present") from error
    # Check the caller's access again, because the caller may have lost it during the build.
    return entry if entry is not None and auth.readable(entry.realms, caller) else None


def _stored(module: str, caller: Caller | None) -> DefinitionCacheEntry | None:
    """Looks up a module's definitions in the database, without building them. Tries the public row
    first, then the row that was built for the caller. Returns None if neither row can be used."""
    scopes = [(Definition.Scope.PUBLIC.value, "")]
    if caller is not None:
        scopes.append((Definition.Scope.REALM_AUTH.value, auth.reader_key(caller)))
    for scope, reader in scopes:
        query = DefinitionCacheEntryQuery((module,), scope, reader)
        entry = DefinitionLookup().get_cached_definitions_batch(query).get(module)
        if entry is None or not auth.readable(entry.realms, caller):
            continue
        # If the public build failed, a build for the caller may still succeed, because the caller's
        # build may read private modules. So look for the caller's row next.
        if entry.definitions is not None or (scope, reader) == scopes[-1]:
            return entry
    return None


@contextmanager
def _waiting(module: str) -> Iterator[None]:
    """Occupies one of the MAX_WAITING places for waiting requests. Raises Busy if no place is
    free."""
    if not _places.acquire(blocking=False):
        raise errors.Busy(
            what=f"the definitions of {module} are not made yet",
            retry_after=_turns.take(time.monotonic_ns()),
        )
    try:
        yield
    finally:
        _places.release()


@lru_cache(maxsize=1000)
def _lookup(caller: Caller | None) -> DefinitionLookup:
    """Returns this process's DefinitionLookup for a caller. All requests of a caller use the same
    object, so concurrent requests that need the same definitions share one build."""
    if caller is None:
        return DefinitionLookup(ModuleBuilder())
    reader = auth.reader_key(caller)
    return DefinitionLookup(ModuleBuilder(auth.reading_as(caller), reader), reader)
