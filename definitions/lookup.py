"""Looks up modules' definitions in the `definitions` table. The definitions of a module describe
the card types that the module exports. If a module's definitions are missing from the table, one
process of the fleet builds them.

Each module, each realm and the whole table has a counter in the database. Invalidations raise these
counters. A build reads the counters on which it depends before it reads the modules. If one of them
is raised during the build, the result isn't stored. So a build that began before an invalidation
can't store outdated definitions, even if the notification of the invalidation is lost.

This package knows modules only by their URLs, and can't read them. So the caller passes a builder,
which locates modules and builds their definitions.

If a build reads no private realm, all users share its definitions (scope `public`). If a build
reads a private realm with a user's rights, its definitions are stored for that user alone (scope
`realm-auth`).
"""

import hashlib
import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from definitions.entries import (
    Builder,
    BuildResult,
    CodeRef,
    DefinitionCacheEntries,
    DefinitionCacheEntry,
    DefinitionCacheEntryQuery,
    DefinitionNotFound,
    Document,
    ModuleLocation,
    Scope,
)
from definitions.extensions import module_spellings
from definitions.models import Definition
from definitions.rows import (
    delete_rows,
    drop_rows,
    make_counters,
    notify_dropped,
    raise_counters,
    read_counters,
    read_entries,
    store_row,
    with_dependents,
)
from notifications.board import Slots
from notifications.channels import (
    all_definitions_cleared,
    definitions_key,
)
from notifications.election import run_elected
from notifications.emit import emit, local_board
from notifications.single_flight import SingleFlight

logger = logging.getLogger(__name__)

#: The default cause. A cause is a text that says why a counter was raised (`causes.py`).
CLEAR = "clear"
#: How many times a lookup tries to build definitions that can be stored. A try fails if the module
#: has gained imports, or has become private or public, since the module was located.
MAX_TRIES = 5


