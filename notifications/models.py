"""Defines the report that each replica stores about itself. The admin shows the reports, and
workers choose replicas by them.

Serving doesn't depend on these rows, so a missing or old report makes no response stale.
"""

from datetime import timedelta

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

#: Workers only read from replicas that have reported within this time.
REPORT_FRESH = timedelta(seconds=30)
#: Staff may delete the row of a replica that hasn't reported for this long.
REPORT_MISSING = timedelta(minutes=10)


class Replica(models.Model):
    """One host's web workers, sidecar and board."""

    name = models.CharField(max_length=200, primary_key=True)
    address = models.CharField(
        max_length=500,
        help_text="the address at which peers and workers reach the replica over HTTP",
    )
    state = models.CharField(max_length=20)
    web_answers = models.BooleanField(
        default=True, db_default=True, help_text="whether the web service answers at the address"
    )
    sidecar_pid = models.PositiveIntegerField()
    watermark_at = models.DateTimeField(
        null=True, help_text="the replica has applied every change before this time"
    )
    reported_at = models.DateTimeField(help_text="when the sidecar last wrote this row")
    notifications = models.PositiveBigIntegerField(default=0)
    malformed = models.PositiveBigIntegerField(default=0)
    reconnects = models.PositiveBigIntegerField(default=0)
    missed = models.PositiveBigIntegerField(
        default=0, help_text="how many changes had no notification; should be 0"
    )

    figures = models.JSONField(
        default=dict,
        db_default={},
        help_text="build, host, counters of the web workers, lag of the pings",
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def fresh(self) -> bool:
        """Returns whether the sidecar has reported lately."""
        return timezone.now() - self.reported_at < REPORT_FRESH

    @property
    def missing(self) -> bool:
        """Returns whether the sidecar has been silent for so long that staff may delete the row."""
        return timezone.now() - self.reported_at >= REPORT_MISSING

    @classmethod
    def live_addresses(cls) -> list[str]:
        """Returns the addresses of the replicas with a recent report and a web service that
        answers."""
        # The database's clock sets `reported_at`, so compare with the same clock.
        since = Now() - REPORT_FRESH
        live = cls.objects.filter(reported_at__gt=since, web_answers=True)
        return list(live.values_list("address", flat=True))


class ReplicaGeneration(models.Model):
    """A realm's generation. The replica has provably applied every change up to this generation."""

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
    """The lease of the process that was elected for a key's work. The process deletes the row when
    the work ends."""

    key = models.BigIntegerField(primary_key=True)
    holder = models.BigIntegerField(help_text="a number that identifies the elected process")
    lease_until = models.DateTimeField(help_text="from then on another process can be elected")

    def __str__(self) -> str:
        return str(self.key)
