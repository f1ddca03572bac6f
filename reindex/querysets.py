"""The named queries for the queue's tables."""

from datetime import datetime
from typing import Self, TypeVar

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model, covariant=True)

#: The states of a live job, which a worker has to plan or render.
LIVE = ("queued", "rendering")


class LeasedQuerySet(QuerySet[M]):
    """Rows of work that one worker at a time leases."""

    def free(self, now: datetime) -> Self:
        """The rows without an unexpired lease."""
        return self.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))


class ReindexJobQuerySet(LeasedQuerySet[M]):
    """Jobs by their state."""

    def live(self) -> Self:
        """The jobs that are queued or rendering."""
        return self.filter(status__in=LIVE)

    def unfinished(self) -> Self:
        """The live jobs, and the failed jobs, which the sweeper retries."""
        return self.filter(status__in=(*LIVE, "failed"))
