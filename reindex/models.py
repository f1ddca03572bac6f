"""The database models of reindex jobs, their batches, and the index (a realm's rendered cards).

The transaction that changes a realm also writes the row of the job that renders the realm's pages.
Workers find jobs by these rows, so a job isn't lost if a Celery message or a worker is lost. A
message only makes a worker start sooner. A job that is superseded (replaced by a newer job), is
cancelled or fails doesn't replace the index. These tables have no foreign key to the table of
realms, because workers read realms over HTTP only.
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
    """A job that renders one realm's pages at one generation. A realm has at most one job that is
    queued or rendering."""

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
        blank=True, db_default="", help_text="the realm's owner, whose worker time it uses"
    )
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    pins = models.JSONField(
        default=dict,
        help_text="the generation of each realm that the job reads; 0 if it may not read the realm",
    )
    addresses = models.JSONField(
        default=dict,
        db_default={},
        help_text="the addresses at which the realms that the job reads show their pages",
    )
    full = models.BooleanField(default=False, help_text="renders every card and carries none over")
    draft = models.BooleanField(
        default=False,
        db_default=False,
        help_text="renders a source realm; for a limited time, workers prefer published realms",
    )
    base = models.PositiveBigIntegerField(
        null=True, help_text="the job whose cards it carries over; none if it renders every card"
    )
    renderer = models.CharField(
        max_length=64,
        blank=True,
        help_text="the hash of the code that renders cards; if it changes, jobs render every card",
    )
    next_generation = models.PositiveBigIntegerField(
        null=True,
        help_text="if another job must follow this job: the generation to render",
    )
    total = models.PositiveIntegerField(default=0, help_text="the number of files to process")
    seen = models.PositiveIntegerField(default=0, help_text="the number of files processed so far")
    rendered = models.PositiveIntegerField(default=0)
    carried = models.PositiveIntegerField(default=0, help_text="number of cards carried over")
    errors = models.PositiveIntegerField(default=0)
    warnings = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="the number of warnings in the new index, including those of carried-over cards",
    )
    summary = models.JSONField(
        default=dict,
        help_text="errors and warnings by kind, the replicas read, and the replicas that failed",
    )
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    lost_seconds = models.FloatField(
        default=0, db_default=0, help_text="seconds lost to cards that hang or end the process"
    )
    hung = models.JSONField(
        default=dict,
        db_default={},
        help_text="modules that hang, with their errors; null if only a card of the module hangs",
    )
    trace = models.CharField(
        max_length=55, blank=True, default="", db_default="", help_text="the job's trace"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    lease_until = models.DateTimeField(null=True, help_text="when the planning worker's lease ends")
    worker = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="the worker that holds the lease",
    )
    lease_number = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="a random number, which only the holder of the lease knows",
    )
    due_at = models.DateTimeField(
        null=True, help_text="when it may be planned; until then it waits for changes"
    )
    sent_at = models.DateTimeField(
        null=True, help_text="when its latest message is to be delivered"
    )
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
        """Whether the job is queued or rendering."""
        return self.status in LIVE

    @property
    def phase(self) -> str:
        """The phase that the API reports: `queued`, `index` while the job is planned, `render` or
        `done`."""
        if self.status == self.Status.QUEUED:
            return "index" if self.started_at else "queued"
        # A failed job isn't done, because the sweeper (`jobs/sweeper.py`) retries it.
        rendered_on = self.status in (self.Status.RENDERING, self.Status.FAILED)
        return "render" if rendered_on else "done"

    @property
    def seconds(self) -> float | None:
        """The job's duration, up to now if the job hasn't finished; None before the job starts."""
        if self.started_at is None:
            return None
        return ((self.finished_at or timezone.now()) - self.started_at).total_seconds()


class ReindexBatch(models.Model):
    """A part of a job's cards. One worker at a time renders the batch. The worker may stop early,
    because another owner of realms waits for a worker. Then the unrendered cards become new
    batches. After an error, a worker leases the batch again."""

    job = models.ForeignKey(ReindexJob, on_delete=models.CASCADE, related_name="batches")
    paths = models.JSONField(help_text="the paths of the files to render")
    done = models.BooleanField(default=False)
    lease_until = models.DateTimeField(
        null=True, help_text="when the rendering worker's lease ends"
    )
    worker = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="the worker that holds the lease",
    )
    lease_number = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="a random number, which only the holder of the lease knows",
    )
    attempts = models.PositiveIntegerField(default=0)
    replica = models.TextField(
        blank=True, help_text="the replica from which the batch was last read"
    )
    avoided = models.JSONField(
        default=dict, help_text="the replicas that were asked last during the rendering, and why"
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
    """The result of rendering a card: HTML by format and a search document, or an error document.
    Visitors see the rows in which `current` is true. These rows may come from several jobs, because
    a job usually renders only the cards that a change affects. The job carries the other cards of
    the realm over, which means that it leaves the rows of these cards as they are."""

    job = models.ForeignKey(ReindexJob, on_delete=models.PROTECT, related_name="cards")
    realm_url = models.TextField()
    path = models.TextField(help_text="the card's path without .json")
    current = models.BooleanField(default=False, help_text="part of the index that visitors see")
    html = models.JSONField(null=True)
    html_generation = models.PositiveBigIntegerField(
        default=0,
        help_text="the generation of the HTML; if the card has an error, of its last good HTML",
    )
    search = models.JSONField(null=True)
    error = models.JSONField(null=True)
    warnings = models.JSONField(
        null=True, help_text="faults that don't prevent rendering: key and message of each"
    )
    render_ms = models.PositiveIntegerField(default=0)
    made_from = ArrayField(
        models.BigIntegerField(),
        default=list,
        help_text="the dependency keys of all files and other realms that the card was made from",
    )
    strangers = ArrayField(
        models.TextField(),
        default=list,
        db_default=[],
        help_text="the realms whose code made the HTML, without the card's own realm",
    )
    cacheable = models.BooleanField(
        default=False,
        # The previous release uses this column name and may still run during an upgrade.
        db_column="settled",
        help_text="whether jobs may carry the card over until a part of `made_from` changes",
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
        # The queries in `reindex/index/search_sql.py` and `reindex/sql.py` contain the expressions
        # below, so that Postgres uses these indexes. `gin_pending_list_limit` is in KiB. With a
        # high limit, a job writes rows without waiting for updates of the GIN indexes.
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
            # Finds the cards that a change affects, without reading all other cards.
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
            # Finds the rows that visitors don't see, without reading the rows that they see.
            models.Index(
                fields=["realm_url"],
                condition=models.Q(current=False),
                name="card_not_shown",
            ),
        ]

    def __str__(self) -> str:
        return self.path


class IndexHead(models.Model):
    """Says which index a realm's visitors see. `job` is the job that made this index. When visitors
    get a new index, the realm's row is updated."""

    realm_url = models.TextField(primary_key=True)
    job = models.ForeignKey(ReindexJob, on_delete=models.PROTECT, related_name="+")
    generation = models.PositiveBigIntegerField()
    swapped_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.realm_url} at {self.generation}"


