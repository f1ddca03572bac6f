"""Attacks a replica with slow clients, in tests and in `script/bench hostile`.

An attack is a context manager. It runs in one thread, keeps its connections open until the end of
the `with` block, and never waits for an answer. `Trickle.ended` counts the connections that the
server has closed or answered.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Self

TICK_SECONDS = 0.1


class Trickle:
    """Opens connections, and sends the start of a request on each connection. The rest of the
    request follows one byte at a time and never ends."""

    def __init__(self, port: int, count: int, start: bytes, drip: bytes) -> None:
        """After `start`, sends `drip` repeatedly, byte by byte. If `drip` is empty, sends only
        `start`, and reads no answer."""
        self._port, self._count, self._start, self._drip = port, count, start, drip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trickle")
        self._begun = threading.Event()
        self.ended = 0
        self.answers: list[bytes] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(self._count):
                client = stack.enter_context(socket.socket())
                # With this small receive buffer, the server can send only a little of an answer.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", self._port))
                client.sendall(self._start)
                client.setblocking(False)
                clients.append(client)
            self._begun.set()
            at = 0
            while not self._stop.wait(TICK_SECONDS):
                byte = self._drip[at : at + 1]
                at = (at + 1) % max(1, len(self._drip))
                for client in list(clients):
                    if not self._alive(client, byte):
                        clients.remove(client)
                        self.ended += 1

    def _alive(self, client: socket.socket, byte: bytes) -> bool:
        try:
            if byte:
                client.send(byte)
            if self._drip:
                answer = client.recv(65536)
                self.answers.append(answer)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


def slow_headers(port: int, count: int) -> Trickle:
    """Sends requests with headers that never end."""
    return Trickle(port, count, b"GET / HTTP/1.1\r\nHost: localhost:4201\r\nX-Long: ", b"x")


def slow_bodies(
    port: int, count: int, url: str, size: int = 100_000, headers: Mapping[str, str] | None = None
) -> Trickle:
    """Sends the bodies of uploads slowly, one byte per connection every tenth of a second."""
    return Trickle(port, count, _request("POST", url, size=size, headers=headers), b"x")


def never_reading(port: int, count: int, url: str, accept: str = "*/*") -> Trickle:
    """Sends requests and never reads the answers."""
    return Trickle(port, count, _request("GET", url, accept=accept), b"")


def part_never_read(port: int, count: int, url: str) -> Trickle:
    """Requests all but the first byte of a file, as a range, and never reads the answers."""
    return Trickle(port, count, _request("GET", url, headers={"Range": "bytes=1-"}), b"")


def silent(port: int, count: int) -> Trickle:
    """Opens connections and sends nothing."""
    return Trickle(port, count, b"", b"")


@contextlib.contextmanager
def all_of(*attacks: Trickle) -> Iterator[None]:
    """Runs several attacks at once."""
    with contextlib.ExitStack() as stack:
        for attack in attacks:
            stack.enter_context(attack)
        yield


def _request(
    method: str,
    url: str,
    *,
    accept: str = "*/*",
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    host, _, path = url.partition("://")[2].partition("/")
    lines = [f"{method} /{path} HTTP/1.1", f"Host: {host}", f"Accept: {accept}"]
    if size is not None:
        lines += ["Content-Type: application/octet-stream", f"Content-Length: {size}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode()
