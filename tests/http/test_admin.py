"""The admin: what can be looked at, what can't be edited, and its own pages."""

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

from definitions.models import CacheGeneration, Definition
from notifications.channels import (
    DEFINITION_CACHE_INVALIDATED,
    REALM_FILE_CHANGES,
    REALM_REGISTRY,
    realm_definitions_cleared,
)
from notifications.listener import listen_connection
from notifications.models import Election, Replica, ReplicaGeneration
from realms.models import FileVersion, Publication, Realm, RealmPermission
from reindex.models import IndexHead, ReindexBatch, ReindexJob, Worker
from tests.support import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PUBLISHED = "http://ada.localhost:4201/"
START = "/_admin/"
LIVE = "/_admin/coherence/"
CLEAR = "/_admin/clear/"

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


# --- Coherence ---------------------------------------------------------------------------------


def test_the_matrix_shows_committed_and_applied_and_marks_who_is_behind(
    root: Client, published: Realm
) -> None:
    _replica("a", {PUBLISHED: 2})
    _replica("b", {PUBLISHED: 1})
    _replica("c", {PUBLISHED: 1}, silent=timedelta(minutes=5))
    _replica("d", {PUBLISHED: 1}, silent=timedelta(days=3))
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    IndexHead.objects.create(realm_url=PUBLISHED, job=job, generation=1, swapped_at=timezone.now())
    cells = _cells(root.get(START), PUBLISHED)
    assert cells[:5] == [
        "2",
        "1 2 queued",
        "2 ✓ current",
        "1 behind by 1, why?",
        "1 last known",
    ]
    page = _words(root.get(START))
    assert "a live address http://127.0.0.1:1 web service answers watermark" in page
    assert "c silent address http://127.0.0.1:1" in page
    assert "c has not reported for 5 min: its sidecar does not run" in page
    assert "What to do: Restart listen_file_changes on c, and read its log." in page
    assert "1 more not heard of for a day" in page


def test_the_first_line_says_whether_anything_is_wrong(root: Client, published: Realm) -> None:
    assert "No replica has reported for a day." in _words(root.get(START))
    IndexHead.objects.create(
        realm_url=PUBLISHED,
        job=ReindexJob.objects.get(realm_url=PUBLISHED, status="queued"),
        generation=2,
        swapped_at=timezone.now(),
    )
    current = {realm.url: realm.generation for realm in Realm.objects.all()}
    _replica("a", current)
    _replica("b", current)
    assert "✓ All 2 replicas are current as of " in _words(root.get(START))
    Replica.objects.filter(name="b").update(web_answers=False)
    said = _words(root.get(START))
    assert "⚠ The web service of b does not answer at http://127.0.0.1:1. Restart the web" in said


def test_realms_with_problems_come_first_and_alone_if_asked(
    root: Client, published: Realm, source: Realm
) -> None:
    current = {realm.url: realm.generation for realm in Realm.objects.all()}
    _replica("a", {**current, source.url: 1})
    shown = root.get(START).content.decode()
    assert shown.index(f">{source.url}</a>") < shown.index(f">{PUBLISHED}</a>")
    alone = root.get(START, {"problems": "on", "q": "/ada/"}).content.decode()
    assert f">{source.url}</a>" in alone
    ReplicaGeneration.objects.filter(realm_url=source.url).update(generation=source.generation)
    assert "No realm has a problem." in _words(root.get(START, {"problems": "on", "q": "/ada/"}))


def test_a_cell_tells_why_its_replica_is_behind(root: Client, published: Realm) -> None:
    _replica("a", {PUBLISHED: 1})
    shown = root.get(f"/_admin/realms/realm/{published.pk}/why/a/")
    said = _words(shown)
    assert f"a is behind by 1 generation of {PUBLISHED}." in said
    assert "Generation 2 was committed" in said
    assert "published by ada from http://localhost:4201/ada/site/" in said
    assert "a reported generation 1 of the realm" in said
    assert root.get(f"/_admin/realms/realm/{published.pk}/why/none/").status_code == 404


def test_a_replica_whose_watermark_stands_still_is_late(root: Client) -> None:
    _replica("a", {})
    Replica.objects.update(watermark_at=timezone.now() - timedelta(seconds=9))
    assert "a late" in _words(root.get(START))


