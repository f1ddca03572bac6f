"""P4 and P7 as a client sees them: a load that overlaps a change never brings old content back, and
concurrent requests do the work once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import transaction
from django.test import Client

from notifications import election
from notifications.board import now_ns
from notifications.channels import REALM_FILE_CHANGES, file_change, index_swapped
from notifications.emit import emit, local_board
from notifications.listener import SECOND, Listener, listen_connection
from notifications.single_flight import SingleFlight
from realms.access.auth import Caller
from realms.models import Realm, TranspiledModule
from realms.publishing.publish import delete_realm
from realms.serving import answers, contents, transpiling
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate, in_thread
from tests.support.listening.hearing import connect, notify

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nothing_transpiled"),
]

HOUR = 3600 * SECOND
SITE = "http://localhost:4201/ada/site/"
POST = f"{SITE}post.tsx"
MODULE = "*/*"
SOURCE = "application/vnd.card+source"
PAGE = "text/html"


@dataclass(frozen=True)
class Got:
    """What a client got."""

    status: int
    cache: str | None
    text: str


def get(url: str, accept: str = MODULE) -> Got:
    """GETs a URL from this process, as the web service answers it."""
    response = Client().get(urlsplit(url).path, HTTP_HOST="localhost:4201", HTTP_ACCEPT=accept)
    return Got(response.status_code, response.get("x-boxel-cache"), response.content.decode())


def edition(number: str) -> bytes:
    """The post's module, in another edition."""
    return make.POST_MODULE.replace("edition one", f"edition {number}").encode()


@pytest.fixture(autouse=True)
def empty_caches() -> None:
    """This process serves as if it had just started."""
    answers.caches.cache_clear()


@pytest.fixture
def live() -> Iterator[None]:
    """A board that is vouched for. What changes in this process moves it at commit."""
    local_board().go_live(now_ns() + HOUR)
    yield
    local_board().go_live(0)


@pytest.fixture
def site(source: Realm, live: None) -> Realm:
    """The source realm at SITE, served from caches."""
    return source


@dataclass
class DenoRuns:
    """Every start of the transpiler, by path."""

    paths: list[str]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> DenoRuns:
    counted = DenoRuns([])
    really = transpiling._run_deno

    def run(source: bytes, path: str) -> str:
        counted.paths.append(path)
        return really(source, path)

    monkeypatch.setattr(transpiling, "_run_deno", run)
    return counted


#: Where each step of a load is called.
MODULES: dict[str, Any] = {"resolve": answers, "javascript": contents}


def hold(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, before: bool = False) -> Gate:
    """Puts a gate at a function: its first caller waits there with its work done, or before it."""
    gate = Gate()
    function = getattr(module, name)
    monkeypatch.setattr(module, name, gate.before(function) if before else gate.after(function))
    return gate


def waiting(gate: Gate, url: str, accept: str = MODULE) -> "Future[Got]":
    """A request that has got as far as the gate."""
    request = in_thread(get, url, accept)
    gate.wait_for_arrival()
    return request


# --- What changes while it is being loaded -----------------------------------------------------


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
    """The request under way is answered; what it loaded is not kept, whatever emptied the cache."""
    gate = hold(monkeypatch, MODULES[function], function)
    request = waiting(gate, POST, accept)
    _CLEARED[cleared](site)
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(POST, accept).cache == "miss"
    assert get(POST, accept).cache == "hit"


@pytest.mark.parametrize(("function", "accept"), _HELD)
def test_a_write_during_a_load_is_what_the_next_request_gets(
    site: Realm, monkeypatch: pytest.MonkeyPatch, function: str, accept: str
) -> None:
    """Late output of the old source, transpiled or not, never serves anybody after the write."""
    gate = hold(monkeypatch, MODULES[function], function)
    request = waiting(gate, POST, accept)
    make.write(site, post__tsx=edition("two"))
    gate.open()
    overtaken = request.result(PATIENCE)
    assert overtaken.status == 200
    assert "edition one" in overtaken.text, "it was asked for before the write"
    following = get(POST, accept)
    assert following.cache == "miss"
    assert "edition two" in following.text
    assert get(POST, accept) == Got(200, "hit", following.text)


