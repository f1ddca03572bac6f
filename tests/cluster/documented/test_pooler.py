"""Tests a cluster with a transaction pooler, a proxy that shares a few sessions of Postgres between
many clients. A client has a session for one transaction at a time. DATABASE_URL leads to the
pooler, and LISTEN_DATABASE_URL leads to Postgres itself."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from notifications import listener as listener_module
from notifications.board import Board, now_ns
from notifications.listener import Listener
from realms.models import Realm
from tests.support import make
from tests.support.cluster import Answer, Cluster, cluster, database_url, wait_until
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.hearing import connect
from tests.support.servers.pooler import Pooler, pooler

PUBLISHED = "http://ada.localhost:4201/"
API = "application/vnd.api+json"
SOURCE = "application/vnd.card+source"


@pytest.fixture
def pool(transactional_db: None) -> Iterator[Pooler]:
    with pooler() as made:
        yield made


def test_the_test_pooler_behaves_like_a_transaction_pooler(pool: Pooler) -> None:
    """A client's settings and locks stay in a session of Postgres, which other clients get later.
    Within a transaction a client keeps one session."""
    with pool.connect() as one, pool.connect() as two:
        pids = {one.execute("SELECT pg_backend_pid()").fetchone() for _ in range(6)}
        assert len(pids) == 3
        with one.transaction():
            inside = {one.execute("SELECT pg_backend_pid()").fetchone() for _ in range(6)}
            two.execute("SELECT 1")
        assert len(inside) == 1
        one.execute("SET lock_timeout = '7s'")
        seen = {two.execute("SHOW lock_timeout").fetchone() for _ in range(3)}
        assert seen == {("0",), ("7s",)}
        one.execute("SELECT pg_advisory_lock(42)")
    assert pool.left_behind() == [("advisory lock", "42"), ("setting", "lock_timeout = 7000")]
    assert min(pool.transactions) >= 4


@pytest.mark.usefixtures("django_db_setup")
def test_a_sidecar_that_listens_through_a_pooler_never_goes_live(
    pool: Pooler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pooler delivers no notifications to the sidecar while another client has the session. So
    the sidecar must not make the board live, because a replica with a live board trusts its
    caches."""
    monkeypatch.setattr(listener_module, "PING_SECONDS", 0.1)
    board = Board(tmp_path / "board")
    listener = Listener("a", board, pool.connect, 1.0, connect_as_writers=pool.connect)
    ending = in_thread(listener.run)
    try:
        wait_until(lambda: len(listener._pings) >= 5, "the sidecar has sent five pings", PATIENCE)
        assert not board.live()
    finally:
        listener.stop()
        ending.result(PATIENCE)
    listener = Listener("a", board, connect, 10.0, connect_as_writers=pool.connect)
    ending = in_thread(listener.run)
    try:
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert board.live()
    finally:
        listener.stop()
        ending.result(PATIENCE)


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_a_fleet_works_through_a_pooler_and_leaves_no_session_state(
    pool: Pooler, source: Realm, tmp_path: Path
) -> None:
    from realms.publishing.bootstrap import sync_base_realm

    sync_base_realm()
    before = pool.left_behind()
    with cluster(tmp_path, 1, DATABASE_URL=pool.url, LISTEN_DATABASE_URL=database_url()) as running:
        running.start_worker()
        replica = running.replicas[0]
        generation = _publish(running, source.url)
        ready = f"{PUBLISHED}_readiness-check?awaitPrerenderHtml=true"
        wait_until(lambda: replica.get(ready, API).status == 200, "pages are rendered", 60)
        assert "edition one" in replica.get(PUBLISHED, "text/html").text

        login = make.realm_login(source, "ada")

        def write(number: int) -> Answer:
            return replica.request(
                "POST",
                f"{source.url}count.ts",
                accept=SOURCE,
                body=f"export const n = {number};",
                headers=login,
            )

        start = source.generation
        with ThreadPoolExecutor(6) as writers:
            answers = list(writers.map(write, range(24)))
        assert {answer.status for answer in answers} == {204}
        told = sorted(int(answer.headers["x-realm-generation"]) for answer in answers)
        assert told == list(range(start + 1, start + 25)), "one writer at a time has the lock"
        assert _publish(running, source.url) > generation
        seen = replica.get(f"{PUBLISHED}count.ts")
        assert seen.text.splitlines()[0] in {f"export const n = {n};" for n in range(24)}
        for path, body in (
            ("_unpublish-realm", {"publishedRealmURL": PUBLISHED}),
            ("_delete-realm", {"data": {"type": "realm", "id": source.url}}),
        ):
            assert _ask(running, path, body).status in (200, 204)
        assert replica.get(f"{PUBLISHED}count.ts").status == 404
    assert set(pool.left_behind()) - set(before) - {("setting", "TimeZone = UTC")} == set()
    assert min(pool.transactions) > 50


def _publish(running: Cluster, source_url: str) -> int:
    body = {"sourceRealmURL": source_url, "publishedRealmURL": PUBLISHED}
    answer = _ask(running, "_publish-realm", body)
    assert answer.status == 202, answer.text
    return int(answer.headers["x-realm-generation"])


def _ask(running: Cluster, path: str, body: Any) -> Answer:
    return running.replicas[0].request(
        "DELETE" if path.startswith("_delete") else "POST",
        f"http://localhost:4201/{path}",
        accept=API,
        body=json.dumps(body),
        headers=make.login("ada"),
    )
