"""Plans which cards a job renders: all cards, or only the cards affected by changes since the last
index.

A card is carried over from the last index only if all files that it was made from are unchanged.
The last index was made from one generation of each realm, and the new job reads another generation.
The planner asks each realm over HTTP which files differ between these two generations. If a realm's
history doesn't reach back that far, or if a realm can't be read, all files of the realm count as
changed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connection

from reindex import sql
from reindex.jobs import lifecycle
from reindex.models import IndexHead, ReindexJob
from reindex.prerender.cards import library
from reindex.prerender.pool import renderers
from reindex.prerender.renderer import renderer
from reindex.reading.card_paths import FRONT_PAGE, card_of, file_of, is_card_file
from reindex.reading.dependency_keys import dependency_key
from reindex.reading.pins import UNREADABLE_GENERATION, Access, Pin
from reindex.reading.reader import Reader
from reindex.reading.realm_history import changed, manifest
from reindex.reading.references import BASE_REALM
from reindex.reading.replicas import ask_address, replica_addresses, standing_at


def plan(job: ReindexJob, go_on: Callable[[], object]) -> lifecycle.Plan:
    """Chooses the cards that a job renders, and the generation of each other realm that the job
    reads. Calls `go_on` before it requests the generation and the address of another realm.

    Raises ReplicaUnavailable, WrongGeneration, PinEnded, WritersBusy, and any error of `go_on`.
    """
    # Fills the cache of replica addresses, so that the second thread needs no database connection.
    replica_addresses()
    head = IndexHead.objects.select_related("job").filter(realm_url=job.realm_url).first()
    carries = head is not None and not job.full and head.job.renderer == renderer()
    incremental = _incremental(job, head.job, go_on) if head is not None and carries else None
    return incremental or _full(job)


def _full(job: ReindexJob) -> lifecycle.Plan:
    files = manifest(Pin(job.realm_url, job.generation), _access(job))
    assert files is not None
    pins = {job.realm_url: job.generation}
    return lifecycle.Plan(_cards(files), pins, renderer=renderer())


def _incremental(
    job: ReindexJob, base: ReindexJob, go_on: Callable[[], object]
) -> lifecycle.Plan | None:
    """Returns a plan that carries over unchanged cards; None if the realm's history doesn't reach
    back to `base`."""
    access = _access(job)
    # From now on, a change of one of these realms or addresses makes another job follow this job.
    lifecycle.watch_realms(job, {**base.pins, job.realm_url: job.generation}, base.addresses)
    # Cards that looked for a missing realm are never cacheable, so they are rendered anyway.
    read = {url: pin for url, pin in base.pins.items() if pin != UNREADABLE_GENERATION}
    read.pop(job.realm_url, None)
    # Another thread requests the changes of the job's own realm during the requests about others.
    with ThreadPoolExecutor(1) as thread:
        differing = thread.submit(_changed, Pin(job.realm_url, job.generation), base, access)
        others = {url: _ask(url, go_on) for url in {**read, **base.addresses}}
    own = differing.result()
    if own is None:
        return None
    if own:
        # An author is probably waiting for a few changed cards, so start a prerenderer early.
        renderers.prewarm(library(Reader(dict(read), access=access)))
    pins = {job.realm_url: job.generation}
    places = {url: address for url, (_, address) in others.items() if url != BASE_REALM}
    keys = {dependency_key(job.realm_url, path) for path in own}
    for realm_url, (generation, address) in others.items():
        away = not job.draft and address != realm_url
        if address != base.addresses.get(realm_url, realm_url) or (away and realm_url in read):
            # Links to the realm now lead to another address, where the job may read other files.
            keys.add(dependency_key(realm_url))
        if away or realm_url not in read:
            # The plan needs no pin for the realm. If the realm's pages are at another address, the
            # job reads the realm at `address`. If the job `base` didn't read the realm, the new job
            # pins the realm when a card refers to the realm.
            continue
        # A missing or private realm gets a pin too, so that another job follows if the realm
        # becomes readable.
        pins[realm_url] = UNREADABLE_GENERATION if generation is None else generation
        elsewhere = _changed_elsewhere(realm_url, read[realm_url], generation, access)
        keys |= {dependency_key(realm_url)} if elsewhere is None else elsewhere
    stale, shown = _stale_cards(job.realm_url, own, keys)
    paths = _cards(own | {file_of(card) for card in stale})
    return lifecycle.Plan(paths, pins, base.pk, shown - len(stale), renderer(), places)


def _stale_cards(realm_url: str, changed: frozenset[str], keys: set[int]) -> tuple[list[str], int]:
    """Returns the shown cards that a job must render again, and the number of all shown cards.
    `changed` has the realm's changed files, and `keys` has the changed dependency keys."""
    cards = [card_of(path) for path in changed]
    with connection.cursor() as cursor:
        cursor.execute(sql.CARDS_TO_RENDER, {"url": realm_url, "keys": list(keys), "own": cards})
        return cursor.fetchone() or ([], 0)


def _changed(pin: Pin, base: ReindexJob, access: Access) -> frozenset[str] | None:
    """Returns which files of the job's realm changed since `base`. Runs in a thread, and closes the
    thread's database connection."""
    try:
        return changed(pin, base.generation, access)
    finally:
        # `changed` may query the database for the list of replicas. The query opens a database
        # connection in this thread.
        connection.close()


def _ask(realm_url: str, go_on: Callable[[], object]) -> tuple[int | None, str]:
    """Returns a realm's current generation (see `_generation`) and the address of its pages."""
    go_on()
    generation = _generation(realm_url)
    return generation, realm_url if realm_url == BASE_REALM else ask_address(realm_url)


def _generation(realm_url: str) -> int | None:
    """Waits until no transaction is changing a realm, and returns the realm's generation. Returns
    None if the realm is gone or private."""
    lifecycle.wait_for_writers(realm_url)
    url, generation = standing_at(realm_url)
    return generation if url == realm_url and generation != UNREADABLE_GENERATION else None


def _access(job: ReindexJob) -> Access:
    return Access(job.realm_url, job.pk)


def _changed_elsewhere(
    realm_url: str, then: int, now: int | None, access: Access
) -> set[int] | None:
    """Returns the dependency keys of another realm's changed files. Returns None if the changed
    files are unknown."""
    if now == then:
        return set()
    files = None if now is None else changed(Pin(realm_url, now), then, access)
    return None if files is None else {dependency_key(realm_url, path) for path in files}


def _cards(paths: Any) -> list[str]:
    """Returns the paths of the files that may hold cards, the front page first. `realm.json` has no
    page, but it can have errors."""
    cards = filter(is_card_file, paths)
    return sorted(cards, key=lambda path: (path != FRONT_PAGE, path))
