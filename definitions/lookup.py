"""What modules define: looked up in the table, built once in the fleet when it isn't there.

A build reads the counters first and the modules after; the database refuses its row if a counter
has moved meanwhile. So an invalidation can't be undone by work that began before it, whether or
not anybody heard of it. What builds a definition is handed in: this package knows URLs only.

What was made from nothing but public modules is everybody's (scope `public`). What was made from a
private realm's as well is kept for the one user as whom it was read (scope `realm-auth`).
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeAlias

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from psycopg import sql
from psycopg.types.json import Jsonb

from definitions.models import CacheGeneration, Definition
from notifications.board import Slots
from notifications.channels import (
    all_definitions_cleared,
    definitions_key,
    modules_invalidated,
    realm_definitions_cleared,
)
from notifications.election import run_elected
from notifications.emit import emit, local_board
from notifications.single_flight import SingleFlight

logger = logging.getLogger(__name__)

ERROR_LIFETIME = timedelta(seconds=30)
#: How often a build begins anew because its module has come to import something else.
MAX_TRIES = 5
_EXTENSIONS = ("", ".tsx", ".ts", ".jsx", ".js")

Document: TypeAlias = dict[str, Any]
Scope = CacheGeneration.Scope
#: A counter's scope and key.
Counter: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class CodeRef:
    """An export of a module."""

    module: str
    name: str


@dataclass(frozen=True)
class DefinitionCacheEntry:
    """A module's definitions by export name, or the error of its last build.

    `realms` are those that it was made from: who may not read them all is not to be told of it.
    """

    module_url: str
    definitions: Mapping[str, Document] | None
    error: Document | None
    dependencies: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()
    scope: str = Definition.Scope.PUBLIC
    built_at: datetime | None = None
    build_ms: int = 0


DefinitionCacheEntries: TypeAlias = dict[str, DefinitionCacheEntry]


@dataclass(frozen=True)
class DefinitionCacheEntryQuery:
    """Which entries to fetch in one go."""

    module_urls: tuple[str, ...]
    scope: str = Definition.Scope.PUBLIC
    reader: str = ""


@dataclass(frozen=True)
class ModuleLocation:
    """Where a module stands: its canonical URL, its realm, and that realm's generation now; with
    the modules that it imports, directly or not, and the other realms that these are in;
    `private` if one of the realms is not everyone's to read."""

    module_url: str
    realm_url: str
    generation: int
    dependencies: tuple[str, ...] = ()
    realms: tuple[str, ...] = ()
    private: bool = False

    @property
    def all_realms(self) -> set[str]:
        """The realms that it is made from, its own among them."""
        return {self.realm_url, *self.realms}

    @property
    def counters(self) -> set[Counter]:
        """Everything that an invalidation of it, or of what it is made from, would raise."""
        return {
            (Scope.GLOBAL.value, ""),
            *((Scope.REALM.value, realm) for realm in self.all_realms),
            *((Scope.MODULE.value, module) for module in (self.module_url, *self.dependencies)),
        }


@dataclass(frozen=True)
class BuildResult:
    """What came of a build; `dependencies` are the modules it read besides the module itself,
    `realms` the realms that these are in, `private` if one of them is not everyone's."""

    definitions: Mapping[str, Document] | None
    error: Document | None
    dependencies: tuple[str, ...]
    realms: tuple[str, ...] = ()
    private: bool = False


class Builder(Protocol):
    """Makes definitions out of modules, as somebody who may read them. Reads nothing that is older
    than the call."""

    def locate(self, module_url: str) -> ModuleLocation | None:
        """Where the module stands now, by the registry; None if there is none."""

    def build(self, located: ModuleLocation) -> BuildResult:
        """The module's definitions at exactly that generation."""


class DefinitionNotFound(LookupError):
    """{module} exports no card named {name}"""

    def __init__(self, ref: CodeRef, error: Document | None = None) -> None:
        self.error = error
        super().__init__((type(self).__doc__ or "").format(module=ref.module, name=ref.name))