class DefinitionLookup:
    """Looks up, builds and drops definitions. Other packages read the `definitions` table, but
    change it only through this class.

    `reader` is the key of a user. The builder reads realms with the rights of this user. Without a
    reader, the builder reads only public realms.
    """

    def __init__(self, builder: Builder | None = None, reader: str = "") -> None:
        self._builder = builder
        self._reader = reader
        self._flights: SingleFlight[DefinitionCacheEntry | None] = SingleFlight(
            local_board(), int(settings.REALM_STALENESS_BOUND * 1e9)
        )

    # --- looking up ---

    def lookup_definition(self, ref: CodeRef) -> Document:
        """Returns the definition of an export. Builds the module's definitions if necessary. Raises
        DefinitionNotFound, with the build's error if the build failed."""
        entry = self.lookup_module(ref.module)
        if entry is None or entry.definitions is None or ref.name not in entry.definitions:
            raise DefinitionNotFound(ref, entry.error if entry else None)
        return entry.definitions[ref.name]

    def lookup_module(self, module_url: str) -> DefinitionCacheEntry | None:
        """Returns a module's entry. Builds the definitions if necessary. Returns None if the module
        doesn't exist or the reader may not read it. Without a builder, only looks for a public
        entry in the table."""
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
        """Returns the scope and the reader of a module's row. Public rows have no reader."""
        if located.private:
            return Definition.Scope.REALM_AUTH.value, self._reader
        return Definition.Scope.PUBLIC.value, ""

    def _cached(self, located: ModuleLocation) -> DefinitionCacheEntry | None:
        """Returns the stored entry of a located module. Ignores an entry that was built from
        a realm outside `located.all_realms`, because the builder hasn't checked whether the reader
        may read that realm."""
        query = DefinitionCacheEntryQuery((located.module_url,), *self._scope(located))
        entry = self.get_cached_definitions_batch(query).get(located.module_url)
        return entry if entry is not None and located.all_realms >= set(entry.realms) else None

    def lookup_cached_definition(self, ref: CodeRef) -> Document | None:
        """Returns the definition of an export if a public entry in the table has it. Never builds
        definitions."""
        entry = self.get_cached_definitions(ref.module)
        return (entry.definitions or {}).get(ref.name) if entry else None

    def get_cached_definitions(self, module_url: str) -> DefinitionCacheEntry | None:
        """Returns a module's public entry if the table has one that has not expired. Never builds
        definitions."""
        return self.get_cached_definitions_batch(DefinitionCacheEntryQuery((module_url,))).get(
            module_url
        )

    def get_cached_definitions_batch(
        self, query: DefinitionCacheEntryQuery
    ) -> DefinitionCacheEntries:
        """Returns the queried entries that the table has and that have not expired, by module
        URL."""
        return {entry.module_url: entry for entry in read_entries(query)}

    # --- invalidating ---

    def clear_realm_definitions(self, realm_url: str, by: str = CLEAR) -> None:
        """Drops all definitions that were built from a realm's modules, including definitions of
        modules in other realms. Raises the realm's counter, deletes the rows, and notifies every
        replica. Builds of these definitions that are still running can't store their results. `by`
        tells people why the counter was raised.

        Runs in the caller's transaction, or starts a transaction.
        """
        self.drop([realm_url], by=by)

    def clear_all_definitions(self, by: str = CLEAR) -> None:
        """Drops all definitions, raises the global counter, and notifies every replica."""
        with transaction.atomic():
            raise_counters([(Scope.GLOBAL.value, "")], by)
            Definition.objects.all().delete()
            emit(all_definitions_cleared())

    def forget_reader(self, prefix: str) -> None:
        """Drops the definitions that were built for users with keys that begin with `prefix`."""
        mine = Definition.objects.filter(
            scope=Definition.Scope.REALM_AUTH.value, reader__startswith=prefix
        )
        with transaction.atomic():
            delete_rows(mine)

    def invalidate(self, *module_urls: str, by: str = CLEAR) -> list[str]:
        """Drops the definitions of the given modules, and of all modules that import a given
        module, directly or through other modules. Each module may be given by any of its URLs,
        with or without the extension.

        Returns all URLs of the given modules, and the URLs of the modules that import them. Runs in
        the caller's transaction, or starts a transaction.
        """
        return self.drop(module_urls=module_urls, by=by)

    def drop(
        self, realm_urls: Iterable[str] = (), module_urls: Iterable[str] = (), by: str = CLEAR
    ) -> list[str]:
        """Drops the definitions of realms, as `clear_realm_definitions` does, and of modules, as
        `invalidate` does. Returns the same URLs as `invalidate`.

        One statement raises all counters in sorted order, so that two transactions can't deadlock.
        Two calls in one transaction would not keep this order. So a transaction that changes
        several realms must call this method only once.
        """
        modules = list(module_urls)
        named = list(dict.fromkeys(each for url in modules for each in module_spellings(url)))
        realms = [(Scope.REALM.value, url) for url in set(realm_urls)]
        rows = with_dependents(named) if named else []
        while True:
            dropped = list(dict.fromkeys([*named, *(url for url, _ in rows)]))
            # If no modules are given, the loop ends after its first pass, which needs no savepoint.
            with transaction.atomic(savepoint=bool(named)):
                raise_counters([*realms, *((Scope.MODULE.value, url) for url in dropped)], by)
                # Finds the importing modules again. Before the counters were raised, a build may
                # have stored the row of a further importing module. If so, rolls back, and starts
                # over with the further module too.
                rows = with_dependents(named) if named else []
                complete = {url for url, _ in rows}.issubset(dropped)
                if complete:
                    drop_rows([url for _, url in realms], dropped)
                    notify_dropped([url for _, url in realms], modules, dropped, rows)
                else:
                    transaction.set_rollback(True)
            if complete:
                return dropped

    def needed(self, urls: Iterable[str]) -> list[str]:
        """Returns those of the given files' URLs that have a counter, in sorted order. No stored
        definitions were built from the other files, because a build stores its definitions only if
        each file that it has read has a counter."""
        return sorted(key for _, key in read_counters((Scope.MODULE.value, url) for url in urls))

    # --- building ---

    def _build_once(self, location: ModuleLocation) -> DefinitionCacheEntry | None:
        """Builds a module's definitions in one process of the fleet. If other processes need these
        definitions at the same time, they wait and then read the row of that build."""
        for _ in range(MAX_TRIES):
            make_counters(location.counters)
            key = _election(location.module_url, *self._scope(location))
            outcome = run_elected(key, partial(self._build, location))
            if not isinstance(outcome, ModuleLocation):
                return outcome
            location = outcome
        # Each try has failed, so this process builds the definitions without storing them.
        return self._built(location)[0]

    def _build(
        self, location: ModuleLocation, elected: bool
    ) -> DefinitionCacheEntry | ModuleLocation | None:
        """Returns the module's entry, or None if the module doesn't exist any more. `elected` says
        whether this process may store the entry.

        If the module has gained dependencies, or has become private or public, returns the module's
        new location and doesn't build. `_build_once` then creates the missing counters and tries
        again. A build without them couldn't store its entry, and each waiting process would repeat
        the build.
        """
        cached = self._cached(location)
        if cached is not None:
            return cached
        # The counters are read before the module is located, so that `store_row` notices every
        # invalidation from here on.
        counters = read_counters(location.counters)
        assert self._builder is not None
        located = self._builder.locate(location.module_url)
        if located is None:
            return None
        if located.private != location.private or not located.counters <= counters.keys():
            return located
        entry, built = self._built(located)
        # If the location is public but the build read a private realm, the entry isn't stored.
        storable = elected and (located.private or not built.private)
        is_first = set(location.dependencies) <= set(located.dependencies)
        if storable and is_first and built.worth_repeating:
            # `locate` can't find imports with computed names. Their counters were not read before
            # the build, so the entry can't be stored. The second build reads these counters first.
            found = replace(located, dependencies=entry.dependencies, realms=entry.realms)
            make_counters(found.counters)
            return self._build(found, elected)
        if storable:
            # If a counter was raised meanwhile, the entry is not stored. The caller still gets the
            # entry, because the call began before the counter was raised.
            with transaction.atomic():
                store_row(located, entry, self._scope(located)[1], counters)
        return entry

    def _built(self, located: ModuleLocation) -> tuple[DefinitionCacheEntry, BuildResult]:
        """Builds the module's definitions. Returns a new entry, and the result of the build."""
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
        return entry, built


def _election(module_url: str, scope: str = Definition.Scope.PUBLIC.value, reader: str = "") -> int:
    """Returns the key of the election that chooses which process builds a row."""
    digest = hashlib.sha256("|".join(("definition", scope, reader, module_url)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
