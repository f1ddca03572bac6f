"""Compares a replica on a slow, lossy network with a replica next to the database.

The near replica is on this machine's network, like the database. The web service and the sidecar of
the far replica are in a network namespace. The network between the namespace and the database
delays all packets and loses some (`bench/fleet/link.py`). The far replica's clients are in the
namespace, too. So the far replica has slow connections to the database, and fast connections to its
clients. The replicas share one database, one folder of blobs (contents of files) and one broker.

A board is a file by which a replica's processes know whether their caches are fresh. The processes
use their caches only while the board is live. The staleness of an answer is the time from the
commit that superseded the answer's bytes to the start of the answer's request.
"""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import urllib3

from bench.fleet.figures import say, shares, table
from bench.fleet.installation import ORIGIN, installation
from bench.fleet.link import FAR, NEAR, Link, link
from bench.fleet.postgres import free_port, scratch

SOURCE, SITE = f"{ORIGIN}/ada/bench/", "http://ada.localhost:4201/"
API = "application/vnd.api+json"
POLL_SECONDS = 0.005

#: The thread for functions that must run in the network namespace of the database. The first call
#: of `near` creates this thread, and a new thread starts in the namespace of the thread that
#: creates it. So the first call of `near` must come from a thread in the database's namespace.
_writer = ThreadPoolExecutor(1)


