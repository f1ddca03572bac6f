"""Runs this release's `migrate` on the databases of earlier releases. Each of these databases has
all kinds of content."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.core.management import call_command
from django.db import connection

from definitions.models import Definition
from realms.access.auth import Caller, permissions_of
from realms.content.blobs import read_blob
from realms.content.history import versions_at
from realms.models import Publication, Realm, RealmTombstone
from reindex.models import IndexedCard, IndexHead, ReindexJob
from reindex.prerender.pool import renderers
from reindex.reading import modules
from tests.support import make
from tests.support.data.dumps import DUMPS, database_of, use
from tests.support.rendering import WORK, work_off
from tests.support.web import API, SOURCE, Web, served

pytestmark = pytest.mark.django_db(transaction=True)

ORIGIN = "http://localhost:4201"
ADAS, BENS, SITE = f"{ORIGIN}/ada/site/", f"{ORIGIN}/ben/private/", "http://ada.localhost:4201/"
#: The size of the file big.bin in the dumps. A file of this size is stored outside the database.
BIG_BYTES = 70_000


@pytest.fixture(params=[path.name.removesuffix(".tar.gz") for path in sorted(DUMPS.iterdir())])
def migrated(
    request: pytest.FixtureRequest, sent: Any, settings: Any, tmp_path: Path
) -> Iterator[None]:
    """Restores the database and the blobs (the contents of files) of an earlier release, and
    migrates the database."""
    blobs = {"BACKEND": "settings.storage.SyncedFileSystemStorage"}
    blobs_here = {**blobs, "OPTIONS": {"location": str(tmp_path / "blobs")}}
    settings.STORAGES = {**settings.STORAGES, "blobs": blobs_here}
    modules.forget_modules()
    renderers.shutdown()
    with database_of(request.param, tmp_path):
        call_command("migrate", verbosity=0)
        yield


@pytest.fixture
def site(migrated: None) -> Iterator[Web]:
    """Yields a server that runs on the migrated database."""
    with served() as running:
        yield running


def test_realms_publications_jobs_and_pages_survive_the_migration(migrated: None) -> None:
    realms = dict(Realm.objects.exclude(kind="bootstrap").values_list("url", "generation"))
    assert realms == {ADAS: 4, BENS: 2, SITE: 3}
    shown = Publication.objects.filter(realm__url=SITE).order_by("generation")
    assert list(shown.values_list("generation", "source_generation")) == [(1, 2), (2, 3), (3, 4)]
    assert list(RealmTombstone.objects.values_list("url", "generation")) == [
        (f"{ORIGIN}/ben/gone/", 2)
    ]
    assert {job.status for job in ReindexJob.objects.filter(realm_url=SITE)} == {"done", "queued"}
    assert IndexHead.objects.get(realm_url=SITE).generation == 2
    cards = IndexedCard.objects.filter(realm_url=SITE, current=True)
    assert set(cards.values_list("path", flat=True)) == {"ada", "index"}
    # `migrate` has dropped the definitions, because they were built with the card library of the
    # earlier release.
    assert not Definition.objects.exists()


def test_each_file_version_still_has_its_bytes(migrated: None) -> None:
    source = Realm.objects.get(url=ADAS)

    def content(path: str, generation: int) -> bytes:
        version = versions_at(source, generation).select_related("blob").get(path=path)
        return read_blob(version.blob_id, version.blob.data)

    assert content("notes/one.txt", 4) == b"the first note"
    assert len(content("big.bin", 4)) == BIG_BYTES
    bodies = (b"old bytes", b"newer bytes", b"bytes that wait")
    for generation, body in enumerate(bodies, 2):
        assert body in content("index.json", generation)


def test_each_account_keeps_its_permissions(migrated: None) -> None:
    may = {
        (url, name): permissions_of(
            Realm.objects.get(url=url), Caller.of(make.account(name)) if name else None
        )
        for url in (ADAS, BENS)
        for name in ("ada", "ben", "cyn", "")
    }
    everything = {"read", "write", "realm-owner"}
    assert may == {
        (ADAS, "ada"): everything, (ADAS, "ben"): {"read"}, (ADAS, "cyn"): {"read"},
        (ADAS, ""): {"read"}, (BENS, "ada"): set(), (BENS, "ben"): everything,
        (BENS, "cyn"): {"read"}, (BENS, ""): set(),
    }  # fmt: skip


def test_visitors_see_the_old_pages_until_the_new_ones_are_ready(
    site: Web, sent: list[tuple[str, Any]]
) -> None:
    """The earlier release has queued the first job. A publish in this release queues the second
    job."""
    assert site.get(f"{ADAS}notes/one.txt").text == "the first note"
    assert site.get(f"{BENS}secret.txt", SOURCE).status == 401
    assert "newer bytes" in site.get(SITE).text
    asked = f"{ADAS}_definition?module={quote(f'{ADAS}post.tsx')}&name=Post"
    assert "author" in site.get(asked, API).text
    sent[:] = [WORK]
    work_off(sent)
    assert "bytes that wait" in site.get(SITE).text
    source = Realm.objects.get(url=ADAS)
    text = make.card("./post", "Post", title="Home", body="bytes of now")
    assert make.write(source, index__json=text) == 5
    assert make.publish(source, SITE).generation == 4
    assert "bytes that wait" in site.get(SITE).text
    work_off(sent)
    assert "bytes of now" in site.get(SITE).text
    assert "Ada" in str(IndexedCard.objects.get(realm_url=SITE, path="ada", current=True).search)


def test_a_migrated_database_has_the_schema_of_a_new_one(migrated: None) -> None:
    """The migrations must lose no index, constraint or trigger."""
    old = schema()
    name = connection.settings_dict["NAME"]
    use(name.partition("_of_")[0])
    try:
        assert old == schema()
    finally:
        use(name)


def schema() -> set[tuple[str, ...]]:
    """Returns the columns, indexes, constraints and triggers of the connected database."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT table_name, column_name, data_type, is_nullable, column_default
            FROM information_schema.columns WHERE table_schema = 'public'
            UNION SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes
            WHERE schemaname = 'public'
            UNION SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid),
                         md5(pg_get_functiondef(tgfoid)), ''
            FROM pg_trigger WHERE NOT tgisinternal
            """
        )
        return set(cursor.fetchall())
