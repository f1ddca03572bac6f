"""Stores results batch by batch, and swaps them into the index all at once.

A job's rows are invisible until its last batch is stored. Then one transaction replaces the old
rows by them; rows that the job carries over stay in place. The index is not swapped if the job was
superseded, or if visitors see another index than its base.
"""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from django.db import connection
from django.utils import timezone

from notifications.channels import index_swapped
from notifications.emit import emit
from reindex.index.words import searchable
from reindex.models import IndexHead, ReindexBatch, ReindexJob

Status = ReindexJob.Status

#: A summary names at most this many kinds of error. Further ones are only counted.
MAX_KINDS = 50

_COPY = """
COPY reindex_indexedcard (job_id, realm_url, path, current, html, html_generation, search, error,
    warnings, render_ms, made_from, settled, strangers) FROM STDIN
"""
_KEEP_LAST_GOOD_HTML = """
UPDATE reindex_indexedcard new SET html = old.html, html_generation = old.html_generation,
    strangers = old.strangers
FROM reindex_indexedcard old
WHERE new.job_id = %(job)s AND new.error IS NOT NULL AND new.html IS NULL
    AND old.realm_url = %(url)s AND old.path = new.path AND old.current
"""
#: Deletes the rows that the job replaces, and those of other unfinished jobs, by database indexes.
_TAKE_AWAY = """
DELETE FROM reindex_indexedcard WHERE realm_url = %(url)s AND current AND job_id <> %(job)s
    AND path = ANY(ARRAY(
        SELECT regexp_replace(jsonb_array_elements_text(paths), '\\.json$', '')
        FROM reindex_reindexbatch WHERE job_id = %(job)s
    ))
"""
_TAKE_AWAY_UNSEEN = """
DELETE FROM reindex_indexedcard WHERE realm_url = %(url)s AND NOT current AND job_id <> %(job)s
"""
_TAKE_AWAY_ALL = "DELETE FROM reindex_indexedcard WHERE realm_url = %(url)s AND job_id <> %(job)s"
_SHOW = "UPDATE reindex_indexedcard SET current = true WHERE job_id = %(job)s"
_HEAD = """
INSERT INTO reindex_indexhead (realm_url, job_id, generation, swapped_at)
VALUES (%(url)s, %(job)s, %(generation)s, %(now)s)
ON CONFLICT (realm_url) DO UPDATE SET job_id = excluded.job_id,
    generation = excluded.generation, swapped_at = excluded.swapped_at
WHERE reindex_indexhead.generation <= excluded.generation
    AND (%(base)s::bigint IS NULL OR reindex_indexhead.job_id = %(base)s)
"""
_ERRORS = """
SELECT error ->> 'status', error ->> 'title', error ->> 'message', error ->> 'module',
    (error -> 'causes')::text, (error ->> 'line')::int, count(*),
    (array_agg(path ORDER BY path))[1:5]
FROM reindex_indexedcard WHERE job_id = %s AND error IS NOT NULL
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 7 DESC, 3
"""
#: Includes the warnings of cards that are carried over.
_WARNINGS = """
SELECT w ->> 'message', count(*), (array_agg(path ORDER BY path))[1:5]
FROM reindex_indexedcard, jsonb_array_elements(warnings) w
WHERE realm_url = %s AND current AND warnings IS NOT NULL
GROUP BY 1 ORDER BY 2 DESC, 1
"""
_MODULES = """
SELECT DISTINCT search -> '_type' ->> 'module' FROM reindex_indexedcard c
JOIN reindex_reindexjob j ON j.id = c.job_id AND j.status = 'done'
WHERE j.id = %s AND search -> '_type' ->> 'module' LIKE 'http%%' ORDER BY 1
"""
_REPLICAS = """
SELECT replica, count(*), (SELECT jsonb_object_agg(key, value)
    FROM reindex_reindexbatch a, jsonb_each_text(a.avoided) WHERE a.job_id = %(job)s)
FROM reindex_reindexbatch WHERE job_id = %(job)s AND replica <> '' GROUP BY replica
"""


def store(batch: ReindexBatch, results: Iterable[dict[str, Any]]) -> ReindexJob | None:
    """Stores the results of a batch, which the caller has locked, in the caller's transaction.
    Returns the locked job, or None if it has ended: then the caller has to roll back."""
    rendered, errors = _store(batch.job, results)
    # The job is locked last, so that its batches can be stored concurrently.
    job = ReindexJob.objects.select_for_update().filter(pk=batch.job_id).first()
    if job is None or job.status != Status.RENDERING:
        return None
    batch.done = True
    batch.save(update_fields=["done", "paths", "replica", "avoided"])
    job.seen += len(batch.paths)
    job.rendered += rendered
    job.errors += errors
    job.save()
    return job


