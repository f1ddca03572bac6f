"""Definitions that workers build ahead of the first request for them."""

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

#: How long after the pages that use them definitions are built.
DEFINITIONS_AFTER = timedelta(seconds=1)


def lease_definitions(module_url: str) -> WantedDefinitions | None:
    """Takes the lease of definitions to build; None if another worker has it, or they are built."""
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
            # The first request for them builds them.
            wanted.delete()
            return None
        wanted.attempts += 1
        wanted.lease_until = now + lease_time()
        wanted.worker = worker_name()
        wanted.save()
    return wanted


def remove_wanted(wanted: WantedDefinitions) -> None:
    """Removes definitions from the list. Does nothing if the caller has lost the lease, or if they
    are wanted anew since."""
    lease = {"attempts": wanted.attempts, "due_at": wanted.due_at}
    WantedDefinitions.objects.filter(pk=wanted.pk, **lease).delete()


def want_definitions(module_urls: Sequence[str], owner: str = "", *, anew: bool = False) -> None:
    """Queues the building of definitions that the table lacks. Rendering pages comes first. Those
    that are queued already stay as they are; with `anew` they are queued as if for the first time:
    a worker that builds them at this moment may have read what was there before a clear."""
    if not module_urls:
        return
    spelt = {module_url: module_spellings(module_url) for module_url in module_urls}
    query = DefinitionCacheEntryQuery(tuple(url for urls in spelt.values() for url in urls))
    known = DefinitionLookup().get_cached_definitions_batch(query)
    # Delayed, so that other pages that wait for a worker are rendered first.
    due_at = timezone.now() + DEFINITIONS_AFTER
    lacking = [
        WantedDefinitions(module_url=module_url, owner=owner, due_at=due_at)
        for module_url, urls in spelt.items()
        if known.keys().isdisjoint(urls)
    ]
    if anew:
        # In one order, so that two callers can't deadlock.
        WantedDefinitions.objects.bulk_create(
            sorted(lacking, key=lambda each: each.module_url),
            update_conflicts=True,
            unique_fields=["module_url"],
            update_fields=["due_at", "lease_until", "worker", "attempts"],
        )
    else:
        WantedDefinitions.objects.bulk_create(lacking, ignore_conflicts=True)
    send_work(DEFINITIONS_AFTER.total_seconds(), times=len(lacking))
