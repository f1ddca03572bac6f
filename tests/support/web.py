"""Serves the real WSGI application on a socket in this process, for tests of HTTP.

Requests are sent without any correction, so a test can send malformed requests.

The board is a file that tells the processes of a replica which cached data is fresh. In a real
replica, a sidecar (a process that receives notifications of changes) keeps the board live. While
the board isn't live, no process uses its caches. The tests run no sidecar. A test that needs caches
calls `vouch`.
"""

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from django.apps import apps
from django.db import connection, connections
from django.test import override_settings

from notifications.board import now_ns
from notifications.emit import local_board
from realms.addresses import public_origin
from realms.content.locks import lock_key
from realms.serving import answers, origins
from tests.support.cluster import Answer

ORIGIN = "http://localhost:4201"
API = "application/vnd.api+json"
SOURCE = "application/vnd.card+source"

TIMEOUT = 40


class _Handler(WSGIRequestHandler):
    """Handles requests, and writes no log. The base class percent-decodes the request's path and
    passes the result in PATH_INFO as Latin-1, as `realms/web/asgi.py` does in production."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingMixIn, WSGIServer):
    # server_close waits for every request, so that no request uses the database after its test.
    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def server_bind(self) -> None:
        # The inherited method would also look up the name of the host, which isn't needed.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            connections.close_all()


@dataclass(frozen=True)
class Web:
    """Sends requests to the test's server, which serves all realms. The methods take public URLs,
    and send the URL's host in the Host header."""

    port: int

    def get(self, url: str, accept: str = "*/*", **headers: str) -> Answer:
        """Sends a GET request for a public URL."""
        return self.request("GET", url, accept=accept, headers=headers)

    def post(self, url: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends a POST request with JSON to a server endpoint."""
        return self.request(
            "POST", url, accept=API, body=json.dumps(body).encode(), headers=headers
        )

    def upload(
        self, url: str, body: bytes, headers: Mapping[str, str] | None = None, accept: str = SOURCE
    ) -> Answer:
        """Sends a POST request that writes a file."""
        return self.request("POST", url, accept=accept, body=body, headers=headers)

    def request(
        self,
        method: str,
        url: str,
        *,
        accept: str | None = "*/*",
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """Sends a request without escaping or normalizing anything. A header with the value None is
        left out."""
        return ask(self.port, method, url, accept=accept, body=body, headers=headers)


def ask(
    port: int,
    method: str,
    url: str,
    *,
    accept: str | None = "*/*",
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
) -> Answer:
    """Sends a request like `Web.request`, to any server on a port of this machine."""
    rest = url.partition("://")[2]
    authority, slash, target = rest.partition("/")
    sent: dict[str, str | None] = {"Host": authority, "Accept": accept}
    if body is not None or method in ("POST", "DELETE", "PUT", "PATCH"):
        sent["Content-Length"] = str(len(body or b""))
    sent |= dict(headers or {})
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        client.putrequest(method, slash + target, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None:
                client.putheader(name, value)
        client.endheaders(body)
        response = client.getresponse()
        told: dict[str, str] = {}
        for name, value in response.getheaders():
            told[name.lower()] = value
        return Answer(response.status, told, response.read())
    finally:
        client.close()


def send_raw(port: int, data: bytes, *, break_off: bool = False) -> bytes:
    """Sends bytes to a server on a port of this machine, and returns the whole answer. With
    `break_off`, shuts down the sending side of the connection after the bytes. The server may then
    send no answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        client.sendall(data)
        if break_off:
            client.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        return received


@contextmanager
def served() -> Iterator[Web]:
    """Serves the application on a free port, with empty caches and a board that isn't live."""
    from settings.wsgi import application

    server = _Server(("127.0.0.1", 0), _Handler)
    server.set_app(application)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="web")
    with override_settings(REALM_REPLICA_ADDRESS=f"http://127.0.0.1:{server.server_port}"):
        _forget()
        thread.start()
        try:
            yield Web(server.server_port)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    _forget()


def _forget() -> None:
    for decided in (public_origin, origins.policy, origins.is_admin_host):
        decided.cache_clear()
    answers.caches.cache_clear()
    local_board().go_live(0)


def vouch() -> None:
    """Makes the board live for a minute, as a sidecar does, so that requests are answered from
    caches. Without a sidecar, the board's slots move only for changes that this process commits."""
    local_board().go_live(now_ns() + 60_000_000_000)


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Returns every row that a request could change, by model. A test compares the rows before and
    after a request."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for model in (*apps.get_app_config("realms").get_models(),
                  *apps.get_app_config("reindex").get_models(),
                  *apps.get_app_config("definitions").get_models(),
                  apps.get_model("auth", "User")):  # fmt: skip
        if model.__name__ == "TranspiledModule":
            continue
        fields = [
            f.attname
            for f in model._meta.concrete_fields
            if f.name not in ("last_login", "stored_at")
        ]
        listed = model._default_manager.order_by("pk").values_list(*fields)
        rows[model.__name__] = [
            tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
            for row in listed
        ]
    return rows


def waiting_for(realm_url: str) -> int:
    """Returns the number of connections that wait for the write lock of a realm."""
    key = lock_key(realm_url) % 2**64
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND objsubid = 1 AND classid = %s AND objid = %s AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())",
            [key >> 32, key % 2**32],
        )
        return int(cursor.fetchone()[0])
