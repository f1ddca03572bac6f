"""The admin: what can be looked at, what can't be edited, and the page *Cache generations*."""

from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import strip_tags

from definitions.models import CacheGeneration
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    REALM_FILE_CHANGES,
    REALM_REGISTRY,
    realm_definitions_cleared,
)
from notifications.connection import listen_connection
from notifications.models import Election, Replica, ReplicaGeneration
from realms.models import FileVersion, Publication, Realm, RealmPermission
from reindex.models import IndexHead, ReindexBatch, ReindexJob
from tests.support import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PUBLISHED = "http://ada.localhost:4201/"
PAGE = "/_admin/realms/realm/generations/"

Heard = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def root() -> Client:
    """A superuser's browser."""
    return _browser(get_user_model().objects.create_superuser("root", password="root"))


@pytest.fixture
def published(source: Realm) -> Realm:
    """The published realm, which shows its source's generation 3 after 2."""
    make.publish(source, PUBLISHED)
    make.write(source, post__tsx=b"export const edition = 2;")
    make.publish(source, PUBLISHED)
    return Realm.objects.get(url=PUBLISHED)


@pytest.fixture
def ear(transactional_db: None) -> Iterator[Heard]:
    """A connection that listens as a sidecar does."""
    with listen_connection() as listening:
        for channel in (REALM_FILE_CHANGES, DEFINITION_CACHE_INVALIDATED, REALM_REGISTRY):
            listening.execute(f"LISTEN {channel}".encode())
        yield listening


# --- Models ------------------------------------------------------------------------------------


def test_every_model_is_registered() -> None:
    for app in ("notifications", "definitions", "reindex", "realms"):
        for model in apps.get_app_config(app).get_models():
            if not model._meta.proxy:
                assert admin.site.is_registered(model), model


def test_a_superuser_edits_only_publishable_and_permissions(root: Client) -> None:
    request = RequestFactory().get("/")
    request.user = get_user_model().objects.get(username="root")
    for model, options in _ours():
        if model is RealmPermission:
            continue
        assert not options.has_add_permission(request), model
        assert not options.has_delete_permission(request), model
        assert options.has_change_permission(request) == (model is Realm), model


def test_every_list_and_every_row_can_be_looked_at(root: Client, published: Realm) -> None:
    _one_row_of_everything(published)
    for model, _ in _ours():
        at = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        listed = root.get(reverse(f"{at}_changelist"), {"q": "a"})
        assert listed.status_code == 200, model
        row = model._default_manager.first()
        assert row is not None, model
        shown = root.get(reverse(f"{at}_change", args=[quote(row.pk)]))
        assert shown.status_code == 200, model


def test_the_list_of_jobs_says_how_far_each_is_and_what_it_came_to(
    root: Client, published: Realm
) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    kind = {"status": 422, "title": "Wrong field", "message": 'Post has no field "titel"',
            "causes": [], "module": None, "count": 1, "cards": ["index"]}  # fmt: skip
    summary = {"errors": [kind]}
    begun = timezone.now() - timedelta(seconds=2.5)
    for status, told, ended in (("rendering", "500 of 1,200 files", None), ("done", "450", begun)):
        ReindexJob.objects.filter(pk=job.pk).update(
            status=status, total=1200, seen=500, rendered=450, carried=7000, errors=1,
            started_at=begun, finished_at=ended and begun + timedelta(seconds=1.25),
            summary=summary,
        )  # fmt: skip
        words = _words(root.get(reverse("admin:reindex_reindexjob_changelist")))
        assert f"{status.capitalize()} {told} 7000 1" in words
    assert "1.2 s" in words
    shown = root.get(reverse("admin:reindex_reindexjob_change", args=[job.pk])).content.decode()
    assert '"index"\n' in unescape(shown)


def test_a_file_version_cannot_be_changed_by_a_superuser(root: Client, source: Realm) -> None:
    version = FileVersion.objects.filter(realm=source).earliest("pk")
    address = f"/_admin/realms/fileversion/{version.pk}/"
    assert root.post(f"{address}change/", {"path": "elsewhere"}).status_code == 403
    assert root.post(f"{address}delete/", {"post": "yes"}).status_code == 403
    assert FileVersion.objects.get(pk=version.pk).path == version.path


