"""Inserts the rows of a realm's index that a finished job leaves, without rendering anything. The
index has one row for each card, with the card's HTML and search document, or with an error
document. A search document holds the data of a card that searches use."""

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from reindex.index.words import searchable
from reindex.models import IndexedCard, IndexHead, ReindexJob

CARD = "@realm/base/Card"


def put_index(
    realm_url: str,
    generation: int,
    cards: Mapping[str, dict[str, Any]],
    errors: Mapping[str, dict[str, Any]] | None = None,
) -> ReindexJob:
    """Replaces a realm's index with an index of `generation`. `cards` has the search document of
    each rendered card, by the card's path. The page of a rendered card has its path as text.
    `errors` has the error document of each other card, by the card's path."""
    now = timezone.now()
    ReindexJob.objects.filter(realm_url=realm_url).update(status=ReindexJob.Status.DONE)
    job = ReindexJob.objects.create(
        realm_url=realm_url, generation=generation, status=ReindexJob.Status.DONE, finished_at=now
    )
    IndexedCard.objects.filter(realm_url=realm_url).delete()
    shown = {"job": job, "realm_url": realm_url, "current": True}
    IndexedCard.objects.bulk_create(
        [
            *(
                IndexedCard(
                    **shown,
                    path=path,
                    html={"isolated": f"<p>page of {path}</p>", "head": ""},
                    search=searchable(document),
                )
                for path, document in cards.items()
            ),
            *(
                IndexedCard(**shown, path=path, error=error)
                for path, error in (errors or {}).items()
            ),
        ]
    )
    IndexHead.objects.update_or_create(
        realm_url=realm_url, defaults={"job": job, "generation": generation, "swapped_at": now}
    )
    return job


def search_document(
    url: str,
    module: str,
    name: str,
    fields: Mapping[str, Any],
    *,
    adopts: tuple[str, ...] = (),
    **values: Any,
) -> dict[str, Any]:
    """Returns a search document like those that `card_library/search.ts` makes. `fields` has the
    types of the card's fields, and `values` has their values. The card's type inherits from the
    types in `adopts`."""
    texts = [value for value in values.values() if isinstance(value, str)]
    return {
        "id": url,
        **dict.fromkeys(fields),
        **values,
        "_type": {"module": module, "name": name},
        "_types": [f"{module}/{name}", *adopts, CARD],
        "_title": values.get("title") or values.get("name") or url.rsplit("/", 1)[-1],
        "_fields": fields,
        "_text": "\n".join(texts),
    }  # fmt: skip
