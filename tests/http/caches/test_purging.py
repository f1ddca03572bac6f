"""Tests the purger, a thread that tells a shared cache which answers have changed. The purger
repeats a purge until the cache confirms it. The confirmation is called a receipt."""

import threading
import time
from collections.abc import Collection, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from notifications.channels import EVERY_REALM, surrogate_key
from notifications.listener import Listener, listen_connection, ping_connection
from realms.housekeeping import purging
from realms.housekeeping.purging import PurgeFailed, Purger, ToPurge, ban, keys_of
from realms.models import Realm
from tests.support import make
from tests.support.cluster import wait_until
from tests.support.data.published import indexed
from tests.support.listening.overheard import running
from tests.support.servers.edge import differences
from tests.support.servers.varnish import varnish
from tests.support.web import ORIGIN, SOURCE, Web, ask

SITE = f"{ORIGIN}/ada/site/"
PAGES = "http://ada.localhost:4201/"
HOUR = 3600


@pytest.fixture
def kept(web: Web, live: None, source: Realm, settings: Any, tmp_path: Path) -> Iterator[int]:
    """Yields the port of a Varnish cache that keeps answers for an hour."""
    settings.REALM_EDGE_SECONDS = HOUR
    make.write(source, label__ts=b"old")
    with varnish(tmp_path / "varnish", web.port) as port:
        yield port


def test_a_change_is_seen_through_a_purged_cache(kept: int, source: Realm) -> None:
    url = f"{SITE}label.ts"
    purger = Purger(f"http://127.0.0.1:{kept}/", ban, 0.1)
    listener = Listener("p", ToPurge([purger]), listen_connection, 2, 60, ping_connection)
    purger.start()
    with running(listener):
        # When the listener connects, the purger purges everything, because the listener may have
        # missed changes. The purger sends every purge twice. Wait until both are confirmed.
        wait_until(lambda: purger.confirmed >= 2 and not purger.owed, "everything is purged twice")
        assert ask(kept, "GET", url, accept=SOURCE).body == b"old"
        assert int(ask(kept, "GET", url, accept=SOURCE).headers["age"]) >= 0
        make.write(source, label__ts=b"new")
        wait_until(lambda: ask(kept, "GET", url, accept=SOURCE).body == b"new", "new bytes", 5)
        wait_until(lambda: not purger.owed, "the change is purged twice")
    purger.stop()
    assert purger.failed == 0


def test_a_purger_retries_after_its_hook_raises_an_error(caplog: pytest.LogCaptureFixture) -> None:
    came = []

    def hook(address: str, keys: Collection[str]) -> None:
        came.append(list(keys))
        if len(came) == 1:
            raise ConnectionError("the hook failed")

    purger = Purger("http://cache/", hook, -purging.WAY_SECONDS)
    purger.start()
    purger.owe({"key": SITE})
    wait_until(lambda: not purger.owed, "a second try purges the key")
    purger.stop()
    assert (came, purger.failed, purger.confirmed) == ([["key"], ["key"]], 1, 1)
    assert "the hook failed" in caplog.text


def test_only_the_named_realms_are_purged(kept: int, owner: Any) -> None:
    make.source(f"{ORIGIN}/ada/other/", owner, {"label.ts": b"other"})
    urls = [f"{SITE}label.ts", f"{ORIGIN}/ada/other/label.ts"]

    def hits() -> list[bool]:
        return [" " in ask(kept, "GET", url).headers["x-varnish"] for url in urls]

    assert (hits(), hits()) == ([False, False], [True, True])
    ban(f"http://127.0.0.1:{kept}/", [surrogate_key(SITE), surrogate_key("http://else/")])
    assert hits() == [False, True]
    ban(f"http://127.0.0.1:{kept}/", [EVERY_REALM])
    assert hits() == [False, False]


def test_varnish_changes_no_answer(kept: int, web: Web, source: Realm) -> None:
    make.publish(source, PAGES)
    indexed(PAGES)
    login = make.realm_login(source, "ada")
    for url in (SITE, f"{SITE}post.tsx", f"{SITE}dot.png", PAGES, f"{PAGES}none", f"{SITE}_info"):
        for headers in ({}, {"Range": "bytes=0-3"}, {"Content-Type": SOURCE}, login,
                        {"Accept": SOURCE}, {"X-Realm-Min-Generation": "99"}):  # fmt: skip
            wanted = ask(web.port, "GET", url, headers=headers)
            for _ in range(2):
                answer = ask(kept, "GET", url, headers=headers)
                found = differences(answer, wanted)
                # Varnish adds Via and X-Varnish, and omits Accept-Ranges. The test's server, unlike
                # the server in production (granian), sends some answers without a Content-Length.
                # Varnish may add a Content-Length to these answers.
                own = ["via:", "x-varnish:", "accept-ranges:"]
                own += [] if "content-length" in wanted.headers else ["content-length:"]
                assert [each for each in found if not each.startswith(tuple(own))] == [], (
                    url,
                    headers,
                )


