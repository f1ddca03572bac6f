"""Shows the progress of a realm's rendering on the terminal. A realm's generation is a number that
rises with each change of the realm. A job renders the pages of a realm at one generation. The pages
that visitors see are the realm's index."""

import time
from argparse import ArgumentParser
from typing import TextIO

from django.core.management.base import CommandError, OutputWrapper
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reindex.jobs.report import outcome
from reindex.models import IndexHead, ReindexJob

POLL_SECONDS = 0.1
_DOING = {"queued": "waiting for a worker", "index": "planning", "render": "rendering"}


def add_allow_errors(parser: ArgumentParser) -> None:
    """Adds the option `--allow-errors`. With this option, the exit status is 0 even if some cards
    could not be rendered."""
    parser.add_argument(
        "--allow-errors", action="store_true", help="exit 0 even if some cards have errors"
    )


def follow(
    realm_url: str,
    generation: int,
    out: "OutputWrapper | TextIO",
    *,
    job: int | None = None,
    allow_errors: bool = False,
) -> None:
    """Shows a progress bar until the realm has the awaited index, and then prints the result of the
    job that made the index. The awaited index has `generation` or a later generation, and was made
    by `job` or a later job.

    Raises CommandError when the rendering fails or is cancelled, when cards have errors (unless
    `allow_errors`), and on Ctrl-C.
    """
    try:
        ended = _watch(realm_url, generation, job or 0)
    except KeyboardInterrupt:
        message = f"interrupted, but {realm_url} is still being rendered; cancel_reindex stops this"
        raise CommandError(message, returncode=130) from None
    out.write("\n".join(outcome(ended)) + "\n")
    if ended.errors and not allow_errors:
        cards = "1 card has an error" if ended.errors == 1 else f"{ended.errors} cards have errors"
        raise CommandError(f"{cards}; --allow-errors accepts this")


def _watch(realm_url: str, generation: int, job: int) -> ReindexJob:
    """Shows the progress bar until the realm has the new index. Returns the job that made the
    index."""
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
            # Read the job before the index. One transaction marks a job as done and makes the job's
            # pages the realm's index. So if `_last_job` finds a job that is done, `_landed` finds
            # the index of that job or of a later job, and the loop ends without an error.
            last = _last_job(realm_url, generation, job)
            landed = _landed(realm_url, generation, job)
            if landed is not None:
                return landed
            _check_goes_on(realm_url, last)
            progress.update(
                task,
                description=_DOING.get(last.phase, last.phase) if last else None,
                total=(last.total if last else 0) or None,
                completed=last.seen if last else 0,
            )
            time.sleep(POLL_SECONDS)


def _landed(realm_url: str, generation: int, job: int) -> ReindexJob | None:
    """Returns the job that made the realm's index. Returns None if the index is missing, has a
    lower generation than `generation`, or was made by a job before `job`."""
    heads = IndexHead.objects.select_related("job")
    head = heads.filter(realm_url=realm_url, generation__gte=generation, job__gte=job).first()
    return head.job if head is not None else None


def _last_job(realm_url: str, generation: int, job: int) -> ReindexJob | None:
    """Returns the newest job that may make the awaited index, or None if there is none. If `job` is
    given, returns `job` or a later job that replaced `job`."""
    jobs = ReindexJob.objects.filter(realm_url=realm_url, generation__gte=generation, pk__gte=job)
    return jobs.order_by("-pk").first()


def _check_goes_on(realm_url: str, last: ReindexJob | None) -> None:
    """Raises CommandError if the realm's last job is missing, or is no longer queued or running."""
    if last is not None and last.is_live:
        return
    if last is not None and last.status == last.Status.FAILED:
        raise CommandError(f"the rendering of {realm_url} failed: {last.error}")
    raise CommandError(f"the rendering of {realm_url} was {last.status if last else 'lost'}")
