"""Tests promise P4 of the README: a request after a change never gets old content from a load that
began before the change."""

from collections.abc import Callable, Iterator

import pytest
from django.db import transaction

from notifications.board import now_ns
from notifications.channels import REALM_FILE_CHANGES, file_change, index_swapped
from notifications.emit import emit, local_board
from notifications.listener import Listener, listen_connection
from realms.access.auth import Caller
from realms.models import Realm
from realms.publishing.publish import delete_realm
from realms.serving import answers, contents
from tests.support import make
from tests.support.clients.loads import (
    MODULE,
    MODULES,
    PAGE,
    POST,
    SITE,
    SOURCE,
    DenoRuns,
    Got,
    edition,
    get,
    hold,
    waiting,
)
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.hearing import connect, notify

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nothing_transpiled"),
]


# --- Changes during a load ---------------------------------------------------------------------


def _announce_path(realm: Realm) -> None:
    with transaction.atomic():
        emit(file_change(realm.url, "post.tsx"))


def _broadcast(realm: Realm) -> None:
    with transaction.atomic():
        realm.clear_local_source_caches_and_broadcast()


_CLEARED: dict[str, Callable[[Realm], None]] = {
    "its own path": _announce_path,
    "the whole realm, here": Realm.clear_local_source_caches,
    "the whole realm, everywhere": _broadcast,
    "everything": lambda _: local_board().bump_epoch(),
}
_HELD = [
    pytest.param("javascript", MODULE, id="a transpile"),
    pytest.param("resolve", MODULE, id="the read of a module"),
    pytest.param("resolve", SOURCE, id="the read of a source"),
]


@pytest.mark.parametrize("cleared", _CLEARED)
@pytest.mark.parametrize(("function", "accept"), _HELD)
def test_an_invalidation_during_a_load_makes_the_next_request_a_miss(
    site: Realm, monkeypatch: pytest.MonkeyPatch, function: str, accept: str, cleared: str
) -> None:
    """The request that loads the content gets its answer. The next request doesn't get this answer
    from the cache."""
    gate = hold(monkeypatch, MODULES[function], function)
    request = waiting(gate, POST, accept)
    _CLEARED[cleared](site)
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(POST, accept).cache == "miss"
    assert get(POST, accept).cache == "hit"


@pytest.mark.parametrize(("function", "accept"), _HELD)
def test_a_request_after_a_write_during_a_load_gets_the_new_content(
    site: Realm, monkeypatch: pytest.MonkeyPatch, function: str, accept: str
) -> None:
    """After the write, no new request gets the old source or the JavaScript made from the old
    source."""
    gate = hold(monkeypatch, MODULES[function], function)
    request = waiting(gate, POST, accept)
    make.write(site, post__tsx=edition("two"))
    gate.open()
    overtaken = request.result(PATIENCE)
    assert overtaken.status == 200
    assert "edition one" in overtaken.text, "the request began before the write"
    following = get(POST, accept)
    assert following.cache == "miss"
    assert "edition two" in following.text
    assert get(POST, accept) == Got(200, "hit", following.text)


@pytest.mark.parametrize(("function", "accept"), _HELD)
def test_a_load_is_kept_despite_an_invalidation_of_another_path(
    site: Realm, monkeypatch: pytest.MonkeyPatch, function: str, accept: str
) -> None:
    """The next request for the loaded file is a cache hit."""
    gate = hold(monkeypatch, MODULES[function], function)
    request = waiting(gate, POST, accept)
    make.write(site, person__tsx=make.PERSON_MODULE.encode() + b"\n")
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(POST, accept).cache == "hit"


@pytest.mark.parametrize("accept", [MODULE, SOURCE])
def test_a_file_deleted_while_it_is_read_never_comes_back(
    site: Realm, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    """Only requests that began before the deletion get the old bytes."""
    gate = hold(monkeypatch, answers, "resolve")
    request = waiting(gate, POST, accept)
    make.remove(site, "post.tsx")
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(POST, accept).status == 404
    assert get(POST, accept) == Got(404, "hit", get(POST, accept).text)


@pytest.mark.parametrize("accept", [MODULE, SOURCE])
def test_a_file_made_while_a_404_is_loaded_is_found_by_the_next_request(
    site: Realm, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    gate = hold(monkeypatch, answers, "resolve")
    request = waiting(gate, f"{SITE}new.ts", accept)
    make.write(site, new__ts=b"export const news = true;")
    gate.open()
    assert request.result(PATIENCE).status == 404
    assert "news" in get(f"{SITE}new.ts", accept).text


def test_a_realm_deleted_while_one_of_its_files_is_read_never_comes_back(
    site: Realm, monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, int]]
) -> None:
    gate = hold(monkeypatch, answers, "resolve")
    request = waiting(gate, POST, SOURCE)
    delete_realm(SITE, Caller("ada"))
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(POST, SOURCE).status == 404
    assert get(POST).status == 404


