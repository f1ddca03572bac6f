"""Removes rows of finished work, and cache rows of deleted content. Never removes rows of pending
work, of shown pages, or of publications that can be rolled back to."""

from datetime import datetime
from typing import Any, LiteralString

from django.db import connection
from django.utils import timezone

from realms.serving import transpiling
from reindex.prerender.hangs import REMEMBERED

_ENDED: LiteralString = """
    (SELECT id FROM reindex_reindexjob WHERE status IN ('done', 'superseded', 'cancelled')
        AND finished_at < %(before)s)
"""
#: By kind: the table, aliased `t`, and the condition of the rows to remove. The order matters:
#: cards and batches before their jobs. A job is kept while one of its cards is shown.
_ROWS: dict[str, tuple[LiteralString, LiteralString]] = {
    "cards": ("reindex_indexedcard", "NOT t.current AND t.job_id IN " + _ENDED),
    "batches": ("reindex_reindexbatch", "t.job_id IN " + _ENDED),
    "jobs": (
        "reindex_reindexjob",
        "t.id IN "
        + _ENDED
        + """
        AND NOT EXISTS (SELECT FROM reindex_indexedcard c WHERE c.job_id = t.id AND c.current)
        AND NOT EXISTS (SELECT FROM reindex_indexhead h WHERE h.job_id = t.id)
        """,
    ),
    # Their key is the hash of the source's hash and of the suffix that names the language.
    "transpiled modules": (
        "realms_transpiledmodule",
        r"""
        t.made_at < %(before)s AND (t.transpiler <> %(transpiler)s OR t.sha256 NOT IN (
            SELECT encode(sha256(convert_to(v.sha256 || substring(v.path from '\.[^./]+$'),
                'UTF8')), 'hex')
            FROM realms_fileversion v WHERE v.path ~ '\.[^./]+$'
        ))
        """,
    ),
    "owner usage": ("reindex_ownerusage", "t.counted_at < %(before)s"),
    "hangs": ("reindex_hang", "t.seen_at < %(forgotten)s"),
    "elections": ("notifications_election", "t.lease_until < %(before)s"),
    "sessions": ("django_session", "t.expire_date < %(now)s"),
}


def prune(before: datetime, *, dry_run: bool = False) -> dict[str, int]:
    """Removes the rows of work that ended before a moment, or counts them in a dry run. Returns
    their number by kind, without the kinds that have none."""
    now = timezone.now()
    named: dict[str, Any] = {
        "before": before,
        "now": now,
        "forgotten": now - REMEMBERED,
        "transpiler": transpiling.transpiler(),
    }
    done: dict[str, int] = {}
    with connection.cursor() as cursor:
        for kind, (table, which) in _ROWS.items():
            if dry_run:
                cursor.execute(f"SELECT count(*) FROM {table} t WHERE {which}", named)
                (done[kind],) = cursor.fetchone() or (0,)
            else:
                cursor.execute(f"DELETE FROM {table} t WHERE {which}", named)
                done[kind] = cursor.rowcount
    return {kind: count for kind, count in done.items() if count}
