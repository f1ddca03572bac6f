"""Follows a reindex on the terminal."""

import time
from typing import TextIO

from django.core.management.base import CommandError, OutputWrapper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reindex.index import readiness
from reindex.models import ReindexJob
from reindex.outcome import outcome

POLL_SECONDS = 0.1
_DOING = {"queued": "waiting for a worker", "index": "planning", "render": "rendering"}


def follow(
    realm_url: str, generation: int, out: "OutputWrapper | TextIO", *, job: int | None = None
) -> None:
    """Shows a bar until the realm's pages are those of `generation`, or until this `job` is done.

    Raises CommandError when the rendering fails, when a newer publish overtakes it, and when who
    watches has seen enough.
    """
    try:
        found = _watch(realm_url, generation, job)
    except KeyboardInterrupt:
        told = f"no longer watched; the rendering of {realm_url} goes on (cancel_reindex ends it)"
        raise CommandError(told, returncode=130) from None
    if found is not None:
        out.write("\n".join(outcome(found)) + "\n")


def _watch(realm_url: str, generation: int, job: int | None) -> ReindexJob | None:
    """Shows the bar while there is something to wait for; answers the job as it ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    seen = Console(stderr=True)
    with Progress(*columns, console=seen, transient=True, disable=not seen.is_terminal) as progress:
        task = progress.add_task(_DOING["queued"], total=None)
        while True:
            found = _job(realm_url, generation, job)
            if _done(realm_url, generation, found, job):
                return found
            if found is None or found.status in (found.Status.SUPERSEDED, found.Status.CANCELLED):
                raise CommandError(
                    f"the rendering of {realm_url} was {found.status if found else 'lost'}"
                )
            if found.status == found.Status.FAILED:
                raise CommandError(f"the rendering of {realm_url} failed: {found.error}")
            progress.update(
                task,
                description=_DOING.get(found.phase, found.phase),
                total=found.total or None,
                completed=found.seen,
            )
            time.sleep(POLL_SECONDS)


def _job(realm_url: str, generation: int, job: int | None) -> ReindexJob | None:
    if job is not None:
        return ReindexJob.objects.filter(pk=job).first()
    return ReindexJob.objects.filter(realm_url=realm_url, generation=generation).first()


def _done(realm_url: str, generation: int, found: ReindexJob | None, job: int | None) -> bool:
    if job is not None:
        return found is not None and found.status == found.Status.DONE
    return readiness(realm_url, generation).ready
