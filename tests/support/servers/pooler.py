"""Runs a connection pooler in front of the test's database, similar to PgBouncer in transaction
mode.

Many clients share few connections to the server. A client has a connection for one transaction. The
client's next transaction gets the connection that has been idle longest, which is usually a
different one. The pooler doesn't reset connections, so a client finds the session state that
earlier clients have left on the connection.

Source: the PostgreSQL manual, "Frontend/Backend Protocol".
"""

import queue
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from django.db import connection

_PATIENCE = 60
_ENCRYPTION_REQUESTS = (80877103, 80877104)
#: The kinds of messages that the server answers with ReadyForQuery: Query, Sync and FunctionCall.
_ASKS = b"QSF"
_REPORTED = (
    "server_version", "server_encoding", "client_encoding", "DateStyle", "IntervalStyle",
    "TimeZone", "integer_datetimes", "standard_conforming_strings", "is_superuser",
)  # fmt: skip
#: An SQL query for the session state that outlives a transaction.
_LEFT_BEHIND = """
SELECT 'prepared statement', name FROM pg_prepared_statements
UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE is_holdable
UNION ALL SELECT 'advisory lock', objid::text FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'LISTEN', channel FROM pg_listening_channels() AS channel
UNION ALL SELECT 'temporary table', relname FROM pg_class
    WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'setting', name || ' = ' || setting FROM pg_settings WHERE source = 'session'
"""


class _Server:
    """One of the pooler's connections to the server. psycopg opens the connection, and the pooler
    forwards bytes on it."""

    def __init__(self) -> None:
        own = connection.get_connection_params()
        kept = {k: own[k] for k in ("dbname", "user", "password", "host", "port") if k in own}
        self.session: psycopg.Connection[Any] = psycopg.connect(
            **kept, autocommit=True, sslmode="disable", gssencmode="disable"
        )
        self.socket = socket.socket(fileno=self.session.fileno())
        self.transactions = 0

    def close(self) -> None:
        self.socket.detach()  # psycopg closes the socket
        self.session.close()


class Pooler:
    """The pooler, which listens on a TCP port of this machine."""

    def __init__(self, size: int) -> None:
        self._servers = [_Server() for _ in range(size)]
        self._rested: queue.SimpleQueue[_Server] = queue.SimpleQueue()
        for server in self._servers:
            self._rested.put(server)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._clients: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """The URL of the test's database through this pooler."""
        port = self._listening.getsockname()[1]
        name, user = connection.settings_dict["NAME"], connection.settings_dict["USER"]
        return f"postgresql://{user}@127.0.0.1:{port}/{name}?sslmode=disable"

    def connect(self) -> "psycopg.Connection[Any]":
        """Opens a client's connection through the pooler, in autocommit mode."""
        return psycopg.connect(self.url, autocommit=True, prepare_threshold=None)

    @property
    def transactions(self) -> list[int]:
        """The number of transactions that have ended on each connection to the server."""
        return [server.transactions for server in self._servers]

    def left_behind(self) -> list[tuple[str, str]]:
        """Returns the session state that clients have left on the connections to the server. Before
        that, waits until all transactions have ended."""
        rested = [self._rested.get(timeout=_PATIENCE) for _ in self._servers]
        found = {tuple(row) for server in rested for row in server.session.execute(_LEFT_BEHIND)}
        for server in rested:
            self._rested.put(server)
        return sorted(found)

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for _ in self._servers:
            self._rested.get(timeout=_PATIENCE).close()

    # --- threads ---

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                # The kernel sends each message at once. Otherwise it could hold a message back
                # until the client has acknowledged the previous message.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return
            self._clients.add(client)
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server: _Server | None = None
        asked = 0
        try:
            self._greet(client)
            while True:
                watched = [client, server.socket] if server else [client]
                readable, _, _ = select.select(watched, [], [])
                if server is not None and server.socket in readable:
                    kind, message = _read(server.socket)
                    client.sendall(message)
                    asked -= kind == b"Z"
                    if kind == b"Z" and message[-1:] == b"I" and asked == 0:
                        server.transactions += 1
                        self._rested.put(server)
                        server = None
                if client in readable:
                    kind, message = _read(client)
                    if kind == b"X":
                        return
                    server = server or self._rested.get(timeout=_PATIENCE)
                    asked += kind in _ASKS
                    server.socket.sendall(message)
        except (OSError, EOFError):
            return  # the client is gone
        finally:
            self._clients.discard(client)
            client.close()
            if server is not None:
                _roll_back(server, asked)
                self._rested.put(server)

    def _greet(self, client: socket.socket) -> None:
        while True:
            length, code = struct.unpack("!II", _exactly(client, 8))
            _exactly(client, length - 8)
            if code in _ENCRYPTION_REQUESTS:
                client.sendall(b"N")
            elif code >> 16 == 3:
                break
            else:
                raise EOFError  # a cancel request, which the pooler doesn't forward
        info = self._servers[0].session.info
        told = [(name, info.parameter_status(name)) for name in _REPORTED]
        client.sendall(_message(b"R", struct.pack("!I", 0)))
        for name, value in told:
            if value is not None:
                client.sendall(_message(b"S", f"{name}\0{value}\0".encode()))
        client.sendall(_message(b"K", struct.pack("!II", 0, 0)) + _message(b"Z", b"I"))


def _roll_back(server: _Server, asked: int) -> None:
    """Rolls back the transaction of a client that has disconnected. Reads the answers to the
    rollback and to the `asked` messages that the server hasn't answered yet."""
    server.socket.sendall(_message(b"Q", b"ROLLBACK\0"))
    for _ in range(asked + 1):
        while _read(server.socket)[0] != b"Z":
            pass


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _read(source: socket.socket) -> tuple[bytes, bytes]:
    """Reads the next message, and returns its kind and the whole message."""
    head = _exactly(source, 5)
    (length,) = struct.unpack("!I", head[1:])
    return head[:1], head + _exactly(source, length - 4)


def _exactly(source: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        try:
            chunk = source.recv(size - len(read))
        except BlockingIOError:
            select.select([source], [], [])  # psycopg's sockets don't block
            continue
        if not chunk:
            raise EOFError
        read += chunk
    return read


@contextmanager
def pooler(size: int = 3) -> Iterator[Pooler]:
    """Runs a pooler until the end of the block."""
    made = Pooler(size)
    try:
        yield made
    finally:
        made.close()