def test_hundreds_of_realms_cost_no_more_queries_than_one(root: Client, published: Realm) -> None:
    _replica("a", {PUBLISHED: 1})
    few = _queries(root)
    assert few <= 12
    owner = published.owner
    for number in range(120):
        url = f"http://localhost:4201/ada/many-{number:03}/"
        Realm.objects.create(url=url, kind=Realm.Kind.SOURCE, owner=owner)
    _replica("b", {realm.url: 0 for realm in Realm.objects.all()})
    assert _queries(root) == few
    assert "Page 5 of 5" in _words(root.get(START, {"p": "5"}))
    found = _words(root.get(START, {"q": "MANY-11"}))
    assert "10 realms whose URL contains" in found
    assert "many-119/" in found
    assert "many-012/" not in found


def test_the_part_that_refreshes_is_the_content_alone(root: Client, published: Realm) -> None:
    fragment = root.get(LIVE, {"fragment": "1", "q": "ada."}).content.decode()
    assert fragment.lstrip().startswith('<p class="verdict')
    assert PUBLISHED in fragment
    assert "<html" not in fragment


# --- Clearing ----------------------------------------------------------------------------------


def test_clear_says_what_it_touches_then_broadcasts_and_drops_definitions(
    root: Client, published: Realm, ear: Heard
) -> None:
    _replica("a", {PUBLISHED: 2})
    before = _definitions_counter()
    asked = _words(root.get(CLEAR, {"realm": PUBLISHED}))
    assert f"Clear the caches of {PUBLISHED}?" in asked
    assert "definitions; replicas: a." in asked
    assert _definitions_counter() == before
    _heard(ear)
    answer = root.post(CLEAR, {"realm": PUBLISHED}, follow=True)
    assert f"Cleared the caches of {PUBLISHED}." in _words(answer)
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in _heard(ear)
    assert _definitions_counter() == before + 1
    published.refresh_from_db()
    assert published.generation == 2
    assert LogEntry.objects.get().user.get_username() == "root"


def test_the_answers_of_replicas_are_shown_as_they_arrive(root: Client, published: Realm) -> None:
    _replica("a", {PUBLISHED: 2})
    _replica("b", {PUBLISHED: 2}, silent=timedelta(minutes=5))
    answers = root.post(CLEAR, {"realm": PUBLISHED})["Location"]
    said = _words(root.get(answers))
    assert "Waiting for answers" in said
    assert "a live, no answer yet" in said
    assert "b ⚠ has not reported" in said
    Replica.objects.filter(name="a").update(watermark_at=timezone.now() + timedelta(seconds=1))
    said = _words(root.get(answers))
    assert "No more answers are expected." in said
    assert "a ✓ cleared" in said


def test_everything_and_one_module_are_cleared_too(
    root: Client, published: Realm, source: Realm, ear: Heard
) -> None:
    _one_row_of_everything(published)
    module = f"{PUBLISHED}post.tsx"
    assert f"the definitions of {module}" in _words(root.get(CLEAR, {"module": module}))
    assert root.post(CLEAR, {"module": module}).status_code == 302
    assert not Definition.objects.filter(module_url=module).exists()
    _heard(ear)
    assert root.post(CLEAR, {"all": "on"}).status_code == 302
    heard = _heard(ear)
    assert {(REALM_FILE_CHANGES, f"{url}:*") for url in (PUBLISHED, source.url)} <= heard


# --- Publishing --------------------------------------------------------------------------------


def test_publish_again_says_what_changes_and_shows_the_source_as_it_stands(
    root: Client, source: Realm, published: Realm, ear: Heard
) -> None:
    make.write(source, post__tsx=b"export const edition = 3;")
    _heard(ear)
    assert "1 file differs: post.tsx" in _words(root.get(_address(published, "publish")))
    answer = root.post(_address(published, "publish"))
    assert answer["Location"] == f"/_admin/timeline/?q={PUBLISHED}"
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in _heard(ear)
    newest = _newest(published)
    assert (newest.generation, newest.source_generation) == (3, 4)
    assert ReindexJob.objects.get(status="queued").generation == 3


