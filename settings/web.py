"""The web server's command, with the options that it must have: `script/web` runs it."""

import argparse
import os
import resource
import sys
from pathlib import Path

BIN = Path(sys.executable).parent

#: How long a client may take for a request's headers, and a connection may be idle.
HEADER_SECONDS = 10
#: Connections that one worker process serves at a time. While it has as many it accepts none.
MAX_CONNECTIONS = 8192


def web_command(host: str, port: int, *, workers: int) -> tuple[str, ...]:
    """The web service of a replica, with so many worker processes."""
    return (
        str(BIN / "granian"), "--interface", "asginl", "--no-ws", "--http", "1",
        "--host", host, "--port", str(port), "--workers", str(workers),
        "--backlog", "2048", "--backpressure", str(MAX_CONNECTIONS),
        "--http1-header-read-timeout", str(HEADER_SECONDS * 1000), "--http1-buffer-size", "65536",
        "--respawn-failed-workers", "--respawn-interval", "0.2", "--workers-kill-timeout", "5",
        "--log-level", "warning", "settings.asgi:application",
    )  # fmt: skip


def main() -> None:
    """Becomes the web server."""
    parser = argparse.ArgumentParser(
        prog="script/web", description="Runs the web service of a replica."
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4201, help="the port (default: 4201)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    options = parser.parse_args()
    # A connection is an open file; what is usual for a login would do for few.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = web_command(options.host, options.port, workers=options.workers)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
