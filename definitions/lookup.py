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
from collections.abc import Iterable
from functools import partial

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from definitions.entries import (
    Builder,
    CodeRef,
    DefinitionCacheEntries,
    DefinitionCacheEntry,
    DefinitionCacheEntryQuery,
    DefinitionNotFound,
    Document,
    ModuleLocation,
    Scope,
    module_spellings,
)
from definitions.models import CacheGeneration, Definition
from definitions.rows import (
    delete_rows,
    drop_rows,
    make_counters,
    notify_dropped,
    raise_counters,
    read_counters,
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

#: How often a build begins anew because its module has come to import something else.
MAX_TRIES = 5


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
            raise_counters([(Scope.GLOBAL.value, "")])
            Definition.objects.all().delete()
            emit(all_definitions_cleared())

    def forget_reader(self, prefix: str) -> None:
        """Drops what was built for readers whose key begins so, and for nobody else."""
        mine = Definition.objects.filter(
            scope=Definition.Scope.REALM_AUTH.value, reader__startswith=prefix
        )
        with transaction.atomic():
            delete_rows(mine)

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
        rows = with_dependents(named) if named else []
        while True:
            dropped = list(dict.fromkeys([*named, *(url for url, _ in rows)]))
            # Whole realms are dropped at the first try: there is nothing to give back.
            with transaction.atomic(savepoint=bool(named)):
                raise_counters([*realms, *((Scope.MODULE.value, url) for url in dropped)])
                # Once more: a build under way had dependencies that no row told of yet. Then all is
                # given back, and raised together with those.
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
        """Those of some files that a definition was ever built from, or is being built from now: a
        build has its counters before it reads anything."""
        counters = CacheGeneration.objects.filter(scope=Scope.MODULE, key__in=list(urls))
        return sorted(counters.values_list("key", flat=True))

    # --- building ---

    def _build_once(self, found: ModuleLocation) -> DefinitionCacheEntry | None:
        """Builds in the one process that the fleet elects; the others wait and read its row."""
        for _ in range(MAX_TRIES):
            make_counters(found.counters)
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
        counters = read_counters(found.counters)
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
                store_row(located, entry, self._scope(located)[1], counters)
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


def _election(module_url: str, scope: str = Definition.Scope.PUBLIC.value, reader: str = "") -> int:
    """The advisory lock of whoever builds a row."""
    digest = hashlib.sha256("|".join(("definition", scope, reader, module_url)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
