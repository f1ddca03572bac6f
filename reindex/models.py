"""Jobs, their batches, and the index that they make.

A job row guarantees that a realm's pages will be rendered at a generation. The row is written in
the transaction that makes the rendering necessary. Messages only make workers start sooner. Realms
are identified by URL, because a worker may run on a host that reaches realms over HTTP only.
"""

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector
from django.db import models
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import MD5
from django.utils import timezone

from reindex.querysets import LIVE, LeasedQuerySet, ReindexJobQuerySet


class ReindexJob(models.Model):
    """The rendering of one realm's pages at one generation. A realm has at most one live job."""

    class Status(models.TextChoices):
        QUEUED = "queued"
        RENDERING = "rendering"
        DONE = "done"
        FAILED = "failed"
        SUPERSEDED = "superseded"
        CANCELLED = "cancelled"

    realm_url = models.TextField()
    generation = models.PositiveBigIntegerField()
    owner = models.TextField(
        blank=True, db_default="", help_text="whose turn it is rendered in: the realm's owner"
    )
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    pins = models.JSONField(
        default=dict,
        help_text="the generation of every realm that it reads; 0: of one that it may not read",
    )
    addresses = models.JSONField(
        default=dict,
        db_default={},
        help_text="where the pages of the other realms that it reads are",
    )
    full = models.BooleanField(default=False, help_text="carries nothing over")
    draft = models.BooleanField(
        default=False,
        db_default=False,
        help_text="of a source realm: served after what is published, unless it has waited long",
    )
    base = models.PositiveBigIntegerField(
        null=True, help_text="the job whose index it carries over; none if it renders every card"
    )
    renderer = models.CharField(
        max_length=64, blank=True, help_text="the hash of what renders; another renders all anew"
    )
    next_generation = models.PositiveBigIntegerField(
        null=True, help_text="what it reads has changed meanwhile: a job of this generation follows"
    )
    total = models.PositiveIntegerField(default=0, help_text="files to look at")
    seen = models.PositiveIntegerField(default=0, help_text="files looked at")
    rendered = models.PositiveIntegerField(default=0)
    carried = models.PositiveIntegerField(default=0, help_text="cards that are as they were")
    errors = models.PositiveIntegerField(default=0)
    warnings = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="of all cards that the index shows once it is done, carried over or not",
    )
    summary = models.JSONField(
        default=dict,
        help_text="its errors and warnings by kind, the replicas read, and those avoided",
    )
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    lost_seconds = models.FloatField(
        default=0, db_default=0, help_text="worker time lost to cards that hang or end the process"
    )
    hung = models.JSONField(
        default=dict,
        db_default={},
        help_text="modules that don't end, with their errors; null: a card of the module doesn't",
    )
    trace = models.CharField(
        max_length=55, blank=True, default="", db_default="", help_text="the trace it belongs to"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    lease_until = models.DateTimeField(null=True, help_text="a worker plans it until then")
    worker = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="the worker that took the last lease",
    )
    lease_number = models.PositiveIntegerField(
        default=0, db_default=0, help_text="random, another for each lease: its holder knows it"
    )
    due_at = models.DateTimeField(null=True, help_text="not to be planned before: more may change")
    sent_at = models.DateTimeField(null=True, help_text="when a message about it was last sent")
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    objects = models.Manager.from_queryset(ReindexJobQuerySet)()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["realm_url"],
                condition=models.Q(status__in=list(LIVE)),
                name="one_live_job_per_realm",
            )
        ]
        indexes = [
            models.Index(
                fields=["status"],
                condition=models.Q(status__in=list(LIVE)),
                name="job_live",
            )
        ]

    def __str__(self) -> str:
        return f"{self.realm_url} at {self.generation}: {self.status}"

    @property
    def is_live(self) -> bool:
        """Whether a worker has yet to finish it."""
        return self.status in LIVE

    @property
    def phase(self) -> str:
        """`queued`, `index` while the job is planned, `render`, or `done`."""
        if self.status == self.Status.QUEUED:
            return "index" if self.started_at else "queued"
        # A failed job is tried again, so it isn't done.
        rendered_on = self.status in (self.Status.RENDERING, self.Status.FAILED)
        return "render" if rendered_on else "done"

    @property
    def seconds(self) -> float | None:
        """The job's duration so far, or in all; None before it starts."""
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()


class ReindexBatch(models.Model):
    """Some cards of a job, rendered by one task at a time.

    The task uses one sandbox for each set of other realms whose code the cards load. Cards that it
    hands back when its turn is over become new batches; after an error another task takes the
    batch.
    """

    job = models.ForeignKey(ReindexJob, on_delete=models.CASCADE, related_name="batches")
    paths = models.JSONField(help_text="the files to look at")
    done = models.BooleanField(default=False)
    lease_until = models.DateTimeField(null=True, help_text="a worker is at it until then")
    worker = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="the worker that took the last lease",
    )
    lease_number = models.PositiveIntegerField(
        default=0, db_default=0, help_text="random, another for each lease: its holder knows it"
    )
    attempts = models.PositiveIntegerField(default=0)
    replica = models.TextField(blank=True, help_text="the replica that it was last read from")
    avoided = models.JSONField(
        default=dict, help_text="the replicas that were left out meanwhile, and why"
    )

    objects = models.Manager.from_queryset(LeasedQuerySet)()

    class Meta:
        verbose_name_plural = "reindex batches"
        indexes = [
            models.Index(
                fields=["lease_until"], condition=models.Q(done=False), name="batch_under_lease"
            )
        ]

    def __str__(self) -> str:
        return f"batch {self.pk} of job {self.job_id}"


