"""Publish, roll back, unpublish, delete: each happens as a whole or not at all."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import psycopg
import pytest
from celery import current_app
from django.apps import apps
from django.db import DatabaseError, connection, transaction
from django.test import RequestFactory

from definitions.models import CacheGeneration, Definition
from notifications.board import Board
from notifications.channels import INVALIDATION_CHANNELS
from notifications.listener import listen_connection
from notifications.locks import address_lock
from realms.access.auth import Caller
from realms.content.blobs import read_blob
from realms.content.history import versions_at
from realms.content.locks import realm_write_lock
from realms.errors import (
    Forbidden,
    HistoryEnds,
    InvalidURL,
    IsASourceRealm,
    NotARealm,
    NotFound,
    NotPublished,
    Reserved,
    Unprocessable,
)
from realms.models import FileVersion, Publication, Realm, RealmPermission, RealmTombstone
from realms.publishing import publish as publishing
from realms.publishing.bootstrap import sync_base_realm
from realms.publishing.importing import Folder, import_files
from realms.publishing.publish import delete_realm, publish_realm, rollback_realm, unpublish_realm
from realms.serving import pinned_reads
from realms.serving.answers import load_at, source_at
from reindex import tasks
from reindex.jobs import lifecycle
from reindex.models import IndexedCard, IndexHead, ReindexJob
from reindex.reading.pins import Pin
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.gates import Gate, in_thread
from tests.support.web import ORIGIN, Web, everything, waiting_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
SECOND_PAGE = "http://ada.localhost:4201/second/"
ADA = Caller("ada")


def shown(url: str) -> dict[str, bytes]:
    """The files of a realm as they stand now."""
    realm = Realm.objects.get(url=url)
    versions = versions_at(realm, realm.generation).select_related("blob")
    return {each.path: read_blob(each.blob_id, each.blob.data) for each in versions}


def generation(url: str) -> int:
    return Realm.objects.get(url=url).generation


def indexed(url: str) -> None:
    """Gives a realm pages and definitions, as a finished reindex does."""
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


# --- Publishing --------------------------------------------------------------------------------


def test_a_published_realm_shows_its_source_as_it_stood(source: Realm) -> None:
    """The registry says whose it is, of what, and that it can't be published in turn."""
    done = make.publish(source, PAGE)
    realm = Realm.objects.get(url=PAGE)
    assert (realm.kind, realm.owner, realm.source, realm.publishable) == (
        "published", source.owner, source, False,
    )  # fmt: skip
    publication = Publication.objects.get(realm=realm)
    assert (publication.generation, publication.source_generation) == (realm.generation, 2)
    assert publication.by == "ada"
    assert shown(PAGE) == make.SITE
    rows = RealmPermission.objects.filter(realm=realm).order_by("audience")
    assert [(r.whom, r.read, r.write, r.realm_owner) for r in rows] == [
        ("everyone", True, False, False),
        ("ada", True, True, True),
    ]
    make.write(source, index__json=b"{}")
    assert shown(PAGE) == make.SITE, "an edit is not a publish"
    assert done.source_generation == 2
    assert not FileVersion.objects.filter(realm=realm).exists(), "nothing is copied"


def test_a_repeated_publish_keeps_the_realm_and_shows_the_source_of_now(source: Realm) -> None:
    """A republish moves the time on; what the source lost and what it changed is so in the copy."""
    first = make.publish(source, PAGE)
    before = Realm.objects.get(url=PAGE).last_published_at
    make.write(source, index__json=b"{}", new__md=b"new")
    make.remove(source, "ada.json")
    again = make.publish(source, PAGE)
    assert again.realm_id == first.realm_id
    assert again.generation == first.generation + 1
    realm = Realm.objects.get(url=PAGE)
    assert realm.last_published_at == again.at
    assert before is not None
    assert again.at > before
    assert shown(PAGE) == {
        **{k: v for k, v in make.SITE.items() if k != "ada.json"},
        "index.json": b"{}",
        "new.md": b"new",
    }


def test_the_generation_never_falls_and_the_id_is_new_after_an_unpublish(source: Realm) -> None:
    one = make.publish(source, PAGE)
    two = make.publish(source, PAGE)
    unpublish_realm(PAGE, ADA)
    assert not Realm.objects.filter(url=PAGE).exists()
    three = make.publish(source, PAGE)
    assert one.realm_id == two.realm_id != three.realm_id
    assert one.generation < two.generation < three.generation
    assert not RealmTombstone.objects.filter(url=PAGE).exists()


