"""Tests that a change at a peer, which is another replica, takes effect here as soon as its
notification arrives. Also tests that a change moves each key of the board only once.

A replica's board says which cached data is fresh. A key stands for something that can change, such
as a file. If its key moves, the cached data that depends on the file is stale. A listener moves the
keys when it receives notifications from Postgres.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from definitions.lookup import DefinitionLookup
from notifications import emit
from notifications import listener as listener_module
from notifications.board import Board, now_ns
from notifications.channels import REALM_FILE_CHANGES
from notifications.listener import Listener, listen_connection
from realms.access.auth import Caller
from realms.models import Realm
from realms.publishing.publish import create_realm, delete_realm, unpublish_realm
from realms.serving import transpiling
from reindex.jobs import batches, lifecycle
from reindex.models import ReindexJob
from tests.support import make
from tests.support.gates import PATIENCE, in_thread
from tests.support.listening.hearing import notify
from tests.support.web import ORIGIN, SOURCE, Web

pytestmark = pytest.mark.django_db(transaction=True)

ADA = Caller("ada")
PAGE = "http://ada.localhost:4201/"
MODULE = "http://localhost:4201/ada/site/post.tsx"


class CountingBoard(Board):
    """A board that records each key that moves."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.moved: list[str] = []

    def bump(self, keys: Any) -> None:
        named = list(keys)
        self.moved += named
        super().bump(named)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes listeners ping the database five times as often as in production."""
    monkeypatch.setattr(listener_module, "PING_SECONDS", 0.1)


@contextmanager
def listening(board: Board) -> Iterator[Listener]:
    """Runs a real listener that keeps a board live."""
    listener = Listener("test", board, listen_connection, bound_seconds=30)
    ending = in_thread(listener.run)
    assert listener.wait_for_watermark(now_ns(), PATIENCE)
    yield listener
    listener.stop()
    ending.result(PATIENCE)


@pytest.fixture
def here(web: Web) -> Iterator[Listener]:
    """Yields a listener for the board of the replica that the fixture `web` runs. In production the
    replica's sidecar, a process of its own, runs this listener."""
    with listening(emit.local_board()) as listener:
        yield listener


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[tuple[Listener, CountingBoard]]:
    """Yields the listener and the board of another replica."""
    board = CountingBoard(tmp_path / "peer")
    with listening(board) as listener:
        yield listener, board