class WantedDefinitions(models.Model):
    """A module that waits until a worker builds its definitions, which describe the card types that
    the module exports. After the build, the worker deletes the module's row."""

    module_url = models.TextField(primary_key=True)
    owner = models.TextField(blank=True, help_text="the owner for whom the worker time is counted")
    due_at = models.DateTimeField(help_text="when workers may build the definitions")
    lease_until = models.DateTimeField(null=True, help_text="when the building worker's lease ends")
    worker = models.CharField(
        max_length=200,
        blank=True,
        default="",
        db_default="",
        help_text="the worker that holds the lease",
    )
    attempts = models.PositiveIntegerField(default=0)

    objects = models.Manager.from_queryset(LeasedQuerySet)()

    class Meta:
        verbose_name_plural = "wanted definitions"

    def __str__(self) -> str:
        return self.module_url


class Worker(models.Model):
    """A Celery worker, which regularly updates its row to show that it is alive. The rows of leased
    jobs, batches and modules contain the worker's name."""

    name = models.CharField(max_length=200, primary_key=True, help_text="its name in Celery")
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField(help_text="process id of its main process")
    processes = models.PositiveIntegerField(help_text="how many pieces of work it can do at a time")
    started_at = models.DateTimeField()
    heard_at = models.DateTimeField(help_text="when the worker last reported")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class OwnerUsage(models.Model):
    """The worker time that an owner has used lately. After each minute, used time counts half as
    much."""

    owner = models.TextField(primary_key=True)
    seconds = models.FloatField(help_text="the worker time at `counted_at`")
    counted_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "owner usage"

    def __str__(self) -> str:
        return f"{self.owner}: {self.seconds:.1f} s"


class Hang(models.Model):
    """A module or card that exceeded its time limit. A module's key is a hash of the module and of
    its imports. A card's key is a hash of everything that the card shows."""

    key = models.CharField(
        primary_key=True,
        max_length=64,
        help_text="the hash of everything that the module or card is made from",
    )
    digest = models.CharField(
        max_length=64, blank=True, db_index=True, help_text="the hash of the module; none for cards"
    )
    realm_url = models.TextField(db_index=True, help_text="the realm that was rendered")
    url = models.TextField()
    error = models.JSONField()
    signs = models.PositiveSmallIntegerField(help_text="signs of a hang; 2 or more are proof")
    job_id = models.BigIntegerField()
    seen_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.url
