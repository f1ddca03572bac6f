"""Tests that slow clients don't delay the answers to other clients."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import make
from tests.support.clients.slow_clients import (
    Trickle,
    all_of,
    never_reading,
    part_never_read,
    silent,
    slow_bodies,
    slow_headers,
)
from tests.support.cluster import Cluster, Replica, cluster, wait_until
from tests.support.web import SOURCE, send_raw

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

SITE = "http://localhost:4201/ada/site/"
PAGE = f"{SITE}dot.png"
LARGE = f"{SITE}large.bin"
#: How long a client waits for an answer. If nothing delays the answer, it takes much less time.
SECONDS = 10


@pytest.fixture
def fleet(
    request: pytest.FixtureRequest, source: Any, base: None, tmp_path: Path
) -> Iterator[Cluster]:
    """Yields a cluster of one replica. The replica refuses slow bodies after about 2 s. It cuts off
    an answer of which the client reads nothing for 2 s, or for the seconds that the test passes as
    the parameter `fleet`."""
    seconds = getattr(request, "param", "2")
    make.write_paths(source, {"large.bin": bytes(5_000_000)})
    with cluster(tmp_path, 1, REALM_BODY_SECONDS="2", REALM_SEND_SECONDS=seconds) as running:
        yield running


@pytest.fixture
def replica(fleet: Cluster) -> Replica:
    """Returns the replica after both web workers have cached the page."""
    made = fleet.replicas[0]
    wait_until(lambda: all(a.cache == "hit" for a in made.each_worker(PAGE).values()), "cached")
    return made


def answered(replica: Replica) -> None:
    """Requests the cached page 20 times, and asserts that every request is answered."""
    for _ in range(20):
        assert replica.request("GET", PAGE, timeout=SECONDS).cache == "hit"


def test_cached_pages_are_served_during_slow_uploads(replica: Replica, source: Any) -> None:
    login = make.realm_login(source, "ada")
    with slow_bodies(replica.port, 40, f"{SITE}up.bin", headers=login):
        answered(replica)


def test_cached_pages_are_served_during_slow_bodies_to_every_kind_of_url(replica: Replica) -> None:
    urls = (f"{SITE}_atomic", f"{SITE}_search", "http://localhost:4201/_server-session",
            "http://localhost:4201/_at/", "http://localhost:4201/nowhere/x",
            "http://localhost:4201/_admin/login/")  # fmt: skip
    with all_of(*(slow_bodies(replica.port, 20, url, size=4000) for url in urls)):
        answered(replica)


def test_cached_pages_are_served_while_clients_read_no_answers(replica: Replica) -> None:
    with never_reading(replica.port, 40, LARGE), never_reading(replica.port, 40, PAGE):
        answered(replica)


def test_cached_pages_are_served_during_slow_headers_and_silence(replica: Replica) -> None:
    with slow_headers(replica.port, 900), silent(replica.port, 900):
        answered(replica)


def test_uploads_succeed_during_slow_uploads_of_others(replica: Replica, source: Any) -> None:
    login = make.realm_login(source, "ada")
    with slow_bodies(replica.port, 40, f"{SITE}up.bin", headers=login):
        answer = replica.request(
            "POST", f"{SITE}new.txt", accept=SOURCE, body=b"new", headers=login, timeout=SECONDS
        )
        assert answer.status == 204


def test_uploads_succeed_while_large_bodies_of_others_stall(replica: Replica, source: Any) -> None:
    login = {"Content-Type": "application/octet-stream", **make.realm_login(source, "ada")}
    start = (
        b"POST /nobody/_atomic HTTP/1.1\r\nHost: localhost:4201\r\nContent-Length: 33554432\r\n\r\n"
    )
    with Trickle(replica.port, 12, start + bytes(16_000_000), b""):
        for number in range(6):
            url = f"{source.url}up{number}.bin"
            up = replica.request("POST", url, accept=SOURCE, body=bytes(50_000), headers=login)
            assert up.status == 204


def test_a_body_that_is_too_slow_is_refused_and_its_connection_closed(replica: Replica) -> None:
    with slow_bodies(replica.port, 5, f"{SITE}up.bin") as attack:
        wait_until(lambda: attack.ended == 5, "all bodies are refused")
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in attack.answers)
    assert all(b"connection: close" in answer for answer in attack.answers)


def test_a_refused_upload_closes_its_connection(replica: Replica, source: Any) -> None:
    login = make.realm_login(source, "ada")["Authorization"]
    for headers, status in (
        ("Content-Length: 99999999999", 413),
        ("Content-Length: 5242881", 413),
        ("Transfer-Encoding: chunked", 411),
    ):
        head = (
            f"POST /ada/site/up.bin HTTP/1.1\r\nHost: localhost:4201\r\nAuthorization: {login}\r\n"
            f"Content-Type: application/octet-stream\r\n{headers}\r\n\r\n"
        )
        # The test sends no body. The server refuses the upload without waiting for the body, and
        # closes the connection.
        answer = send_raw(replica.port, head.encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        assert b"connection: close" in answer


# On a busy machine the last answers begin seconds after the first. So the server waits 10 s, and
# not 2 s, before it cuts off an answer that the client doesn't read.
@pytest.mark.parametrize("fleet", ["10"], indirect=True)
def test_unread_answers_take_bounded_memory_and_are_cut_off(replica: Replica, source: Any) -> None:
    make.write_paths(source, {f"large-{n}.bin": bytes([n]) * 5_000_000 for n in range(12)})
    attacks = [never_reading(replica.port, 10, f"{SITE}large-{n}.bin") for n in range(12)]
    with all_of(*attacks):
        wait_until(lambda: _established(replica) >= 100, "the answers have begun")
        answered(replica)
        assert all(each.memory_info().rss < 400 * 1024**2 for each in _workers(replica))
        wait_until(lambda: _established(replica) == 0, "the connections are ended", 60)


# On a busy machine the last answers begin seconds after the first. So the server waits 10 s, and
# not 2 s, before it cuts off an answer that the client doesn't read.
@pytest.mark.parametrize("fleet", ["10"], indirect=True)
def test_unread_ranges_of_a_large_answer_are_not_copied(replica: Replica) -> None:
    before = max(each.memory_info().rss for each in _workers(replica))
    with part_never_read(replica.port, 120, LARGE):
        wait_until(lambda: _established(replica) >= 110, "the answers have begun")
        answered(replica)
        after = max(each.memory_info().rss for each in _workers(replica))
    assert after - before < 250 * 1024**2, "memory for 50 copies of the file"


def test_connections_without_complete_headers_are_closed(replica: Replica) -> None:
    with slow_headers(replica.port, 20) as headers, silent(replica.port, 20):
        wait_until(lambda: headers.ended == 20, "slow headers are cut off", 60)
        wait_until(lambda: _established(replica) == 0, "silent connections are ended", 60)


def test_a_slow_but_steady_reader_gets_the_whole_answer(replica: Replica) -> None:
    with socket.create_connection(("127.0.0.1", replica.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /ada/site/large.bin HTTP/1.1\r\nHost: localhost:4201\r\n"
                       b"Connection: close\r\n\r\n")  # fmt: skip
        client.settimeout(SECONDS)
        size, began = 0, time.monotonic()
        # The server's limit of 2 s applies to each piece of the answer. The client takes longer for
        # the whole answer, but not for a piece.
        while piece := client.recv(65536):
            size += len(piece)
            if time.monotonic() - began < 4:
                time.sleep(0.05)
    assert size > 5_000_000


def test_many_concurrent_clients_get_whole_large_answers(replica: Replica) -> None:
    sizes: list[int] = []

    def read() -> None:
        sizes.append(len(replica.request("GET", LARGE, timeout=60).body))

    threads = [threading.Thread(target=read) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [5_000_000] * 30


def _workers(replica: Replica) -> list[psutil.Process]:
    return psutil.Process(replica.running["web"].pid).children(recursive=True)


def _established(replica: Replica) -> int:
    """Counts the connections of clients to the replica's web workers. Leaves out the connections of
    the replica's sidecar, which sends requests to its web service too."""
    sidecar = psutil.Process(replica.running["sidecar"].pid)
    its = {each.laddr.port for each in sidecar.net_connections("tcp")}
    return sum(
        each.laddr.port == replica.port
        and each.status != psutil.CONN_LISTEN
        and each.raddr.port not in its
        for worker in _workers(replica)
        for each in worker.net_connections("tcp")
    )
