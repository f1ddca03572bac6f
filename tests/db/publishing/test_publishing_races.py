"""Tests concurrent writes, publishes, rollbacks and deletes of one realm. An operation that waited
for the realm's lock must use the state of the realm after the wait."""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import pytest

from notifications.locks import address_lock
from realms.access.auth import Caller
from realms.content.locks import realm_write_lock
from realms.errors import Forbidden, NotARealm, Unprocessable
from realms.models import FileVersion, Realm
from realms.publishing import publish as publishing
from realms.publishing.locking import Held
from realms.publishing.publish import delete_realm, rollback_realm, unpublish_realm
from reindex import tasks
from reindex.jobs import lifecycle
from reindex.models import ReindexJob
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.data.published import generation, shown
from tests.support.gates import Gate, in_thread
from tests.support.web import ORIGIN, Web, waiting_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PAGE = "http://ada.localhost:4201/"
ADA = Caller("ada")


def test_a_publish_is_never_a_mixture_of_two_writes(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that comes during a publish waits, and no part of the write is published."""
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


def test_a_write_that_waited_for_a_delete_changes_nothing(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the wait, the upload and the removal look for the realm again, and the answer is
    404."""
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


def test_a_write_that_waited_never_changes_the_deleted_realms_successor(
    web: Web, source: Realm
) -> None:
    """The permission to write to the deleted realm doesn't hold for the new realm at the same
    URL."""
    headers, bob = make.realm_login(source, "ada"), make.user("bob")
    with realm_write_lock(source.url):
        write = in_thread(web.upload, f"{source.url}late.md", b"late", headers)
        wait_until(lambda: waiting_for(source.url) == 1, "the write waiting")
        publishing._tear_down(Realm.objects.get(url=source.url))
        publishing.make_realm(source.url, Realm.Kind.SOURCE, bob)
    assert write.result(20).status == 404
    assert shown(source.url) == {}


def test_the_second_of_two_creations_of_one_url_is_refused(
    web: Web, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the wait for the lock, the second request finds that the realm exists, and overwrites
    nothing."""
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


def test_the_first_of_two_publishes_to_a_free_url_owns_it(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first publish, only the owner of the source that the URL shows may publish at the
    URL."""
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


def test_the_first_of_two_publishes_to_a_free_host_owns_it(
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


def test_a_publish_that_waited_for_its_sources_delete_makes_no_realm(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a user may take a published realm down depends on the realm's source. So nobody could
    take down a published realm without a source."""
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


def test_a_delete_that_waited_for_a_publish_also_deletes_the_copy(
    source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delete removes the source, and also the realm that was published from the source while
    the delete waited."""
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


def test_a_write_and_a_publish_do_not_wait_for_a_running_reindex(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that renders pages holds no lock of a realm, so writes and publishes succeed
    meanwhile."""
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
    """A writer that waits for the lock holds no connection or thread that the lock's holder
    needs."""
    headers = make.realm_login(source, "ada")

    def write(number: int) -> int:
        return web.upload(f"{source.url}{number}.md", str(number).encode(), headers).status

    with ThreadPoolExecutor(40) as pool:
        assert list(pool.map(write, range(40))) == [204] * 40
    assert generation(source.url) == 42
    files = shown(source.url)
    assert all(files[f"{number}.md"] == str(number).encode() for number in range(40))


@pytest.mark.parametrize("meanwhile", ["unpublished", "unpublished and published again", "pointed"])
def test_a_publish_that_waited_locks_the_addresses_that_now_change(
    source: Realm, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The address of a source is the URL at which the source is published. A publish locks each
    address that it may change. Which addresses these are can change while the publish waits for its
    locks. The publish then starts over with other locks."""
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
                publishing._show(other, 2, None, PAGE, ADA, Held(0, perf_counter()))

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
    """A rollback locks the source realm that it will show, and then checks again that the source
    exists."""
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


def test_a_delete_that_waited_for_a_rollback_deletes_the_shown_copy(
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
