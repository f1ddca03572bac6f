"""Runs a proxy in front of the database or another service. A test uses the proxy to simulate
faults of the network.

Without a fault, the proxy forwards all bytes. `stall` stops bytes but keeps connections open. `cut`
ends connections. `down` ends connections and refuses new connections. If `keep` is true, the proxy
records the bytes that clients send.
"""

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from django.db import connection

_CHUNK = 65_536


class Proxy:
    """Forwards connections to the service at `target`, by default the test's database. The proxy
    listens at `host` and `port`, on the same kind of socket as the service (Unix or TCP). If `at`
    is given, the proxy listens on TCP at the address `at`. If `keep` is true, `heard` has the bytes
    that each client sent."""

    def __init__(
        self, target: tuple[str, int] | None = None, *, at: str | None = None, keep: bool = False
    ) -> None:
        parameters = connection.get_connection_params()
        server = str(parameters.get("host") or "localhost")
        port = int(parameters.get("port") or 5432)
        unix = server.startswith("/") and target is None
        self._target: Any = target or (f"{server}/.s.PGSQL.{port}" if unix else (server, port))
        self._unix = unix and at is None
        self._keep = keep
        self.heard: list[bytearray] = []
        # A Unix socket's path can have about a hundred bytes at most. The path of a test's own
        # folder is longer, so the socket is in another folder.
        self._folder = tempfile.mkdtemp(prefix="proxy-")
        self.host = self._folder if self._unix else at or "127.0.0.1"
        self.port = port if self._unix else 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._listening: socket.socket | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters for psycopg to connect to the test's database through this proxy."""
        own = connection.get_connection_params()
        kept: dict[str, Any] = {
            key: own[key] for key in ("dbname", "user", "password") if key in own
        }
        return {**kept, "host": self.host, "port": self.port, "connect_timeout": 2}

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """Opens an autocommit connection through the proxy."""
        return psycopg.connect(**self.parameters, autocommit=True)

    # --- faults ---

    def stall(self) -> None:
        """Stops all bytes in both directions, on open and new connections, until `flow` is
        called."""
        self._flows.clear()

    def flow(self) -> None:
        """Forwards the bytes that `stall` has held back, and all later bytes."""
        self._flows.set()

    def cut(self) -> None:
        """Ends every connection, but accepts new ones."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def down(self) -> None:
        """Ends every connection and refuses new ones."""
        if self._listening is not None:
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        self.cut()

    def up(self) -> None:
        """Starts to listen. After `down`, listens at the same address as before."""
        listening = socket.socket(socket.AF_UNIX if self._unix else socket.AF_INET)
        if self._unix:
            address: Any = f"{self._folder}/.s.PGSQL.{self.port}"
            with suppress(FileNotFoundError):
                os.unlink(address)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            address = (self.host, self.port)
        listening.bind(address)
        listening.listen()
        if not self._unix:
            self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=[listening], daemon=True).start()

    def close(self) -> None:
        """Ends the proxy and all its connections, and removes the folder of its socket."""
        self.down()
        self._flows.set()
        shutil.rmtree(self._folder)

    # --- threads ---

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return  # `down` has closed the socket
            try:
                unix = isinstance(self._target, str)
                server = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
                server.connect(self._target)
            except OSError:
                server.close()
                client.close()
                continue
            pair = {client, server}
            with self._lock:
                self._open |= pair
            ends = threading.Semaphore(1)
            said = bytearray() if self._keep else None
            if said is not None:
                self.heard.append(said)
            for source, sink, kept in ((client, server, said), (server, client, None)):
                threading.Thread(
                    target=self._pump, args=[source, sink, ends, kept], daemon=True
                ).start()

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        ends: threading.Semaphore,
        kept: bytearray | None,
    ) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if kept is not None:
                    kept += chunk
                self._flows.wait()
                sink.sendall(chunk)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if not ends.acquire(blocking=False):
            # The other thread of this connection has already ended, so nothing else uses the
            # sockets.
            with self._lock:
                self._open -= {source, sink}
            source.close()
            sink.close()


@contextmanager
def proxy(
    target: tuple[str, int] | None = None, *, at: str | None = None, keep: bool = False
) -> Iterator[Proxy]:
    """Runs a proxy until the end of the block."""
    made = Proxy(target, at=at, keep=keep)
    made.up()
    try:
        yield made
    finally:
        made.close()