@contextmanager
def elsewhere(here: Listener, folder: Path) -> Iterator[None]:
    """Runs the `with` block with another replica's board, so that the listener `here` learns of the
    block's changes only from notifications. Waits until `here` has applied them."""
    board = Board(folder / "elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit, "local_board", lambda: board)
        yield
    assert here.wait_for_watermark(now_ns(), PATIENCE)


# --- What a client sees ------------------------------------------------------------------------


def test_a_peers_creations_publishes_and_takedowns_are_seen_at_once(
    web: Web, here: Listener, owner: Any, tmp_path: Path
) -> None:
    """A replica serves a realm that another replica has just created, and answers 404 for a realm
    that another replica has deleted."""
    inside = f"{PAGE}index.json"
    for _ in range(2):
        assert web.get(inside, SOURCE).status == 404
    with elsewhere(here, tmp_path):
        source = make.source(f"{ORIGIN}/ada/site/", owner, make.SITE)
        make.publish(source, PAGE)
    for _ in range(2):
        assert web.get(inside, SOURCE).body == make.SITE["index.json"]
    with elsewhere(here, tmp_path):
        make.write(source, index__json=b"{}")
        make.publish(source, PAGE)
    for _ in range(2):
        assert web.get(inside, SOURCE).body == b"{}"
    with elsewhere(here, tmp_path):
        unpublish_realm(PAGE, ADA)
    assert web.get(inside, SOURCE).status == 404
    assert web.get(f"{source.url}index.json", SOURCE).body == b"{}"
    with elsewhere(here, tmp_path):
        delete_realm(source.url, ADA)
    assert web.get(f"{source.url}index.json", SOURCE).status == 404


def test_a_realm_that_a_peer_recreated_is_served_from_its_new_source(
    web: Web, here: Listener, source: Realm, tmp_path: Path
) -> None:
    """A peer unpublishes a realm, and publishes another source at the same URL. From then on, the
    replica serves no file of the old realm."""
    make.publish(source, PAGE)
    assert here.wait_for_watermark(now_ns(), PATIENCE)
    for name in ("index.json", "ada.json"):
        web.get(PAGE + name, SOURCE)
        assert web.get(PAGE + name, SOURCE).cache == "hit"
    with elsewhere(here, tmp_path):
        unpublish_realm(PAGE, ADA)
        fresh = create_realm(ADA, "fresh", {"name": "Fresh"})
        make.write(fresh, index__json=b'{"fresh": 1}')
        make.publish(fresh, PAGE)
    assert web.get(f"{PAGE}index.json", SOURCE).body == b'{"fresh": 1}'
    assert web.get(f"{PAGE}ada.json", SOURCE).status == 404


def test_pages_of_a_remote_worker_are_shown_and_have_new_etags(
    web: Web, here: Listener, source: Realm, tmp_path: Path
) -> None:
    """After a publish, visitors get the old page until the new page is rendered. Then they get the
    new page at once."""
    make.publish(source, PAGE)
    _swap("<p>old</p>")
    make.publish(source, PAGE)
    assert here.wait_for_watermark(now_ns(), PATIENCE)
    web.get(PAGE, "text/html")
    early = web.get(PAGE, "text/html")
    assert (early.status, early.cache, "<p>old</p>" in early.text) == (200, "hit", True)
    with elsewhere(here, tmp_path):
        _swap("<p>new</p>")
    now = web.get(PAGE, "text/html", **{"If-None-Match": early.headers["etag"]})
    assert (now.status, "<p>new</p>" in now.text) == (200, True)
    assert web.get(PAGE, "text/html", **{"If-None-Match": now.headers["etag"]}).status == 304


def _swap(html: str) -> None:
    """Finishes the queued job of the realm at PAGE, as a worker does. The job's result is one page
    with the HTML `html`. Visitors see this page from now on."""
    job = ReindexJob.objects.get(realm_url=PAGE, status="queued")
    (batch,) = lifecycle.create_batches(job, lifecycle.Plan(["index.json"], {PAGE: job.generation}))
    claimed = batches.lease_batch(batch.pk)
    assert claimed is not None
    result = {"url": f"{PAGE}index", "html": {"isolated": html}, "search": {}, "ms": 1.0}
    assert batches.finish(claimed, [result])


def test_the_notification_of_ones_own_change_causes_no_transpile(
    web: Web, here: Listener, source: Realm, monkeypatch: pytest.MonkeyPatch,
    nothing_transpiled: None,
) -> None:  # fmt: skip
    runs: list[str] = []
    really = transpiling._run_deno

    def run(code: bytes, path: str) -> str:
        runs.append(path)
        return really(code, path)

    monkeypatch.setattr(transpiling, "_run_deno", run)
    make.write(source, post__tsx=b"export const two: number = 2;")
    first = web.get(MODULE)
    # The notification of the write may have arrived before this read. The test sends it again, so
    # that it certainly arrives after the read.
    notify(REALM_FILE_CHANGES, f"{source.url}:post.tsx")
    assert here.wait_for_watermark(now_ns(), PATIENCE)
    again = web.get(MODULE)
    assert (again.cache, again.body) == ("miss", first.body)
    assert (web.get(MODULE).cache, web.get(MODULE).body) == ("hit", first.body)
    assert runs == ["post.tsx"]


# --- How often keys move -----------------------------------------------------------------------


def test_a_cleared_realm_moves_one_key_on_a_peer(
    peer: tuple[Listener, CountingBoard], source: Realm
) -> None:
    listener, board = peer
    assert listener.wait_for_watermark(now_ns(), PATIENCE)
    board.moved.clear()
    with transaction.atomic():
        source.clear_local_source_caches_and_broadcast()
    assert listener.wait_for_watermark(now_ns(), PATIENCE)
    assert board.moved == [f"realm|{source.url}"]


def test_invalidated_definitions_move_each_key_once_on_a_peer(
    peer: tuple[Listener, CountingBoard],
) -> None:
    """The test drops the definitions of a module, of a realm, and of all realms. On the board, a
    module has one key for each spelling of its URL."""
    listener, board = peer
    realm, stem = "http://localhost:4201/ada/site/", MODULE.removesuffix(".tsx")
    spellings = [stem + extension for extension in ("", ".tsx", ".ts", ".jsx", ".js")]
    lookup = DefinitionLookup()
    for act, keys in (
        (lambda: lookup.invalidate(MODULE), [f"definitions|module|{url}" for url in spellings]),
        (lambda: lookup.clear_realm_definitions(realm), [f"definitions|realm|{realm}"]),
        (lookup.clear_all_definitions, ["definitions|global|"]),
    ):
        board.moved.clear()
        act()
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert sorted(board.moved) == sorted(keys)
