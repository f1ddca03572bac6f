"""Jobs, their batches, and the index that they make.

A job row is the promise that a realm's pages will be rendered at a generation: it is written in
the transaction that makes them necessary. Messages only hasten what the rows say is owed.
Realms are known by URL: a worker may run where there is no realm but over HTTP.
"""

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector
from django.db import models
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import MD5


class ReindexJob(models.Model):
    """The pages of one realm at one generation. A realm has one live job at the most."""

    class Status(models.TextChoices):
        QUEUED = "queued"
        RENDERING = "rendering"
        DONE = "done"
        FAILED = "failed"
        SUPERSEDED = "superseded"
        CANCELLED = "cancelled"

    LIVE = (Status.QUEUED, Status.RENDERING)

    realm_url = models.TextField()
    generation = models.PositiveBigIntegerField()
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    pins = models.JSONField(default=dict, help_text="the generation of every realm that it reads")
    total = models.PositiveIntegerField(default=0, help_text="files to look at")
    rendered = models.PositiveIntegerField(default=0)
    errors = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True, help_text="when a message about it was last sent")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["realm_url"],
                condition=models.Q(status__in=["queued", "rendering"]),
                name="one_live_job_per_realm",
            )
        ]

    def __str__(self) -> str:
        return f"{self.realm_url} at {self.generation}: {self.status}"


class ReindexBatch(models.Model):
    """Some cards of a job: what one task renders in one sandbox."""

    job = models.ForeignKey(ReindexJob, on_delete=models.CASCADE, related_name="batches")
    paths = models.JSONField(help_text="the files to look at")
    done = models.BooleanField(default=False)
    lease_until = models.DateTimeField(null=True, help_text="a worker is at it until then")
    attempts = models.PositiveIntegerField(default=0)
    replica = models.TextField(blank=True, help_text="the replica that it was last read from")

    class Meta:
        verbose_name_plural = "reindex batches"

    def __str__(self) -> str:
        return f"batch {self.pk} of job {self.job_id}"


class IndexedCard(models.Model):
    """One card as a job rendered it: HTML by format and a search document, or an error document."""

    job = models.ForeignKey(ReindexJob, on_delete=models.CASCADE, related_name="cards")
    path = models.TextField(help_text="the card's path without .json")
    html = models.JSONField(null=True)
    search = models.JSONField(null=True)
    error = models.JSONField(null=True)
    render_ms = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "path"], name="one_row_per_job_card")]
        # What `reindex/search.py` looks for; it spells these expressions in the same way. Long
        # lists of what is to be entered keep a job from waiting for them. Unit: KiB.
        indexes = [
            GinIndex(
                fields=["search"],
                opclasses=["jsonb_path_ops"],
                name="card_by_value",
                gin_pending_list_limit=32768,
            ),
            GinIndex(
                SearchVector(KeyTextTransform("_text", "search"), config="simple"),
                name="card_by_words",
                gin_pending_list_limit=32768,
            ),
            models.Index("job", MD5(KeyTextTransform("_type", "search")), name="card_by_type"),
        ]

    def __str__(self) -> str:
        return self.path


class IndexHead(models.Model):
    """Which job's cards visitors see: all of them, or with the next swap all of another."""

    realm_url = models.TextField(primary_key=True)
    job = models.ForeignKey(ReindexJob, on_delete=models.CASCADE, related_name="+")
    generation = models.PositiveBigIntegerField()
    swapped_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.realm_url} at {self.generation}"
