"""Reads and writes the `definitions` table and its counters. A row has the definitions of one
module. An invalidation of definitions raises the counter of a realm or of a module, or the global
counter.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from definitions import sql
from definitions.causes import cut
from definitions.entries import (
    Counter,
    DefinitionCacheEntry,
    DefinitionCacheEntryQuery,
    ModuleLocation,
    Scope,
)
from definitions.extensions import module_spellings
from definitions.models import CacheGeneration, Definition
from notifications.channels import (
    modules_invalidated,
    realm_definitions_cleared,
)
from notifications.emit import emit

ERROR_LIFETIME = timedelta(seconds=30)


def raise_counters(counters: Iterable[Counter], by: str) -> None:
    """Raises counters in sorted order. `make_counters` creates counters in the same order, so two
    transactions can't wait for each other's counters. `by` tells people why the counters are
    raised."""
    scopes, keys = zip(*sorted(set(counters)), strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            sql.RAISE_COUNTERS, {"scopes": list(scopes), "keys": list(keys), "by": cut(by)}
        )


def drop_rows(realm_urls: list[str], module_urls: list[str]) -> None:
    """Deletes the rows of the given modules, and all rows that were built from a module of the
    given realms."""
    of_realms = Q(realm_url__in=realm_urls) | Q(realm_urls__has_any_keys=realm_urls)
    of_modules = Q(module_url__in=module_urls)
    delete_rows(Definition.objects.filter(of_realms | of_modules if realm_urls else of_modules))


def notify_dropped(
    realm_urls: list[str], named: list[str], dropped: list[str], rows: list[tuple[str, str]]
) -> None:
    """Notifies every replica that the definitions of realms and modules were dropped. `named` has
    the modules that the caller of `drop` gave. `dropped` also has the modules that depend on them.
    `rows` has the module URL and realm URL of each row of these modules."""
    notifications = [realm_definitions_cleared(url) for url in sorted(realm_urls)]
    if named:
        spelt = {each for url in named for each in module_spellings(url)}
        realm_url = next((realm for url, realm in rows if url in spelt), named[0])
        notifications += modules_invalidated(realm_url, dropped)
    emit(*notifications)


def make_counters(counters: Iterable[Counter]) -> None:
    """Creates the missing counters of a build before the build begins. The caller must not be in a
    transaction, so that the new counters are committed at once. An invalidation would wait for
    uncommitted counters until the end of the build."""
    CacheGeneration.objects.bulk_create(
        [CacheGeneration(scope=scope, key=key) for scope, key in sorted(counters)],
        ignore_conflicts=True,
    )


def read_counters(counters: Iterable[Counter], *, hold: bool = False) -> dict[Counter, int]:
    """Returns the committed values of the counters that exist. With `hold`, also locks these
    counters until the caller's transaction ends. To avoid deadlocks, `hold` doesn't wait for
    counters that another transaction is raising, but leaves them out."""
    wanted = sorted(counters)
    scopes, keys = [scope for scope, _ in wanted], [key for _, key in wanted]
    with connection.cursor() as cursor:
        statement = sql.HOLD_COUNTERS if hold else sql.READ_COUNTERS
        cursor.execute(statement, [scopes, keys])
        return {(scope, key): generation for scope, key, generation in cursor.fetchall()}


def delete_rows(rows: QuerySet[Definition]) -> None:
    """Locks rows in the order of their ids, and then deletes them. Because of this order,
    concurrent deletions can't deadlock."""
    locked = rows.order_by("pk").select_for_update().values_list("pk", flat=True)
    Definition.objects.filter(pk__in=list(locked)).delete()


def read_entries(query: DefinitionCacheEntryQuery) -> Iterator[DefinitionCacheEntry]:
    """Yields the queried entries that the table has and that have not expired."""
    values: dict[str, Any] = {
        "urls": list(query.module_urls),
        "scope": query.scope,
        "reader": query.reader,
        "now": timezone.now(),
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.STORED, values)
        for url, definitions, error, dependencies, realms, scope, built_at, build_ms in cursor:
            yield DefinitionCacheEntry(
                url,
                json.loads(definitions or "null"),
                json.loads(error or "null"),
                tuple(json.loads(dependencies)),
                tuple(json.loads(realms)),
                scope,
                built_at,
                build_ms,
            )


def store_row(
    located: ModuleLocation, entry: DefinitionCacheEntry, reader: str, counters: dict[Counter, int]
) -> None:
    """Writes the row of a build to the table. `counters` has the values of counters from before
    the build. The build depends on the global counter, and on the counters of the realms and
    modules that it read. Writes nothing if one of these counters is missing from `counters`, has
    been raised since the build began, or is being raised."""
    made_from = replace(located, dependencies=entry.dependencies, realms=entry.realms).counters
    known = {counter: counters[counter] for counter in made_from & counters.keys()}
    if len(known) < len(made_from) or read_counters(made_from, hold=True) != known:
        return
    key = {"module_url": located.module_url, "scope": entry.scope, "reader": reader}
    row: dict[str, Any] = {
        "realm_url": located.realm_url,
        "realm_urls": list(entry.realms),
        "definitions": entry.definitions,
        "error": entry.error,
        "dependencies": list(entry.dependencies),
        "global_generation": counters[Scope.GLOBAL, ""],
        "realm_generation": counters[Scope.REALM, located.realm_url],
        "module_generation": counters[Scope.MODULE, located.module_url],
        "built_at": entry.built_at,
        "build_ms": entry.build_ms,
        "expires_at": timezone.now() + ERROR_LIFETIME if entry.error else None,
    }
    Definition.objects.bulk_create(
        [Definition(**key, **row)],
        update_conflicts=True,
        unique_fields=list(key),
        update_fields=list(row),
    )


def with_dependents(module_urls: list[str]) -> list[tuple[str, str]]:
    """Finds the rows of the given modules, and all rows that were built from these modules,
    directly or through other modules. Returns each row's module URL and realm URL."""
    with connection.cursor() as cursor:
        cursor.execute(sql.WITH_DEPENDENTS, {"urls": module_urls})
        return list(cursor.fetchall())
