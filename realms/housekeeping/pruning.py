"""Removes database rows of finished work, and cached rows of deleted content. Keeps the rows of
pending work, of current pages, and of the publications that the collector keeps for rollbacks."""

from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from realms import sql
from realms.serving import transpiling
from reindex.prerender.hangs import REMEMBERED


def prune(before: datetime, *, dry_run: bool = False) -> dict[str, int]:
    """Removes the rows of work that ended before a time. A dry run only counts the rows. Returns
    the number of rows for each kind that has any."""
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
