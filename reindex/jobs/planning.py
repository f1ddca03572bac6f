"""Plans which cards a job renders: all cards, or only the cards affected by changes since the last
index. The last index is the index of the job's realm that visitors see now.

To carry over a card means to keep the card's row of the last index. A job carries over a card only
if all files that the card was made from are unchanged. To find the changed files of a realm, the
planner asks a replica over HTTP. The replica compares the generation that the last index was made
from with the generation that the new job reads. If the realm's history lacks the older generation,
or if the realm can't be read, all files of the realm count as changed.
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
    """Chooses the cards that a job renders. If the job carries cards over, also pins the other
    realms that the last index used, which means that it chooses the generations to read. Calls
    `go_on`, which renews the worker's lease, before each request for another realm's generation.

    Raises ReplicaUnavailable, WrongGeneration, PinEnded, WritersBusy, and any error of `go_on`.
    """
    # This call caches the addresses of the replicas for a second. With these addresses, the second
    # thread of `_incremental` usually needs no database connection.
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
    """Returns a plan that carries over unchanged cards. `base` is the job that made the last index.
    Returns None if the realm's history doesn't reach back to the generation of `base`."""
    access = _access(job)
    # From now on, a change of one of these realms or addresses makes another job follow this job.
    lifecycle.watch_realms(job, {**base.pins, job.realm_url: job.generation}, base.addresses)
    # The job `base` could not read the realms with the pin UNREADABLE_GENERATION. Cards that looked
    # for these realms are never carried over, so the planner needn't ask about these realms.
    read = {url: pin for url, pin in base.pins.items() if pin != UNREADABLE_GENERATION}
    read.pop(job.realm_url, None)
    # While this thread asks about other realms, a second thread asks about the job's own realm.
    with ThreadPoolExecutor(1) as thread:
        differing = thread.submit(_changed, Pin(job.realm_url, job.generation), base, access)
        others = {url: _ask(url, go_on) for url in {**read, **base.addresses}}
    own = differing.result()
    if own is None:
        return None
    if own:
        # An author has changed the realm and is probably waiting for the new pages. So start a
        # prerenderer, the process that renders cards, before the plan is complete.
        renderers.prewarm(library(Reader(dict(read), access=access)))
    pins = {job.realm_url: job.generation}
    places = {url: address for url, (_, address) in others.items() if url != BASE_REALM}
    keys = {dependency_key(job.realm_url, path) for path in own}
    for realm_url, (generation, address) in others.items():
        away = not job.draft and address != realm_url
        if address != base.addresses.get(realm_url, realm_url) or (away and realm_url in read):
            # Links to the realm now lead to another address, or the job now reads the realm's files
            # at another address. So the whole realm counts as changed.
            keys.add(dependency_key(realm_url))
        if away or realm_url not in read:
            # The plan needs no pin for the realm. If `away` is true, the job reads the realm at
            # `address`. A realm that `base` didn't read is pinned when a card refers to it.
            continue
        # If the realm is now missing or private, it still gets a pin, so that another job follows
        # when the realm becomes readable.
        pins[realm_url] = UNREADABLE_GENERATION if generation is None else generation
        elsewhere = _changed_elsewhere(realm_url, read[realm_url], generation, access)
        keys |= {dependency_key(realm_url)} if elsewhere is None else elsewhere
    stale, shown = _stale_cards(job.realm_url, own, keys)
    paths = _cards(own | {file_of(card) for card in stale})
    return lifecycle.Plan(paths, pins, base.pk, shown - len(stale), renderer(), places)


def _stale_cards(realm_url: str, changed: frozenset[str], keys: set[int]) -> tuple[list[str], int]:
    """Returns those cards of the last index that a job must render again, and the number of all
    cards of the last index. `changed` has the paths of the realm's changed files. `keys` has the
    dependency keys (hashes that identify files or realms) of all changed files and realms."""
    cards = [card_of(path) for path in changed]
    with connection.cursor() as cursor:
        cursor.execute(sql.CARDS_TO_RENDER, {"url": realm_url, "keys": list(keys), "own": cards})
        return cursor.fetchone() or ([], 0)


def _changed(pin: Pin, base: ReindexJob, access: Access) -> frozenset[str] | None:
    """Returns which files of the job's realm changed since the job `base`. Runs in the second
    thread of `_incremental`."""
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
    """Returns the dependency keys of another realm's files that changed between the generations
    `then` and `now`. Returns None if the changed files are unknown."""
    if now == then:
        return set()
    files = None if now is None else changed(Pin(realm_url, now), then, access)
    return None if files is None else {dependency_key(realm_url, path) for path in files}


def _cards(paths: Any) -> list[str]:
    """Returns those of the paths at which a file may hold a card, the front page first. This
    includes `realm.json`: it has no page, but the index stores its errors."""
    cards = filter(is_card_file, paths)
    return sorted(cards, key=lambda path: (path != FRONT_PAGE, path))