def test_the_generation_never_falls_across_a_delete_and_a_new_realm(
    source: Realm, owner: Any
) -> None:
    make.publish(source, PAGE)
    for _ in range(3):
        make.write(source, index__json=str(generation(source.url)).encode())
    before = generation(source.url), generation(PAGE)
    delete_realm(source.url, ADA)
    again = make.source(source.url, owner, {"new.md": b"new"})
    make.publish(again, PAGE)
    assert generation(source.url) > before[0]
    assert generation(PAGE) > before[1]
    assert shown(source.url) == shown(PAGE) == {"new.md": b"new"}


def test_the_database_itself_lets_no_generation_fall(source: Realm) -> None:
    with pytest.raises(Exception, match="can not fall from 2 to 1"):
        Realm.objects.filter(pk=source.pk).update(generation=1)


def test_pages_stay_until_new_ones_are_rendered_and_definitions_go_at_once(source: Realm) -> None:
    """No definition of the old files outlives a publish, but visitors keep a whole site."""
    make.publish(source, PAGE)
    indexed(PAGE)
    done = make.publish(source, PAGE)
    assert not Definition.objects.exists()
    head = IndexHead.objects.get(realm_url=PAGE)
    assert head.generation < done.generation
    live = ReindexJob.objects.get(realm_url=PAGE, status="queued")
    assert live.generation == done.generation
    later = make.publish(source, PAGE)
    assert ReindexJob.objects.get(pk=live.pk).status == "superseded"
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == later.generation


def test_the_board_moves_before_celery_is_told_and_both_after_the_commit(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, int]] = []

    def committed() -> int:
        def count() -> int:
            return Publication.objects.count()

        return in_thread(count).result(20)

    monkeypatch.setattr(Board, "bump", lambda board, keys: order.append(("board", committed())))
    monkeypatch.setattr(
        "reindex.jobs.messages.send", lambda *_, **__: order.append(("celery", committed()))
    )
    make.publish(source, PAGE)
    assert [what for what, _ in order][-1] == "celery"
    assert [what for what, _ in order].count("celery") == 1
    assert {count for _, count in order} == {1}


def test_a_broker_that_is_away_costs_no_publish(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    def away(*_: object, **__: object) -> None:
        raise OSError("no broker")

    monkeypatch.setattr(current_app, "send_task", away)
    done = make.publish(source, PAGE)
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == done.generation


# --- All or nothing ----------------------------------------------------------------------------

STEPS = {
    "publish": [
        "realms.publishing.publish._source",
        "realms.publishing.publish._published_or_free",
        "realms.publishing.publish._insert_realm",
        "realms.models.RealmPermission.objects.create",
        "realms.models.Publication.objects.create",
        "realms.publishing.effects.notify_replicas",
        "definitions.lookup.DefinitionLookup.drop",
        "reindex.jobs.queue.enqueue",
    ],
    "republish": [
        "realms.publishing.publish.advance",
        "realms.models.Publication.objects.create",
        "realms.publishing.effects.notify_replicas",
        "definitions.lookup.DefinitionLookup.drop",
        "reindex.jobs.queue._end_live",
        "reindex.jobs.queue.enqueue",
    ],
    "rollback": [
        "realms.publishing.publish.rollback_target",
        "realms.publishing.publish.advance",
        "realms.models.Publication.objects.create",
        "definitions.lookup.DefinitionLookup.drop",
        "reindex.jobs.queue.enqueue",
    ],
    "unpublish": [
        "reindex.jobs.queue._forget",
        "definitions.lookup.DefinitionLookup.drop",
        "realms.publishing.effects.emit",
        "realms.publishing.effects.bump_at_commit",
        "realms.models.Realm.delete",
    ],
    "delete": [
        "realms.publishing.publish.deletable",
        "reindex.jobs.queue._forget",
        "definitions.lookup.DefinitionLookup.drop",
        "realms.publishing.effects.emit",
        "realms.models.Realm.delete",
    ],
    "create": [
        "realms.publishing.publish.make_realm",
        "realms.models.RealmPermission.objects.create",
        "realms.publishing.publish.write_files",
        "realms.content.files.store_blobs",
        "realms.content.files._close",
        "realms.publishing.effects.drop_definitions",
    ],
}
ACTS: dict[str, Callable[[], object]] = {
    "publish": lambda: publish_realm(f"{ORIGIN}/ada/site/", SECOND_PAGE, ADA),
    "republish": lambda: publish_realm(f"{ORIGIN}/ada/site/", PAGE, ADA),
    "rollback": lambda: rollback_realm(PAGE, ADA),
    "unpublish": lambda: unpublish_realm(PAGE, ADA),
    "delete": lambda: delete_realm(f"{ORIGIN}/ada/site/", ADA),
    "create": lambda: publishing.create_realm(ADA, "new", {"name": "New"}),
}


class Crash(BaseException):
    """What no handler expects."""


@pytest.mark.parametrize("moment", ["before", "after", "cut"])
@pytest.mark.parametrize(
    ("act", "step"), [(act, step) for act, steps in STEPS.items() for step in steps]
)
def test_a_crash_at_any_step_leaves_everything_as_it_was(
    source: Realm,
    sent: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    act: str,
    step: str,
    moment: str,
) -> None:
    """P6. `cut`: the database connection is lost after the step."""
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}")
    make.publish(source, PAGE)
    indexed(PAGE)
    sent.clear()
    before = everything()
    moved: list[Any] = []
    monkeypatch.setattr(Board, "bump", lambda board, keys: moved.extend(keys))
    monkeypatch.setattr(step, _crashing(step, moment))

    def go() -> None:
        ACTS[act]()

    with pytest.raises((Crash, Exception)):
        in_thread(go).result(20)
    monkeypatch.undo()
    assert everything() == before
    assert moved == []
    assert sent == []
    assert shown(PAGE)["index.json"] == b"{}"
    ACTS[act]()