def _store(job: ReindexJob, results: Iterable[dict[str, Any]]) -> tuple[int, int]:
    rendered = errors = 0
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for result in results:
            error, search = result.get("error"), result.get("search")
            copy.write_row((
                job.pk,
                job.realm_url,
                unquote(result["url"].removeprefix(job.realm_url)),
                False,
                _json(result.get("html")),
                job.generation,
                _json(search and searchable(search)),
                _json(error),
                _json(result.get("warnings") or None),
                int(result.get("ms", 0)),
                # As text, because psycopg would convert the elements one by one.
                f"{{{','.join(map(str, result.get('made_from', [])))}}}",
                bool(result.get("settled")) and error is None,
                list(result.get("strangers", [])),
            ))  # fmt: skip
            rendered += 1
            errors += error is not None
    return rendered, errors


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def swap(job: ReindexJob) -> None:
    """Makes this job's index the one that visitors see. The caller has locked the job's row and
    knows that the job is live."""
    now = timezone.now()
    named: dict[str, Any] = {
        "url": job.realm_url,
        "job": job.pk,
        "generation": job.generation,
        "now": now,
        "base": job.base,
    }
    with connection.cursor() as cursor:
        cursor.execute(_HEAD, named)
        landed = cursor.rowcount == 1
        if landed:
            if job.errors:
                cursor.execute(_KEEP_LAST_GOOD_HTML, named)
            gone = [_TAKE_AWAY_ALL] if job.base is None else [_TAKE_AWAY, _TAKE_AWAY_UNSEEN]
            for statement in gone:
                cursor.execute(statement, named)
            cursor.execute(_SHOW, named)
    job.status = Status.DONE if landed else Status.SUPERSEDED
    job.finished_at, job.error = now, ""
    job.summary = _summary(job)
    if landed:
        job.warnings = _add_warnings(job)
    job.save()
    if landed:
        emit(index_swapped(job.realm_url))
    elif job.base is not None and not _overtaken(job):
        # Another index has replaced the base, and with it the rows that this job carried over. The
        # caller enqueues the successor, which starts from the index that is shown.
        job.next_generation = max(job.generation, job.next_generation or 0)


def modules(job_id: int) -> list[str]:
    """The modules that the cards of a finished job adopt from; none before the job is finished, so
    that they are listed once and not for each batch."""
    with connection.cursor() as cursor:
        cursor.execute(_MODULES, [job_id])
        return [module for (module,) in cursor.fetchall()]


def _overtaken(job: ReindexJob) -> bool:
    return IndexHead.objects.filter(realm_url=job.realm_url, generation__gt=job.generation).exists()


def _summary(job: ReindexJob) -> dict[str, Any]:
    """A summary of a job for people: a thousand cards with the same error are one entry."""
    kinds = _kinds_of_error(job) if job.errors else []
    with connection.cursor() as cursor:
        cursor.execute(_REPLICAS, {"job": job.pk})
        replicas = cursor.fetchall()
    summary: dict[str, Any] = {"replicas": {address: count for address, count, _ in replicas}}
    avoided = next((each for _, _, each in replicas if each), None)
    if avoided:
        summary["avoided"] = json.loads(avoided) if isinstance(avoided, str) else avoided
    if kinds:
        summary["errors"] = kinds[:MAX_KINDS]
    if len(kinds) > MAX_KINDS:
        summary["furtherKinds"] = len(kinds) - MAX_KINDS
    return summary


def _kinds_of_error(job: ReindexJob) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(_ERRORS, [job.pk])
        return [
            {"status": int(status or 500), "title": title, "message": message, "module": module,
             "causes": json.loads(causes or "[]"), "count": count, "cards": cards,
             **({"line": line} if line else {})}
            for status, title, message, module, causes, line, count, cards in cursor.fetchall()
        ]  # fmt: skip


def _add_warnings(job: ReindexJob) -> int:
    """Adds the warnings of all cards that visitors see to a job's summary, and returns their
    number."""
    with connection.cursor() as cursor:
        cursor.execute(_WARNINGS, [job.realm_url])
        kinds = [
            {"message": message, "count": count, "cards": cards}
            for message, count, cards in cursor.fetchall()
        ]
    if kinds:
        job.summary["warnings"] = kinds[:MAX_KINDS]
    if len(kinds) > MAX_KINDS:
        job.summary["furtherWarnings"] = len(kinds) - MAX_KINDS
    return sum(kind["count"] for kind in kinds)