@pytest.mark.parametrize(("function", "accept"), _HELD)
def test_the_invalidation_of_another_path_leaves_a_load_to_be_kept(
    site: Realm, monkeypatch: pytest.MonkeyPatch, function: str, accept: str
) -> None:
    """The next request for it is a hit: nothing is thrown away for a neighbour's sake."""
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
    """The old bytes reach those who asked before the delete, and nobody after."""
    gate = hold(monkeypatch, answers, "resolve")
    request = waiting(gate, POST, accept)
    make.remove(site, "post.tsx")
    gate.open()
    assert request.result(PATIENCE).status == 200
    assert get(POST, accept).status == 404
    assert get(POST, accept) == Got(404, "hit", get(POST, accept).text)


@pytest.mark.parametrize("accept", [MODULE, SOURCE])
def test_a_file_made_while_its_absence_is_read_is_there_for_the_next(
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


def test_a_file_written_during_an_extensionless_read_is_new_by_both_names(
    site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module has one content, by whichever of its names it is asked for."""
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


def test_a_request_after_the_write_does_not_wait_for_the_load_before_it(
    site: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write detaches the older load: later requests start afresh; its end disturbs nothing."""
    gate = hold(monkeypatch, contents, "javascript")
    overtaken = waiting(gate, POST)
    make.write(site, post__tsx=edition("two"))
    assert "edition two" in get(POST).text, "while the older load is still under way"
    gate.open()
    assert "edition one" in overtaken.result(PATIENCE).text
    assert "edition two" in get(POST).text, "and after it has landed"


def test_an_invalidation_that_changed_nothing_costs_no_transpile(
    site: Realm, runs: DenoRuns
) -> None:
    """JavaScript is kept by the content that it is made from: an invalidation leaves it valid."""
    first = get(POST)
    site.clear_local_source_caches()
    assert get(POST) == Got(200, "miss", first.text)
    assert get(POST) == Got(200, "hit", first.text)
    assert runs.paths == ["post.tsx"]


def test_without_a_watermark_every_request_is_a_miss_and_none_stale(
    site: Realm, runs: DenoRuns
) -> None:
    get(POST)
    local_board().go_live(0)
    assert get(POST).cache == "miss"
    make.write(site, post__tsx=edition("two"))
    assert "edition two" in get(POST).text
    assert get(POST).cache == "miss"
    assert len(runs.paths) == 2, "slower, but not by a transpile"


# --- Once --------------------------------------------------------------------------------------


class Joiners:
    """Counts the requests that share another one's load."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        really = SingleFlight._may_join

        def may_join(*args: Any) -> bool:
            joined = really(*args)
            self.count += joined
            return joined

        monkeypatch.setattr(SingleFlight, "_may_join", may_join)

    def wait_for(self, count: int) -> None:
        wait_until(lambda: self.count >= count, f"{count} requests sharing a load", PATIENCE)


def test_many_requests_for_one_module_transpile_it_once(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them get the one result."""
    gate, joiners = hold(monkeypatch, transpiling, "_run_deno", before=True), Joiners(monkeypatch)
    requests = [in_thread(get, POST) for _ in range(8)]
    gate.wait_for_arrival()
    joiners.wait_for(7)
    gate.open()
    answers = [request.result(PATIENCE) for request in requests]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert runs.paths == ["post.tsx"]


def test_modules_at_different_paths_do_not_wait_for_each_other(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only requests for the same module are merged."""
    gate = hold(monkeypatch, transpiling, "_run_deno", before=True)
    held = waiting(gate, POST)
    assert get(f"{SITE}person.tsx").status == 200
    assert runs.paths == ["person.tsx"]
    gate.open()
    assert held.result(PATIENCE).status == 200


def test_two_processes_that_need_the_same_source_transpile_it_once(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share nothing but the database, which elects one of them."""
    gate = hold(monkeypatch, transpiling, "_run_deno", before=True)
    waiting, wait = threading.Event(), election.wait

    def noted() -> None:
        waiting.set()
        wait()

    monkeypatch.setattr(election, "wait", noted)
    source = make.SITE["post.tsx"]
    elected = in_thread(transpiling.javascript, "0" * 64, source, "post.tsx")
    gate.wait_for_arrival()
    other = in_thread(transpiling.javascript, "0" * 64, source, "post.tsx")
    assert waiting.wait(PATIENCE), "the other one waits"
    gate.open()
    assert elected.result(PATIENCE) == other.result(PATIENCE)
    assert runs.paths == ["post.tsx"]


def test_a_new_process_takes_what_the_fleet_has_transpiled(site: Realm, runs: DenoRuns) -> None:
    """The first transpile is kept for all processes; none of them repeats it."""
    first = get(POST)
    assert TranspiledModule.objects.count() == 1
    answers.caches.cache_clear()
    assert get(POST) == Got(200, "miss", first.text)
    assert runs.paths == ["post.tsx"]


def test_a_broken_transpiler_fails_all_waiters_and_is_tried_again(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is shared by those who asked together, and not remembered."""
    gate, joiners = Gate(), Joiners(monkeypatch)
    really = transpiling._run_deno

    def fail(source: bytes, path: str) -> str:
        gate.hold()
        monkeypatch.setattr(transpiling, "_run_deno", really)
        raise transpiling.TranspilerFailed("no memory for it")

    monkeypatch.setattr(transpiling, "_run_deno", fail)
    requests = [in_thread(get, POST) for _ in range(4)]
    gate.wait_for_arrival()
    joiners.wait_for(3)
    gate.open()
    assert {request.result(PATIENCE).status for request in requests} == {503}
    assert runs.paths == []
    assert get(POST).status == 200
    assert runs.paths == ["post.tsx"]


def test_a_source_that_is_wrong_is_refused_by_one_run_until_it_is_changed(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """406 for all who asked together and for later ones; the next content is tried anew."""
    make.write(site, post__tsx=b"export const = ;")
    gate, joiners = hold(monkeypatch, transpiling, "_run_deno", before=True), Joiners(monkeypatch)
    requests = [in_thread(get, POST) for _ in range(4)]
    gate.wait_for_arrival()
    joiners.wait_for(3)
    gate.open()
    assert {request.result(PATIENCE).status for request in requests} == {406}
    assert get(POST).status == 406
    answers.caches.cache_clear()
    assert get(POST).status == 406
    assert runs.paths == ["post.tsx"], "the same source would only be wrong again"
    make.write(site, post__tsx=edition("two"))
    assert "edition two" in get(POST).text


# --- What only a notification can tell ---------------------------------------------------------


@pytest.fixture
def sidecar() -> Iterator[Listener]:
    """A real listener that vouches for this process's board."""
    listener = Listener("test", local_board(), listen_connection, bound_seconds=5)
    ending = in_thread(listener.run)
    assert listener.wait_for_watermark(now_ns(), PATIENCE)
    yield listener
    listener.stop()
    ending.result(PATIENCE)


def hear(sidecar: Listener) -> None:
    """Waits until the sidecar has applied everything committed so far."""
    assert sidecar.wait_for_watermark(now_ns(), PATIENCE)


def test_a_manual_notification_makes_a_hit_a_miss_for_its_realm_only(
    source: Realm, sidecar: Listener
) -> None:
    """A path drops that path and a wildcard all; what is another's, or nonsense, drops nothing."""
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


def test_a_file_that_another_process_changed_is_new_here(source: Realm, sidecar: Listener) -> None:
    """This test can only pass by way of a notification."""
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


def test_a_permission_that_another_process_took_away_is_gone_here(
    source: Realm, sidecar: Listener
) -> None:
    get(POST)
    assert get(POST) == Got(200, "hit", get(POST).text)
    with connect() as other:
        other.execute("DELETE FROM realms_realmpermission WHERE audience = 'everyone'")
    hear(sidecar)
    assert get(POST).status == 401
