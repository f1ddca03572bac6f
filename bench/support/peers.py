"""Starts the servers with which benchmarks compare a replica, and runs wrk, a program that sends
requests and measures the answers.

For each server there is a function that returns a context manager. The context manager starts the
server, waits until the server listens, and yields the server's port on 127.0.0.1. If the server's
program isn't installed, the context manager raises Missing. A server has only one worker process,
because the replica in these benchmarks has only one.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_SECONDS = 30


class Missing(Exception):
    """A program isn't installed. `remedy` says how to install it."""

    def __init__(self, name: str, remedy: str) -> None:
        super().__init__(f"{name} is not installed ({remedy})")
        self.name, self.remedy = name, remedy


@dataclass(frozen=True)
class Load:
    """The figures that wrk measured. `requests` counts all answers, and `refused` the answers with
    a status of 400 or above. `p50` and `p99` are the median and the 99th percentile of the time
    until an answer arrives, in ms. `lost` counts time-outs and errors of connections."""

    requests: int
    per_second: float
    p50: float
    p99: float
    refused: int
    lost: int


def wrk(
    port: int,
    path: str,
    *,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Runs wrk, which requests a path again and again for `seconds` seconds. wrk uses one thread,
    and keeps `connections` connections open. Raises Missing if wrk isn't installed."""
    _need("wrk", "wrk")
    command = ["wrk", "--latency", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", "10s"]
    for name, value in (headers or {}).items():
        command += ["--header", f"{name}: {value}"]
    command += [f"http://127.0.0.1:{port}{path}"]
    return load_of(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def load_of(said: str) -> Load:
    """Parses wrk's output. Raises ValueError if the output has an unknown form."""
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said
    )
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Load(
        requests=int(_found(r"(\d+) requests in", said)),
        per_second=float(_found(r"Requests/sec:\s+([\d.]+)", said)),
        p50=_milliseconds(_found(r"^ +50% +(\S+)$", said)),
        p99=_milliseconds(_found(r"^ +99% +(\S+)$", said)),
        refused=int(refused[1]) if refused else 0,
        lost=sum(map(int, errors.groups())) if errors else 0,
    )


@contextmanager
def granian(
    application: str,
    *,
    interface: str = "asginl",
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Runs an application (`module:name`) under granian, the web server of the replicas. granian
    has the same limits as in a replica, but serves only 64 connections at a time for WSGI."""
    port = free_port()
    command = (
        str(Path(sys.executable).parent / "granian"), "--interface", interface, "--no-ws",
        "--http", "1", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backlog", "2048", "--backpressure", "8192" if interface != "wsgi" else "64",
        "--http1-header-read-timeout", "10000", "--http1-buffer-size", "65536",
        "--log-level", "warning", application,
    )  # fmt: skip
    with process(command, environment, port=port):
        yield port


@contextmanager
def gunicorn(application: str, *, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Runs a WSGI application under gunicorn, in one process with 8 threads. gunicorn keeps
    connections open between requests."""
    program = Path(sys.executable).parent / "gunicorn"
    if not program.exists():
        raise Missing("gunicorn", "pip install -r bench/requirements.txt")
    port = free_port()
    command = (
        str(program), "--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "8",
        "--worker-connections", "1000", "--keep-alive", "10", "--log-level", "error", application,
    )  # fmt: skip
    with process(command, environment, port=port):
        yield port


@contextmanager
def nginx(folder: Path, root: Path) -> Iterator[int]:
    """Runs nginx with one worker process, sendfile and open_file_cache. nginx serves the files in
    the folder `root`, and has its configuration and its temporary files in `folder`."""
    _need("nginx", "nginx", "nginx-light")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    # If the user root starts nginx, the worker process by default runs as another user, who can't
    # read these folders.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; {user} pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; sendfile on; server_tokens off; {temporary}
            open_file_cache max=20000 inactive=60s; open_file_cache_valid 60s;
            keepalive_requests 1000000000; keepalive_timeout 60s;
            server {{ listen 127.0.0.1:{port} backlog=2048; root {root}; }}
        }}
    """)
    command = ("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"))
    with process(command, port=port):
        yield port


@contextmanager
def edge(folder: Path, behind: int) -> Iterator[int]:
    """Runs nginx with the configuration deploy/nginx.conf, in front of the replica on port
    `behind`. nginx caches the replica's answers for up to a second."""
    _need("nginx", "nginx", "nginx-light")
    from tests.support.servers.edge import edge

    port = free_port()
    with edge(folder, port, [behind]):
        yield port


@contextmanager
def varnish(folder: Path, behind: int) -> Iterator[int]:
    """Runs Varnish in front of the server on port `behind`. Varnish caches every answer for a
    minute."""
    _need("varnishd", "Varnish", "varnish")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.vcl").write_text(f"""vcl 4.1;
        backend default {{ .host = "127.0.0.1"; .port = "{behind}"; }}
        sub vcl_backend_response {{ set beresp.ttl = 60s; unset beresp.http.vary; }}
    """)
    command = (
        "varnishd", "-F", "-n", str(folder / "work"), "-f", str(folder / "bench.vcl"),
        "-a", f"127.0.0.1:{port}", "-s", "malloc,256m", "-T", "none", "-j", "none",
    )  # fmt: skip
    with process(command, port=port):
        yield port


@contextmanager
def process(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    port: int | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs a process. If `port` is given, waits until the process listens on that port. At the end
    of the `with` block, sends SIGTERM to the process. If the process hasn't ended after 5 s, kills
    it and its children. The process has a session of its own, so Ctrl-C in the terminal interrupts
    only the benchmark."""
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115  `finally` closes the file
    started = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=said,
        stderr=said,
        start_new_session=True,
    )
    try:
        if port is not None and not _listens(started, port):
            said.seek(0)
            raise RuntimeError(f"{command[0]} doesn't listen on port {port}:\n{said.read()}")
        yield started
    finally:
        with suppress(ProcessLookupError):
            started.terminate()
        try:
            started.wait(5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        said.close()


def free_port() -> int:
    """Returns a port on which no process listens."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _need(program: str, name: str, package: str = "") -> None:
    if shutil.which(program) is None:
        raise Missing(name, f"apt-get install {package or name}")


def _listens(started: "subprocess.Popen[bytes]", port: int) -> bool:
    """Waits until a process listens on a port. Returns False if the process ends before that, or
    doesn't listen within START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and started.poll() is None:
        with closing(socket.socket()) as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"wrk's output doesn't match {pattern!r}:\n{text}")
    return found[1]


def _milliseconds(text: str) -> float:
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
    number, unit = _found(r"^([\d.]+)", text), _found(r"([a-z]+)$", text)
    return float(number) * units[unit]
