"""What each replica's sidecar reports about itself, for the admin panel and for choosing replicas.

Nothing here decides what is served: a report that is missing or old makes no byte stale.
"""

from datetime import timedelta

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

#: A replica that has reported within this time takes part in reindexes.
REPORT_FRESH = timedelta(seconds=30)


class Replica(models.Model):
    """One host's web workers, sidecar and board."""

    name = models.CharField(max_length=200, primary_key=True)
    address = models.CharField(
        max_length=500, help_text="where peers and workers reach it over HTTP"
    )
    state = models.CharField(max_length=20)
    web_answers = models.BooleanField(
        default=True, db_default=True, help_text="the web service answers at the address"
    )
    sidecar_pid = models.PositiveIntegerField()
    watermark_at = models.DateTimeField(null=True, help_text="all changes up to here are applied")
    reported_at = models.DateTimeField(help_text="when the sidecar last wrote this row")
    notifications = models.PositiveBigIntegerField(default=0)
    malformed = models.PositiveBigIntegerField(default=0)
    reconnects = models.PositiveBigIntegerField(default=0)
    missed = models.PositiveBigIntegerField(
        default=0, help_text="changes found by comparison that no notification told of; should be 0"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def fresh(self) -> bool:
        """Whether the sidecar has reported lately."""
        return timezone.now() - self.reported_at < REPORT_FRESH

    @classmethod
    def live_addresses(cls) -> list[str]:
        """The addresses of the replicas that have reported lately and whose web service answers."""
        # By the clock that reports are written by.
        since = Now() - REPORT_FRESH
        live = cls.objects.filter(reported_at__gt=since, web_answers=True)
        return list(live.values_list("address", flat=True))


class ReplicaGeneration(models.Model):
    """A replica has provably applied everything up to this generation of a realm."""

    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="generations")
    realm_url = models.TextField()
    generation = models.PositiveBigIntegerField()
    applied_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["replica", "realm_url"], name="one_row_per_replica_realm"
            )
        ]

    def __str__(self) -> str:
        return f"{self.replica_id}: {self.realm_url} at {self.generation}"


class Election(models.Model):
    """Who does, for the whole fleet, the work that a key stands for. The row goes with the work."""

    key = models.BigIntegerField(primary_key=True)
    holder = models.BigIntegerField(help_text="a number of who was elected")
    lease_until = models.DateTimeField(help_text="another may be elected then")

    def __str__(self) -> str:
        return str(self.key)