def test_a_page_whose_index_is_swapped_while_it_is_read_is_not_kept(
    site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, answers, "resolve")
    request = waiting(gate, SITE, PAGE)
    with transaction.atomic():
        emit(index_swapped(SITE))
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(SITE, PAGE).cache == "miss"
    assert get(SITE, PAGE).cache == "hit"


def test_a_file_written_during_a_load_is_new_under_both_names(
    site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`post` and `post.tsx` are names of one module. After the write, requests for either name get
    the new content."""
    get(POST)
    assert get(POST).cache == "hit"
    gate = hold(monkeypatch, answers, "resolve")
    request = waiting(gate, f"{SITE}post")
    make.write(site, post__tsx=edition("two"))
    gate.open()
    assert "edition one" in request.result(PATIENCE).text
    for name in (f"{SITE}post", POST):
        following = get(name)
        assert following.cache == "miss"
        assert "edition two" in following.text


def test_a_request_after_a_write_does_not_wait_for_an_older_load(
    site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request after the write starts a new load. The end of the old load doesn't affect the new
    load."""
    gate = hold(monkeypatch, contents, "javascript")
    overtaken = waiting(gate, POST)
    make.write(site, post__tsx=edition("two"))
    assert "edition two" in get(POST).text, "the older load must not be shared"
    gate.open()
    assert "edition one" in overtaken.result(PATIENCE).text
    assert "edition two" in get(POST).text, "the older load must not be cached"


def test_an_invalidation_without_a_change_causes_no_transpile(site: Realm, runs: DenoRuns) -> None:
    """JavaScript is cached by the hash of its source, so it survives an invalidation."""
    first = get(POST)
    site.clear_local_source_caches()
    assert get(POST) == Got(200, "miss", first.text)
    assert get(POST) == Got(200, "hit", first.text)
    assert runs.paths == ["post.tsx"]


def test_without_a_live_board_every_request_is_a_miss_and_none_stale(
    site: Realm, runs: DenoRuns
) -> None:
    get(POST)
    local_board().go_live(0)
    assert get(POST).cache == "miss"
    make.write(site, post__tsx=edition("two"))
    assert "edition two" in get(POST).text
    assert get(POST).cache == "miss"
    assert len(runs.paths) == 2, "one transpile for each edition"


# --- Changes that only a notification announces ------------------------------------------------


@pytest.fixture
def sidecar() -> Iterator[Listener]:
    """Runs a listener, as the sidecar process of a replica does. The listener keeps this process's
    board live, and updates the board when notifications arrive."""
    listener = Listener("test", local_board(), listen_connection, bound_seconds=5)
    ending = in_thread(listener.run)
    assert listener.wait_for_watermark(now_ns(), PATIENCE)
    yield listener
    listener.stop()
    ending.result(PATIENCE)


def hear(sidecar: Listener) -> None:
    """Waits until the sidecar has applied all changes that were committed before the call."""
    assert sidecar.wait_for_watermark(now_ns(), PATIENCE)


def test_a_manual_notification_invalidates_only_its_own_realm(
    source: Realm, sidecar: Listener
) -> None:
    """A notification about a path invalidates that path, and a wildcard invalidates the whole
    realm. A malformed payload invalidates nothing. A notification about another realm invalidates
    nothing in this realm."""
    get(POST)
    for payload, following in [
        ("http://nobody.example/:*", "hit"),
        ("not a payload", "hit"),
        (f"{SITE}:person.tsx", "hit"),
        (f"{SITE}:post.tsx", "miss"),
        (f"{SITE}:*", "miss"),
    ]:
        assert get(POST).cache == "hit"
        notify(REALM_FILE_CHANGES, payload)
        hear(sidecar)
        assert get(POST).cache == following, payload


def test_a_file_that_another_process_changed_is_served_anew(
    source: Realm, sidecar: Listener
) -> None:
    """Another connection writes, so this process learns of the change only by the notification."""
    make.write(source, new__ts=edition("two"))
    assert "edition one" in get(POST).text
    assert get(POST).cache == "hit"
    with connect() as other, other.transaction():
        other.execute("UPDATE realms_realm SET generation = generation + 1 WHERE url = %s", [SITE])
        other.execute(
            "UPDATE realms_fileversion SET until_generation = r.generation"
            " FROM realms_realm r WHERE r.id = realm_id AND path = 'post.tsx'"
        )
        other.execute(
            "INSERT INTO realms_fileversion"
            " (realm_id, path, sha256, size, created_at, modified_at, from_generation)"
            " SELECT realm_id, 'post.tsx', sha256, v.size, now(), now(), r.generation"
            " FROM realms_fileversion v JOIN realms_realm r ON r.id = realm_id"
            " WHERE path = 'new.ts'"
        )
    hear(sidecar)
    following = get(POST)
    assert following.cache == "miss"
    assert "edition two" in following.text


def test_a_permission_that_another_process_revoked_is_revoked_here(
    source: Realm, sidecar: Listener
) -> None:
    get(POST)
    assert get(POST) == Got(200, "hit", get(POST).text)
    with connect() as other:
        other.execute("DELETE FROM realms_realmpermission WHERE audience = 'everyone'")
    hear(sidecar)
    assert get(POST).status == 401
