"""Defines the reports that replicas store about themselves, and the leases of elections.

The sidecar of each replica, `manage.py listen_file_changes`, writes the replica's report. The admin
shows the reports. Workers, which render pages, read files from replicas with a recent report. But
if the setting REALM_RENDER_REPLICAS lists replicas, they read from the listed replicas. Replicas
serve files and pages without reading the reports, so a missing or old report makes no answer stale.
"""

from datetime import timedelta

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

#: A report that is younger than this counts as recent.
REPORT_FRESH = timedelta(seconds=30)
#: Staff may delete the row of a replica that hasn't reported for this long.
REPORT_MISSING = timedelta(minutes=10)


class Replica(models.Model):
    """The report of one replica. A replica consists of web workers, a sidecar and a board on one
    host."""

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
        """Returns whether the sidecar has reported within REPORT_FRESH."""
        return timezone.now() - self.reported_at < REPORT_FRESH

    @property
    def missing(self) -> bool:
        """Returns whether the last report is so old that staff may delete the row."""
        return timezone.now() - self.reported_at >= REPORT_MISSING

    @classmethod
    def live_addresses(cls) -> list[str]:
        """Returns the addresses of the replicas with a recent report and a web service that
        answers."""
        # Compare with the database's clock, because `reported_at` is a time of that clock.
        since = Now() - REPORT_FRESH
        live = cls.objects.filter(reported_at__gt=since, web_answers=True)
        return list(live.values_list("address", flat=True))


class ReplicaGeneration(models.Model):
    """A replica's report about one realm. A realm's generation is a number that rises with each
    change of the realm. The replica has provably applied every change up to `generation`."""

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
    """A lease, which says which process was elected for the work that `key` identifies
    (`election.py`). The elected process deletes the row when the work ends."""

    key = models.BigIntegerField(primary_key=True)
    holder = models.BigIntegerField(help_text="a number that identifies the elected process")
    lease_until = models.DateTimeField(help_text="from then on another process can be elected")

    def __str__(self) -> str:
        return str(self.key)
