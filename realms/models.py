"""Defines the models of the registry (realms, publications, permissions) and of the content (file
versions, blobs).

A realm's generation is a number that rises with each change of the realm. What a realm contains at
a generation never changes. So a publication copies no files, but refers to a generation of a source
realm. A publish or a rollback therefore takes as long for ten files as for a million.
"""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models
from django.db.models.functions import Now

from notifications.channels import all_files_changed, realm_key
from notifications.emit import emit, local_board
from realms import triggers
from realms.querysets import FileVersionQuerySet, PublicationQuerySet, RealmQuerySet

#: The audiences. A row of RealmPermission is for an account or for an audience.
EVERYONE = "everyone"
SIGNED_IN = "signed-in"


class Realm(models.Model):
    """A folder of files with a URL. A source realm has files of its own. A published realm shows
    the files of its source realm as of a generation. A bootstrap realm contains the card library.

    The table of realms is the registry. It alone decides which realms exist.
    """

    class Kind(models.TextChoices):
        SOURCE = "source"
        PUBLISHED = "published"
        BOOTSTRAP = "bootstrap"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    url = models.TextField(unique=True, help_text="absolute, ends in /")
    kind = models.CharField(max_length=10, choices=Kind)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="realms",
    )
    source = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="published"
    )
    generation = models.PositiveBigIntegerField(default=1)
    bumped_at = models.DateTimeField(
        null=True, blank=True, help_text="when the realm's generation last rose"
    )
    bumped_by = models.TextField(
        blank=True,
        db_default="",
        help_text="what last raised the generation: a publish, a write, an inner realm",
    )
    history_from = models.PositiveBigIntegerField(
        default=0, help_text="the oldest generation whose file versions are all still stored"
    )
    file_count = models.PositiveBigIntegerField(
        default=0, db_default=0, help_text="the number of files in the current generation"
    )
    byte_count = models.PositiveBigIntegerField(
        default=0, db_default=0, help_text="the size of these files, in bytes"
    )
    max_files = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="the most files it may have; if empty, REALM_MAX_FILES"
    )
    max_bytes = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        help_text="the most bytes its files may have; if empty, REALM_MAX_BYTES",
    )
    publishable = models.BooleanField(default=False)
    last_published_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = models.Manager.from_queryset(RealmQuerySet)()

    class Meta:
        ordering = ["url"]
        permissions = [
            ("clear_realm", "Can clear the caches of realms"),
            ("publish_realm", "Can publish, roll back and remove their realms, retry and cancel"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(kind="published", source__isnull=False)
                | models.Q(kind__in=["source", "bootstrap"], source__isnull=True),
                name="only_published_realms_have_a_source",
            ),
            models.CheckConstraint(
                condition=models.Q(url__endswith="/"), name="realm_urls_end_in_a_slash"
            ),
        ]
        triggers: ClassVar = [
            *triggers.ANNOUNCE_REALM,
            triggers.GENERATION_NEVER_FALLS,
            *triggers.KEEP_TOMBSTONES,
            triggers.URL_NEVER_CHANGES,
        ]

    def __str__(self) -> str:
        return self.url

    @classmethod
    def first_showing(cls, **source: Any) -> "Realm | None":
        """Returns the oldest of the realms that are published from a source realm, or None if there
        is none. Links to the source realm lead to the URL of the returned realm. The keyword
        arguments `source` are a filter of the field `source`, for example `source__url=url`."""
        return cls.objects.published().filter(**source).order_by("created_at").first()

    @property
    def owner_key(self) -> str:
        """The key of the realm's owner, or an empty string if the realm has no owner. Jobs contain
        this key, so that the owners of waiting jobs take turns."""
        return "" if self.owner_id is None else str(self.owner_id)

    def clear_local_source_caches(self) -> None:
        """Makes all cached answers of the realm stale, on this replica only."""
        local_board().bump([realm_key(self.url)])

    def clear_local_source_caches_and_broadcast(self) -> None:
        """Makes all cached answers of the realm stale on every replica, when the caller's
        transaction commits.

        Raises TransactionManagementError outside a transaction.
        """
        emit(all_files_changed(self.url))


