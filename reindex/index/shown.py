"""Reading the index: what a realm's visitors see."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from django.db import connection

from reindex.models import IndexedCard, IndexHead, ReindexJob

#: The text search configuration of the index: words as they stand, in any language.
TEXT_CONFIG = "simple"

_PAGE: LiteralString = """
SELECT h.generation, c.html, c.error, c.html_generation, c.strangers
FROM reindex_indexhead h
LEFT JOIN reindex_indexedcard c ON c.realm_url = h.realm_url AND c.path = %s AND c.current
WHERE h.realm_url = %s
"""

_PAGE_PATHS: LiteralString = """
SELECT h.generation, ARRAY(
    SELECT c.path FROM reindex_indexedcard c
    WHERE c.realm_url = h.realm_url AND c.current AND c.html IS NOT NULL AND c.error IS NULL
    ORDER BY c.path
) FROM reindex_indexhead h WHERE h.realm_url = %s
"""


@dataclass(frozen=True)
class Page:
    """A card's HTML by format, or its error document; neither where there is no such card.

    Beside an error the HTML is the last good one. `generation` is the index's; None where the realm
    has no index yet.
    """

    generation: int | None
    html: Mapping[str, str] | None = None
    error: Mapping[str, Any] | None = None
    #: The generation that the HTML shows: an older one only where that is the last good.
    shows: int | None = None
    #: The other realms whose code made the HTML.
    strangers: tuple[str, ...] = ()


def find_page(realm_url: str, card: str) -> Page:
    """The page of a card, given as path without `.json`, in the index that visitors see now."""
    with connection.cursor() as cursor:
        cursor.execute(_PAGE, [card, realm_url])
        row = cursor.fetchone()
    if row is None:
        return Page(None)
    generation, html, error = (row[0], *(_document(column) for column in row[1:3]))
    shows = row[3] if error else generation
    return Page(generation, html, error, shows if html else None, tuple(row[4] or ()))


def failed_cards(realm_url: str, generation: int) -> dict[str, str]:
    """The cards, as paths without `.json`, whose pages are errors in the index that visitors see,
    with what is wrong with them; none if that index isn't of this generation."""
    if not IndexHead.objects.filter(realm_url=realm_url, generation=generation).exists():
        return {}
    failed = IndexedCard.objects.filter(realm_url=realm_url, current=True, error__isnull=False)
    return {
        path: str((error or {}).get("message", ""))
        for path, error in failed.values_list("path", "error")
    }


def shown_cards(realm_urls: Iterable[str], paths: Iterable[str]) -> set[str]:
    """Those of these paths, without `.json`, at which visitors of one of these realms see cards."""
    asked = list(paths)
    if not asked:
        return set()
    shown = IndexedCard.objects.filter(realm_url__in=list(realm_urls), path__in=asked, current=True)
    return set(shown.values_list("path", flat=True))


def page_paths(realm_url: str) -> tuple[int, list[str]]:
    """The generation of a realm's index, and the paths of the cards that have a page in it."""
    with connection.cursor() as cursor:
        cursor.execute(_PAGE_PATHS, [realm_url])
        row = cursor.fetchone()
    return (int(row[0]), list(row[1])) if row else (0, [])


def _document(column: Any) -> Any:
    return json.loads(column) if isinstance(column, str) else column


@dataclass(frozen=True)
class Readiness:
    """How far a realm's pages are: ready, or `missing` their `index` or `prerender-html`, with a
    job under way or none."""

    ready: bool
    missing: str = ""
    error: str = ""
    under_way: bool = False


def readiness(realm_url: str, generation: int) -> Readiness:
    """Whether the index of a realm has reached a generation."""
    head = IndexHead.objects.filter(realm_url=realm_url).first()
    if head is not None and head.generation >= generation:
        return Readiness(True)
    job = ReindexJob.objects.filter(realm_url=realm_url).first()
    if job is not None and job.status == ReindexJob.Status.FAILED:
        return Readiness(False, "prerender-html", job.error)
    queued = job is None or job.status == ReindexJob.Status.QUEUED
    under_way = job is not None and job.status in ReindexJob.LIVE
    return Readiness(False, "index" if queued else "prerender-html", under_way=under_way)


def progress(job: ReindexJob) -> dict[str, Any]:
    """A job in figures. Times are ISO 8601, durations in seconds."""
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
