"""Removes rows of finished work, and cache rows of deleted content. Never removes rows of pending
work, of shown pages, or of publications that can be rolled back to."""

from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from realms import sql
from realms.serving import transpiling
from reindex.prerender.hangs import REMEMBERED


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
        for kind, rows in sql.FINISHED_ROWS.items():
            if dry_run:
                cursor.execute(f"SELECT count(*) {rows}", named)
                (done[kind],) = cursor.fetchone() or (0,)
            else:
                cursor.execute(f"DELETE {rows}", named)
                done[kind] = cursor.rowcount
    return {kind: count for kind, count in done.items() if count}
