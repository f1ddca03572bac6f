"""Runs clusters for tests. A cluster consists of replicas of the server and of Celery workers. They
all use the test's database.

A replica has a web service, and a sidecar, the process that receives notifications of changes from
Postgres. A replica also has a board, a file that says which cached answers are stale. While the
sidecar receives notifications in time, it keeps the board live. The web service uses cached answers
only while the board is live. All processes of a cluster are real, so a test can kill them.

Each cluster has its own data folder. Its processes get the database's URL in the environment
variable DATABASE_URL. When the test run ends or is killed, `servers/reaper.py` kills all
processes of its clusters.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import urllib3
from django.conf import settings
from django.db import connection

from notifications.board import Board
from notifications.models import Replica as NamedReplica
from settings.environment import BASE_DIR
from settings.processes import Process, celery_worker, replica
from tests.support import make
from tests.support.servers.reaper import mark

START_SECONDS = 30
POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], Any], why: str, seconds: float = START_SECONDS) -> Any:
    """Waits until `condition` returns a true value, and returns that value. Fails the test if this
    takes longer than `seconds`. `why` describes the condition for the message of the failure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"this did not happen within {seconds:g} s: {why}")


def database_url() -> str:
    """Returns the URL of the test's database. The database server may listen on a Unix socket."""
    from urllib.parse import quote

    parameters = connection.get_connection_params()
    host, port = parameters.get("host", ""), parameters.get("port", "")
    user, password = parameters.get("user", ""), parameters.get("password", "")
    login = f"{quote(user)}:{quote(password)}@" if user else ""
    if host.startswith("/"):
        return f"postgresql://{login}/{parameters['dbname']}?host={quote(host, safe='')}"
    return f"postgresql://{login}{host}:{port or 5432}/{parameters['dbname']}"


@dataclass
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def cache(self) -> str:
        """Whether the answer comes from a cache: `hit` or `miss`."""
        return self.headers["x-boxel-cache"]

    @property
    def worker(self) -> str:
        """The web worker that answered, in the form `<replica's name>/<process id>`."""
        return self.headers["x-realm-replica"]


