"""A restartable proxy before the database or another service: the network as a test wants it.

It can stall (bytes stop flowing, connections stay), cut (connections end) and go down (nobody
listens any more). Whoever connects through it speaks to the real service. It keeps what clients
said, if it is asked to.
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
    """Forwards between those who connect to `host` and `port` and a service at `target`, which is
    the test's database unless another is named. It listens as the service does, Unix socket or TCP,
    or at the address that it is given. `heard` is what each client has said, where that is kept."""

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
        # The path of a Unix socket has about a hundred bytes; a test's own folder is longer.
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
        """What psycopg needs to connect to the test's database through this proxy."""
        own = connection.get_connection_params()
        kept: dict[str, Any] = {
            key: own[key] for key in ("dbname", "user", "password") if key in own
        }
        return {**kept, "host": self.host, "port": self.port, "connect_timeout": 2}

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """An autocommit connection through the proxy."""
        return psycopg.connect(**self.parameters, autocommit=True)

    # --- faults ---

    def stall(self) -> None:
        """From now on no byte passes, in either direction, on old connections and new ones."""
        self._flows.clear()

    def flow(self) -> None:
        """What was held back by `stall` goes on its way."""
        self._flows.set()

    def cut(self) -> None:
        """Ends every connection. New ones are welcome."""
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
        """Listens, the first time or again, where it listened before."""
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
        """Ends everything."""
        self.down()
        self._flows.set()
        shutil.rmtree(self._folder)

    # --- threads ---

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return  # gone down
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
            # The second of a pair's two pumps to end: nobody uses the sockets any more.
            with self._lock:
                self._open -= {source, sink}
            source.close()
            sink.close()


@contextmanager
def proxy(
    target: tuple[str, int] | None = None, *, at: str | None = None, keep: bool = False
) -> Iterator[Proxy]:
    """A proxy that is up, and gone afterwards."""
    made = Proxy(target, at=at, keep=keep)
    made.up()
    try:
        yield made
    finally:
        made.close()