def test_a_source_offers_its_published_urls_and_takes_a_new_one(
    root: Client, source: Realm, published: Realm
) -> None:
    offered = root.get(_address(source, "publish")).content.decode()
    assert f'name="target" value="{PUBLISHED}"' in offered
    new = "http://docs.ada.localhost:4201/"
    answer = root.post(_address(source, "publish"), {"target": new}, follow=True)
    assert f"Published generation 3 of {source.url} to {new}, which is at generation 1" in _words(
        answer
    )
    assert Realm.objects.get(url=new).source == source


def test_the_timeline_shows_who_has_applied_a_publication_and_its_pages(
    root: Client, published: Realm
) -> None:
    _replica("a", {PUBLISHED: 2})
    _replica("b", {PUBLISHED: 1})
    ReindexJob.objects.filter(realm_url=PUBLISHED, generation=2).update(
        status="rendering", total=10, seen=4
    )
    said = _words(root.get("/_admin/timeline/", {"q": PUBLISHED}))
    assert "ada 2 http://localhost:4201/ada/site/ as of 3 1 of 2 replicas rendered 4 of 10" in said


def test_a_rollback_is_confirmed_by_what_it_returns_to(
    root: Client, published: Realm, ear: Heard
) -> None:
    asked = root.get(_address(published, "rollback"))
    words = _words(asked)
    assert "goes from generation 2 back to what it showed at generation 1" in words
    assert "by ada" in words
    assert "1 file differs: post.tsx" in words
    assert _newest(published).generation == 2
    answer = root.post(_address(published, "rollback"), {"publication": "1"}, follow=True)
    assert "back to what it showed at generation 1; it is at generation 3" in _words(answer)
    assert (REALM_FILE_CHANGES, f"{PUBLISHED}:*") in _heard(ear)
    newest = _newest(published)
    assert (newest.generation, newest.source_generation) == (3, 2)


def test_unpublish_and_delete_ask_first_and_say_what_goes(
    root: Client, source: Realm, published: Realm
) -> None:
    other = "http://docs.ada.localhost:4201/"
    make.publish(source, other)
    assert f"Unpublish {other}?" in _words(
        root.get(_address(Realm.objects.get(url=other), "remove"))
    )
    root.post(_address(Realm.objects.get(url=other), "remove"))
    assert not Realm.objects.filter(url=other).exists()
    asked = _words(root.get(_address(source, "remove")))
    assert f"Delete {source.url}?" in asked
    assert f"So is everything published from it: {PUBLISHED}" in asked
    assert root.post(_address(source, "remove")).status_code == 302
    assert not Realm.objects.filter(url__in=[source.url, PUBLISHED]).exists()


def test_two_publications_are_compared(root: Client, published: Realm) -> None:
    said = _words(root.get(_address(published, "diff"), {"from": "1", "to": "2"}))
    assert "1 file differs. post.tsx" in said


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
        (_post(root, gone, "publish"), "was not found"),
        (root.get(CLEAR, {"realm": gone.url}, follow=True), "was not found"),
        (root.post(CLEAR, {}, follow=True), "neither a realm nor a module is named"),
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
        for page in (START, LIVE, "/_admin/work/", "/_admin/timeline/"):
            assert browser.get(page)["Location"].startswith("/_admin/login/")
        assert browser.post(CLEAR, {"all": "on"})["Location"].startswith("/_admin/login/")
        for name in ("publish", "rollback", "remove"):
            answer = browser.post(_address(published, name), {"publication": "1"})
            assert answer["Location"].startswith("/_admin/login/")
    assert _newest(published).generation == 2


def test_viewing_clearing_and_publishing_are_separate_permissions(published: Realm) -> None:
    stranger = _browser(_staff("grace"))
    assert "You have no permission to view realms" in _words(stranger.get(START))
    assert stranger.get(LIVE).status_code == 403
    viewer = _browser(_staff("lin", "view_realm"))
    shown = _words(viewer.get(START))
    assert "Publish…" not in shown
    assert "Clear…" not in shown
    assert viewer.post(CLEAR, {"realm": PUBLISHED}).status_code == 403
    assert viewer.post(_address(published, "publish")).status_code == 403
    clearer = _browser(_staff("sam", "view_realm", "clear_realm"))
    assert "Publish…" not in _words(clearer.get(START))
    assert "Clear…" in _words(clearer.get(START))
    assert clearer.post(CLEAR, {"realm": PUBLISHED}).status_code == 302
    assert clearer.post(_address(published, "publish")).status_code == 403


