"""Queues modules, so that workers build the modules' definitions before a request needs the
definitions. The definitions of a module describe the card types that the module exports."""

from collections.abc import Sequence
from datetime import timedelta

from django.utils import timezone

from definitions.entries import DefinitionCacheEntryQuery
from definitions.extensions import module_spellings
from definitions.lookup import DefinitionLookup
from reindex.jobs.leases import MAX_ATTEMPTS, bookkeeping, lease_time
from reindex.jobs.messages import send_work
from reindex.jobs.presence import worker_name
from reindex.models import (
    WantedDefinitions,
)

#: The time from the queueing of a module until a worker may build the module's definitions.
#: Meanwhile workers render the pages that are waiting.
DEFINITIONS_AFTER = timedelta(seconds=1)


def lease_definitions(module_url: str) -> WantedDefinitions | None:
    """Leases a queued module to the caller, who builds the module's definitions. Returns None if
    another worker has the lease, if the module is no longer queued, or after MAX_ATTEMPTS
    attempts."""
    now = timezone.now()
    with bookkeeping():
        wanted = (
            WantedDefinitions.objects.free(now)
            .select_for_update(skip_locked=True)
            .filter(pk=module_url)
            .first()
        )
        if wanted is None:
            return None
        if wanted.attempts >= MAX_ATTEMPTS:
            # No worker tries again. The first request that needs the definitions builds them.
            wanted.delete()
            return None
        wanted.attempts += 1
        wanted.lease_until = now + lease_time()
        wanted.worker = worker_name()
        wanted.save()
    return wanted


def remove_wanted(wanted: WantedDefinitions) -> None:
    """Removes a module from the queue. Does nothing if the caller has lost the lease, or if
    `want_definitions` has reset the module's row meanwhile."""
    lease = {"attempts": wanted.attempts, "due_at": wanted.due_at}
    WantedDefinitions.objects.filter(pk=wanted.pk, **lease).delete()


def want_definitions(module_urls: Sequence[str], owner: str = "", *, anew: bool = False) -> None:
    """Queues those of the given modules that have no stored definitions. The builds use worker time
    of `owner`. If a module is already queued and `anew` is true, resets the module's row. Then the
    definitions are built again even if a worker has begun to build them from older files."""
    if not module_urls:
        return
    spelt = {module_url: module_spellings(module_url) for module_url in module_urls}
    query = DefinitionCacheEntryQuery(tuple(url for urls in spelt.values() for url in urls))
    known = DefinitionLookup().get_cached_definitions_batch(query)
    due_at = timezone.now() + DEFINITIONS_AFTER
    lacking = [
        WantedDefinitions(module_url=module_url, owner=owner, due_at=due_at)
        for module_url, urls in spelt.items()
        if known.keys().isdisjoint(urls)
    ]
    if anew:
        # The rows are sorted, because two callers that lock rows in different orders could
        # deadlock.
        WantedDefinitions.objects.bulk_create(
            sorted(lacking, key=lambda each: each.module_url),
            update_conflicts=True,
            unique_fields=["module_url"],
            update_fields=["due_at", "lease_until", "worker", "attempts"],
        )
    else:
        WantedDefinitions.objects.bulk_create(lacking, ignore_conflicts=True)
    send_work(DEFINITIONS_AFTER.total_seconds(), times=len(lacking))