class DefinitionLookup:
    """The one way to the `definitions` table.

    `reader` is the key of whom the builder reads for; without one it reads what everyone may.
    """

    def __init__(self, builder: Builder | None = None, reader: str = "") -> None:
        self._builder = builder
        self._reader = reader
        self._flights: SingleFlight[DefinitionCacheEntry | None] = SingleFlight(
            local_board(), int(settings.REALM_STALENESS_BOUND * 1e9)
        )

    # --- looking up ---

    def lookup_definition(self, ref: CodeRef) -> Document:
        """The definition, built if need be. Raises DefinitionNotFound, which carries the error."""
        entry = self.lookup_module(ref.module)
        if entry is None or entry.definitions is None or ref.name not in entry.definitions:
            raise DefinitionNotFound(ref, entry.error if entry else None)
        return entry.definitions[ref.name]

    def lookup_module(self, module_url: str) -> DefinitionCacheEntry | None:
        """A module's entry, built if need be; None where no such module exists."""
        if self._builder is None:
            return self.get_cached_definitions(module_url)
        located = self._builder.locate(module_url)
        if located is None:
            return None
        cached = self._cached(located)
        if cached is not None:
            return cached
        slots = Slots(sorted(definitions_key(scope, key) for scope, key in located.counters))
        flight = (located.module_url, *self._scope(located))
        return self._flights.run(flight, slots, lambda _: self._build_once(located))

    def _scope(self, located: ModuleLocation) -> tuple[str, str]:
        """Whose row it is: the scope, and the reader in the scope of one user."""
        if located.private:
            return Definition.Scope.REALM_AUTH.value, self._reader
        return Definition.Scope.PUBLIC.value, ""

    def _cached(self, located: ModuleLocation) -> DefinitionCacheEntry | None:
        """The row of what was located. One that was made from a realm which isn't to be seen any
        more answers nobody, whether or not anyone has taken it away."""
        query = DefinitionCacheEntryQuery((located.module_url,), *self._scope(located))
        entry = self.get_cached_definitions_batch(query).get(located.module_url)
        return entry if entry is not None and located.all_realms >= set(entry.realms) else None

    def lookup_cached_definition(self, ref: CodeRef) -> Document | None:
        """The definition if the table has it. Builds nothing."""
        entry = self.get_cached_definitions(ref.module)
        return (entry.definitions or {}).get(ref.name) if entry else None

    def get_cached_definitions(self, module_url: str) -> DefinitionCacheEntry | None:
        """A module's entry if the table has one that has not run out. Builds nothing."""
        return self.get_cached_definitions_batch(DefinitionCacheEntryQuery((module_url,))).get(
            module_url
        )

    def get_cached_definitions_batch(
        self, query: DefinitionCacheEntryQuery
    ) -> DefinitionCacheEntries:
        """The entries that the table has, by module URL."""
        rows = Definition.objects.filter(
            module_url__in=query.module_urls, scope=query.scope, reader=query.reader
        )
        now = timezone.now()
        return {
            row.module_url: DefinitionCacheEntry(
                row.module_url,
                row.definitions,
                row.error,
                tuple(row.dependencies),
                tuple(row.realm_urls),
                row.scope,
                row.built_at,
                row.build_ms,
            )
            for row in rows
            if row.expires_at is None or row.expires_at > now
        }

    # --- invalidating ---

    def clear_realm_definitions(self, realm_url: str) -> None:
        """Empties a realm: raises its counter, deletes its rows and those of other realms that were
        built from its modules, tells every replica, and leaves the builds in flight without a place
        to land.

        Part of the caller's transaction, or of one of its own.
        """
        self.drop([realm_url])

    def clear_all_definitions(self) -> None:
        """Empties the table on behalf of everybody."""
        with transaction.atomic():
            _raise_counters([(Scope.GLOBAL.value, "")])
            Definition.objects.all().delete()
            emit(all_definitions_cleared())

    def forget_reader(self, prefix: str) -> None:
        """Drops what was built for readers whose key begins so, and for nobody else."""
        mine = Definition.objects.filter(
            scope=Definition.Scope.REALM_AUTH.value, reader__startswith=prefix
        )
        with transaction.atomic():
            _delete(mine)

    def invalidate(self, *module_urls: str) -> list[str]:
        """Drops modules, their extension spellings, and everything built from them, transitively.

        Answers the URLs that were dropped. Part of the caller's transaction, or of one of its own.
        """
        return self.drop(module_urls=module_urls)

    def drop(self, realm_urls: Iterable[str] = (), module_urls: Iterable[str] = ()) -> list[str]:
        """Empties realms and drops modules, as the two above, and answers the URLs of the modules
        that were dropped.

        All counters are raised by one statement, in one order whoever raises them: no two wait for
        each other. A transaction that changes more than one realm calls this once.
        """
        modules = list(module_urls)
        named = list(dict.fromkeys(each for url in modules for each in module_spellings(url)))
        realms = [(Scope.REALM.value, url) for url in set(realm_urls)]
        rows = _with_dependents(named) if named else []
        while True:
            dropped = list(dict.fromkeys([*named, *(url for url, _ in rows)]))
            # Whole realms are dropped at the first try: there is nothing to give back.
            with transaction.atomic(savepoint=bool(named)):
                _raise_counters([*realms, *((Scope.MODULE.value, url) for url in dropped)])
                # Once more: a build under way had dependencies that no row told of yet. Then all is
                # given back, and raised together with those.
                rows = _with_dependents(named) if named else []
                complete = {url for url, _ in rows}.issubset(dropped)
                if complete:
                    _drop_rows([url for _, url in realms], dropped)
                    _tell_dropped([url for _, url in realms], modules, dropped, rows)
                else:
                    transaction.set_rollback(True)
            if complete:
                return dropped

    def needed(self, urls: Iterable[str]) -> list[str]:
        """Those of some files that a definition was ever built from, or is being built from now: a
        build has its counters before it reads anything."""
        counters = CacheGeneration.objects.filter(scope=Scope.MODULE, key__in=list(urls))
        return sorted(counters.values_list("key", flat=True))

    # --- building ---

    def _build_once(self, found: ModuleLocation) -> DefinitionCacheEntry | None:
        """Builds in the one process that the fleet elects; the others wait and read its row."""
        for _ in range(MAX_TRIES):
            _make_counters(found.counters)
            key = _election(found.module_url, *self._scope(found))
            outcome = run_elected(key, partial(self._build, found))
            if not isinstance(outcome, ModuleLocation):
                return outcome
            found = outcome
        # It changes faster than it can be looked at: what comes out is for this caller alone.
        return self._built(found)[0]

    def _build(
        self, found: ModuleLocation, elected: bool
    ) -> DefinitionCacheEntry | ModuleLocation | None:
        """The entry; or, where the module is made from more by now than was found before, that:
        such a build could not be stored, and all who wait would each do it for themselves."""
        cached = self._cached(found)
        if cached is not None:
            return cached
        # The counters are read before the registry is asked what stands there: whatever is
        # invalidated from here on is noticed at the insert.
        counters = _counters(found.counters)
        assert self._builder is not None
        located = self._builder.locate(found.module_url)
        if located is None:
            return None
        if located.private != found.private or not located.counters <= counters.keys():
            return located
        entry, as_located = self._built(located)
        if elected and as_located:
            # A refusal is silent: the entry answers this caller, who began before the change.
            with transaction.atomic():
                _store(located, entry, self._scope(located)[1], counters)
        return entry

    def _built(self, located: ModuleLocation) -> tuple[DefinitionCacheEntry, bool]:
        """What comes of a build now, and whether it read no more than it was located to read."""
        assert self._builder is not None
        scope, _ = self._scope(located)
        logger.info("building the definitions of %s, scope %s", located.module_url, scope)
        began = time.monotonic()
        built = self._builder.build(located)
        entry = DefinitionCacheEntry(
            located.module_url,
            built.definitions,
            built.error,
            built.dependencies,
            tuple(sorted(located.all_realms | set(built.realms))),
            scope,
            timezone.now(),
            int((time.monotonic() - began) * 1000),
        )
        return entry, located.private or not built.private


