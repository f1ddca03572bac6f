"""Helps to test the admin, the web pages for operators. Logs users in, reads the text of pages, and
creates database rows for the admin to show."""

from datetime import timedelta
from typing import Any

import psycopg
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.utils import timezone
from django.utils.html import strip_tags

from definitions.models import CacheGeneration, Definition
from notifications.channels import REALM_REGISTRY
from notifications.models import Election, Replica, ReplicaGeneration
from realms.models import Publication, Realm
from reindex.models import IndexHead, ReindexBatch, ReindexJob

PUBLISHED = "http://ada.localhost:4201/"

Heard = psycopg.Connection[tuple[Any, ...]]


def browser_of(user: Any) -> Client:
    client = Client(headers={"host": "localhost:4201"})
    client.force_login(user)
    return client


def make_staff(name: str, *permissions: str) -> Any:
    user = get_user_model().objects.create_user(name, password=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def address_of(realm: Realm, action: str) -> str:
    return f"/_admin/realms/realm/{realm.pk}/{action}/"


def press(browser: Client, realm: Realm, action: str, **form: str) -> Any:
    return browser.post(address_of(realm, action), form, follow=True)


def newest_of(realm: Realm) -> Publication:
    newest = realm.publications.first()
    assert newest is not None
    return newest


def definitions_counter() -> int:
    return CacheGeneration.objects.get(scope="realm", key=PUBLISHED).generation


def heard_by(ear: Heard) -> set[tuple[str, str]]:
    """Returns the Postgres notifications that the connection `ear` got since the last call. To find
    the end, sends a final notification and reads until it arrives. Postgres delivers notifications
    in commit order, so all earlier notifications arrive before the final one."""
    connection.cursor().execute("SELECT pg_notify(%s, 'over')", [REALM_REGISTRY])
    heard: set[tuple[str, str]] = set()
    for notification in ear.notifies(timeout=10):
        if notification.payload == "over":
            return heard
        heard.add((notification.channel, notification.payload))
    raise AssertionError("the final notification did not arrive within 10 s")


def make_replica(name: str, applied: dict[str, int], silent: timedelta = timedelta()) -> None:
    then = timezone.now() - silent
    replica = Replica.objects.create(
        name=name,
        address="http://127.0.0.1:1",
        state="live",
        sidecar_pid=1,
        watermark_at=then,
        reported_at=then,
    )
    for url, generation in applied.items():
        ReplicaGeneration.objects.create(
            replica=replica, realm_url=url, generation=generation, applied_at=then
        )


def make_one_row_of_everything(published: Realm) -> None:
    from realms.models import CoherenceReport, RealmBorder, RealmTombstone, TranspiledModule
    from reindex.models import Hang, IndexedCard, OwnerUsage, WantedDefinitions, Worker

    now = timezone.now()
    Hang.objects.create(
        key="0" * 64, realm_url=PUBLISHED, url=f"{PUBLISHED}a", error={}, signs=2, job_id=1,
        seen_at=now,
    )  # fmt: skip
    WantedDefinitions.objects.create(module_url=f"{PUBLISHED}post.tsx", due_at=now)
    OwnerUsage.objects.create(owner="1", seconds=1, counted_at=now)
    Worker.objects.create(
        name="w@host", host="host", pid=1, processes=2, started_at=now, heard_at=now
    )
    make_replica("a b/c", {PUBLISHED: 2})
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    ReindexBatch.objects.create(job=job, paths=["index.json"])
    IndexedCard.objects.create(
        job=job, realm_url=PUBLISHED, path="index", current=True, html={"isolated": "<b>" * 5000}
    )
    IndexHead.objects.create(realm_url=PUBLISHED, job=job, generation=1, swapped_at=now)
    RealmTombstone.objects.create(url="http://gone.localhost:4201/", generation=4)
    TranspiledModule.objects.update_or_create(sha256="0" * 64, transpiler="deno", body="export {};")
    CoherenceReport.objects.create(
        started_at=now, seconds=1, samples=9, changes=3, within_1s=2, within_10s=3, within_60s=3,
        violations=0, unreachable=0, details={},
    )  # fmt: skip
    module = f"{PUBLISHED}post.tsx"
    RealmBorder.objects.create(realm=Realm.objects.get(url=PUBLISHED), path="in/", generation=2)
    Election.objects.create(key=1, holder=2, lease_until=now)
    CacheGeneration.objects.get_or_create(scope="global", key="")
    CacheGeneration.objects.get_or_create(scope="module", key=module)
    Definition.objects.create(
        module_url=module, realm_url=PUBLISHED, definitions={"Post": {}}, built_at=now, build_ms=1,
        global_generation=0, realm_generation=definitions_counter(), module_generation=0,
    )  # fmt: skip


def words_of(answer: Any) -> str:
    """Returns the text of a page, without tags."""
    return text_of(answer.content.decode())


def text_of(html: str) -> str:
    return " ".join(strip_tags(html.replace("<", " <")).split())
