"""Sets up a fleet with the commands of docs/operations/three-hosts.md, and sends requests to the
fleet.

Each host is a process in Linux namespaces (`tests/support/runbooks/hosts.py`). Some commands of the
page can't run there, for example because no systemd runs on the hosts. The function `instead`
returns the replacements for these commands. `tests/support/runbooks/units.py` runs the services in
place of systemd. A test is skipped if this machine lacks a program of the Debian packages that the
page installs.
"""

import json
import re
import secrets
import shutil
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from django.core.management import get_commands

from settings.environment import BASE_DIR
from tests.support.cluster import Answer, wait_until
from tests.support.runbooks.hosts import Host, checkout, hosts, need
from tests.support.runbooks.runbook import Runner
from tests.support.runbooks.units import Service

OPERATIONS = BASE_DIR / "docs" / "operations"
PAGE = OPERATIONS / "three-hosts.md"
ADDRESSES = {
    "host1": "10.0.0.11", "host2": "10.0.0.12", "host3": "10.0.0.13", "visitor": "10.0.0.100",
}  # fmt: skip
NAMES = dict.fromkeys(("realms.example.com", "admin.example.com", "tools.example.net"), "10.0.0.11")
ORIGIN = "https://realms.example.com"
SOURCE, SITE = f"{ORIGIN}/ada/tools/", "https://tools.example.net/"
WORDS = {
    "REPOSITORY": str(BASE_DIR),
    **{
        word: secrets.token_hex(32)
        for word in (
            "DATABASE_PASSWORD", "BROKER_PASSWORD", "SECRET_SEED", "METRICS_TOKEN",
            "OPERATOR_PASSWORD", "AUTHOR_PASSWORD",
        )
    },
}  # fmt: skip
REPLICAS = {"host2": "10.0.0.12:8000", "host3": "10.0.0.13:8000"}


