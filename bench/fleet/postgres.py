"""Runs a new Postgres for a measurement, with fsync on, on a free port.

Uses Debian's binaries if they are installed, because the runbook docs/operations/three-hosts.md
installs Debian's Postgres. Otherwise uses the binaries of the embedded Postgres, which is part of a
Python package (`settings/embedded/`).
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg


@dataclass(frozen=True)
class Server:
    """A running Postgres server. `folder` contains the server's data, and `binaries` the server's
    programs."""

    port: int
    folder: Path
    binaries: Path
    user: str | None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres", **options: Any) -> "psycopg.Connection[Any]":
        """Opens a connection in autocommit mode."""
        return psycopg.connect(self.url(database), autocommit=True, **options)

    def run(self, program: str, *arguments: str) -> None:
        """Runs one of the server's programs. Raises subprocess.CalledProcessError if it fails."""
        run(self.binaries, self.user, program, *arguments)

    def start(self, settings: Sequence[str] = ()) -> None:
        options = " ".join(f"-c {each}" for each in _settings(self.port, settings))
        log = str(self.folder.parent / f"{self.folder.name}.log")
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.folder), "-w", "-m", "immediate", "stop")

    def cpu_seconds(self) -> float:
        """Returns the total processor time of the server's processes, including ended processes."""
        pid = int((self.folder / "postmaster.pid").read_text().split("\n", 1)[0])
        main = psutil.Process(pid)
        total = sum(main.cpu_times()[:4])
        for child in main.children():
            try:
                total += sum(child.cpu_times()[:2])
            except psutil.NoSuchProcess:
                continue
        return float(total)


def _settings(port: int, more: Sequence[str]) -> list[str]:
    return [
        f"port={port}", "listen_addresses='*'", "unix_socket_directories=''",
        "max_connections=1300", "shared_buffers=1GB", "max_wal_size=4GB", *more,
    ]  # fmt: skip


def run(binaries: Path, user: str | None, program: str, *arguments: str) -> None:
    """Runs a program of Postgres as the system user `user`. If `user` is None, the program runs as
    the user of this process. If this process runs as root, `user` must name another user, because
    Postgres refuses to run as root. Raises subprocess.CalledProcessError if the program fails."""
    done = subprocess.run(
        [binaries / program, *arguments],
        user=user,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, [program, *arguments])


def default_binaries() -> Path:
    """Returns the folder with the programs of the newest Debian Postgres, or else of the embedded
    Postgres."""
    found = list(Path("/usr/lib/postgresql").glob("[0-9]*/bin/initdb"))
    if found:
        return max(found, key=lambda initdb: float(initdb.parts[-3])).parent
    from settings.embedded.server import get_server

    with tempfile.TemporaryDirectory() as folder:
        return Path(get_server(Path(folder) / "postgres", start=False).bin_path)


@contextmanager
def scratch(*settings: str, binaries: Path | None = None) -> Iterator[Server]:
    """Runs a new server with fsync on. After the `with` block, stops the server and removes its
    data."""
    # SIGTERM raises SystemExit, so that a terminated measurement still ends its processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = binaries or default_binaries()
    user = _system_user() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="realm-scale-"))
    try:
        if user:
            shutil.chown(folder, user)
        data = folder / "data"
        arguments = ("-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8")
        run(programs, user, "initdb", *arguments, "--no-locale")
        with open(data / "pg_hba.conf", "a") as rules:
            # Let clients connect from the simulated network of bench/fleet/link.py.
            rules.write("host all all 10.97.41.0/30 trust\n")
        server = Server(free_port(), data, programs, user)
        server.start(settings)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _system_user() -> str:
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def free_port() -> int:
    """Returns a port of this machine on which no process listens."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])
