"""Query sets with named filters for three tables: jobs, their batches of cards, and modules that
wait until a worker builds their definitions."""

from datetime import datetime
from typing import Self, TypeVar

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model, covariant=True)

#: The states of a live job, which a worker has to plan or render.
LIVE = ("queued", "rendering")


class LeasedQuerySet(QuerySet[M]):
    """Rows that workers lease. Until the lease of a row expires, only the worker that holds the
    lease works on the row."""

    def free(self, now: datetime) -> Self:
        """Returns the rows that have no lease, or a lease that has expired."""
        return self.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))


class ReindexJobQuerySet(LeasedQuerySet[M]):
    """Jobs, with filters by their status."""

    def live(self) -> Self:
        """Returns the jobs that are queued or rendering."""
        return self.filter(status__in=LIVE)

    def unfinished(self) -> Self:
        """Returns the live jobs and the failed jobs. A failed job isn't finished, because the
        sweeper (`reindex/jobs/sweeper.py`) retries it."""
        return self.filter(status__in=(*LIVE, "failed"))
