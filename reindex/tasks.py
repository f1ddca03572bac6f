"""The Celery tasks of workers. Their messages carry no arguments, because a worker reads its work
from the database.

A job renders the pages of one realm at one generation. A piece of work is the planning of a job, a
batch of a job's cards, or the definitions of a module. A worker leases a piece before it begins, so
that no other worker takes the piece until the lease expires. The time that a worker spends on one
piece is a turn. A turn may end early if another owner of realms waits for a worker. For each realm
that a job reads, the job's row stores a pin: the generation at which the job reads the realm.
"""

import gc
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from celery import shared_task
from django.conf import settings

from definitions.lookup import DefinitionLookup
from notifications.tracing import spans
from reindex.index import swap
from reindex.index.shown import shown_cards
from reindex.jobs import batches, leases, lifecycle, messages, planning, sweeper, turns, wanted
from reindex.jobs.turns import LOOK_SECONDS, Turn
from reindex.log_fields import log_fields
from reindex.models import ReindexBatch, ReindexJob, WantedDefinitions
from reindex.prerender import realm_settings
from reindex.prerender.cards import render_cards
from reindex.prerender.hangs import LostTime
from reindex.prerender.module_builder import ModuleBuilder
from reindex.prerender.pool import renderers
from reindex.prerender.results import broken_card
from reindex.reading.card_paths import REALM_CONFIG, card_of, file_of
from reindex.reading.dependency_keys import dependency_key
from reindex.reading.documents import Document, no_longer_a_card
from reindex.reading.pins import UNREADABLE_GENERATION, Access
from reindex.reading.reader import Reader
from reindex.reading.references import BASE_REALM, card_url, realms_for
from reindex.reading.replicas import (
    PinEnded,
    ReplicaUnavailable,
    WrongGeneration,
    ask_address,
    standing_at,
    unhealthy,
)

logger = logging.getLogger(__name__)


@shared_task(name=messages.WORK_TASK, ignore_result=True)
def work() -> bool:
    """Leases and does the next piece of work. Returns False if no piece of work could be leased."""
    piece = turns.take()
    if piece is None:
        return False
    turn = Turn(_owner(piece), _is_later(piece))
    try:
        with log_fields(**_fields(piece)), _without_cycle_collection():
            _do(piece, turn)
    finally:
        turn.end()
        renderers.get_ready()
    return True


@contextmanager
def _without_cycle_collection() -> Iterator[None]:
    """Turns Python's cyclic garbage collector off in the `with` block. A large batch creates
    a million objects but hardly any cycles. The collector's scans of these objects would take a
    fifth of the worker's time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _do(piece: turns.Piece, turn: Turn) -> None:
    match piece:
        case ReindexJob():
            _plan(piece, turn)
        case ReindexBatch():
            _render_batch(piece, turn)
        case WantedDefinitions():
            _build_definitions(piece)


def _fields(piece: turns.Piece) -> dict[str, object]:
    """Returns the log fields of a piece of work."""
    if isinstance(piece, WantedDefinitions):
        return {"module": piece.module_url}
    job = piece.job if isinstance(piece, ReindexBatch) else piece
    return {"realm": job.realm_url, "generation": job.generation, "job": job.pk}


def _owner(piece: turns.Piece) -> str:
    return piece.job.owner if isinstance(piece, ReindexBatch) else piece.owner


def _is_later(piece: turns.Piece) -> bool:
    match piece:
        case ReindexJob():
            return piece.draft
        case ReindexBatch():
            return piece.job.draft
    return True


def _plan(job: ReindexJob, turn: Turn) -> None:
    """Plans a job and divides the job into batches. Unless the turn is over, also renders the first
    batch, because most jobs have only one batch."""
    try:
        spans.past("queued", job.trace, job.created_at, job.started_at, job=job.pk)
        with spans.resumed("plan", job.trace, job=job.pk):
            plan = planning.plan(job, _Lease(job).renew)
            over = turn.is_over()
            made = lifecycle.create_batches(job, plan, lease_first=not over)
    except _LeaseLost:
        return
    except lifecycle.WritersBusy as error:
        logger.warning("job %d is postponed: %s", job.pk, error)
        leases.postpone(job, error)
        return
    except (ReplicaUnavailable, WrongGeneration) as error:
        logger.warning("job %d can't be planned: %s", job.pk, error)
        lifecycle.record_failure(job, error)
        return
    except PinEnded as error:
        lifecycle.replace_job(job, error)
        return
    except Exception as error:
        # Any other error comes from a bug in the server. `record_failure` stores the error in the
        # job's row. After MAX_ATTEMPTS attempts the job fails.
        lifecycle.record_failure(job, f"{type(error).__name__}: {error}")
        raise
    cards, carried = len(plan.paths), plan.carried
    logger.info("job %d: %d cards to render, %d unchanged", job.pk, cards, carried)
    if not made:
        return
    messages.send_work(times=len(made) if over else len(made) - 1)
    if not over:
        _render_batch(made[0], turn)


def _render_batch(batch: ReindexBatch, turn: Turn) -> None:
    """Renders a batch's cards and stores the results."""
    try:
        with spans.resumed("batch", batch.job.trace, batch=batch.pk, cards=len(batch.paths)):
            results, rest = _render(batch, turn)
            finished = batches.finish(batch, results, rest)
    except _LeaseLost:
        batches.end_lease_of_ended_job(batch)
    except lifecycle.WritersBusy as error:
        logger.warning("batch %d is postponed: %s", batch.pk, error)
        leases.postpone(batch, error)
    except (ReplicaUnavailable, WrongGeneration) as error:
        logger.warning("batch %d is released: %s", batch.pk, error)
        batches.release(batch, error)
    except PinEnded as error:
        lifecycle.replace_job(batch, error)
    except Exception as error:
        # Any other error comes from a bug in the server. `release` stores the error in the job and
        # ends the lease, so the next attempt needn't wait until the lease expires.
        batches.release(batch, f"{type(error).__name__}: {error}")
        raise
    else:
        if finished:
            logger.info("job %d: rendered %d cards", batch.job_id, len(results))
            wanted.want_definitions(swap.modules(batch.job_id), batch.job.owner)
        else:
            batches.end_lease_of_ended_job(batch)