class RealmTombstone(models.Model):
    """The last generation of a deleted realm. A new realm at the same URL begins with the next
    generation. Database triggers write and delete the rows (`triggers.KEEP_TOMBSTONES`)."""

    url = models.TextField(primary_key=True)
    generation = models.PositiveBigIntegerField()
    at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.url} until {self.generation}"


class Blob(models.Model):
    """The content of one or more files. The key is the SHA-256 of the content. The row itself holds
    content of up to 64 KiB. Larger content is in the blob storage (REALM_BLOB_STORAGE)."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.PositiveBigIntegerField()
    data = models.BinaryField(null=True)
    stored_at = models.DateTimeField(
        db_default=Now(), help_text="when a write last stored this content"
    )

    def __str__(self) -> str:
        return self.sha256


class FileVersion(models.Model):
    """A version of the file at `path`. The realm has this version from the generation
    `from_generation` until the generation before `until_generation`. While the version is current,
    `until_generation` is null."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE, related_name="versions")
    path = models.TextField()
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, db_column="sha256", related_name="+")
    size = models.PositiveBigIntegerField()
    created_at = models.DateTimeField()
    modified_at = models.DateTimeField()
    from_generation = models.PositiveBigIntegerField()
    until_generation = models.PositiveBigIntegerField(null=True)
    closed_at = models.DateTimeField(null=True)

    objects = models.Manager.from_queryset(FileVersionQuerySet)()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["realm", "path"],
                condition=models.Q(until_generation__isnull=True),
                name="one_open_version_per_path",
            )
        ]
        indexes = [
            models.Index(fields=["realm", "path", "from_generation"], name="version_by_path"),
            models.Index(fields=["realm", "from_generation"], name="version_opened"),
            models.Index(fields=["realm", "until_generation"], name="version_closed"),
        ]
        triggers: ClassVar = [*triggers.ANNOUNCE_FILES, triggers.VERSION_IS_IMMUTABLE]

    def __str__(self) -> str:
        return f"{self.path} from {self.from_generation}"