def near(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `function` in the network namespace of the database, and returns the value that
    `function` returns."""
    return _writer.submit(function, *arguments).result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=20, help="ms in each direction")
    parser.add_argument(
        "--losses", type=float, nargs="*", default=[0, 1, 5], help="lost packets, in per cent"
    )
    parser.add_argument("--changes", type=int, default=60)
    parser.add_argument("--publishes", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=30, help="how long staleness is measured")
    parser.add_argument(
        "--quick", action="store_true", help="few changes, publishes and seconds, with 1 %% loss"
    )
    options = parser.parse_args()
    if options.quick:
        options.losses, options.changes, options.publishes, options.seconds = [1], 3, 2, 3
    say(str(__doc__))
    # The far replica reaches this database over `network`.
    with _writer, scratch() as server, installation(server) as folder, link() as network:
        measure(server.port, folder, network, options)
    return 0


@dataclass
class Place:
    """A replica, its board, and the network of its clients. `network` is None if the clients are on
    this machine's network."""

    name: str
    address: str
    port: int
    board: Any
    network: Link | None

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls `function` in the network namespace of the replica's clients, and returns the value
        that `function` returns."""
        return self.network.call(function) if self.network else function()

    def client(self) -> "Client":
        return Client(self.address, self.port)


class Client:
    """An HTTP client that keeps its connection to a replica open."""

    def __init__(self, address: str, port: int) -> None:
        self._pool = urllib3.HTTPConnectionPool(address, port, timeout=60, retries=False)

    def ask(self, url: str, method: str = "GET", **more: Any) -> Any:
        parts = urllib3.util.parse_url(url)
        host = f"{parts.host}:{parts.port}" if parts.port else str(parts.host)
        headers = {"Host": host, "Accept": "application/vnd.card+source", **more.pop("headers", {})}
        return self._pool.urlopen(
            method, parts.request_uri, headers=headers, redirect=False, retries=False, **more
        )

    def time(self, url: str, method: str = "GET", **more: Any) -> tuple[float, Any]:
        began = time.perf_counter()
        answer = self.ask(url, method, **more)
        return time.perf_counter() - began, answer


def measure(database: int, folder: Path, network: Link, options: argparse.Namespace) -> None:
    from tests.support import make

    files = {f"f{n}.txt": f"file {n}".encode() for n in range(4 * options.changes)}
    near(lambda: None)
    realm = make.source(SOURCE, make.user("ada"), {**files, "moving.txt": b"0"})
    make.publish(realm, SITE)
    with places(database, folder, network) as (close, far, fleet):
        rows = []
        for loss in (None, *options.losses):
            place = close if loss is None else far
            network.set(0 if loss is None else options.delay / 1000, (loss or 0) / 100)
            what = "near" if loss is None else f"{options.delay:g} ms, {loss:g} % loss"
            _wait(place.board.live, f"the board of the {place.name} replica is live", 60)
            rows.append((what, *_one(place, realm, options)))
        table(
            f"one replica, p50 / p99 / highest ms; {options.changes} changes, "
            f"{options.publishes} publishes, {options.seconds:g} s of one write after another",
            (
                "network to Postgres", "commit to first new answer", "cached read", "missed read",
                "publish", "staleness of answers", "board live",
            ),
            rows,
        )  # fmt: skip
        network.set(options.delay / 1000, 0.01)
        _wait(far.board.live, "the board of the far replica is live", 60)
        code = fleet.manage("verify_coherence", "--seconds", f"{options.seconds:g}").wait()
        log = (folder / "manage-verify_coherence.log").read_text()
        say(
            f"verify_coherence with {options.delay:g} ms of delay and 1 % packet loss ended with "
            f"status {code}:\n{log}"
        )


def _one(place: Place, realm: Any, options: argparse.Namespace) -> list[str]:
    seen = place.call(lambda: commit_to_fresh(place, realm, options.changes))
    hits, misses = place.call(lambda: reads(place, options.changes))
    published = place.call(lambda: publishes(place, options.publishes))
    stale, live = place.call(lambda: staleness(place, realm, options.seconds))
    return [*(shares(each) for each in (seen, hits, misses, published, stale)), f"{live:.1%}"]


# --- Measurements ------------------------------------------------------------------------------


def commit_to_fresh(place: Place, realm: Any, changes: int) -> list[float]:
    """Returns for each change the time from its commit to the first answer with the new bytes.
    Unit: seconds."""
    from tests.support import make

    client, taken = place.client(), []
    for _ in range(changes):
        client.ask(f"{SOURCE}moving.txt")
        data = f"{time.perf_counter()}".encode()
        near(make.write_paths, realm, {"moving.txt": data})
        committed = time.perf_counter()
        while client.ask(f"{SOURCE}moving.txt").data != data:
            time.sleep(POLL_SECONDS)
        taken.append(time.perf_counter() - committed)
    return taken


def reads(place: Place, count: int) -> tuple[list[float], list[float]]:
    """Returns the times of answers from the cache, and the times of answers that had to be loaded.
    Unit: seconds."""
    client = place.client()
    hits: list[float] = []
    misses: list[float] = []
    for turn in range(3):
        for number in range(4 * count):
            taken, answer = client.time(f"{SITE}f{number}.txt")
            (hits if answer.headers["x-boxel-cache"] == "hit" else misses).append(taken)
        if turn == 0:
            near(_clear, SITE)
    return hits, misses


def _clear(url: str) -> None:
    from django.db import transaction

    from realms.models import Realm

    with transaction.atomic():
        Realm.objects.get(url=url).clear_local_source_caches_and_broadcast()


def publishes(place: Place, count: int) -> list[float]:
    """Returns the durations of publishes that the replica `place` carries out. Unit: seconds."""
    from tests.support import make

    client, taken = place.client(), []
    body = json.dumps({"sourceRealmURL": SOURCE, "publishedRealmURL": SITE})
    headers = {**make.login("ada"), "Accept": API}
    for _ in range(count):
        seconds, answer = client.time(
            f"{ORIGIN}/_publish-realm", "POST", body=body, headers=headers
        )
        assert answer.status == 202, answer.data
        taken.append(seconds)
    return taken


def staleness(place: Place, realm: Any, seconds: float) -> tuple[list[float], float]:
    """Reads a file while another thread changes the file again and again. Returns the staleness of
    each answer in seconds. If an answer's bytes were current when its request began, its staleness
    is 0. Leaves out answers with bytes that no write superseded. Also returns the share of the
    writes right after which the board was live."""
    from tests.support import make

    committed: dict[int, float] = {}
    ended = threading.Event()
    live: list[bool] = []

    def write() -> None:
        number = 0
        while not ended.is_set():
            make.write_paths(realm, {"moving.txt": f"{number}".encode()})
            committed[number] = time.perf_counter()
            number += 1
            live.append(place.board.live())
            ended.wait(0.05)

    client, answers = place.client(), []
    writing = _writer.submit(write)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        with suppress(ValueError):
            answers.append((began, int(client.ask(f"{SOURCE}moving.txt").data)))
        time.sleep(POLL_SECONDS)
    ended.set()
    writing.result()
    last = max(committed)
    found = [max(0.0, began - committed[number + 1]) for began, number in answers if number < last]
    return found, sum(live) / len(live)


# --- The replicas ------------------------------------------------------------------------------


@contextmanager
def places(database: int, folder: Path, network: Link) -> Iterator[tuple[Place, Place, Any]]:
    """Runs a near and a far replica. Yields the two replicas and their cluster."""
    from notifications.board import Board
    from settings.processes import replica
    from tests.support.cluster import Cluster

    url = "postgresql://postgres@{}:{}/postgres"
    own = {"REALM_LOG_LEVEL": "WARNING", "REALM_DATA_DIR": str(folder)}
    fleet = Cluster(folder, 0, own)
    found = []
    with ExitStack() as stack:
        stack.callback(fleet.stop)
        for name, host, server, where in (
            ("near", "127.0.0.1", "127.0.0.1", None), ("far", FAR, NEAR, network),
        ):  # fmt: skip
            port = free_port()
            processes = replica(name, port, folder, host=host)
            for process in processes:
                fleet.spawn(
                    process,
                    within=where.within if where else (),
                    DATABASE_URL=url.format(server, database),
                )
            board = Board(Path(processes[0].environment["REALM_BOARD"]))
            found.append(Place(name, host, port, board, where))
        for place in found:
            _wait(place.board.live, f"the board of the {place.name} replica is live", 60)
            _wait(partial(place.call, partial(_answers, place)), "the replica answers", 60)
        yield found[0], found[1], fleet


def _answers(place: Place) -> bool:
    try:
        return bool(place.client().ask(f"{ORIGIN}/_readiness").status == 200)
    except urllib3.exceptions.HTTPError:
        return False


def _wait(condition: Callable[[], Any], why: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {why}")
        time.sleep(0.02)