def _build_definitions(module: WantedDefinitions) -> None:
    """Builds a module's definitions, which describe the module's exports, unless the database has
    them already. If another process is building them, waits for the result of that process."""
    try:
        DefinitionLookup(ModuleBuilder()).lookup_module(module.module_url)
    except (PinEnded, ReplicaUnavailable, WrongGeneration) as error:
        # No worker tries again, because the first request that needs the definitions builds them.
        logger.warning("the definitions of %s are not built: %s", module.module_url, error)
    wanted.remove_wanted(module)


@shared_task(ignore_result=True)
def sweep() -> None:
    """Runs the sweeper (`reindex.jobs.sweeper`), which sends lost messages again and retries failed
    jobs."""
    sweeper.sweep()


def _render(batch: ReindexBatch, turn: Turn) -> tuple[list[Document], list[list[str]]]:
    """Renders a batch's cards and returns the results. If the turn ended early, also returns the
    unrendered paths, in lists that become new batches. Raises what `_render_batch` handles."""
    job = batch.job
    reader = _reader(job)
    urls = [card_url(job.realm_url, path) for path in batch.paths]
    settings_url = f"{job.realm_url}realm"
    with spans.span("read"):
        reader.read_cards([settings_url, *urls])
    # A path that now lies in a realm within the job's realm is left to that inner realm's jobs.
    own = [url for url in urls if _realm_of(reader, url) == job.realm_url]
    documents = {url: reader.known(url) for url in own if url != settings_url}
    cards = {url: document for url, document in documents.items() if document is not None}
    realm = realm_settings.read(reader, job.realm_url)
    results = list(_broken_cards(job, reader, own))
    if settings_url in own:
        results += realm_settings.checked(reader, job.realm_url)
    lost = LostTime(job, reader, cards)
    lost_before = lost.seconds
    lease = _Lease(batch)

    def go_on() -> None:
        if lease.renew():
            # When the turn is over, the worker gives the unrendered cards back in smaller batches.
            # A batch of one card can't be divided. If each worker gave such a batch back without
            # any progress, the batch would never be finished. So the worker first waits until it
            # has a result or has recorded a hang.
            further = len(cards) > 1 or bool(results) or lost.seconds > lost_before
            if further and turn.is_over():
                raise _TurnOver

    rest: list[list[str]] = []
    reader.go_on = go_on
    try:
        if cards:
            with spans.span("render"):
                render_cards(reader, realm, cards, results.append, go_on, lost)
    except _TurnOver:
        answered = {result["url"] for result in results}
        paths = dict(zip(urls, batch.paths, strict=True))
        left = lost.parts([url for url in cards if url not in answered], halved=not answered)
        rest = [[paths[url] for url in part] for part in left]
    finally:
        batch.replica, batch.avoided = reader.read_from, {**batch.avoided, **unhealthy()}
    return results, rest


