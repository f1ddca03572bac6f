"""Tests pinned reads. A pinned read asks a replica for a realm's content at exactly one generation.
If one replica fails, the read asks another replica. An answer with the content of another
generation is refused."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from reindex.reading import realm_history, replicas
from reindex.reading.pins import Access, Pin

URL = "http://ada.localhost:4201/"


@pytest.fixture
def unshunned() -> Iterator[None]:
    replicas._unhealthy.clear()
    yield
    replicas._unhealthy.clear()


@contextmanager
def fake_replica(status: int = 200, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Runs a fake replica that gives the same answer to every request. Yields the replica's address
    and the list of requested paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("told", ["6", "8", None])
def test_an_answer_of_another_generation_is_refused(
    unshunned: None, monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    headers = {"X_Realm_Generation": told} if told else {}
    with fake_replica(200, **headers) as (address, asked):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", address.split(","))
        with pytest.raises(replicas.WrongGeneration, match=f"at generation {told}, asked for 7"):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
    assert len(asked) == 1


@pytest.mark.parametrize("status", [500, 502])
def test_a_failing_replica_is_avoided_for_a_while_and_another_is_asked(
    unshunned: None, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with fake_replica(status) as (broken, asked), fake_replica(X_Realm_Generation="7") as (good, _):
        monkeypatch.setattr(
            "django.conf.settings.REALM_RENDER_REPLICAS",
            f"{broken},{good},http://127.0.0.1:1".split(","),
        )
        for _ in range(24):
            assert replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access()).replica == good
        assert len(asked) == 1
        assert replicas.replica_addresses()[0] == good

        monkeypatch.setattr(replicas, "SHUN_SECONDS", 0.0)
        replicas._unhealthy.clear()
        for _ in range(64):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
        assert len(asked) > 2  # The broken replica is asked again once its time-out is over.


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_401_429_or_503_does_not_count_as_a_missing_file(
    unshunned: None, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with fake_replica(status) as (address, _):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", address.split(","))
        with pytest.raises(replicas.ReplicaUnavailable, match=str(status)):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
        assert not replicas._unhealthy
    with fake_replica(404) as (address, _):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", address.split(","))
        assert replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access()).status == 404


def test_a_410_ends_the_pin_and_does_not_count_as_a_missing_file(
    unshunned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_replica(410) as (address, _):
        monkeypatch.setattr("django.conf.settings.REALM_RENDER_REPLICAS", [address])
        with pytest.raises(replicas.PinEnded, match="generation 7"):
            replicas.get_pinned(Pin(URL, 7), "a.json", "*/*", Access())
        with pytest.raises(replicas.PinEnded, match="generation 7"):
            realm_history.files(Pin(URL, 7), Access())
        assert realm_history.manifest(Pin(URL, 7), Access(), since=3) is None
