"""Defines the named queries for the registry's tables."""

from typing import Self, TypeVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.db.models.functions import Length

from realms.addresses import realm_candidates

M = TypeVar("M", bound=Model, covariant=True)


class RealmQuerySet(QuerySet[M]):
    """Queries for realms by kind and by URL."""

    def sources(self) -> Self:
        """Returns the source realms."""
        return self.filter(kind="source")

    def with_own_files(self) -> Self:
        """Returns the realms that have files of their own. Published realms are left out, because
        they show the files of their source."""
        return self.exclude(kind="published")

    def published(self) -> Self:
        """Returns the published realms."""
        return self.filter(kind="published")

    def containing(self, url: str) -> Self:
        """Returns the realms that contain a URL (unescaped), the innermost first. No file needs to
        exist at the URL."""
        return self.filter(url__in=realm_candidates(url)).order_by(Length("url").desc())


class FileVersionQuerySet(QuerySet[M]):
    """Queries for file versions by generation."""

    def open(self) -> Self:
        """Returns the current versions of files."""
        return self.filter(until_generation__isnull=True)

    def as_of(self, realm_id: UUID, generation: int) -> Self:
        """Returns the file versions that are valid at a generation of a realm with files of its
        own."""
        return self.filter(
            Q(until_generation__isnull=True) | Q(until_generation__gt=generation),
            realm_id=realm_id,
            from_generation__lte=generation,
        )

    def touched(self, low: int, high: int) -> Self:
        """Returns the file versions that were opened or closed after the generation `low` and up to
        `high`."""
        return self.filter(
            Q(from_generation__gt=low, from_generation__lte=high)
            | Q(until_generation__gt=low, until_generation__lte=high)
        )


class PublicationQuerySet(QuerySet[M]):
    """Queries for publications by generation."""

    def at(self, *generations: int) -> Self:
        """Returns the publications of exactly these generations. Never returns an older publication
        in place of a missing one, because each generation of a published realm has its own
        publication."""
        return self.filter(generation__in=generations)
