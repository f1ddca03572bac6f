"""`manage.py jobs`: lists, retries and cancels reindex jobs, which render the pages of realms."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from realms.coherence.conditions import duration
from realms.management.cli import command_errors, positive
from realms.management.output import note_database, show, table
from reindex.jobs import queue, sweeper
from reindex.jobs.report import outcome
from reindex.models import ReindexJob


class Command(BaseCommand):
    help = (
        "Lists the jobs that render pages and are waiting, running or failed. With the number of a "
        "job, shows this job and its errors, or retries or cancels the job."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("job", nargs="?", type=int, help="the number of a job")
        parser.add_argument("--all", action="store_true", help="list finished jobs too")
        parser.add_argument(
            "--limit", type=positive, default=50, help="list at most so many jobs (default: 50)"
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--json", action="store_true", help="print JSON")
        what.add_argument("--retry", action="store_true", help="retry this failed job now")
        what.add_argument("--cancel", action="store_true", help="cancel this job")

    def handle(self, *args: Any, **options: Any) -> None:
        note_database()
        with command_errors():
            if options["job"] is None:
                if options["retry"] or options["cancel"]:
                    raise CommandError("--retry and --cancel require the number of a job")
                self._list(options)
            else:
                self._one(options)

    def _list(self, options: dict[str, Any]) -> None:
        jobs = ReindexJob.objects.defer("pins", "addresses").order_by("-pk")
        if not options["all"]:
            jobs = jobs.unfinished()
        shown = list(jobs[: options["limit"]])
        if options["json"]:
            self.stdout.write(json.dumps([_document(job) for job in shown], indent=2))
            return
        if not shown:
            self.stdout.write("No job is waiting, running or failed.")
            return
        made = table("job", "status", "done", "age", "realm", right=("job", "done", "age"))
        now = timezone.now()
        for job in shown:
            made.add_row(
                str(job.pk),
                job.status,
                f"{job.seen}/{job.total}" if job.total else "-",
                duration(now - job.created_at),
                job.realm_url.partition("://")[2],
            )
        show(self.stdout, made)

    def _one(self, options: dict[str, Any]) -> None:
        job = ReindexJob.objects.filter(pk=options["job"]).first()
        if job is None:
            raise CommandError(f"there is no job {options['job']}")
        if options["retry"]:
            if not sweeper.retry(job.pk):
                raise CommandError(f"job {job.pk} is {job.status}: only a failed job is retried")
            self.stdout.write(f"Job {job.pk} is queued again.")
        elif options["cancel"]:
            if not ReindexJob.objects.unfinished().filter(pk=job.pk).exists():
                raise CommandError(f"job {job.pk} is {job.status} already")
            queue.cancel(job.realm_url)
            self.stdout.write(f"Job {job.pk} is cancelled; {job.realm_url} keeps its pages.")
        elif options["json"]:
            self.stdout.write(json.dumps(_document(job) | {"summary": job.summary}, indent=2))
        else:
            about = f"job {job.pk}: {job.realm_url}, generation {job.generation}, {job.status}"
            self.stdout.write("\n".join([about, *outcome(job)]))


def _document(job: ReindexJob) -> dict[str, Any]:
    return {
        "job": job.pk,
        "realm": job.realm_url,
        "generation": job.generation,
        "status": job.status,
        "seen": job.seen,
        "total": job.total,
        "rendered": job.rendered,
        "carried": job.carried,
        "errors": job.errors,
        "error": job.error,
        "createdAt": job.created_at.isoformat(),
        "finishedAt": job.finished_at.isoformat() if job.finished_at else None,
    }
