"""Stops the database for 20 s while clients send requests to a replica. The test checks the answers
to the clients, the number of log lines, and that the answers are current when the database is
back."""

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3

from tests.faults.postgres import Postgres
from tests.support.cluster import Cluster, Replica, free_ports, wait_until

OUTAGE_SECONDS = 20
MOST_LINES = 100
REALM = "http://localhost:4201/ada/site/"
SOURCE = "application/vnd.card+source"
MADE = f"""
from tests.support import make
realm = make.source("{REALM}", make.user("ada"), make.SITE)
print("login", make.realm_login(realm, "ada")["Authorization"])
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yields a folder that any user may enter, because the Postgres server may run as another user
    than the test."""
    with tempfile.TemporaryDirectory(prefix="realm-outage-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def lines(running: Cluster) -> Counter[str]:
    """Counts the lines that each process has logged."""
    logs = running.folder.glob("*.log")
    return Counter({log.stem: len(log.read_bytes().splitlines()) for log in logs})


def ask(replica: Replica, login: dict[str, str], number: int) -> int:
    """Sends a request, of a kind that depends on `number`. Returns the answer's status, or 0 if no
    answer arrives."""
    try:
        match number % 4:
            case 0:
                return replica.get(f"{REALM}index.json", SOURCE, **login).status
            case 1:
                return replica.get(f"{REALM}post.tsx?noCache", **login).status
            case 2:
                return replica.get("http://localhost:4201/_admin/realms/realm/").status
        body = f"export const n = {number};"
        return replica.request(
            "POST", f"{REALM}load.ts", accept=SOURCE, body=body, headers=login
        ).status
    except urllib3.exceptions.HTTPError:
        return 0


@pytest.mark.cluster
@pytest.mark.django_db(transaction=True)
def test_an_outage_of_20_s_causes_no_500_and_few_log_lines(folder: Path) -> None:
    (port,) = free_ports(1)
    server = Postgres(folder, port)
    server.start()
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    made = Cluster(folder, 1, {"DATABASE_URL": url, "REALM_BLOB_STORAGE": ""})
    try:
        assert made.manage("migrate", "--verbosity", "0").wait(120) == 0
        assert made.manage("shell", "-c", MADE).wait(60) == 0
        log = (folder / "manage-shell.log").read_text().splitlines()
        (told,) = [line for line in log if line.startswith("login ")]
        login = {"Authorization": told.removeprefix("login ")}
        made.start()
        made.start_worker()
        _outage(made, server, login)
    finally:
        made.stop()
        server.stop()


def _outage(running: Cluster, server: Postgres, login: dict[str, str]) -> None:
    (replica,) = running.replicas
    assert ask(replica, login, 0) == ask(replica, login, 1) == 200
    over, seen = threading.Event(), Counter[int]()

    def load(first: int) -> None:
        number = first
        while not over.wait(0.1):
            seen[ask(replica, login, number)] += 1
            number += 1

    before = lines(running)
    with ThreadPoolExecutor(4) as clients:
        try:
            running_clients = [clients.submit(load, first) for first in range(4)]
            server.stop("fast")
            threading.Event().wait(OUTAGE_SECONDS)
            logged = lines(running) - before
            server.start()
            replica.wait_live()
            body = "export const back = true;"
            wait_until(
                lambda: (
                    replica.request(
                        "POST", f"{REALM}back.ts", accept=SOURCE, body=body, headers=login
                    ).status
                    == 204
                ),
                "a write succeeds",
            )
        finally:
            over.set()
        for each in running_clients:
            each.result(60)
    # Each web worker serves the new file: it has been notified of the write, or it bypasses its
    # caches.
    for answer in replica.each_worker(f"{REALM}back.ts").values():
        assert answer.text.startswith(body)
    assert 500 not in seen
    assert seen[503] > 20, seen
    assert max(logged.values(), default=0) <= MOST_LINES, logged
