"""Follows a reindex on the terminal."""

import time
from typing import TextIO

from django.core.management.base import CommandError, OutputWrapper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reindex.index import readiness
from reindex.models import ReindexJob

POLL_SECONDS = 0.1
_DOING = {"queued": "waiting for a worker", "index": "planning", "render": "rendering"}


def follow(
    realm_url: str, generation: int, out: "OutputWrapper | TextIO", *, job: int | None = None
) -> None:
    """Shows a bar until the realm's pages are those of `generation`, or until this `job` is done.

    Raises CommandError when the rendering fails or a newer publish overtakes it.
    """
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
                break
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
    if found is not None:
        out.write(told(found))


def _job(realm_url: str, generation: int, job: int | None) -> ReindexJob | None:
    if job is not None:
        return ReindexJob.objects.filter(pk=job).first()
    return ReindexJob.objects.filter(realm_url=realm_url, generation=generation).first()


def _done(realm_url: str, generation: int, found: ReindexJob | None, job: int | None) -> bool:
    if job is not None:
        return found is not None and found.status == found.Status.DONE
    return readiness(realm_url, generation).ready


def told(job: ReindexJob) -> str:
    """What a job came to, in lines: figures, the errors by kind, the replicas that it avoided."""
    lines = [
        f"{job.rendered} cards rendered in {job.seconds or 0:.1f} s, {job.carried} carried over, "
        f"{job.errors} with errors"
    ]
    for kind in job.summary.get("errors", ()):
        cards = ", ".join(kind["cards"]) + (", …" if kind["count"] > len(kind["cards"]) else "")
        where = f" ({kind['module']})" if kind["module"] else ""
        lines.append(f"  {kind['count']} × {kind['title']}: {kind['message']}{where}: {cards}")
    for address, why in job.summary.get("avoided", {}).items():
        lines.append(f"  replica {address} was left out: {why}")
    return "\n".join(lines) + "\n"