def _crashing(step: str, moment: str) -> Callable[..., Any]:
    parts = step.split(".")
    original: Any = __import__(".".join(parts[:2]), fromlist=["x"])
    for part in parts[2:]:
        original = getattr(original, part)

    def crash(*args: Any, **kwargs: Any) -> Any:
        if moment == "before":
            raise Crash
        value = original(*args, **kwargs)
        if moment == "after":
            raise Crash
        connection.connection.close()
        return value

    return crash


def test_peers_are_told_if_and_only_if_it_happened(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1. A publish and an unpublish are announced with their commit, and a failed one never."""
    with listen_connection() as listener:
        for channel in (*INVALIDATION_CHANNELS, "realm_heartbeat"):
            listener.execute(f"LISTEN {channel}".encode())
        make.publish(source, PAGE)
        told = _heard(listener)
        assert ("realm_file_changes", f"{PAGE}:*") in told
        assert ("realm_registry", f"upsert:{PAGE}") in told
        assert ("realm_registry", f"upsert:{source.url}") in told, "it is published somewhere now"
        assert json.dumps({"k": "realm", "r": PAGE}) in [payload for _, payload in told]

        with monkeypatch.context() as patch:
            patch.setattr(
                "reindex.jobs.queue.enqueue", _crashing("reindex.jobs.queue.enqueue", "after")
            )
            with pytest.raises(Crash):
                make.publish(source, PAGE)
        assert _heard(listener) == []

        unpublish_realm(PAGE, ADA)
        told = _heard(listener)
        assert ("realm_file_changes", f"{PAGE}:*") in told
        assert ("realm_registry", f"delete:{PAGE}") in told
        assert ("realm_registry", f"upsert:{source.url}") in told
        assert ("realm_index_swapped", PAGE) in told


def _heard(listener: "psycopg.Connection[Any]") -> list[tuple[str, str]]:
    """Everything up to a mark that is sent now: Postgres delivers in commit order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify('realm_heartbeat', 'the mark')")
    heard: list[tuple[str, str]] = []
    for each in listener.notifies(timeout=20):
        if each.payload == "the mark":
            return heard
        heard.append((each.channel, each.payload))
    raise AssertionError("the mark never came")


# --- Rolling back ------------------------------------------------------------------------------


def test_a_rollback_shows_what_was_shown_before_at_a_new_generation(source: Realm) -> None:
    first = make.publish(source, PAGE)
    make.write(source, index__json=b"{}", new__md=b"new")
    make.remove(source, "ada.json")
    second = make.publish(source, PAGE)
    done = rollback_realm(PAGE, ADA)
    assert shown(PAGE) == make.SITE
    assert done.generation == second.generation + 1
    assert done.source_generation == first.source_generation
    assert done.realm_id == first.realm_id
    assert shown(source.url)["index.json"] == b"{}", "the source stays as it is"
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == done.generation
    assert not Definition.objects.exists()


def test_a_rollback_goes_to_the_generation_that_is_named(source: Realm) -> None:
    done = []
    for number in range(4):
        make.write(source, index__json=str(number).encode())
        done.append(make.publish(source, PAGE))
    rollback_realm(PAGE, ADA, done[1].generation)
    assert shown(PAGE)["index.json"] == b"1"
    rollback_realm(PAGE, ADA, done[3].generation)
    assert shown(PAGE)["index.json"] == b"3"
    before = everything()
    for missing in (0, 10_000):
        with pytest.raises(Unprocessable, match=f"no publication of generation {missing}"):
            rollback_realm(PAGE, ADA, missing)
    for shown_already in (generation(PAGE), done[3].generation):
        with pytest.raises(Unprocessable, match=f"showed at generation {shown_already} already"):
            rollback_realm(PAGE, ADA, shown_already)
    assert everything() == before


def test_a_second_rollback_goes_one_further_back(source: Realm) -> None:
    for number in range(3):
        make.write(source, index__json=str(number).encode())
        make.publish(source, PAGE)
    for number in (1, 0):
        rollback_realm(PAGE, ADA)
        assert shown(PAGE)["index.json"] == str(number).encode()
    with pytest.raises(Unprocessable, match="before this one"):
        rollback_realm(PAGE, ADA)
    make.write(source, index__json=b"3")
    make.publish(source, PAGE)
    rollback_realm(PAGE, ADA)
    assert shown(PAGE)["index.json"] == b"0", "what was shown before, not what was taken back"


def test_a_rollback_passes_over_publications_of_the_same_content(source: Realm) -> None:
    make.publish(source, PAGE)
    make.write(source, index__json=b"{}")
    make.publish(source, PAGE)
    make.publish(source, PAGE)
    rollback_realm(PAGE, ADA)
    assert shown(PAGE) == make.SITE


def test_a_first_publication_and_an_unpublished_realm_have_no_rollback(
    source: Realm,
) -> None:
    make.publish(source, PAGE)
    with pytest.raises(Unprocessable, match="before this one"):
        rollback_realm(PAGE, ADA)
    for url in (source.url, SECOND_PAGE):
        with pytest.raises(NotPublished):
            rollback_realm(url, ADA)
    make.user("bob")
    with pytest.raises(Forbidden):
        rollback_realm(PAGE, Caller("bob"))


# --- Taking down -------------------------------------------------------------------------------


def test_an_unpublish_leaves_nothing_but_the_source(source: Realm) -> None:
    """Taking a copy down never touches the source's own row or files."""
    make.publish(source, PAGE)
    indexed(PAGE)
    make.publish(source, PAGE)
    unpublish_realm(PAGE, ADA)
    assert not Realm.objects.filter(url=PAGE).exists()
    assert not Publication.objects.exists()
    assert not IndexHead.objects.exists()
    assert not IndexedCard.objects.exists()
    assert not Definition.objects.exists()
    assert not ReindexJob.objects.live().exists()
    assert not RealmPermission.objects.filter(realm__url=PAGE).exists()
    assert shown(source.url) == make.SITE


def test_a_delete_takes_all_copies_and_only_those(source: Realm, owner: Any) -> None:
    """Other realms, and the copies of other sources, keep every row."""
    bob = make.user("bob")
    bobs = make.source(f"{ORIGIN}/bob/site/", bob, make.SITE)
    adas_other = make.source(f"{ORIGIN}/ada/other/", owner, make.SITE)
    make.publish(bobs, "http://bob.localhost:4201/")
    indexed("http://bob.localhost:4201/")
    make.publish(adas_other, f"{PAGE}other/")
    before = everything()
    make.publish(source, PAGE)
    make.publish(source, SECOND_PAGE)
    indexed(PAGE)

    assert delete_realm(source.url, ADA) == [source.url, PAGE, SECOND_PAGE]
    after = everything()
    gone = {source.url, PAGE, SECOND_PAGE}
    for table in before:
        if table in ("RealmTombstone", "ReindexJob", "CacheGeneration", "Blob"):
            continue
        kept = [row for row in before[table] if source.pk not in row]
        assert after[table] == kept, table
    assert {row[0] for row in after["RealmTombstone"]} == gone
    assert not ReindexJob.objects.live().filter(realm_url__in=gone).exists()
    assert shown(bobs.url) == shown("http://bob.localhost:4201/") == make.SITE


def test_taking_down_what_is_not_there_is_refused_and_changes_nothing(source: Realm) -> None:
    before = everything()
    with pytest.raises(NotPublished):
        unpublish_realm(PAGE, ADA)
    with pytest.raises(NotFound):
        delete_realm(f"{ORIGIN}/ada/none/", ADA)
    assert everything() == before


def test_the_card_library_can_not_be_deleted_published_over_or_taken_down(source: Realm) -> None:
    """The bootstrap realm belongs to the release, not to anybody who asks."""
    sync_base_realm()
    base, operator = f"{ORIGIN}/base/", Caller("realm_server", operator=True)
    before = everything()
    with pytest.raises(Unprocessable):
        delete_realm(base, operator)
    with pytest.raises(IsASourceRealm):
        publish_realm(source.url, base, operator)
    with pytest.raises(NotPublished):
        unpublish_realm(base, operator)
    with pytest.raises(NotARealm):
        publish_realm(base, PAGE, operator)
    assert everything() == before


def test_nobody_makes_a_realm_within_the_card_library_whatever_their_name(
    web: Web, source: Realm, base: None
) -> None:
    """Somebody may be called `base` from before that name was reserved."""
    namesake = make.old_user("base")
    attributes = {"endpoint": "site", "name": "Mine"}
    body = {"data": {"type": "realm", "attributes": attributes}}
    before = everything()
    answer = web.post(f"{ORIGIN}/_create-realm", body, make.login("base"))
    assert answer.status == 403
    assert json.loads(answer.body) == {
        "errors": [
            f"{ORIGIN}/base/site/ lies within {ORIGIN}/base/, reserved for this server's own"
            " library; choose another name"
        ]
    }
    with pytest.raises(Reserved):
        import_files(Folder({}, {}), f"{ORIGIN}/base/site/", owner=namesake)
    with pytest.raises(Reserved):
        import_files(Folder({}, {}), f"{ORIGIN}/base/site/", owner=namesake, dry_run=True)
    with pytest.raises(Reserved):
        publish_realm(source.url, f"{ORIGIN}/base/site/", Caller("@realm_server", operator=True))
    assert everything() == before
    # The name alone is nobody's fault.
    make.source(f"{ORIGIN}/basement/site/", namesake, make.SITE)


# --- At the same time --------------------------------------------------------------------------


def test_a_publish_is_never_a_mixture_of_two_writes(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that comes while its realm is published waits, and is in no part of the copy."""
    make.write(source, one__md=b"old", two__md=b"old")
    gate = Gate()
    monkeypatch.setattr(publishing, "_show", gate.before(publishing._show))
    publish = in_thread(make.publish, source, PAGE)
    gate.wait_for_arrival()
    write = in_thread(make.write, source, one__md=b"new", two__md=b"new")
    wait_until(lambda: waiting_for(source.url) == 1, "the write waiting for the publish")
    gate.open()
    publish.result(20)
    write.result(20)
    assert (shown(PAGE)["one.md"], shown(PAGE)["two.md"]) == (b"old", b"old")
    assert (shown(source.url)["one.md"], shown(source.url)["two.md"]) == (b"new", b"new")


def test_a_write_that_waited_behind_a_delete_changes_nothing(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again once it has the lock, and is told 404."""
    headers, gate = make.realm_login(source, "ada"), Gate()
    monkeypatch.setattr(publishing, "_tear_down", gate.before(publishing._tear_down))
    delete = in_thread(delete_realm, source.url, ADA)
    gate.wait_for_arrival()
    write = in_thread(web.upload, f"{source.url}late.md", b"late", headers)
    remove = in_thread(
        web.request, "DELETE", f"{source.url}ada.json", accept="application/vnd.card+source",
        headers=headers,
    )  # fmt: skip
    wait_until(lambda: waiting_for(source.url) == 2, "both waiting for the delete")
    gate.open()
    delete.result(20)
    assert write.result(20).status == 404
    assert remove.result(20).status == 404
    assert not Realm.objects.filter(url=source.url).exists()
    assert not FileVersion.objects.filter(realm_id=source.pk).exists()


def test_a_write_that_waited_never_lands_in_the_realm_that_came_after(
    web: Web, source: Realm
) -> None:
    """What was allowed in the old realm was never allowed in the new one."""
    headers, bob = make.realm_login(source, "ada"), make.user("bob")
    with realm_write_lock(source.url):
        write = in_thread(web.upload, f"{source.url}late.md", b"late", headers)
        wait_until(lambda: waiting_for(source.url) == 1, "the write waiting")
        publishing._tear_down(Realm.objects.get(url=source.url))
        publishing.make_realm(source.url, Realm.Kind.SOURCE, bob)
    assert write.result(20).status == 404
    assert shown(source.url) == {}


def test_of_two_who_create_one_url_one_is_told_that_it_exists(
    web: Web, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looks under the lock, and overwrites nothing of the first."""
    gate = Gate()
    monkeypatch.setattr(publishing, "make_realm", gate.after(publishing.make_realm))

    def create(name: str) -> Any:
        attributes = {"endpoint": "new", "name": name}
        body = {"data": {"type": "realm", "attributes": attributes}}
        return web.post(f"{ORIGIN}/_create-realm", body, make.login("ada"))

    first = in_thread(create, "first")
    gate.wait_for_arrival()
    second = in_thread(create, "second")
    wait_until(lambda: waiting_for(f"{ORIGIN}/ada/new/") == 1, "the second waiting")
    gate.open()
    assert (first.result(20).status, second.result(20).status) == (202, 400)
    assert "already exists" in second.result().text
    assert b'"first"' in shown(f"{ORIGIN}/ada/new/")["realm.json"]
    assert generation(f"{ORIGIN}/ada/new/") == 2


def test_of_two_who_publish_to_one_free_url_it_belongs_to_the_first(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owning a source that may be published gives no right to somebody else's published URL."""
    bobs = make.source(f"{ORIGIN}/bob/site/", make.user("bob"), {"bob.md": b"bob"})
    url, gate = "http://free.localhost:4201/", Gate()
    monkeypatch.setattr(publishing, "_show", gate.before(publishing._show))
    first = in_thread(make.publish, source, url)
    gate.wait_for_arrival()
    second = in_thread(make.publish, bobs, url)
    wait_until(lambda: waiting_for(url) == 1, "bob waiting")
    gate.open()
    first.result(20)
    with pytest.raises(Forbidden):
        second.result(20)
    assert shown(url) == make.SITE


def test_of_two_who_publish_to_one_free_host_it_belongs_to_the_first(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    bobs = make.source(f"{ORIGIN}/bob/site/", make.user("bob"), {"bob.md": b"bob"})
    host, gate = "http://free.localhost:4201/", Gate()
    monkeypatch.setattr(publishing, "_show", gate.before(publishing._show))
    first = in_thread(make.publish, source, f"{host}one/")
    gate.wait_for_arrival()
    second = in_thread(make.publish, bobs, f"{host}two/")
    wait_until(lambda: waiting_for("space|free.localhost") == 1, "bob waiting for the host")
    gate.open()
    first.result(20)
    with pytest.raises(Forbidden):
        second.result(20)


def test_someone_elses_publication_and_source_stay_theirs(source: Realm) -> None:
    """No way leads over them, below them, or to rights in them."""
    bobs = make.source(f"{ORIGIN}/bob/site/", make.user("bob"), {"bob.md": b"bob"})
    make.publish(source, PAGE)
    before = everything()
    bob = Caller("bob")
    for url in (PAGE, f"{PAGE}below/", f"{ORIGIN}/ada/new/"):
        with pytest.raises(Forbidden):
            publish_realm(bobs.url, url, bob)
    with pytest.raises(IsASourceRealm):
        publish_realm(bobs.url, source.url, bob)
    for act in (unpublish_realm, rollback_realm):
        with pytest.raises(Forbidden):
            act(PAGE, bob)
    with pytest.raises(Forbidden):
        delete_realm(source.url, bob)
    with pytest.raises(InvalidURL):
        publish_realm(bobs.url, "http://bob.localhost:4201/_x/", bob)
    assert everything() == before


def test_a_publish_that_waited_behind_its_sources_delete_leaves_no_orphan(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published realm without a source would belong to nobody, and nobody could take it down."""
    gate = Gate()
    monkeypatch.setattr(publishing, "_tear_down", gate.before(publishing._tear_down))
    delete = in_thread(delete_realm, source.url, ADA)
    gate.wait_for_arrival()
    publish = in_thread(make.publish, source, PAGE)
    wait_until(lambda: waiting_for(source.url) == 1, "the publish waiting for the delete")
    gate.open()
    delete.result(20)
    with pytest.raises(NotARealm):
        publish.result(20)
    assert not Realm.objects.filter(url=PAGE).exists()


def test_a_delete_that_waited_behind_a_publish_takes_neither_or_both(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that appeared meanwhile is never left behind."""
    gate = Gate()
    monkeypatch.setattr(publishing, "_show", gate.before(publishing._show))
    publish = in_thread(make.publish, source, PAGE)
    gate.wait_for_arrival()
    delete = in_thread(delete_realm, source.url, ADA)
    wait_until(lambda: waiting_for(source.url) == 1, "the delete waiting for the publish")
    gate.open()
    publish.result(20)
    assert delete.result(20) == [source.url, PAGE]
    assert not Realm.objects.exists()


def test_a_write_and_a_publish_wait_for_no_reindex_that_is_under_way(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendering holds no lock: whoever changes a realm is answered while its pages are made."""
    first, gate = make.publish(source, PAGE), Gate()
    plan = lifecycle.Plan(["index.json"], {PAGE: first.generation})
    lifecycle.create_batches(ReindexJob.objects.get(realm_url=PAGE), plan)

    def render(*_: object) -> tuple[list[Any], list[Any]]:
        gate.hold()
        return [], []

    monkeypatch.setattr(tasks, "_render", render)
    rendering = in_thread(tasks.work)
    gate.wait_for_arrival()
    headers = make.realm_login(source, "ada")
    assert web.upload(f"{source.url}new.md", b"new", headers).status == 204
    second = make.publish(source, PAGE)
    assert not rendering.done()
    gate.open()
    rendering.result(20)
    assert shown(PAGE)["new.md"] == b"new"
    assert ReindexJob.objects.get(realm_url=PAGE, status="queued").generation == second.generation


def test_forty_writers_to_one_realm_all_succeed(web: Web, source: Realm) -> None:
    """Those who wait for the lock keep nothing that its holder needs."""
    headers = make.realm_login(source, "ada")

    def write(number: int) -> int:
        return web.upload(f"{source.url}{number}.md", str(number).encode(), headers).status

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(write, range(40))) == [204] * 40
    assert generation(source.url) == 42
    files = shown(source.url)
    assert all(files[f"{number}.md"] == str(number).encode() for number in range(40))


def test_a_generation_whose_source_is_gone_is_gone_from_history(
    source: Realm,
) -> None:
    """Exactly a generation is what an exact pin gets, or nothing."""
    assert source.owner is not None
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {"post.tsx": b"another's"})
    first = make.publish(source, PAGE).generation
    between = make.publish(other, PAGE).generation
    make.publish(source, PAGE)
    assert source_at(PAGE, between, "post.tsx").content.body == b"another's"
    delete_realm(other.url, Caller("ada"))
    for path in ("post.tsx", "never.tsx"):
        assert source_at(PAGE, between, path).content.status == 410
        assert load_at(PAGE, between, path).content.status == 410
    asked = RequestFactory().post("/", '{"paths": ["post.tsx"]}', content_type="application/json")
    for read in (pinned_reads.manifest, pinned_reads.many):
        with pytest.raises(HistoryEnds):
            read(asked, Pin(PAGE, between))
    realm = Realm.objects.get(url=PAGE)
    assert not versions_at(realm, between).exists()
    for generation in (first, realm.generation):
        assert source_at(PAGE, generation, "post.tsx").content.body == make.SITE["post.tsx"]


@pytest.mark.parametrize("meanwhile", ["unpublished", "unpublished and published again", "pointed"])
def test_a_publish_that_waited_finds_what_it_must_lock_by_then(
    source: Realm, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """It locks where its source is published if that changes, which it can tell only once it has
    the lock of the URL."""
    assert source.owner is not None
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {"other.md": b"other"})
    make.publish(source, PAGE)
    gate = Gate()

    def first() -> None:
        if meanwhile == "pointed":
            make.publish(other, PAGE)
        elif meanwhile == "unpublished":
            unpublish_realm(PAGE, ADA)
        else:
            with realm_write_lock(PAGE, address_lock(source.url), address_lock(other.url)):
                publishing._tear_down(Realm.objects.get(url=PAGE))
                publishing._show(other, 2, None, PAGE, ADA)

    step = "_show" if meanwhile == "pointed" else "_tear_down"
    monkeypatch.setattr(publishing, step, gate.after(getattr(publishing, step)))
    changing = in_thread(first)
    gate.wait_for_arrival()
    second = in_thread(make.publish, source, PAGE)
    wait_until(lambda: waiting_for(PAGE) == 1, "the second publish waiting for the first change")
    gate.open()
    changing.result(20)
    assert second.result(20).source_url == source.url
    assert shown(PAGE) == make.SITE


@pytest.mark.parametrize("named", [False, True])
def test_a_rollback_never_shows_a_source_that_is_deleted_meanwhile(
    source: Realm, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """It locks the source that it will show, and looks again once it has it."""
    assert source.owner is not None
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {"other.md": b"other"})
    first = make.publish(other, PAGE).generation if named else None
    if not named:
        make.publish(other, PAGE)
    make.publish(source, PAGE)
    gate = Gate()
    monkeypatch.setattr(publishing, "rollback_target", gate.after(publishing.rollback_target))
    rollback = in_thread(rollback_realm, PAGE, ADA, first)
    gate.wait_for_arrival()
    delete = in_thread(delete_realm, other.url, ADA)
    wait_until(lambda: delete.done() or waiting_for(other.url) == 1, "the delete done or waiting")
    gate.open()
    with pytest.raises(Unprocessable, match="no publication"):
        rollback.result(20)
    assert delete.result(20) == [other.url]
    assert shown(PAGE) == make.SITE


def test_a_delete_that_waited_behind_a_rollback_takes_what_is_shown_again(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source.owner is not None
    other = make.source(f"{ORIGIN}/ada/other/", source.owner, {"other.md": b"other"})
    make.publish(other, PAGE)
    make.publish(source, PAGE)
    gate = Gate()
    monkeypatch.setattr(publishing, "_show", gate.before(publishing._show))
    rollback = in_thread(rollback_realm, PAGE, ADA)
    gate.wait_for_arrival()
    delete = in_thread(delete_realm, other.url, ADA)
    wait_until(lambda: waiting_for(PAGE) == 1, "the delete waiting for the rollback")
    gate.open()
    assert rollback.result(20).source_url == other.url
    assert delete.result(20) == [other.url, PAGE]
    assert not Realm.objects.filter(url=PAGE).exists()


# --- Generations, whoever writes the rows --------------------------------------------------------

DELETES: dict[str, str] = {
    "a statement": "DELETE FROM realms_realmpermission; DELETE FROM realms_fileversion;"
    " DELETE FROM realms_realm WHERE url = %(url)s",
    "a truncate": "TRUNCATE realms_realm CASCADE",
    "two deletes": "DELETE FROM realms_realmpermission; DELETE FROM realms_fileversion;"
    " DELETE FROM realms_realm WHERE url = %(url)s;"
    " INSERT INTO realms_realm (id, url, kind, generation, history_from, publishable, created_at)"
    " VALUES (gen_random_uuid(), %(url)s, 'source', 1, 0, true, now());"
    " DELETE FROM realms_realm WHERE url = %(url)s",
}


@pytest.mark.parametrize("insert", ["a statement", "many rows", "the ORM", "a higher generation"])
@pytest.mark.parametrize("delete", [*DELETES, "the ORM"])
def test_a_generation_falls_over_no_delete_and_new_realm_whoever_does_it(
    source: Realm, delete: str, insert: str
) -> None:
    make.write(source, index__json=b"{}")
    before, url = generation(source.url), source.url
    with connection.cursor() as cursor:
        if delete == "the ORM":
            Realm.objects.filter(url=url).delete()
        else:
            cursor.execute(DELETES[delete], {"url": url})
        if insert == "the ORM":
            Realm.objects.bulk_create([Realm(url=url, kind="source")])
        else:
            first = 1000 if insert == "a higher generation" else 1
            cursor.execute(
                "INSERT INTO realms_realm (id, url, kind, generation, history_from, publishable,"
                " created_at) SELECT gen_random_uuid(), u, 'source', %s, 0, true, now()"
                " FROM unnest(%s::text[]) u",
                [first, [f"{ORIGIN}/new/", url] if insert == "many rows" else [url]],
            )
    if insert == "a higher generation":
        assert generation(url) == 1000
    else:
        assert generation(url) > before
    assert not RealmTombstone.objects.filter(url=url).exists()


def test_a_generation_does_not_fall_for_who_inserts_while_it_is_deleted(source: Realm) -> None:
    """Who waits for the delete has begun when no tombstone was to be seen."""
    before, gate = generation(source.url), Gate()

    def delete() -> None:
        with transaction.atomic():
            Realm.objects.get(url=source.url).delete()
            gate.hold()

    deleting = in_thread(delete)
    gate.wait_for_arrival()
    inserting = in_thread(lambda: Realm.objects.create(url=source.url, kind="source") and None)
    wait_until(_a_transaction_is_waited_for, "the insert waiting for the delete")
    gate.open()
    deleting.result(20)
    inserting.result(20)
    assert generation(source.url) > before


def _a_transaction_is_waited_for() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        )
        return bool(cursor.fetchone()[0])


def test_decomposed_paths_of_before_are_composed_in_all_of_history(
    web: Web, source: Realm, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is published keeps its files and pages; of two that look alike neither is lost."""
    make.publish(source, PAGE)
    there = {"cafe\u0301.json": b"1", "cafe\u0301.md": b"2", "caf\u00e9.md": b"3"}
    make.write_paths(source, there)
    make.publish(source, PAGE)
    indexed(PAGE)
    IndexedCard.objects.filter(realm_url=PAGE).update(path="cafe\u0301")
    make.write_paths(source, {"cafe\u0301.json": b"4"})
    migration = import_module("realms.migrations.0009_composed_paths")
    for _ in range(2):
        with transaction.atomic():
            migration.compose_paths(apps, connection.schema_editor())
    for realm, first in ((source.url, b"4"), (PAGE, b"1")):
        stands = {path: data for path, data in shown(realm).items() if path not in make.SITE}
        assert stands == {"caf\u00e9.json": first, "caf\u00e9-2.md": b"2", "caf\u00e9.md": b"3"}
    assert "'cafe\\u0301.md' is 'caf\u00e9-2.md'" in capsys.readouterr().out
    assert web.get(f"{PAGE}cafe%CC%81.json").body == b"1"
    assert "old" in web.get(f"{PAGE}cafe%CC%81", "text/html").text
    with pytest.raises(DatabaseError, match="can only be closed"):
        FileVersion.objects.filter(path="caf\u00e9.json").update(path="other.json")