def module_spellings(module_url: str) -> list[str]:
    """The URLs by which a module may be named: without an extension, and with any."""
    stem = module_url
    for extension in _EXTENSIONS[1:]:
        stem = stem.removesuffix(extension)
    return [stem + extension for extension in _EXTENSIONS]


def _election(module_url: str, scope: str = Definition.Scope.PUBLIC.value, reader: str = "") -> int:
    """The advisory lock of whoever builds a row."""
    digest = hashlib.sha256("|".join(("definition", scope, reader, module_url)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _raise_counters(counters: Iterable[Counter]) -> None:
    """Raises counters in the order of their names, which is that of `_make_counters`."""
    scopes, keys = zip(*sorted(set(counters)), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO definitions_cachegeneration (scope, key, generation, bumped_at)
            SELECT scope, key, 1, now()
            FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY c(scope, key, place) ORDER BY place
            ON CONFLICT (scope, key) DO UPDATE
            SET generation = definitions_cachegeneration.generation + 1, bumped_at = now()
            """,
            [list(scopes), list(keys)],
        )


def _drop_rows(realm_urls: list[str], module_urls: list[str]) -> None:
    of_realms = Q(realm_url__in=realm_urls) | Q(realm_urls__has_any_keys=realm_urls)
    of_modules = Q(module_url__in=module_urls)
    _delete(Definition.objects.filter(of_realms | of_modules if realm_urls else of_modules))


def _tell_dropped(
    realm_urls: list[str], named: list[str], dropped: list[str], rows: list[tuple[str, str]]
) -> None:
    told = [realm_definitions_cleared(url) for url in sorted(realm_urls)]
    if named:
        spelt = {each for url in named for each in module_spellings(url)}
        realm_url = next((realm for url, realm in rows if url in spelt), named[0])
        told += modules_invalidated(realm_url, dropped)
    emit(*told)


def _make_counters(counters: Iterable[Counter]) -> None:
    """Makes the rows that a build's insert will lock. Committed at once: an open transaction that
    held a new counter would keep an invalidation of it waiting for the build."""
    CacheGeneration.objects.bulk_create(
        [CacheGeneration(scope=scope, key=key) for scope, key in sorted(counters)],
        ignore_conflicts=True,
    )


def _counters(counters: Iterable[Counter], *, hold: bool = False) -> dict[Counter, int]:
    """Counters as committed now. With `hold` they stay so until the caller's transaction ends; one
    that is being raised at this moment is left out, so that nobody waits for anybody in a ring."""
    scopes, keys = zip(*sorted(counters), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT g.scope, g.key, g.generation FROM definitions_cachegeneration g
            JOIN unnest(%s::text[], %s::text[]) w(scope, key) USING (scope, key)
            """
            + ("FOR SHARE OF g SKIP LOCKED" if hold else ""),
            [list(scopes), list(keys)],
        )
        return {(scope, key): generation for scope, key, generation in cursor.fetchall()}


def _delete(rows: QuerySet[Definition]) -> None:
    """Deletes in one order whoever deletes, since the rows of two realms may be the same."""
    locked = rows.order_by("pk").select_for_update().values_list("pk", flat=True)
    Definition.objects.filter(pk__in=list(locked)).delete()


def _store(
    located: ModuleLocation, entry: DefinitionCacheEntry, reader: str, counters: dict[Counter, int]
) -> None:
    """Writes the row of a build, unless a counter of anything that it was made from has moved since
    or was not looked at before. The trigger on the table knows the module's own three as well."""
    made_from = replace(located, dependencies=entry.dependencies, realms=entry.realms).counters
    known = {counter: counters[counter] for counter in made_from & counters.keys()}
    if len(known) < len(made_from) or _counters(made_from, hold=True) != known:
        return
    row: dict[str, Any] = {
        "module_url": located.module_url,
        "realm_url": located.realm_url,
        "realm_urls": Jsonb(list(entry.realms)),
        "scope": entry.scope,
        "reader": reader,
        "definitions": Jsonb(entry.definitions) if entry.definitions is not None else None,
        "error": Jsonb(entry.error) if entry.error is not None else None,
        "dependencies": Jsonb(list(entry.dependencies)),
        "global_generation": counters[Scope.GLOBAL, ""],
        "realm_generation": counters[Scope.REALM, located.realm_url],
        "module_generation": counters[Scope.MODULE, located.module_url],
        "built_at": entry.built_at,
        "build_ms": entry.build_ms,
        "expires_at": timezone.now() + ERROR_LIFETIME if entry.error else None,
    }
    statement = sql.SQL(
        "INSERT INTO definitions ({names}) VALUES ({values})"
        " ON CONFLICT (module_url, scope, reader) DO UPDATE SET ({names}) = ROW ({excluded})"
    ).format(
        names=sql.SQL(", ").join(map(sql.Identifier, row)),
        values=sql.SQL(", ").join(map(sql.Placeholder, row)),
        excluded=sql.SQL(", ").join(sql.Identifier("excluded", name) for name in row),
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, row)


def _with_dependents(module_urls: list[str]) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH RECURSIVE reached(module_url, realm_url) AS (
                SELECT module_url, realm_url FROM definitions WHERE module_url = ANY(%(urls)s)
                UNION
                SELECT d.module_url, d.realm_url FROM definitions d
                WHERE d.dependencies ?| %(urls)s
                UNION
                SELECT d.module_url, d.realm_url FROM definitions d
                JOIN reached r ON d.dependencies ? r.module_url
            ) SELECT module_url, realm_url FROM reached
            """,
            {"urls": module_urls},
        )
        return list(cursor.fetchall())