def test_staff_who_are_no_operators_publish_as_themselves(published: Realm) -> None:
    other = _browser(_staff("grace", "view_realm", "publish_realm"))
    for name in ("publish", "rollback", "remove"):
        answer = _post(other, published, name, publication="1")
        assert "@grace:localhost is not allowed" in _words(answer), name
    ada = get_user_model().objects.get(username="ada")
    ada.is_staff = True
    ada.save()
    ada.user_permissions.add(Permission.objects.get(codename="publish_realm"))
    _post(_browser(ada), published, "publish")
    assert _newest(published).by == "ada"


def test_actions_need_a_csrf_token_and_are_never_framed(published: Realm) -> None:
    user = get_user_model().objects.create_superuser("root", password="root")
    strict = Client(enforce_csrf_checks=True, headers={"host": "localhost:4201"})
    strict.force_login(user)
    assert strict.post(_address(published, "publish")).status_code == 403
    assert strict.post(CLEAR, {"all": "on"}).status_code == 403
    assert strict.get("/_admin/work/1/cancel/").status_code == 405
    page = strict.get(_address(published, "publish"))
    assert page["X-Frame-Options"] == "DENY"
    token = str(page.context["csrf_token"])
    answer = strict.post(_address(published, "publish"), {"csrfmiddlewaretoken": token})
    assert answer.status_code == 302
    assert _newest(published).generation == 3


# --- Work --------------------------------------------------------------------------------------


def test_a_failed_job_says_why_and_is_retried_or_cancelled(root: Client, published: Realm) -> None:
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    ReindexJob.objects.filter(pk=job.pk).update(
        status="failed", error="no replica answered", finished_at=timezone.now()
    )
    assert "no replica answered" in _words(root.get("/_admin/work/"))
    assert f"The last rendering of {PUBLISHED} failed" in _words(root.get(START))
    said = root.post(f"/_admin/work/{job.pk}/retry/", follow=True)
    assert f"Job {job.pk} is queued again." in _words(said)
    job.refresh_from_db()
    assert job.status == "queued"
    said = root.post(f"/_admin/work/{job.pk}/retry/", follow=True)
    assert f"Not done: job {job.pk} has not failed" in _words(said)
    said = root.post(f"/_admin/work/{job.pk}/cancel/", follow=True)
    assert f"Cancelled the rendering of {PUBLISHED}" in _words(said)
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_the_page_of_work_says_who_works_on_what(root: Client, published: Realm) -> None:
    assert "No worker is running." in _words(root.get("/_admin/work/"))
    now = timezone.now()
    for name, heard_at in (("w@one", now), ("w@two", now - timedelta(minutes=5))):
        Worker.objects.create(
            name=name, host="host", pid=1, processes=2, started_at=now, heard_at=heard_at
        )
    job = ReindexJob.objects.get(realm_url=PUBLISHED, status="queued")
    ReindexJob.objects.filter(pk=job.pk).update(status="rendering")
    ReindexBatch.objects.create(
        job=job, paths=["a.json", "b.json"], lease_until=now + timedelta(minutes=1), worker="w@one"
    )
    said = _words(root.get("/_admin/work/"))
    assert f"w@one host, process 1 2 just now renders 2 cards of job {job.pk}" in said
    assert "w@two host, process 1 2 5 minutes ago" in said
    assert "No worker is running." not in said


def test_errors_of_cards_are_grouped_by_kind_with_file_and_line(
    root: Client, published: Realm
) -> None:
    kind = {"status": 500, "title": "The template failed", "message": "x is undefined",
            "causes": [], "module": f"{PUBLISHED}post.tsx", "line": 7, "count": 31,
            "cards": ["a"]}  # fmt: skip
    ReindexJob.objects.filter(realm_url=PUBLISHED).update(
        status="done", errors=31, summary={"errors": [kind]}, finished_at=timezone.now()
    )
    said = _words(root.get("/_admin/work/"))
    assert f"31 The template failed: x is undefined {PUBLISHED}post.tsx, line 7" in said


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
    return f"/_admin/realms/realm/{realm.pk}/{action}/"


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
        assert browser.get(START).status_code == 200
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