class RealmBorder(models.Model):
    """Says that a realm, the inner realm, was created or removed at the folder `path` of the realm
    `realm`, the outer realm. Creating the inner realm hides the outer realm's files in the folder.
    Removing the inner realm shows these files again. `generation` is the generation that the outer
    realm got when the inner realm was last created or removed."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE, related_name="borders")
    path = models.TextField(help_text="the folder, with its final slash")
    generation = models.PositiveBigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["realm", "path"], name="one_border_per_folder")
        ]

    def __str__(self) -> str:
        return f"{self.path} at {self.generation}"


class Publication(models.Model):
    """Says that the published realm `realm`, at its generation `generation`, shows the files that
    the source realm `source` has at its generation `source_generation`.

    Each generation of a published realm has its own publication.
    """

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE, related_name="publications")
    generation = models.PositiveBigIntegerField()
    source = models.ForeignKey(Realm, on_delete=models.CASCADE, related_name="+")
    source_generation = models.PositiveBigIntegerField()
    by = models.CharField(max_length=150, help_text="the name of the user, or of the operator")
    at = models.DateTimeField(auto_now_add=True)
    lock_waited = models.FloatField(
        null=True, help_text="how long the publish took to get its locks, in seconds"
    )
    locked_at = models.DateTimeField(
        null=True, help_text="when the publish got the locks, by the database's clock"
    )
    lock_held = models.FloatField(
        null=True, help_text="how long the publish held the locks before its commit, in seconds"
    )

    objects = models.Manager.from_queryset(PublicationQuerySet)()

    class Meta:
        ordering = ["-generation"]
        constraints = [
            models.UniqueConstraint(
                fields=["realm", "generation"], name="one_publication_per_generation"
            )
        ]
        triggers: ClassVar = [triggers.NOTE_LOCK_HELD]

    def __str__(self) -> str:
        return f"{self.realm_id} generation {self.generation}"


class Account(get_user_model()):  # type: ignore[misc]
    """A proxy of Django's user model. It adds a trigger to the table of users, which belongs to
    another app."""

    class Meta:
        proxy = True
        triggers: ClassVar = [triggers.NAMED_SINCE]


class AccountName(models.Model):
    """Says when an account got its current username. A trigger writes the rows
    (`triggers.NAMED_SINCE`).

    Some tokens identify an account only by the username. Such a token is invalid if it was issued
    before `since`, because another account may have had the username at that time.
    """

    account = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="+"
    )
    since = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.account_id} since {self.since}"


class RealmPermission(models.Model):
    """The permissions that an account, everyone, or everyone who is signed in has in a realm.

    A row refers to its account by key. So the permissions stay when the account is renamed, and are
    deleted with the account. Accounts and audiences have separate columns, so no username can be
    mistaken for an audience.
    """

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE, related_name="permissions")
    account = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="realm_permissions",
    )
    audience = models.CharField(
        max_length=10,
        null=True,
        blank=True,
        choices=[(EVERYONE, "everyone"), (SIGNED_IN, "everyone who is signed in")],
        help_text="whom the row is for, if it has no account",
    )
    read = models.BooleanField(default=False)
    write = models.BooleanField(default=False)
    realm_owner = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["realm", "account"],
                condition=models.Q(account__isnull=False),
                name="one_row_per_realm_account",
            ),
            models.UniqueConstraint(
                fields=["realm", "audience"],
                condition=models.Q(audience__isnull=False),
                name="one_row_per_realm_audience",
            ),
            models.CheckConstraint(
                condition=models.Q(account__isnull=False, audience__isnull=True)
                | models.Q(
                    account__isnull=True, audience__in=[EVERYONE, SIGNED_IN], realm_owner=False
                ),
                name="permission_of_an_account_or_an_audience",
            ),
        ]
        triggers: ClassVar = [triggers.ANNOUNCE_PERMISSION]

    def __str__(self) -> str:
        return f"{self.whom} in {self.realm_id}"

    @property
    def whom(self) -> str:
        """The username of the row's account, or the row's audience."""
        return self.account.get_username() if self.account else str(self.audience)


class TranspiledModule(models.Model):
    """The JavaScript that a transpiler made from a module's source, or the transpiler's error.

    `sha256` is a hash of the source and of the file's extension, and `transpiler` identifies the
    version of the transpiler. A changed source has another hash, so no row is ever outdated.
    """

    sha256 = models.CharField(max_length=64)
    transpiler = models.CharField(max_length=64)
    body = models.TextField(null=True)
    error = models.TextField(null=True, help_text="why the source could not be transpiled")
    made_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sha256", "transpiler"], name="one_body_per_source")
        ]

    def __str__(self) -> str:
        return self.sha256


class CoherenceReport(models.Model):
    """The result of one run of `manage.py verify_coherence`, which compares the replicas' answers
    with the database. A violation is an answer that stays wrong."""

    started_at = models.DateTimeField()
    seconds = models.FloatField(help_text="how long the run took")
    samples = models.PositiveIntegerField(
        help_text="how many answers the run compared with the database"
    )
    changes = models.PositiveIntegerField(
        help_text="how many changes the run followed to every replica"
    )
    within_1s = models.PositiveIntegerField(
        help_text="how many changes all replicas served within 1 s"
    )
    within_10s = models.PositiveIntegerField(
        help_text="how many changes all replicas served within 10 s"
    )
    within_60s = models.PositiveIntegerField(
        help_text="how many changes all replicas served within 60 s"
    )
    violations = models.PositiveIntegerField()
    unreachable = models.PositiveIntegerField(help_text="how many replicas did not respond")
    details = models.JSONField(help_text="the whole report, as `verify_coherence --json` prints it")

    class Meta:
        ordering = ["-started_at"]
        indexes = [models.Index(fields=["started_at"], name="report_by_start")]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S}: {self.violations} violations"
