"""Removes database rows that are no longer needed, such as the rows of jobs that have ended and the
JavaScript of deleted modules. `sql.FINISHED_ROWS` lists all kinds of these rows. Keeps the rows of
failed and unfinished jobs, and the pages that visitors see."""

from datetime import datetime
from typing import Any

from django.db import connection
from django.utils import timezone

from realms import sql
from realms.serving import transpiling
from reindex.prerender.hangs import REMEMBERED


def prune(before: datetime, *, dry_run: bool = False) -> dict[str, int]:
    """Removes the rows that are no longer needed. A dry run only counts them. The rows of a job are
    removed only if the job ended before the time `before`. Most other kinds of rows have the same
    age limit. Returns the number of rows of each kind, and leaves out kinds without rows."""
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
