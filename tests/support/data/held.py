"""Reads realms and their files from the database's rows, and computes the text that each page must
show. A test compares the results with the answers of replicas. This module caches what it has read
until the test calls `look_anew`."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urljoin

from realms.content.blobs import read_blob
from realms.models import EVERYONE, FileVersion, Publication, Realm


@dataclass(frozen=True)
class Held:
    """The content of a realm at one generation, according to the database's rows."""

    realm: Realm
    generation: int

    @property
    def url(self) -> str:
        return self.realm.url

    @property
    def public(self) -> bool:
        return self.realm.pk in readable()

    @property
    def published(self) -> bool:
        return self.realm.kind == Realm.Kind.PUBLISHED

    @cache  # noqa: B019  `look_anew` clears this cache
    def files(self) -> dict[str, bytes]:
        """Returns the content of each file, by path."""
        realm_id, generation = self.realm.pk, self.generation
        if self.published:
            shown = Publication.objects.get(realm=self.realm, generation=generation)
            realm_id, generation = shown.source_id, shown.source_generation
        versions = FileVersion.objects.filter(realm=realm_id, from_generation__lte=generation)
        return {
            version.path: read_blob(version.blob_id, version.blob.data)
            for version in versions.select_related("blob")
            if version.until_generation is None or version.until_generation > generation
        }


@cache
def readable() -> set[Any]:
    """Returns the primary keys of the realms that everyone may read."""
    return set(Realm.objects.filter(permissions__audience=EVERYONE).values_list("pk", flat=True))


@cache
def realms() -> list[Realm]:
    """Returns all realms. A realm comes before each realm that contains it."""
    return sorted(Realm.objects.all(), key=lambda realm: -len(realm.url))


@cache
def held_at(url: str) -> Held | None:
    """Returns the innermost realm that contains a URL, with the realm's newest content."""
    around = (realm for realm in realms() if url.startswith(realm.url))
    return next((Held(realm, realm.generation) for realm in around), None)


def look_anew() -> None:
    """Clears the caches of this module, so that the next calls read the rows again."""
    for each in (Held.files, readable, realms, held_at):
        each.cache_clear()


def content(url: str) -> bytes | None:
    """Returns the content of a file, or None if its realm isn't public or has no such file."""
    held = held_at(url)
    if held is None or not held.public:
        return None
    return held.files().get(url.removeprefix(held.url))


def cards(held: Held) -> dict[str, str]:
    """Returns the text that each page of a realm must show, by the card's URL. The text consists of
    the label in label.ts, the card's title, and the title of the linked card."""
    found: dict[str, str] = {}
    mine = held.files()
    for path, data in mine.items():
        file = held.url + path
        inside = held_at(file)
        if not path.endswith(".json") or inside is None or inside.url != held.url:
            continue
        attributes, links = json.loads(data)["data"]["attributes"], json.loads(data)["data"]
        module = "label.ts"
        label = mine[module].decode().split('"')[1]
        link = (links["relationships"].get("next") or {}).get("links", {}).get("self")
        title = "alone"
        if link is not None:
            target = urljoin(file, f"{link}.json")
            data_there = mine.get(target.removeprefix(held.url))
            if (there := held_at(target)) is not None and there.url != held.url:
                data_there = content(target)
            if data_there is not None:
                title = json.loads(data_there)["data"]["attributes"]["title"]
        url = file.removesuffix(".json").removesuffix("index")
        found[url] = f"{label}, {attributes['title']}, {title}"
    return found
