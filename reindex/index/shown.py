"""Reads the index that a realm's visitors see.

A job renders the cards of a realm at one generation, and stores the results in the realm's index.
For each card, the index has the card's HTML, or the error of the last rendering, or both.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection

from reindex import sql
from reindex.models import IndexedCard, IndexHead, ReindexJob

#: The text search configuration of the index. It doesn't stem words, so it suits any language.
TEXT_CONFIG = "simple"


@dataclass(frozen=True)
class Page:
    """A card's page in the index. `generation` is the index's generation, or None if the realm has
    no index yet. `html` maps the name of each format to the card's HTML. If the last rendering
    failed, `error` is its error document, and `html` is the last good HTML, or None if there is
    none. If the index doesn't have the card, `html` and `error` are both None."""

    generation: int | None
    html: Mapping[str, str] | None = None
    error: Mapping[str, Any] | None = None
    #: The generation that `html` shows, or None if `html` is None. If the last rendering failed,
    #: this is the generation of the last good HTML. Otherwise it is the index's generation.
    shows: int | None = None
    #: The URLs of the other realms that supplied code for the rendering of `html`.
    strangers: tuple[str, ...] = ()


def find_page(realm_url: str, card: str) -> Page:
    """Returns a card's HTML or error from the index that visitors see. `card` is the card's path
    without `.json`."""
    with connection.cursor() as cursor:
        cursor.execute(sql.FIND_PAGE, [card, realm_url])
        row = cursor.fetchone()
    if row is None:
        return Page(None)
    generation, html, error = (row[0], *(_document(column) for column in row[1:3]))
    shows = row[3] if error else generation
    return Page(generation, html, error, shows if html else None, tuple(row[4] or ()))


def failed_cards(realm_url: str, generation: int) -> dict[str, str]:
    """Returns the error messages of the cards that could not be rendered for a realm's index. The
    keys are the cards' paths without `.json`. If the index's generation isn't `generation`, returns
    an empty dictionary."""
    if not IndexHead.objects.filter(realm_url=realm_url, generation=generation).exists():
        return {}
    failed = IndexedCard.objects.filter(realm_url=realm_url, current=True, error__isnull=False)
    return {
        path: str((error or {}).get("message", ""))
        for path, error in failed.values_list("path", "error")
    }


def shown_cards(realm_urls: Iterable[str], paths: Iterable[str]) -> set[str]:
    """Returns those of `paths` at which at least one of the realms has a card in its index. The
    paths have no `.json`."""
    wanted = list(paths)
    if not wanted:
        return set()
    rows = IndexedCard.objects.filter(realm_url__in=list(realm_urls), path__in=wanted, current=True)
    return set(rows.values_list("path", flat=True))


def page_paths(realm_url: str) -> tuple[int, list[str]]:
    """Returns the generation of a realm's index, and the paths of the cards that were rendered
    without an error. Returns 0 and an empty list if the realm has no index."""
    with connection.cursor() as cursor:
        cursor.execute(sql.PATHS_OF_PAGES, [realm_url])
        row = cursor.fetchone()
    return (int(row[0]), list(row[1])) if row else (0, [])


def _document(column: Any) -> Any:
    return json.loads(column) if isinstance(column, str) else column


@dataclass(frozen=True)
class Readiness:
    """Says whether a realm's pages are rendered at a generation. If `ready` is false, the other
    fields describe the realm's newest job. `missing` is `index` if there is no job or the job is
    queued, and otherwise `prerender-html`. If the job failed, `error` says why. `under_way` says
    whether the job is queued or rendering."""

    ready: bool
    missing: str = ""
    error: str = ""
    under_way: bool = False


def readiness(realm_url: str, generation: int) -> Readiness:
    """Checks whether the index of a realm has reached `generation` or a later one."""
    head = IndexHead.objects.filter(realm_url=realm_url).first()
    if head is not None and head.generation >= generation:
        return Readiness(True)
    job = ReindexJob.objects.filter(realm_url=realm_url).first()
    if job is not None and job.status == ReindexJob.Status.FAILED:
        return Readiness(False, "prerender-html", job.error)
    queued = job is None or job.status == ReindexJob.Status.QUEUED
    under_way = job is not None and job.is_live
    return Readiness(False, "index" if queued else "prerender-html", under_way=under_way)


def progress(job: ReindexJob) -> dict[str, Any]:
    """Returns a job's status and counts, as the API reports them. Times are in ISO 8601. The
    duration is in seconds."""
    return {
        "phase": job.phase,
        "status": job.status,
        "generation": job.generation,
        "filesCompleted": job.seen,
        "totalFiles": job.total,
        "startedAt": job.started_at.isoformat() if job.started_at else None,
        "finishedAt": job.finished_at.isoformat() if job.finished_at else None,
        "seconds": job.seconds,
        "renders": job.rendered,
        "carriedOver": job.carried,
        "errors": job.errors,
        "warnings": job.warnings,
        "error": job.error or None,
        "summary": job.summary,
    }