class IndexedCard(models.Model):
    """One card as a job rendered it: HTML by format and a search document, or an error document.

    Visitors see the rows that are `current`, from any job. A row that is carried over stays in
    place and is not copied.
    """

    job = models.ForeignKey(ReindexJob, on_delete=models.PROTECT, related_name="cards")
    realm_url = models.TextField()
    path = models.TextField(help_text="the card's path without .json")
    current = models.BooleanField(default=False, help_text="part of the index that visitors see")
    html = models.JSONField(null=True)
    html_generation = models.PositiveBigIntegerField(
        default=0,
        help_text="the generation of the HTML: beside an error, of the last that was good",
    )
    search = models.JSONField(null=True)
    error = models.JSONField(null=True)
    warnings = models.JSONField(
        null=True, help_text="what it is rendered in spite of: key and message of each"
    )
    render_ms = models.PositiveIntegerField(default=0)
    made_from = ArrayField(
        models.BigIntegerField(),
        default=list,
        help_text="the keys of every file and every other realm that it was made from",
    )
    strangers = ArrayField(
        models.TextField(),
        default=list,
        db_default=[],
        help_text="the other realms whose code made the HTML",
    )
    cacheable = models.BooleanField(
        default=False,
        # The previous release, which runs beside this one during an upgrade, knows this name.
        db_column="settled",
        help_text="whether nothing but these can change it, so it may be carried over",
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["job", "path"], name="one_row_per_job_card"),
            models.UniqueConstraint(
                fields=["realm_url", "path"],
                condition=models.Q(current=True),
                name="one_current_row_per_card",
            ),
        ]
        # `reindex/index/search.py` uses the same expressions, so that Postgres uses these indexes.
        # The long pending lists keep a job from waiting for index updates. Unit: KiB.
        indexes = [
            GinIndex(
                fields=["search"],
                opclasses=["jsonb_path_ops"],
                condition=models.Q(current=True),
                name="card_by_value",
                gin_pending_list_limit=32768,
            ),
            GinIndex(
                SearchVector(KeyTextTransform("_text", "search"), config="simple"),
                condition=models.Q(current=True),
                name="card_by_words",
                gin_pending_list_limit=32768,
            ),
            models.Index(
                "realm_url",
                MD5(KeyTextTransform("_type", "search")),
                condition=models.Q(current=True),
                name="card_by_type",
            ),
            # Finds the cards that a change affects without reading those that are carried over.
            GinIndex(
                fields=["made_from"],
                condition=models.Q(current=True),
                name="card_by_origin",
                gin_pending_list_limit=32768,
            ),
            models.Index(
                fields=["realm_url"],
                condition=models.Q(current=True, cacheable=False),
                name="card_not_settled",
            ),
            models.Index(
                fields=["realm_url"],
                condition=models.Q(current=True, warnings__isnull=False),
                name="card_with_warnings",
            ),
            # Finds the rows that a swap deletes without reading those that it carries over.
            models.Index(
                fields=["realm_url"],
                condition=models.Q(current=False),
                name="card_not_shown",
            ),
        ]

    def __str__(self) -> str:
        return self.path


class IndexHead(models.Model):
    """The job whose index visitors see. A swap replaces it as a whole."""

    realm_url = models.TextField(primary_key=True)
    job = models.ForeignKey(ReindexJob, on_delete=models.PROTECT, related_name="+")
    generation = models.PositiveBigIntegerField()
    swapped_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.realm_url} at {self.generation}"


class WantedDefinitions(models.Model):
    """A module whose definitions are to be built ahead of time. The row is deleted once they are
    built."""

    module_url = models.TextField(primary_key=True)
    owner = models.TextField(blank=True, help_text="whose turn they are built in")
    due_at = models.DateTimeField(help_text="not to be built before")
    lease_until = models.DateTimeField(null=True, help_text="a worker builds them until then")
    worker = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="the worker that took the last lease",
    )
    attempts = models.PositiveIntegerField(default=0)

    objects = models.Manager.from_queryset(LeasedQuerySet)()

    class Meta:
        verbose_name_plural = "wanted definitions"

    def __str__(self) -> str:
        return self.module_url


class Worker(models.Model):
    """A Celery worker, as its main process reports it. What it does, the leases say."""

    name = models.CharField(max_length=200, primary_key=True, help_text="Celery's name of it")
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField(help_text="of its main process")
    processes = models.PositiveIntegerField(help_text="how many pieces it can work on at a time")
    started_at = models.DateTimeField()
    heard_at = models.DateTimeField(help_text="when it last reported")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OwnerUsage(models.Model):
    """How much worker time an owner has used lately. The figure halves every minute."""

    owner = models.TextField(primary_key=True)
    seconds = models.FloatField(help_text="as of `counted_at`")
    counted_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "owner usage"

    def __str__(self) -> str:
        return f"{self.owner}: {self.seconds:.1f} s"


class Hang(models.Model):
    """A module or card that exceeded its time limit, identified by a hash of its bytes and of all
    it is made from."""

    key = models.CharField(
        primary_key=True, max_length=64, help_text="the hash of all that it is made from"
    )
    digest = models.CharField(
        max_length=64, blank=True, db_index=True, help_text="the hash of the module; none for cards"
    )
    realm_url = models.TextField(db_index=True, help_text="the realm that was rendered")
    url = models.TextField()
    error = models.JSONField()
    signs = models.PositiveSmallIntegerField(help_text="2 and more are proof")
    job_id = models.BigIntegerField()
    seen_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.url
