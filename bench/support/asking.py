"""Runs a client process that requests many URLs, each once, on several connections.

The client checks the CRC of every body, and reports wrong answers. The client uses sockets
directly, because Python's HTTP clients are slower than some of the servers.
"""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from typing import Any

from bench.support.comparing import WrongBytes

CONNECTIONS = 8
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def milliseconds_each(
    port: int,
    host: str,
    paths: Sequence[str],
    bodies: Sequence[bytes],
    *,
    connections: int = CONNECTIONS,
    cache: str = "",
) -> float:
    """Requests all `paths`. Returns the total time in ms, divided by the number of paths. `bodies`
    has the expected body for each path. If `cache` isn't empty, it is the expected value of the
    header X-Boxel-Cache. Raises WrongBytes if any answer isn't as expected."""
    told = {
        "port": port, "host": host, "paths": list(paths), "connections": connections,
        "cache": cache, "sums": [zlib.crc32(body) for body in bodies],
    }  # fmt: skip
    command = (sys.executable, "-m", __name__)
    done = subprocess.run(
        command, input=json.dumps(told), stdout=subprocess.PIPE, text=True, check=True
    )
    answer = json.loads(done.stdout)
    if answer["wrong"]:
        raise WrongBytes(f"{len(answer['wrong'])} wrong answers, for example {answer['wrong'][:3]}")
    return float(answer["seconds"]) * 1000 / len(paths)


def _ask(told: dict[str, Any], start: int, wrong: list[str]) -> None:
    """Opens a connection, and requests every n-th path on it, beginning with path number `start`.
    n is the number of connections. Adds wrong answers to `wrong`."""
    step, cache = told["connections"], told["cache"].encode()
    with socket.create_connection(("127.0.0.1", told["port"]), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for path, crc in zip(told["paths"][start::step], told["sums"][start::step], strict=True):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {told['host']}\r\n\r\n".encode())
            head, body = _answer(client)
            right = head.startswith(b"HTTP/1.1 200") and zlib.crc32(body) == crc
            if not right or (cache and b"x-boxel-cache: " + cache not in head):
                wrong.append(f"{path}: {head.decode()}")


def _answer(client: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(client)
    head = received[: end + 4]
    length = _LENGTH.search(head)
    whole = end + 4 + (int(length[1]) if length else 0)
    while len(received) < whole:
        received += _more(client)
    return head, received[end + 4 :]


def _more(client: socket.socket) -> bytes:
    piece = client.recv(1 << 18)
    if not piece:
        raise ConnectionError("the server closed the connection before its answer was complete")
    return piece


def _main() -> None:
    told = json.load(sys.stdin)
    wrong: list[str] = []
    threads = [
        threading.Thread(target=_ask, args=(told, start, wrong))
        for start in range(told["connections"])
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"seconds": time.perf_counter() - began, "wrong": wrong}, sys.stdout)


if __name__ == "__main__":
    _main()