@dataclass
class Replica:
    """A replica of a cluster. `commands` says how to start the replica's two processes, by role
    (`web` or `sidecar`). `running` has the processes that were started last, by role. The web
    service has two worker processes, the web workers."""

    name: str
    port: int
    cluster: "Cluster"
    commands: dict[str, Process]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, role: str) -> None:
        """Starts the web service or the sidecar, and doesn't wait until the process is ready. After
        that, call `wait_web` for the web service or `wait_live` for the sidecar."""
        self.running[role] = self.cluster.spawn(self.commands[role])

    def kill(self, role: str, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the process of a role. After SIGKILL, waits for the process's end."""
        process = self.running[role]
        os.kill(process.pid, number)
        if number == signal.SIGKILL:
            process.wait()

    @property
    def board(self) -> Board:
        return Board(Path(self.commands["web"].environment["REALM_BOARD"]))

    def wait_live(self) -> None:
        """Waits until the sidecar has made the board live."""
        board = self.board
        wait_until(board.live, f"the board of {self.name} is live")

    def wait_not_live(self) -> None:
        """Waits until the board is no longer live."""
        board = self.board
        wait_until(lambda: not board.live(), f"the board of {self.name} is not live")

    def wait_web(self) -> None:
        """Waits until both web workers answer."""

        def answered() -> bool:
            try:
                return len(self.workers()) == 2
            except urllib3.exceptions.HTTPError:
                return False

        wait_until(answered, f"both web workers of {self.name} answer")

    def workers(self) -> set[str]:
        """Sends 16 requests, each on a new connection, and returns the names of the web workers
        that answered."""
        url = f"{settings.REALM_PUBLIC_ORIGIN}/base/mod.ts"
        return {self.get(url).worker for _ in range(16)}

    def get(self, url: str, accept: str = "*/*", **headers: str) -> Answer:
        """Sends a GET request for a public URL to this replica, on a new connection."""
        return self.request("GET", url, accept=accept, headers=headers)

    def request(
        self,
        method: str,
        url: str,
        *,
        accept: str = "*/*",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """Sends a request for a public URL to this replica, with the URL's host as Host header."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        sent = {"Host": parts.netloc, "Accept": accept, **(headers or {})}
        with urllib3.HTTPConnectionPool(
            "127.0.0.1", self.port, timeout=timeout, retries=False
        ) as pool:
            answer = pool.urlopen(
                method, target, body=body, headers=sent, redirect=False, retries=False
            )
            told = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, told, answer.data)

    def each_worker(self, url: str, accept: str = "*/*") -> dict[str, Answer]:
        """Requests a URL until each of the two web workers has answered at least twice. Returns the
        last answer of each web worker, by the web worker's name (`Answer.worker`)."""
        seen: dict[str, list[Answer]] = {}

        def both() -> bool:
            answer = self.get(url, accept)
            seen.setdefault(answer.worker, []).append(answer)
            return len(seen) >= 2 and all(len(answers) >= 2 for answers in seen.values())

        wait_until(both, f"both web workers of {self.name} have answered twice")
        return {worker: answers[-1] for worker, answers in seen.items()}


class Cluster:
    """Replicas `a`, `b`, ... and Celery workers that use one database."""

    def __init__(self, folder: Path, replicas: int, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._given = environment
        ports = free_ports(replicas)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("REALM_", "PYTEST"))},
            "DATABASE_URL": database_url(),
            "REALM_DATA_DIR": str(folder),
            "REALM_BLOB_STORAGE": settings.STORAGES["blobs"]["OPTIONS"]["location"],
            "REALM_PUBLIC_ORIGIN": settings.REALM_PUBLIC_ORIGIN,
            "REALM_SECRET_SEED": str(settings.REALM_SECRET_SEED),
            "REALM_SWEEP_SECONDS": "1",
            "REALM_RENDER_SECONDS": "2",
            **environment,
        }
        self.replicas = [
            Replica(
                name, port, self, {p.name.split("-")[0]: p for p in replica(name, port, folder)}
            )
            for name, port in zip("abcdefgh", ports, strict=False)
        ]

    def spawn(
        self,
        process: Process,
        *,
        cwd: Path = BASE_DIR,
        within: Sequence[str] = (),
        **extra: str,
    ) -> "subprocess.Popen[bytes]":
        """Starts a process, and appends its output to a log file in `folder`. `within` has words to
        put before the process's command. For example, the words `nsenter ... --` run the command in
        the namespaces of another process. `extra` has further environment variables."""
        with open(self.folder / f"{process.name}.log", "ab") as log:
            spawned = subprocess.Popen(
                (*within, *process.command),
                cwd=cwd,
                env={**self.environment, **process.environment, **extra, **mark()},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(spawned)
        return spawned

    def start(self) -> None:
        """Starts the web service and the sidecar of every replica. Waits until all web workers
        answer and all boards are live."""
        for each in self.replicas:
            each.start("web")
            each.start("sidecar")
        for each in self.replicas:
            each.wait_web()
            each.wait_live()

    def wait_reported(self) -> None:
        """Waits until every replica has reported its address to the database. A Celery worker that
        starts earlier may find no replica to read from. Then its work waits until the sweeper, a
        periodic task, sends a new message."""
        told = len(self.replicas)
        wait_until(lambda: len(NamedReplica.live_addresses()) == told, "all replicas report")

    def publish(self, source_url: str, url: str, user: str = "ada") -> int:
        """Publishes a source realm over HTTP through the first replica. Returns the new generation
        of the published realm."""
        answer = self.replicas[0].request(
            "POST",
            f"{settings.REALM_PUBLIC_ORIGIN}/_publish-realm",
            accept="application/vnd.api+json",
            body=json.dumps({"sourceRealmURL": source_url, "publishedRealmURL": url}),
            headers=make.login(user),
        )
        assert answer.status == 202, answer.text
        return int(answer.headers["x-realm-generation"])

    def start_worker(self, name: str = "w", **environment: str) -> "subprocess.Popen[bytes]":
        """Starts a Celery worker that runs tasks in two child processes."""
        worker = celery_worker(name)
        told = {**worker.environment, **self._given, **environment}
        return self.spawn(replace(worker, environment=told))

    def manage(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Starts a management command, and returns its process without waiting for its end."""
        command = (sys.executable, str(BASE_DIR / "manage.py"), *arguments)
        return self.spawn(Process(f"manage-{arguments[0]}", command, environment))

    def stop(self) -> None:
        """Kills all processes of the cluster and their descendants."""
        families = []
        for process in self._processes:
            try:
                parent = psutil.Process(process.pid)
                families += [parent, *parent.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        for each in families:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(families, timeout=10)
        for process in self._processes:
            process.wait()


@contextmanager
def cluster(folder: Path, replicas: int = 2, **environment: str) -> Iterator[Cluster]:
    """Starts a cluster, and stops it at the end of the block. `environment` has environment
    variables for all its processes."""
    made = Cluster(folder, replicas, environment)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def free_ports(count: int) -> list[int]:
    """Returns ports on which no process listens."""
    import socket

    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
