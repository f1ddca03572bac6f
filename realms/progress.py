"""Follows a reindex on the terminal."""

import time
from typing import TextIO

from django.core.management.base import CommandError, OutputWrapper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reindex.index import readiness
from reindex.models import ReindexJob

POLL_SECONDS = 0.1


def follow(realm_url: str, generation: int, out: "OutputWrapper | TextIO") -> None:
    """Shows a bar until the realm's pages are those of `generation`.

    Raises CommandError when the rendering fails or a newer publish overtakes it.
    """
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    seen = Console(stderr=True)
    with Progress(*columns, console=seen, transient=True, disable=not seen.is_terminal) as progress:
        task = progress.add_task("waiting for a worker", total=None)
        while not readiness(realm_url, generation).ready:
            job = ReindexJob.objects.filter(realm_url=realm_url, generation=generation).first()
            if job is None or job.status in (job.Status.SUPERSEDED, job.Status.CANCELLED):
                raise CommandError(
                    f"the rendering of {realm_url} was {job.status if job else 'lost'}"
                )
            if job.status == job.Status.FAILED:
                raise CommandError(f"the rendering of {realm_url} failed: {job.error}")
            if job.status == job.Status.RENDERING:
                progress.update(
                    task, description="rendering", total=job.total, completed=job.rendered
                )
            time.sleep(POLL_SECONDS)
    job = ReindexJob.objects.filter(realm_url=realm_url).first()
    if job is not None:
        out.write(
            f"{job.rendered} cards rendered in {time.monotonic() - began:.1f} s, "
            f"{job.errors} with errors\n"
        )
