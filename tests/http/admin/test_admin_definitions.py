"""Clears and rebuilds definitions with the actions of the admin's lists. Definitions describe what
modules export. They have counters: one for each module, one for each realm, and a global one. A
clear raises a counter, so that no build that began before the clear stores its result."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from definitions.models import CacheGeneration, Definition
from notifications.models import Replica
from realms.publishing.bootstrap import sync_base_realm
from reindex.jobs import wanted
from reindex.models import WantedDefinitions, Worker
from reindex.reading.references import BASE_MODULE
from reindex.tasks import work
from tests.support.clients.admin import words_of
from tests.support.web import Web

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

REALM = "http://ada.localhost:4201/"
MODULE = f"{REALM}post.tsx"
COUNTERS = "/_admin/definitions/cachegeneration/"


def browser(name: str, *permissions: str) -> Client:
    """Returns a client that is logged in as a staff user with these permissions."""
    user = get_user_model().objects.create_user(name, password=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(headers={"host": "localhost:4201"})
    client.force_login(user)
    return client


@pytest.fixture
def built() -> Definition:
    """Makes the row with a module's definitions, and the row's three counters: the global one, the
    realm's and the module's. Returns the row with the definitions."""
    for scope, key in (("global", ""), ("realm", REALM), ("module", MODULE)):
        CacheGeneration.objects.create(scope=scope, key=key)
    return Definition.objects.create(
        module_url=MODULE, realm_url=REALM, definitions={"Post": {}}, built_at=timezone.now(),
        build_ms=1, global_generation=0, realm_generation=0, module_generation=0,
    )  # fmt: skip


def chosen(rows: Any) -> dict[str, Any]:
    """Returns the form data of the list action that clears these rows."""
    return {"action": "clear", "_selected_action": [row.pk for row in rows]}


@pytest.mark.parametrize("scope", ["global", "realm", "module"])
def test_clearing_a_counter_raises_it_and_drops_its_definitions(
    built: Definition, scope: str
) -> None:
    root = browser("root", "view_cachegeneration", "clear_realm")
    counter = CacheGeneration.objects.get(scope=scope)
    said = root.post(COUNTERS, chosen([counter]), follow=True)
    assert "Cleared the definitions of" in said.content.decode()
    counter.refresh_from_db()
    assert counter.generation == 1
    assert not Definition.objects.exists()
    assert LogEntry.objects.get().change_message == "Cleared."


def test_clearing_a_definition_drops_it_and_raises_its_counter(built: Definition) -> None:
    root = browser("root", "view_definition", "clear_realm")
    root.post("/_admin/definitions/definition/", chosen([built]))
    assert not Definition.objects.exists()
    assert CacheGeneration.objects.get(scope="module", key=MODULE).generation == 1


def make_replica_of(web: Web) -> None:
    """Stores the row of a live replica that workers can read from."""
    now = timezone.now()
    Replica.objects.create(
        name="web-1", address=f"http://127.0.0.1:{web.port}", state="live", sidecar_pid=1,
        watermark_at=now, reported_at=now,
    )  # fmt: skip


def build_all() -> None:
    """Runs all wanted builds now, as a worker does when they are due."""
    WantedDefinitions.objects.update(due_at=timezone.now())
    while work():
        pass


def rebuild(browser: Client, *rows: Definition) -> Any:
    """Sends the list action that rebuilds these rows. Follows the redirect, and returns the
    page."""
    form = {"action": "rebuild", "_selected_action": [row.pk for row in rows]}
    return browser.post("/_admin/definitions/definition/", form, follow=True)


def test_a_rebuild_clears_the_definition_and_shows_the_workers_progress(built: Definition) -> None:
    root = browser("root", "view_definition", "clear_realm")
    said = rebuild(root, built)
    assert f"{MODULE} waits, and no worker is running" in words_of(said)
    assert not Definition.objects.exists()
    assert CacheGeneration.objects.get(scope="module", key=MODULE).bumped_by == "rebuild by root"
    assert LogEntry.objects.get().change_message == "Rebuilt."
    answers = said.redirect_chain[-1][0]
    now = timezone.now()
    Worker.objects.create(name="w", host="h", pid=1, processes=1, started_at=now, heard_at=now)
    assert f"{MODULE} waits for a worker" in words_of(root.get(answers))
    wanted = WantedDefinitions.objects.get(module_url=MODULE)
    wanted.lease_until, wanted.worker = now + timedelta(minutes=1), "w"
    wanted.save()
    assert f"{MODULE} w builds it" in words_of(root.get(answers))
    wanted.delete()
    said = words_of(root.get(answers))
    assert "no worker could build it" in said
    assert "All rebuilds have ended." in said


def test_a_rebuild_stays_wanted_after_an_earlier_build_ends(built: Definition) -> None:
    past = timezone.now() - timedelta(seconds=1)
    WantedDefinitions.objects.create(module_url=MODULE, due_at=past)
    earlier = wanted.lease_definitions(MODULE)
    assert earlier is not None
    rebuild(browser("root", "view_definition", "clear_realm"), built)
    later = WantedDefinitions.objects.get()
    assert (later.attempts, later.lease_until, later.worker) == (0, None, "")
    again = wanted.lease_definitions(MODULE)
    assert again is not None
    wanted.remove_wanted(earlier)
    assert WantedDefinitions.objects.exists()
    wanted.remove_wanted(again)
    assert not WantedDefinitions.objects.exists()


def test_a_worker_builds_a_rebuilt_definition_and_the_page_shows_it(web: Web, source: Any) -> None:
    sync_base_realm()
    module = f"{source.url}post.tsx"
    make_replica_of(web)
    root = browser("root", "view_definition", "clear_realm")
    wanted.want_definitions([module])
    build_all()
    first = Definition.objects.get(module_url=module)
    answers = rebuild(root, first).redirect_chain[-1][0]
    build_all()
    again = Definition.objects.get(module_url=module)
    assert again.pk != first.pk
    assert "built in " in words_of(root.get(answers, {"fragment": "1"} | {"module": module}))
    said = words_of(root.get(f"/_admin/definitions/definition/{again.pk}/change/"))
    assert f"built in {again.build_ms:,} ms at " in said
    assert "Post : body (markdown), title (string), author (linksTo Person)" in said
    assert BASE_MODULE in said


def test_the_page_of_rebuilds_reads_no_large_columns(built: Definition) -> None:
    root = browser("root", "view_definition", "clear_realm")
    with CaptureQueriesContext(connection) as captured:
        said = words_of(root.get("/_admin/rebuilt/", {"module": MODULE}))
    assert f"{MODULE} built in 1 ms" in said
    read = [each["sql"] for each in captured if 'FROM "definitions"' in each["sql"]]
    assert len(read) == 1
    assert '"dependencies"' not in read[0]
    assert '"definitions"."definitions"' not in read[0]


def test_a_row_stored_while_the_page_is_made_is_shown_as_built(
    built: Definition,
) -> None:
    Definition.objects.all().delete()
    WantedDefinitions.objects.create(module_url=MODULE, due_at=timezone.now())
    root = browser("root", "view_definition", "clear_realm")
    pending = [built]

    def store_after_the_first_read(execute: Any, sql: str, *more: Any) -> Any:
        answer = execute(sql, *more)
        if pending and ('FROM "definitions"' in sql or "reindex_wanteddefinitions" in sql):
            pending.pop().save(force_insert=True)
            WantedDefinitions.objects.all().delete()
        return answer

    with connection.execute_wrapper(store_after_the_first_read):
        said = words_of(root.get("/_admin/rebuilt/", {"module": MODULE}))
    assert not pending
    assert f"{MODULE} built in 1 ms" in said


def test_a_definition_page_shows_the_beginning_of_long_lists(built: Definition) -> None:
    many = [f"{REALM}{i:05}.ts" for i in range(2000)]
    exported: dict[str, Any] = {f"Card{i:05}": {} for i in range(2000)}
    Definition.objects.update(definitions=exported, dependencies=many)
    root = browser("root", "view_definition")
    page = root.get(f"/_admin/definitions/definition/{built.pk}/change/").content
    assert len(page) < 100_000
    assert b"Card00000" in page


def test_the_page_of_rebuilds_accepts_any_module_name(built: Definition) -> None:
    root = browser("root", "view_definition", "clear_realm")
    assert root.get("/_admin/rebuilt/?module=a%00b").status_code == 200


def test_the_page_of_rebuilds_needs_the_permission_to_view_definitions(built: Definition) -> None:
    clearer = browser("lin", "clear_realm")
    assert clearer.get("/_admin/rebuilt/", {"module": MODULE}).status_code == 403


def test_a_definition_page_says_why_a_build_failed(built: Definition) -> None:
    error = {"title": "Build Failed", "message": "x is not defined", "causes": ["no import of x"]}
    Definition.objects.update(definitions=None, error=error, dependencies=[f"{REALM}label.tsx"])
    root = browser("root", "view_definition")
    said = words_of(root.get(f"/_admin/definitions/definition/{built.pk}/change/"))
    assert "failed: Build Failed: x is not defined caused by: no import of x" in said
    assert f"{REALM}label.tsx" in said


def test_a_rebuild_of_definitions_of_one_reader_is_refused(built: Definition) -> None:
    Definition.objects.update(scope="realm-auth", reader="1 x")
    root = browser("root", "view_definition", "clear_realm")
    assert "Not done: only requests by a reader can build" in words_of(rebuild(root, built))
    assert Definition.objects.exists()
    assert not WantedDefinitions.objects.exists()


def test_a_rebuild_needs_the_permission_to_clear(built: Definition) -> None:
    viewer = browser("lin", "view_definition")
    rebuild(viewer, built)
    assert Definition.objects.exists()
    assert viewer.get("/_admin/rebuilt/", {"module": MODULE}).status_code == 403


def test_a_clear_of_definitions_needs_the_permission_to_clear(built: Definition) -> None:
    viewer = browser("lin", "view_cachegeneration")
    assert 'value="clear"' not in viewer.get(COUNTERS).content.decode()
    viewer.post(COUNTERS, chosen(CacheGeneration.objects.all()))
    assert Definition.objects.exists()
