"""Reads a realm's current files, and creates a realm's index (its pages) without rendering."""

from definitions.models import CacheGeneration, Definition
from realms.content.blobs import read_blob
from realms.content.history import versions_at
from realms.models import Realm
from reindex.models import IndexedCard, IndexHead, ReindexJob


def shown(url: str) -> dict[str, bytes]:
    """Returns the files of a realm at its current generation."""
    realm = Realm.objects.get(url=url)
    versions = versions_at(realm, realm.generation).select_related("blob")
    return {each.path: read_blob(each.blob_id, each.blob.data) for each in versions}


def generation(url: str) -> int:
    return Realm.objects.get(url=url).generation


def indexed(url: str) -> None:
    """Marks a realm's queued job as done, without rendering. Creates the page `index`, and
    empty definitions of the module post.tsx. Definitions describe what a module exports."""
    job = ReindexJob.objects.get(realm_url=url, status="queued")
    ReindexJob.objects.filter(pk=job.pk).update(status="done")
    IndexedCard.objects.create(
        job=job, realm_url=url, path="index", current=True, html={"isolated": "<p>old</p>"}
    )
    IndexHead.objects.update_or_create(
        realm_url=url,
        defaults={"job": job, "generation": job.generation, "swapped_at": job.created_at},
    )
    counters = {
        scope: CacheGeneration.objects.get_or_create(scope=scope, key=key)[0].generation
        for scope, key in (("global", ""), ("realm", url), ("module", f"{url}post.tsx"))
    }
    Definition.objects.create(
        module_url=f"{url}post.tsx",
        realm_url=url,
        definitions={},
        global_generation=counters["global"],
        realm_generation=counters["realm"],
        module_generation=counters["module"],
        built_at=job.created_at,
        build_ms=1,
    )
