"""Query sets with named filters for the tables of realms, file versions and publications."""

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
        """Returns the realms that have files of their own. Leaves out published realms, because
        each published realm shows the files of its source realm."""
        return self.exclude(kind="published")

    def published(self) -> Self:
        """Returns the published realms."""
        return self.filter(kind="published")

    def containing(self, url: str) -> Self:
        """Returns the realms around a URL, the innermost realm first. `url` is unescaped. There
        need not be a file at the URL."""
        return self.filter(url__in=realm_candidates(url)).order_by(Length("url").desc())


class FileVersionQuerySet(QuerySet[M]):
    """Queries for file versions by generation. A version is valid from its `from_generation` until
    its `until_generation` (exclusive). A version that is still current has no
    `until_generation`."""

    def open(self) -> Self:
        """Returns the current versions of files."""
        return self.filter(until_generation__isnull=True)

    def as_of(self, realm_id: UUID, generation: int) -> Self:
        """Returns the file versions that are valid at a generation of a realm. The realm must not
        be a published realm, because a published realm has no file versions of its own."""
        return self.filter(
            Q(until_generation__isnull=True) | Q(until_generation__gt=generation),
            realm_id=realm_id,
            from_generation__lte=generation,
        )

    def touched(self, low: int, high: int) -> Self:
        """Returns the file versions that became valid or ceased to be valid between two
        generations. The generation `low` is excluded, and `high` is included."""
        return self.filter(
            Q(from_generation__gt=low, from_generation__lte=high)
            | Q(until_generation__gt=low, until_generation__lte=high)
        )


class PublicationQuerySet(QuerySet[M]):
    """Queries for publications by generation."""

    def at(self, *generations: int) -> Self:
        """Returns the publications with these generations. Each generation of a published realm has
        its own publication. If this publication has been deleted, it is unknown what the realm
        showed at the generation. The caller must not use an older publication instead."""
        return self.filter(generation__in=generations)