def _reader(job: ReindexJob) -> Reader:
    """Returns a reader that reads each realm at the generation that the job has pinned. The reader
    pins further realms for the job when it first reads them."""
    pins = {
        url: generation
        for url, generation in job.pins.items()
        if generation != UNREADABLE_GENERATION
    }
    return Reader(
        pins,
        lambda url, g: _pin(job.pk, url, g),
        address=lambda url: _address(job, url),
        as_published=not job.draft,
        not_found=lambda url: _note_missing_realm(job.pk, url),
        access=Access(job.realm_url, job.pk),
    )


def _realm_of(reader: Reader, url: str) -> str | None:
    pin = reader.locate(url)
    return None if pin is None else pin.realm_url


def _broken_cards(job: ReindexJob, reader: Reader, urls: list[str]) -> Iterator[Document]:
    """Yields an error for each file that holds a broken card. A JSON file with plain data instead
    of a card counts as broken if the file is `realm.json`, or if visitors still see the card that
    the file held before."""
    data = {unquote(url.removeprefix(job.realm_url)): url for url in urls if url in reader.data}
    lost = shown_cards([job.realm_url], data) | ({card_of(REALM_CONFIG)} & data.keys())
    broken = {url: reader.broken[url] for url in urls if url in reader.broken}
    broken |= {data[path]: no_longer_a_card(file_of(path)) for path in sorted(lost)}
    for url, error in broken.items():
        path = file_of(unquote(url.removeprefix(job.realm_url)))
        yield {
            "type": "card",
            "url": url,
            "error": {**broken_card(error), "card": url},
            "made_from": [dependency_key(job.realm_url, path)],
        }


def _pin(job_id: int, realm_url: str, generation: int) -> int:
    """Pins a realm for the job and returns the pinned generation. If a transaction changes the
    realm at the same time, another job follows. Either the transaction sees the pin and requests
    the other job, or `_check` sees the change and requests it."""
    pinned = lifecycle.pin_realm(job_id, realm_url, generation)
    _check(job_id, [realm_url], lambda: standing_at(realm_url) == (realm_url, pinned))
    return pinned


def _check(job_id: int, realm_urls: Iterable[str], is_so: Callable[[], bool]) -> None:
    """Checks a pin or an address that was just stored in the job's row. First waits until all
    transactions that are changing the realms have ended. Then calls `is_so`, which returns whether
    the stored pin or address is right. Requests another job if `is_so` returns False. Raises
    WritersBusy if a transaction takes too long."""
    try:
        for realm_url in realm_urls:
            lifecycle.wait_for_writers(realm_url)
    except lifecycle.WritersBusy:
        # The pin or address is already stored, so later attempts of this job won't check it. The
        # pin or address may be wrong, so another job must repeat the work.
        lifecycle.request_rerun(job_id)
        raise
    if not is_so():
        lifecycle.request_rerun(job_id)


def _note_missing_realm(job_id: int, url: str) -> None:
    """Records in the job's row that no realm contains a URL. If a realm that contains the URL is
    created concurrently, another job follows."""
    candidates = realms_for(url)
    lifecycle.note_missing(job_id, candidates)
    _check(job_id, candidates, lambda: standing_at(url)[1] == UNREADABLE_GENERATION)


def _address(job: ReindexJob, realm_url: str) -> str:
    """Returns the address at which visitors find a realm's pages. For a realm other than the job's
    own, the job's row stores the address, so that all batches use the same one. If that address
    changes concurrently, another job follows."""
    if realm_url in (job.realm_url, BASE_REALM):
        return realm_url
    if realm_url not in job.addresses:
        address = lifecycle.note_address(job.pk, realm_url, ask_address(realm_url))
        _check(job.pk, [realm_url], lambda: ask_address(realm_url) == address)
        job.addresses[realm_url] = address
    return str(job.addresses[realm_url])


class _Lease:
    """A worker's lease on a job or a batch. The worker renews the lease while it works."""

    def __init__(self, work: ReindexJob | ReindexBatch) -> None:
        self._work = work
        self._renewed = time.monotonic()

    def renew(self) -> bool:
        """Renews the lease and returns True. If the lease was renewed recently, does nothing and
        returns False. Raises _LeaseLost."""
        now = time.monotonic()
        if now - self._renewed < min(LOOK_SECONDS, settings.REALM_BATCH_LEASE_SECONDS / 4):
            return False
        self._renewed = now
        if not leases.renew(self._work):
            raise _LeaseLost
        return True


class _LeaseLost(Exception):
    """Another worker has leased the job or the batch, or the job was superseded or cancelled."""


class _TurnOver(Exception):
    """The turn ends early, because another owner waits for a worker."""