def postgres_version() -> str:
    """Returns the newest Postgres version that is installed on this machine. The version may differ
    from that of the page. The page installs Postgres 15, the version of Debian 12."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parts[4] if versions else ""


@dataclass
class Fleet:
    """The three hosts of docs/operations/three-hosts.md (the page), the host from which visitors
    send requests, and the services that run on the hosts."""

    hosts: Mapping[str, Host]
    folder: Path
    shared: Path
    server: Path
    broker: str
    services: dict[tuple[str, str], Service] = field(default_factory=dict)
    runner: Runner = field(init=False)
    _tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.runner = Runner(self.hosts, WORDS, instead(self), self.broker)

    def service(self, host: str, name: str) -> Service:
        """Returns a service that a command of the page has started on a host."""
        return self.services[host, name]

    def stop(self) -> None:
        """Kills all services and prevents their restart. Otherwise a service could restart while
        its host is being removed."""
        for each in self.services.values():
            each.abandon()

    def ask(
        self,
        method: str,
        url: str,
        *,
        accept: str = "*/*",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        at: str = "",
    ) -> Answer:
        """Sends a visitor's request through the balancer, which is nginx on host 1. If `at` is the
        address of a replica, sends the request directly to this replica. The calling thread must
        use the network of the visitor's host."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"Host": parts.netloc, "Accept": accept, **(headers or {})}
        pool: urllib3.HTTPConnectionPool
        if at:
            name, _, port = at.partition(":")
            pool = urllib3.HTTPConnectionPool(name, int(port), timeout=30)
        else:
            pool = urllib3.HTTPSConnectionPool(
                ADDRESSES["host1"], 443, timeout=30, ssl_context=self._trust(),
                server_hostname=parts.hostname, assert_hostname=parts.hostname,
            )  # fmt: skip
        with pool:
            answer = pool.urlopen(
                method, target, body=body, headers=sent, redirect=False, retries=False
            )
            told = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, told, answer.data)

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            # The page's certificate is self-signed, so the client must trust it explicitly.
            certificate = self.hosts["host1"].read("/etc/realms/tls/fullchain.pem")
            self._tls = ssl.create_default_context(cadata=certificate)
        return self._tls

    def get(self, url: str, **options: Any) -> Answer:
        """Sends a visitor's GET; may be called from any thread."""
        return self.hosts["visitor"].call(lambda: self.ask("GET", url, **options))

    def post(self, url: str, body: bytes, **options: Any) -> Answer:
        """Sends a visitor's POST; may be called from any thread."""
        return self.hosts["visitor"].call(lambda: self.ask("POST", url, body=body, **options))

    def author(self) -> dict[str, str]:
        """Logs in the user ada through the balancer. Returns the header that contains her token for
        the realm."""
        login = {"username": "ada", "password": WORDS["AUTHOR_PASSWORD"]}
        answer = self.post(f"{SOURCE}_session", json.dumps(login).encode())
        assert answer.status == 201, answer.text
        return {"Authorization": answer.headers["authorization"]}

    def manage(self, *arguments: str) -> str:
        """Runs a management command on host 2, and returns its output."""
        return self.hosts["host2"].run(
            f"deploy/manage {' '.join(arguments)}", cwd="/srv/realms/server"
        )

    def sql(self, statement: str) -> list[list[str]]:
        """Runs an SQL statement on host 1, and returns its rows as texts."""
        said = self.hosts["host1"].run(
            f"runuser -u postgres -- psql --no-psqlrc -At -F '\t' realms <<'SQL'\n{statement}\nSQL"
        )
        return [line.split("\t") for line in said.splitlines()]

    def listed(self) -> dict[str, bool]:
        """Returns the addresses of the replicas in the balancer's list. The value of an address is
        true if the balancer sends requests to this replica."""
        text = self.hosts["host1"].read("/etc/realms/balancer/replicas.conf")
        lines = [line.split() for line in text.splitlines()]
        return {line[1].rstrip(";"): "down;" not in line for line in lines}

    def wait_listed(self, host: str, up: bool) -> None:
        """Waits until nginx uses a list of replicas that marks a host's replica as up. If `up` is
        false, waits until nginx uses a list that marks the replica as down."""

        def settled() -> bool:
            # After nginx has read a new list, its old worker processes use the old list until they
            # have answered their requests.
            old = self.hosts["host1"].run("pgrep -f 'worker process is [s]hutting down' || true")
            return self.listed()[REPLICAS[host]] == up and not old.strip() and (up or gone())

        def gone() -> bool:
            # deploy/balance first writes the list, and then makes nginx read it. So the list can be
            # newer than the list that nginx uses.
            replica = f"web-{host.removeprefix('host')}/"
            answers = [self.get(SITE) for _ in range(20)]
            return not any(replica in each.headers.get("x-realm-replica", "") for each in answers)

        wait_until(settled, f"{host} {'up' if up else 'down'} in the balancer", 30)

    def wait_answer(self, url: str, status: int, *, at: str) -> None:
        """Waits until a replica answers a GET request for a URL with the given status. The argument
        `at` is the replica's address."""

        def answered() -> bool:
            try:
                return self.get(url, at=at).status == status
            except urllib3.exceptions.HTTPError:
                return False

        wait_until(answered, f"{status} from {at}", 60)

    @contextmanager
    def visitors(self, url: str, accept: str = "*/*", count: int = 4) -> Iterator["Visits"]:
        """Runs `count` visitors until the end of the block. Each visitor requests a URL repeatedly,
        each time on a new connection."""
        visits = Visits()
        with self.hosts["visitor"].threads(count) as pool:
            running = [pool.submit(self._visit, visits, url, accept) for _ in range(count)]
            try:
                yield visits
            finally:
                visits.ended.set()
        for each in running:
            each.result()

    def _visit(self, visits: "Visits", url: str, accept: str) -> None:
        while not visits.ended.is_set():
            began = time.monotonic()
            try:
                answer = self.ask("GET", url, accept=accept)
                status, worker = answer.status, answer.headers.get("x-realm-replica", "")
            except urllib3.exceptions.HTTPError as error:
                status, worker = 0, repr(error)
            visits.note(began, status, worker)
            time.sleep(0.01)


