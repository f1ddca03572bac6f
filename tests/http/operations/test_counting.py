"""Tests what a web worker counts while it answers requests, and which figures it writes for the
sidecar, the process that reports the figures of a replica.

A replica's board is a file that says whether cached data is fresh. A read bypasses the caches while
the board isn't live.
"""

import json
from pathlib import Path

import pytest

from notifications.board import now_ns
from notifications.emit import local_board
from realms.content.locks import realm_write_lock
from realms.figures.counting import counts
from realms.figures.files import folder_of
from realms.models import Realm
from realms.web import telling
from realms.web.telling import Telling
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.web import SOURCE, Web, vouch

pytestmark = pytest.mark.django_db(transaction=True)

Counted = tuple[int, int, int]


def counted() -> Counted:
    return counts.hits, counts.misses, counts.bypasses


def since(before: Counted) -> Counted:
    hits, misses, bypasses = (now - then for now, then in zip(counted(), before, strict=True))
    return hits, misses, bypasses


@pytest.mark.usefixtures("base")
def test_each_read_is_a_hit_a_miss_or_a_bypass(web: Web, source: Realm) -> None:
    published = make.publish(source, "http://ada.localhost:4201/")
    url = f"{published.url}dot.png"
    before = counted()
    assert web.get(url).cache == "miss"
    assert since(before) == (0, 0, 1), "the board isn't live"
    vouch()
    # These reads ask for the stored bytes, which have a cache of their own. So the first is a miss.
    assert [web.get(url, SOURCE).cache for _ in range(3)] == ["miss", "hit", "hit"]
    assert since(before) == (2, 1, 1)
    local_board().go_live(now_ns() - 1)
    assert web.get(url, SOURCE).cache == "miss"
    assert since(before) == (2, 1, 2)


def test_a_hit_of_a_private_realm_is_counted_too(web: Web, live: None, owner: object) -> None:
    diary = make.source("http://localhost:4201/ada/diary/", owner, make.SITE, public=False)
    before = counted()
    for _ in range(2):
        assert (
            web.get(f"{diary.url}dot.png", SOURCE, **make.realm_login(diary, "ada")).status == 200
        )
    assert since(before) == (1, 1, 0)


def test_publishes_and_their_lock_times_are_counted(source: Realm) -> None:
    before = counts.publishes.count, counts.locks_held.count, counts.locks_held.seconds
    make.publish(source, "http://ada.localhost:4201/")
    assert counts.publishes.count == before[0] + 1
    assert counts.locks_held.count == before[1] + 1
    held = counts.locks_held.seconds - before[2]
    assert 0 < held < counts.publishes.seconds


def test_locks_of_a_failed_block_are_counted() -> None:
    before = counts.locks_held.count
    with pytest.raises(ZeroDivisionError), realm_write_lock("http://localhost:4201/ada/x/"):
        raise ZeroDivisionError
    assert counts.locks_held.count == before + 1


def test_a_web_worker_writes_its_figures_regularly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: Web, source: Realm
) -> None:
    monkeypatch.setattr(telling, "WRITE_SECONDS", 0.01)
    thread = Telling(tmp_path / "board")
    thread.start()

    def told() -> dict[str, float]:
        (path,) = folder_of(tmp_path / "board").glob("*.json")
        return {**json.loads(path.read_text())["counters"]}

    try:
        wait_until(lambda: list(folder_of(tmp_path / "board").glob("*.json")), "the figures")
        before = told()["bypasses"]
        web.get(f"{source.url}dot.png", SOURCE)
        wait_until(lambda: told()["bypasses"] == before + 1, "the request is counted")
    finally:
        thread.stop()
        thread.join()
