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
    """Removes definitions from the list. Does nothing if the caller has lost the lease."""
    WantedDefinitions.objects.filter(pk=wanted.pk, attempts=wanted.attempts).delete()


def want_definitions(module_urls: Sequence[str], owner: str = "") -> None:
    """Queues the building of definitions that the table lacks. Rendering pages comes first."""
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
    WantedDefinitions.objects.bulk_create(lacking, ignore_conflicts=True)
    send_work(DEFINITIONS_AFTER.total_seconds(), times=len(lacking))
