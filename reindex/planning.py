"""What a job has to render: everything, or what has changed since the last index.

Carrying over is allowed only where nothing that a row was made from has other content now. Each
realm tells over HTTP which of its files differ between the generation that the index read and the
one that this job reads; a realm that can't tell, or that can't be read any more, counts as changed
in every file. Whatever is in doubt is rendered.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from reindex import jobs
from reindex.made_from import key
from reindex.models import IndexedCard, IndexHead, ReindexJob
from reindex.pins import Pin
from reindex.replicas import ReplicaUnavailable, ask_registry, get_pinned

API = "application/vnd.api+json"
#: Sources of the prerenderer, besides the card library, which is a realm like any other.
_RENDERER = ("reindex/deno/*.ts", "deno.json", "deno.lock")

_TO_RENDER = """
SELECT path FROM reindex_indexedcard
WHERE realm_url = %(url)s AND current AND (NOT settled OR made_from && %(keys)s::bigint[])
"""


@cache
def renderer() -> str:
    """The hash of the code that renders: another release renders every card anew."""
    digest = hashlib.sha256()
    for pattern in _RENDERER:
        for path in sorted(Path(settings.BASE_DIR).glob(pattern)):
            if not path.name.endswith("_test.ts"):
                digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def plan(job: ReindexJob) -> jobs.Plan:
    """What a job has to do. Raises ReplicaUnavailable and WrongGeneration."""
    head = IndexHead.objects.select_related("job").filter(realm_url=job.realm_url).first()
    carries = head is not None and not job.full and head.job.renderer == renderer()
    incremental = _incremental(job, head.job) if head is not None and carries else None
    return incremental or _full(job)


def _full(job: ReindexJob) -> jobs.Plan:
    files = _manifest(Pin(job.realm_url, job.generation))
    assert files is not None
    pins = {job.realm_url: job.generation}
    return jobs.Plan(_cards(files), pins, renderer=renderer())


def _incremental(job: ReindexJob, base: ReindexJob) -> jobs.Plan | None:
    """A plan that carries over what it can; None where history doesn't reach back to the base."""
    own = _manifest(Pin(job.realm_url, job.generation), since=base.generation)
    if own is None:
        return None
    # From here on a change of any of these realms has this job followed by another.
    jobs.announce(job.pk, {**base.pins, job.realm_url: job.generation})
    pins = {job.realm_url: job.generation}
    keys = {key(job.realm_url, path) for path in own}
    for realm_url, then in base.pins.items():
        if realm_url != job.realm_url:
            now = _generation(realm_url)
            changed = _changed_elsewhere(realm_url, then, now)
            keys |= {key(realm_url)} if changed is None else changed
            if now is not None:
                pins[realm_url] = now
    with connection.cursor() as cursor:
        cursor.execute(_TO_RENDER, {"url": job.realm_url, "keys": list(keys)})
        again = {f"{path}.json" for (path,) in cursor.fetchall()}
    paths = _cards(again | own.keys())
    rows = IndexedCard.objects.filter(realm_url=job.realm_url, current=True)
    taken = rows.filter(path__in=[path.removesuffix(".json") for path in paths]).count()
    return jobs.Plan(paths, pins, base.pk, rows.count() - taken, renderer())


def _generation(realm_url: str) -> int | None:
    """The generation of a public realm by the registry, after every change that has begun; None if
    it is gone, or is private now."""
    jobs.wait_for_writers(realm_url)
    told = ask_registry(realm_url).headers
    if told.get("x-boxel-realm-url") != realm_url:
        return None
    return int(told["x-realm-generation"]) if _public(told) else None


def _public(headers: Any) -> bool:
    return bool(headers.get("x-boxel-realm-public-readable") == "true")


def _changed_elsewhere(realm_url: str, then: int, now: int | None) -> set[int] | None:
    """The keys of another realm's files that have changed; None if that can't be told."""
    if now == then:
        return set()
    files = None if now is None else _manifest(Pin(realm_url, now), since=then)
    return None if files is None else {key(realm_url, path) for path in files}


def _manifest(pin: Pin, since: int | None = None) -> dict[str, str | None] | None:
    """The files of a realm, or those that are not what they were at an earlier generation; None
    where history doesn't reach back that far."""
    query = "" if since is None else f"?since={since}"
    response = get_pinned(pin, "", API, query=query)
    if response.status == 410:
        return None
    if response.status != 200:
        raise ReplicaUnavailable(f"{response.replica} answered {response.status}")
    files: dict[str, str | None] = json.loads(response.body)["data"]["attributes"]["files"]
    return files


def _cards(paths: Any) -> list[str]:
    """The files that may be cards, the front page first."""
    cards = (path for path in paths if path.endswith(".json") and path != "realm.json")
    return sorted(cards, key=lambda path: (path != "index.json", path))
