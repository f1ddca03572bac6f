"""The named queries for the queue's tables."""

from datetime import datetime
from typing import Self, TypeVar

from django.db.models import Model, Q, QuerySet

M = TypeVar("M", bound=Model, covariant=True)

#: The states of a job that a worker has yet to finish.
LIVE = ("queued", "rendering")


class LeasedQuerySet(QuerySet[M]):
    """Work that one worker at a time holds a lease of."""

    def free(self, now: datetime) -> Self:
        """The work that no worker holds."""
        return self.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))


class ReindexJobQuerySet(LeasedQuerySet[M]):
    """Jobs by their state."""

    def live(self) -> Self:
        """The jobs that are queued or rendering."""
        return self.filter(status__in=LIVE)

    def unfinished(self) -> Self:
        """The jobs that are live, and the failed jobs, which the sweeper tries again."""
        return self.filter(status__in=(*LIVE, "failed"))
