"""Stores the results of a job, and then shows them to visitors as the realm's new index.

A job renders a realm's cards at one generation, in one or more batches. The result of each rendered
card is stored as a row. Visitors don't see a job's rows until the job's last batch is stored. Then
one transaction shows these rows, and deletes the old rows that they replace.

A job may render only the cards that changes affect. It then carries over the other cards, which
means that their rows stay in the index. The job's base is the earlier job that made the index with
these rows.

A job that is superseded or cancelled before its last batch is stored never shows its rows. The
docstring of `swap` lists two other cases in which a job doesn't show its rows.
"""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from django.db import connection, transaction
from django.utils import timezone
from pydantic_core import to_json

from notifications.channels import index_swapped
from notifications.emit import emit
from notifications.tracing import spans
from reindex import sql
from reindex.index.words import searchable
from reindex.models import IndexedCard, IndexHead, ReindexBatch, ReindexJob

Status = ReindexJob.Status

#: A job's summary lists at most this many kinds of errors, and at most this many kinds of warnings.
#: Equal errors or warnings of several cards are one kind. Of further kinds, the summary has only
#: the number.
MAX_KINDS = 50


def store(batch: ReindexBatch, results: Iterable[dict[str, Any]]) -> ReindexJob | None:
    """Stores the results of a batch in the caller's transaction. The caller has locked the batch's
    row. Locks and returns the batch's job. If the job has ended, returns None, and the caller must
    roll the transaction back."""
    rendered, errors = _store(batch.job, results)
    # The job's row is locked only after the cards' rows are written, so that several workers can
    # write rows of the same job concurrently.
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
    with connection.cursor() as cursor, cursor.copy(sql.COPY_CARDS) as copy:
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
                # The array is written as text, because psycopg would convert the elements of a list
                # one by one, which is slower.
                f"{{{','.join(map(str, result.get('made_from', [])))}}}",
                bool(result.get("cacheable")) and error is None,
                list(result.get("strangers", [])),
            ))  # fmt: skip
            rendered += 1
            errors += error is not None
    return rendered, errors


def _json(value: Any) -> str | None:
    return None if value is None else to_json(value).decode()


def swap(job: ReindexJob) -> None:
    """Shows a job's index to visitors in place of the previous index, and sets the job's status to
    DONE. The caller has locked the job's row and has checked that the job hasn't ended.

    In two cases, the index isn't shown, and the status becomes SUPERSEDED instead:

    - Visitors see an index of a later generation.
    - Visitors see no later generation, but they no longer see the index of the job's base. Then
      `swap` sets `next_generation` on the object `job`, and doesn't save this value. The caller
      passes `job` to `enqueue_successor`, which queues another job.
    """
    with spans.span("swap index"):
        _swap(job)


def _swap(job: ReindexJob) -> None:
    now = timezone.now()
    named: dict[str, Any] = {
        "url": job.realm_url,
        "job": job.pk,
        "generation": job.generation,
        "now": now,
        "base": job.base,
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.MOVE_HEAD, named)
        landed = cursor.rowcount == 1
        if landed:
            if job.errors:
                cursor.execute(sql.KEEP_LAST_GOOD_HTML, named)
            others = IndexedCard.objects.filter(realm_url=job.realm_url).exclude(job=job)
            if job.base is None:
                others.delete()
            else:
                cursor.execute(sql.DELETE_REPLACED, named)
                # Deletes the rows of earlier jobs that ended without showing their index.
                others.filter(current=False).delete()
            job.cards.update(current=True)
    job.status = Status.DONE if landed else Status.SUPERSEDED
    job.finished_at, job.error = now, ""
    job.summary = _summary(job)
    if landed:
        job.warnings = _add_warnings(job)
    job.save()
    if landed:
        emit(index_swapped(job.realm_url))
        transaction.on_commit(lambda: _trace_landing(job), robust=True)
    elif job.base is not None and not _overtaken(job):
        # Another index has replaced the index of the base, so rows that this job carries over may
        # be gone. The caller queues another job, which starts from the current index.
        job.next_generation = max(job.generation, job.next_generation or 0)


def _trace_landing(job: ReindexJob) -> None:
    """Adds a span to the job's trace. The span lasts from the job's creation until visitors see the
    job's pages."""
    spans.past(
        "landed",
        job.trace,
        job.created_at,
        timezone.now(),
        realm=job.realm_url,
        generation=job.generation,
    )


def modules(job_id: int) -> list[str]:
    """Returns the URLs of the modules that export the types of a job's rendered cards. Returns an
    empty list until the job is done, so a worker may call `modules` after each batch."""
    with connection.cursor() as cursor:
        cursor.execute(sql.MODULES_OF_CARDS, [job_id])
        return [module for (module,) in cursor.fetchall()]


def _overtaken(job: ReindexJob) -> bool:
    return IndexHead.objects.filter(realm_url=job.realm_url, generation__gt=job.generation).exists()


def _summary(job: ReindexJob) -> dict[str, Any]:
    """Returns a job's summary for operators: the replicas from which its batches were read, the
    replicas that failed shortly before or during the job, and the kinds of errors."""
    kinds = _kinds_of_error(job) if job.errors else []
    with connection.cursor() as cursor:
        cursor.execute(sql.REPLICAS_READ, {"job": job.pk})
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
        cursor.execute(sql.KINDS_OF_ERROR, [job.pk])
        return [
            {"status": int(status or 500), "title": title, "message": message, "module": module,
             "causes": json.loads(causes or "[]"), "count": count, "cards": cards,
             **({"line": line} if line else {})}
            for status, title, message, module, causes, line, count, cards in cursor.fetchall()
        ]  # fmt: skip


def _add_warnings(job: ReindexJob) -> int:
    """Adds the warnings of all cards in the realm's index, including carried-over cards, to a job's
    summary. Returns the number of warnings."""
    with connection.cursor() as cursor:
        cursor.execute(sql.KINDS_OF_WARNING, [job.realm_url])
        kinds = [
            {"message": message, "count": count, "cards": cards}
            for message, count, cards in cursor.fetchall()
        ]
    if kinds:
        job.summary["warnings"] = kinds[:MAX_KINDS]
    if len(kinds) > MAX_KINDS:
        job.summary["furtherWarnings"] = len(kinds) - MAX_KINDS
    return sum(kind["count"] for kind in kinds)
