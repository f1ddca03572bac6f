"""Tests promise P7 of the README: if concurrent requests need the same content, the content is
loaded once, and a module is transpiled once."""

import threading
from typing import Any

import pytest

from notifications import election
from notifications.single_flight import SingleFlight
from realms.models import Realm, TranspiledModule
from realms.serving import answers, transpiling
from tests.support import make
from tests.support.clients.loads import POST, SITE, DenoRuns, Got, edition, get, hold, waiting
from tests.support.cluster import wait_until
from tests.support.gates import PATIENCE, Gate, in_thread

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nothing_transpiled"),
]


class Joiners:
    """Counts the requests that join another request's load."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        really = SingleFlight._may_join

        def may_join(*args: Any) -> bool:
            joined = really(*args)
            self.count += joined
            return joined

        monkeypatch.setattr(SingleFlight, "_may_join", may_join)

    def wait_for(self, count: int) -> None:
        wait_until(lambda: self.count >= count, f"{count} requests share a load", PATIENCE)


def test_many_requests_for_one_module_transpile_it_once(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests get the same result."""
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
    """Only requests for the same module share a load."""
    gate = hold(monkeypatch, transpiling, "_run_deno", before=True)
    held = waiting(gate, POST)
    assert get(f"{SITE}person.tsx").status == 200
    assert runs.paths == ["person.tsx"]
    gate.open()
    assert held.result(PATIENCE).status == 200


def test_two_processes_that_need_the_same_source_transpile_it_once(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads stand for the two processes, because two calls of `javascript` share only the
    database. In the database, one of the two is elected to transpile."""
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
    assert waiting.wait(PATIENCE), "the other thread must wait for the elected one"
    gate.open()
    assert elected.result(PATIENCE) == other.result(PATIENCE)
    assert runs.paths == ["post.tsx"]


def test_a_new_process_uses_javascript_that_the_fleet_has_transpiled(
    site: Realm, runs: DenoRuns
) -> None:
    """The database keeps the transpiled JavaScript for all processes. Empty caches stand for a new
    process."""
    first = get(POST)
    assert TranspiledModule.objects.count() == 1
    answers.caches.cache_clear()
    assert get(POST) == Got(200, "miss", first.text)
    assert runs.paths == ["post.tsx"]


def test_a_failed_transpile_fails_all_waiters_and_is_retried_later(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests that share a load get the load's error, which isn't cached."""
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


def test_a_source_with_a_syntax_error_is_transpiled_once(
    site: Realm, runs: DenoRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the source changes, all requests get a 406, and the source isn't transpiled again."""
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
    assert runs.paths == ["post.tsx"], "the error is stored, so no request transpiles again"
    make.write(site, post__tsx=edition("two"))
    assert "edition two" in get(POST).text