def test_saving_publishable_writes_nothing_else(
    root: Client, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = admin.site.get_model_admin(Realm)
    save = options.save_model

    def publish_in_between(request: Any, obj: Any, *more: Any) -> None:
        Realm.objects.filter(pk=source.pk).update(generation=99)
        save(request, obj, *more)

    monkeypatch.setattr(options, "save_model", publish_in_between)
    answer = root.post(f"/_admin/realms/realm/{source.pk}/change/", {"url": "http://x/"})
    assert answer.status_code == 302
    source.refresh_from_db()
    assert (source.publishable, source.generation) == (False, 99)
    assert source.url == "http://localhost:4201/ada/site/"


def test_a_permission_that_is_saved_is_announced(root: Client, source: Realm, ear: Heard) -> None:
    make.user("grace")
    cleared = realm_definitions_cleared(source.url)
    told = {(REALM_REGISTRY, f"upsert:{source.url}"), (cleared.channel, cleared.payload)}
    form = {"realm": source.pk, "account": make.account("grace").pk, "read": "on"}
    assert root.post("/_admin/realms/realmpermission/add/", form).status_code == 302
    assert _heard(ear) == told
    row = RealmPermission.objects.get(account__username="grace")
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    assert root.post("/_admin/realms/realmpermission/", chosen).status_code == 302
    assert _heard(ear) == told


# --- The matrix --------------------------------------------------------------------------------


def test_the_matrix_shows_committed_and_applied_and_marks_who_is_behind(
    root: Client, published: Realm
) -> None:
    _replica("a", {PUBLISHED: 2})
    _replica("b", {PUBLISHED: 1})
    _replica("c", {PUBLISHED: 1}, silent=timedelta(minutes=5))
    _replica("d", {PUBLISHED: 1}, silent=timedelta(days=3))
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    IndexHead.objects.create(realm_url=PUBLISHED, job=job, generation=1, swapped_at=timezone.now())
    cells = _cells(root.get(PAGE), PUBLISHED)
    assert cells[:5] == [
        "2",
        "1 2 queued",
        "2 ✓ up to date",
        "1 behind by 1",
        "1 last known",
    ]
    page = _words(root.get(PAGE))
    assert "a live http://127.0.0.1:1 watermark" in page
    assert "c gone http://127.0.0.1:1 last report" in page
    assert "3 replicas" in page
    assert "1 more not heard of for a day" in page


def test_a_replica_whose_watermark_stands_still_is_late(root: Client) -> None:
    _replica("a", {})
    Replica.objects.update(watermark_at=timezone.now() - timedelta(seconds=9))
    assert "a late" in _words(root.get(PAGE))


def test_hundreds_of_realms_cost_no_more_queries_than_one(root: Client, published: Realm) -> None:
    _replica("a", {PUBLISHED: 2})
    few = _queries(root)
    owner = published.owner
    for number in range(120):
        url = f"http://localhost:4201/ada/many-{number}/"
        Realm.objects.create(url=url, kind=Realm.Kind.SOURCE, owner=owner)
    _replica("b", {realm.url: realm.generation for realm in Realm.objects.all()})
    assert _queries(root) == few
    assert "Page 3 of 3" in _words(root.get(PAGE, {"p": "3"}))
    found = _words(root.get(PAGE, {"q": "MANY-11"}))
    assert "11 realms whose URL contains" in found
    assert "many-119/" in found
    assert "many-12/" not in found


def test_the_part_that_refreshes_is_the_table_alone(root: Client, published: Realm) -> None:
    fragment = root.get(PAGE, {"fragment": "1", "q": "ada."}).content.decode()
    assert fragment.lstrip().startswith("<table>")
    assert PUBLISHED in fragment
    assert "<html" not in fragment


def test_the_page_is_linked_from_the_index_and_the_list_of_realms(root: Client) -> None:
    for address in ("/_admin/", "/_admin/realms/realm/"):
        assert PAGE in root.get(address).content.decode()


# --- Acting ------------------------------------------------------------------------------------


def test_clear_broadcasts_and_drops_the_definitions(
    root: Client, published: Realm, ear: Heard
) -> None:
    before = _definitions_counter()
    answer = root.post(_address(published, "clear"), follow=True)
    assert "Cleared the source caches" in _words(answer)
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in _heard(ear)
    assert _definitions_counter() == before + 1
    published.refresh_from_db()
    assert published.generation == 2
    assert LogEntry.objects.get().user.get_username() == "root"


def test_publish_again_shows_the_source_as_it_stands(
    root: Client, source: Realm, published: Realm, ear: Heard
) -> None:
    make.write(source, post__tsx=b"export const edition = 3;")
    _heard(ear)
    answer = root.post(_address(published, "publish") + "?q=ada&p=1&x=1")
    assert answer["Location"] == f"{PAGE}?q=ada&p=1"
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in _heard(ear)
    newest = _newest(published)
    assert (newest.generation, newest.source_generation) == (3, 4)
    assert ReindexJob.objects.get(status="queued").generation == 3


def test_a_source_offers_its_published_urls_and_takes_a_new_one(
    root: Client, source: Realm, published: Realm
) -> None:
    offered = root.get(PAGE, {"q": "/ada/site/"}).content.decode()
    assert f'name="target" value="{PUBLISHED}"' in offered
    new = "http://docs.ada.localhost:4201/"
    answer = root.post(_address(source, "publish"), {"target": new}, follow=True)
    assert f"Published generation 3 of {source.url} to {new}, which is at generation 1" in _words(
        answer
    )
    assert Realm.objects.get(url=new).source == source


def test_a_rollback_is_confirmed_by_what_it_returns_to(
    root: Client, published: Realm, ear: Heard
) -> None:
    asked = root.get(_address(published, "rollback"))
    words = _words(asked)
    assert "goes from generation 2 back to what it showed at generation 1" in words
    assert "by ada" in words
    assert "1 file differs. post.tsx" in words
    assert _newest(published).generation == 2
    answer = root.post(_address(published, "rollback"), {"publication": "1"}, follow=True)
    assert "back to what it showed at generation 1; it is at generation 3" in _words(answer)
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in _heard(ear)
    newest = _newest(published)
    assert (newest.generation, newest.source_generation) == (3, 2)


def test_refusals_are_told_as_messages(root: Client, source: Realm) -> None:
    make.publish(source, PUBLISHED)
    realm = Realm.objects.get(url=PUBLISHED)
    gone = Realm(url="http://gone.localhost:4201/")
    asked: list[tuple[Any, str]] = [
        (root.get(_address(realm, "rollback"), follow=True), "no publication before this one"),
        (_post(root, realm, "rollback", publication="7"), "no publication of generation 7"),
        (_post(root, realm, "rollback", publication="-1"), "expected a generation"),
        (_post(root, source, "rollback", publication="1"), f"{source.url} not found"),
        (_post(root, source, "publish", target="http://example.com/"), "not below a domain"),
        (_post(root, source, "publish", target="\0"), "Invalid realm URL"),
        (_post(root, source, "publish"), "Invalid realm URL"),
        (_post(root, gone, "clear"), "was not found"),
    ]
    for answer, why in asked:
        assert answer.status_code == 200
        assert [why for told in answer.context["messages"] if why in str(told)], why
        assert answer.context["messages"]._loaded_data[0].level_tag == "error"


def test_anonymous_visitors_and_users_who_are_no_staff_are_refused(published: Realm) -> None:
    for browser in (
        Client(headers={"host": "localhost:4201"}),
        _browser(get_user_model().objects.get(username="ada")),
    ):
        assert browser.get(PAGE)["Location"].startswith("/_admin/login/")
        for name in ("clear", "publish", "rollback"):
            answer = browser.post(_address(published, name), {"publication": "1"})
            assert answer["Location"].startswith("/_admin/login/")
    assert _newest(published).generation == 2


def test_staff_see_and_do_what_their_permissions_allow(published: Realm) -> None:
    stranger = _browser(_staff("grace"))
    assert stranger.get(PAGE).status_code == 403
    viewer = _browser(_staff("lin", "view_realm"))
    assert "Publish again" not in _words(viewer.get(PAGE))
    assert viewer.post(_address(published, "clear")).status_code == 403


def test_staff_who_are_no_operators_act_as_themselves(published: Realm) -> None:
    other = _browser(_staff("grace", "change_realm"))
    for name in ("clear", "publish", "rollback"):
        answer = _post(other, published, name, publication="1")
        assert "@grace:localhost is not allowed" in _words(answer), name
    ada = get_user_model().objects.get(username="ada")
    ada.is_staff = True
    ada.save()
    ada.user_permissions.add(Permission.objects.get(codename="change_realm"))
    _post(_browser(ada), published, "publish")
    assert _newest(published).by == "ada"


def test_actions_need_a_csrf_token_and_a_post(published: Realm) -> None:
    user = get_user_model().objects.create_superuser("root", password="root")
    strict = Client(enforce_csrf_checks=True, headers={"host": "localhost:4201"})
    strict.force_login(user)
    assert strict.post(_address(published, "publish")).status_code == 403
    assert strict.get(_address(published, "publish")).status_code == 405
    page = strict.get(PAGE)
    assert page["X-Frame-Options"] == "DENY"
    token = str(page.context["csrf_token"])
    answer = strict.post(_address(published, "publish"), {"csrfmiddlewaretoken": token})
    assert answer.status_code == 302
    assert _newest(published).generation == 3


# --- Helpers -----------------------------------------------------------------------------------


def _ours() -> list[tuple[Any, Any]]:
    apps_of_ours = {"notifications", "definitions", "reindex", "realms"}
    return [
        (model, options)
        for model, options in admin.site._registry.items()
        if model._meta.app_label in apps_of_ours
    ]


def _browser(user: Any) -> Client:
    client = Client(headers={"host": "localhost:4201"})
    client.force_login(user)
    return client


def _staff(name: str, *permissions: str) -> Any:
    user = get_user_model().objects.create_user(name, password=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def _address(realm: Realm, action: str) -> str:
    return f"{PAGE}{realm.pk}/{action}/"


def _post(browser: Client, realm: Realm, action: str, **form: str) -> Any:
    return browser.post(_address(realm, action), form, follow=True)


def _newest(realm: Realm) -> Publication:
    newest = realm.publications.first()
    assert newest is not None
    return newest


def _definitions_counter() -> int:
    return CacheGeneration.objects.get(scope="realm", key=PUBLISHED).generation


def _heard(ear: Heard) -> set[tuple[str, str]]:
    """What has been announced since the last time. Commits come before their notifications are
    read: one of our own, heard, says that those before it have been."""
    connection.cursor().execute("SELECT pg_notify(%s, 'over')", [REALM_REGISTRY])
    heard: set[tuple[str, str]] = set()
    for notification in ear.notifies(timeout=10):
        if notification.payload == "over":
            return heard
        heard.add((notification.channel, notification.payload))
    raise AssertionError("nothing was heard")


def _replica(name: str, applied: dict[str, int], silent: timedelta = timedelta()) -> None:
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


def _one_row_of_everything(published: Realm) -> None:
    from definitions.models import Definition
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
    _replica("a b/c", {PUBLISHED: 2})
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
        global_generation=0, realm_generation=_definitions_counter(), module_generation=0,
    )  # fmt: skip


def _queries(browser: Client) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert browser.get(PAGE).status_code == 200
    return len(captured)


def _words(answer: Any) -> str:
    """What a page says, without tags."""
    return _text(answer.content.decode())


def _cells(answer: Any, url: str) -> list[str]:
    """The cells of one realm's row, as words."""
    row = next(row for row in answer.content.decode().split("<tr>") if f">{url}</a>" in row)
    return [_text(f"<td{cell}") for cell in row.split("<td")[1:]]


def _text(html: str) -> str:
    return " ".join(strip_tags(html.replace("<", " <")).split())


def test_the_admin_is_at_the_public_origin_and_at_no_published_realms_host() -> None:
    elsewhere = Client(headers={"host": "ada.localhost:4201"})
    assert elsewhere.get("/_admin/").status_code == 404
    assert elsewhere.get("/_admin/login/").status_code == 404