def test_a_purge_is_retried_until_a_receipt_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(purging, "BACKOFF_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(purging, "WAY_SECONDS", 0.0)
    asked: list[tuple[str, ...]] = []
    enough = threading.Event()

    def purge(address: str, keys: Collection[str]) -> None:
        asked.append(tuple(keys))
        if len(asked) <= 3:
            raise PurgeFailed("the cache is away")
        if len(asked) == 5:
            enough.set()

    purger = Purger("http://cache/", purge, 1)
    purger.owe({"realm-1": SITE})
    purger.start()
    assert enough.wait(10)
    wait_until(lambda: not purger.owed, "nothing is owed")
    purger.stop()
    assert asked == [("realm-1",)] * 5
    assert (purger.failed, purger.confirmed) == (3, 2)
    assert f"has not confirmed a purge of {SITE}: the cache is away" in caplog.text


def test_a_realm_that_changes_during_a_purge_is_purged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(purging, "WAY_SECONDS", 0.0)
    asked: list[float] = []
    purger: Purger

    def purge(address: str, keys: Collection[str]) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            purger.owe({"realm-1": SITE})

    purger = Purger("http://cache/", purge, 0.0)
    purger.owe({"realm-1": SITE})
    purger.start()
    wait_until(lambda: not purger.owed, "nothing is owed")
    purger.stop()
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "repeats"), [(200, "nothing"), (200, "another"), (503, "it"), (302, "it")]
)
def test_an_answer_without_the_right_receipt_fails_the_purge(status: int, repeats: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_BAN(self) -> None:
            self.send_response(status)
            number = self.headers["X-Purge-Number"]
            if repeats != "nothing":
                self.send_header("X-Purged", number if repeats == "it" else "0" * 16)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with pytest.raises(PurgeFailed, match="without a receipt"):
        ban(f"http://127.0.0.1:{server.server_port}/", [EVERY_REALM])
    thread.join()
    server.server_close()
    with pytest.raises(PurgeFailed, match="no answer"):
        ban(f"http://127.0.0.1:{server.server_port}/", [EVERY_REALM])


def test_a_change_purges_every_realm_that_contains_its_url() -> None:
    heard: list[dict[str, str]] = []
    purger = Purger("http://cache/", lambda address, keys: None, 0)
    purger.owe = heard.append  # type: ignore[assignment, method-assign]
    told = ToPurge([purger])
    told.bump([f"path|{PAGES}deep/a.ts", "definitions|global|"])
    told.bump_epoch()
    assert heard == [
        {surrogate_key(f"{PAGES}deep/"): f"{PAGES}deep/", surrogate_key(PAGES): PAGES},
        {EVERY_REALM: "every realm"},
    ]
    assert list(keys_of(PAGES).values()) == [PAGES]


def test_clear_caches_names_a_shared_cache_that_has_not_confirmed(
    kept: int, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.REALM_EDGE_PURGE = [f"http://127.0.0.1:{kept}/"]
    call_command("clear_caches", SITE)
    assert f"http://127.0.0.1:{kept}/: purged" in capsys.readouterr().out
    settings.REALM_EDGE_PURGE.append("http://127.0.0.1:1/")
    with pytest.raises(CommandError, match="not every shared cache has confirmed"):
        call_command("clear_caches", all=True, yes=True)
    assert "http://127.0.0.1:1/: no answer" in capsys.readouterr().out


def failing_hook(address: str, keys: Collection[str]) -> None:
    raise ConnectionError("the hook failed")


def test_clear_caches_says_that_a_hook_has_raised_an_error(
    kept: int, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.REALM_EDGE_PURGE = [f"http://127.0.0.1:{kept}/"]
    settings.REALM_EDGE_PURGER = f"{__name__}.failing_hook"
    with pytest.raises(CommandError, match="not every shared cache has confirmed"):
        call_command("clear_caches", SITE)
    said = capsys.readouterr().out
    assert f"http://127.0.0.1:{kept}/: REALM_EDGE_PURGER raised ConnectionError" in said


def test_a_purger_needs_caches_and_a_function_that_exists(settings: Any) -> None:
    with pytest.raises(CommandError, match="REALM_EDGE_PURGE is empty"):
        call_command("listen_file_changes", purge_edge=True)
    settings.REALM_EDGE_PURGE = ["http://127.0.0.1:1/"]
    settings.REALM_EDGE_PURGER = "nowhere.purge"
    with pytest.raises(CommandError, match="REALM_EDGE_PURGER is 'nowhere"):
        call_command("listen_file_changes", purge_edge=True)