class Visits:
    """A record of the answers to visitors. Each entry has the time when the request began, the
    status, and the replica. If a request got no answer, the status is 0 and the error takes the
    place of the replica."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._all: list[tuple[float, int, str]] = []

    def note(self, began: float, status: int, worker: str) -> None:
        with self._lock:
            self._all.append((began, status, worker))

    def since(self, moment: float = 0) -> list[tuple[int, str]]:
        """Returns the status and the replica of each request that began at the time `moment` or
        later."""
        with self._lock:
            return [(status, worker) for began, status, worker in self._all if began >= moment]

    def failed(self, moment: float = 0) -> list[tuple[int, str]]:
        return [each for each in self.since(moment) if each[0] != 200]

    def replicas(self, moment: float = 0) -> Counter[str]:
        """Returns how many requests each replica has answered."""
        return Counter(re.split(r"[:/ ]", worker)[0] for _, worker in self.since(moment))

    def wait_more(self, count: int, seconds: float = 30) -> float:
        """Waits until `count` requests that began after this call have been answered. Returns the
        time of this call."""
        began = time.monotonic()
        wait_until(lambda: len(self.since(began)) >= count, f"{count} more visits", seconds)
        return began


# --- Replacements for the page's commands ------------------------------------------------------


def instead(fleet: Fleet) -> dict[str, Callable[[Host, str], str | None]]:
    """Returns replacements for commands of docs/operations/three-hosts.md. Each key is a regular
    expression. If a line of the page matches the key, the key's function is called, and the script
    that it returns is run instead of the line (`Runner`)."""
    return {
        # The packages are already installed on this machine, so no host installs them. On an empty
        # host, the page's two install commands also make a database cluster and start the broker.
        # The following two scripts do this instead.
        r"^apt-get install .*\bpostgresql\b": lambda host, line: (
            f"pg_createcluster {postgres_version()} main --start\n"
            "rm -f /etc/nginx/conf.d/*"
        ),
        r"^apt-get install .*\brabbitmq-server\b": lambda host, line: (
            "setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups env HOME=/var/lib/rabbitmq"
            " /usr/lib/rabbitmq/bin/rabbitmq-server -detached\n"
            "until rabbitmqctl --quiet await_startup 2>/dev/null; do sleep 0.5; done"
        ),
        r"^apt-get ": lambda host, line: None,
        # Instead of a clone, each host mounts a copy of the checkout that runs the tests. The copy
        # uses the Python packages that are installed for this checkout.
        r"^git clone ": lambda host, line: (
            f"mkdir -p /srv/realms/server; mount --bind {fleet.server} /srv/realms/server"
        ),
        r"^script/bootstrap$": lambda host, line: None,
        r"^git (fetch|checkout) ": lambda host, line: None,
        # If the tested checkout has no command `doctor`, as in earlier releases, the line isn't
        # run.
        r"^deploy/manage doctor$": lambda host, line: line if "doctor" in get_commands() else None,
        # All hosts mount one folder of this machine instead of a folder on NFS.
        r"^exportfs ": lambda host, line: (
            f"mount --bind {fleet.shared} /srv/realms/blobs; chown realms: /srv/realms/blobs"
        ),
        r"^mount /srv/realms/blobs$": lambda host, line: (
            f"mount --bind {fleet.shared} /srv/realms/blobs"
        ),
        # No systemd runs on the hosts.
        r"^systemctl daemon-reload$": lambda host, line: None,
        r"^systemctl restart postgresql$": lambda host, line: (
            f"pg_ctlcluster {postgres_version()} main restart"
        ),
        r"^systemctl restart redis-server$": lambda host, line: (
            "setpriv --reuid=redis --regid=redis --init-groups"
            " redis-server /etc/redis/redis.conf --daemonize yes"
        ),
        r"^systemctl restart nginx$": lambda host, line: "nginx",
        r"^systemctl (enable --now|start|stop) realms-": lambda host, line: _systemctl(
            fleet, host, line
        ),
    }  # fmt: skip


def _systemctl(fleet: Fleet, host: Host, line: str) -> None:
    _, verb, *names = line.replace("--now ", "").split()
    for name in names:
        if verb == "stop":
            fleet.services[host.name, name].stop()
            continue
        if (host.name, name) not in fleet.services:
            fleet.services[host.name, name] = Service(host, name, fleet.folder)
        fleet.services[host.name, name].start()


@contextmanager
def three_hosts(folder: Path, broker: str) -> Iterator[Fleet]:
    """Makes the hosts on which a test runs the commands of docs/operations/three-hosts.md. Removes
    the hosts at the end of the block."""
    server = {"rabbitmq": "rabbitmqctl", "redis": "redis-server"}[broker]
    need(server, "pg_createcluster", "nginx", "curl", "openssl", "rsync", "useradd", "pgrep")
    with ExitStack() as stack:
        shared = folder / "shared"
        shared.mkdir()
        stack.callback(shutil.rmtree, shared)
        copy = checkout(folder)
        stack.callback(shutil.rmtree, copy)
        fleet = Fleet(stack.enter_context(hosts(ADDRESSES, NAMES)), folder, shared, copy, broker)
        stack.callback(fleet.stop)
        yield fleet
