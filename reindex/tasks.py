"""The Celery tasks. Each takes an id, looks at the row, and does what is still to be done."""

import logging
import time
from contextlib import suppress
from urllib.parse import urljoin

from celery import shared_task
from django.conf import settings

from definitions.lookup import DefinitionLookup
from reindex import host, jobs, landing, planning
from reindex.models import ReindexBatch, ReindexJob
from reindex.pins import CLOSED, Access
from reindex.prerender import ModuleBuilder, render_cards
from reindex.reader import BASE_REALM, Document, Reader, card_url
from reindex.replicas import (
    PinEnded,
    ReplicaUnavailable,
    WrongGeneration,
    ask_address,
    avoided,
    standing_at,
)

logger = logging.getLogger(__name__)


@shared_task(ignore_result=True)
def plan_job(job_id: int) -> None:
    """Finds out what a job has to render and cuts it into batches. The first is rendered here: most
    jobs have no other, and somebody may be waiting."""
    job = jobs.begin(job_id)
    if job is None:
        return
    try:
        batches = jobs.planned(job_id, planning.plan(job))
    except (ReplicaUnavailable, WrongGeneration) as error:
        logger.warning("job %d can't be planned: %s", job_id, error)
        jobs.failed(job_id, error)
    except PinEnded as error:
        jobs.replace(job_id, error)
    except Exception as error:
        # A mistake of ours: the job says which, and is not tried for ever.
        jobs.failed(job_id, f"{type(error).__name__}: {error}")
        raise
    else:
        jobs.send_batches(batches[1:])
        for first in batches[:1]:
            _render_batch(first)
    finally:
        host.get_ready()


@shared_task(ignore_result=True)
def render_batch(batch_id: int) -> None:
    """Renders a batch's cards and stores what came of them."""
    try:
        _render_batch(batch_id)
    finally:
        host.get_ready()


def _render_batch(batch_id: int) -> None:
    batch = jobs.claim(batch_id)
    if batch is None:
        return
    try:
        results = _render(batch)
        finished = results is not None and jobs.finish(batch, results)
    except (ReplicaUnavailable, WrongGeneration) as error:
        logger.warning("batch %d is given back: %s", batch_id, error)
        jobs.release(batch, error)
    except PinEnded as error:
        jobs.replace(batch.job_id, error)
    except Exception as error:
        # A mistake of ours: the job says which, and doesn't wait for its lease to run out.
        jobs.release(batch, f"{type(error).__name__}: {error}")
        raise
    else:
        if finished:
            jobs.ask_for_definitions(landing.modules(batch.job_id))


@shared_task(ignore_result=True)
def build_definitions(module_url: str) -> None:
    """Has a module in the definitions table, built by whoever the fleet elects."""
    try:
        DefinitionLookup(ModuleBuilder()).lookup_module(module_url)
    except (PinEnded, ReplicaUnavailable, WrongGeneration) as error:
        # Whoever asks for it has it built then.
        logger.warning("%s is not built: %s", module_url, error)


@shared_task(ignore_result=True)
def send_now(task: str, key: int | str, queue: str) -> None:
    """Sends a message that was to be sent later."""
    jobs.send(task, key, queue)


@shared_task(ignore_result=True)
def sweep() -> None:
    """Sends again what is owed and has no worker."""
    jobs.sweep()


def _render(batch: ReindexBatch) -> list[Document] | None:
    """The results for a batch's cards; None if the job ended on the way."""
    job = batch.job
    pins = {url: generation for url, generation in job.pins.items() if generation != CLOSED}
    reader = Reader(
        pins,
        lambda url, g: _pin(job.pk, url, g),
        lambda url: _address(job, url),
        access=Access(job.realm_url, job.pk),
    )
    urls = [card_url(job.realm_url, path) for path in batch.paths]
    reader.read_cards([f"{job.realm_url}realm", *urls])
    cards = {url: document for url in urls if (document := reader.known(url)) is not None}
    realm = _realm(reader, job.realm_url)
    results: list[Document] = []
    renewed = time.monotonic()

    def go_on() -> None:
        nonlocal renewed
        if time.monotonic() - renewed > settings.REALM_BATCH_LEASE_SECONDS / 4:
            renewed = time.monotonic()
            if not jobs.renew(batch):
                raise _JobEnded

    try:
        if cards:
            render_cards(reader, realm, cards, results.append, go_on)
    except _JobEnded:
        return None
    finally:
        batch.replica, batch.avoided = reader.read_from, {**batch.avoided, **avoided()}
    return results


def _pin(job_id: int, realm_url: str, generation: int) -> int:
    """Pins a realm that a job meets on the way. If it is changed at this very moment, either who
    changes it finds the pin, or it is noticed here; another job follows in both cases."""
    pinned = jobs.pin_realm(job_id, realm_url, generation)
    jobs.wait_for_writers(realm_url)
    if standing_at(realm_url) != (realm_url, pinned):
        jobs.again(job_id)
    return pinned


def _address(job: ReindexJob, realm_url: str) -> str:
    """Where the pages of a realm are that a job has pinned: the same for all of its batches. Should
    that change after it was pinned, the job is followed by another."""
    if realm_url in (job.realm_url, BASE_REALM):
        return realm_url
    if realm_url not in job.addresses:
        jobs.wait_for_writers(realm_url)
        job.addresses[realm_url] = jobs.note_address(job.pk, realm_url, ask_address(realm_url))
    return str(job.addresses[realm_url])


class _JobEnded(Exception):
    """The job was superseded or cancelled while a batch of it was rendered."""


def _realm(reader: Reader, realm_url: str) -> Document:
    """What templates are told of their realm: `realm.json`, with its addresses made absolute."""
    told: Document = {"url": realm_url, "name": "", "baseURL": BASE_REALM}
    told |= {"iconURL": None, "stylesheet": None}
    match reader.card(f"{realm_url}realm"):
        case {"data": {"attributes": dict(attributes)}}:
            texts = {key: each for key, each in attributes.items() if isinstance(each, str)}
            told["name"] = texts.get("name", "")
            for key in ("iconURL", "stylesheet"):
                # Where it is no URL the file says so by its own page.
                with suppress(ValueError):
                    told[key] = urljoin(realm_url, texts[key]) if texts.get(key) else None
    return told
