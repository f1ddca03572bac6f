"""Makes and runs the command that starts the web server with its required options. The program
`script/web` of a clone and the program `realm-web` of an installed wheel call this module."""

import argparse
import os
import resource
import sys
from pathlib import Path

BIN = Path(sys.executable).parent

#: How long a client may take to send a request's headers, and how long a connection may be idle.
HEADER_SECONDS = 10
#: How many connections one worker process serves at a time. At the limit, the process accepts no
#: more connections.
MAX_CONNECTIONS = 8192


def web_command(host: str, port: int, *, workers: int) -> tuple[str, ...]:
    """Returns the command that starts a replica's web service with `workers` worker processes."""
    return (
        str(BIN / "granian"), "--interface", "asginl", "--no-ws", "--http", "1",
        "--host", host, "--port", str(port), "--workers", str(workers),
        "--backlog", "2048", "--backpressure", str(MAX_CONNECTIONS),
        "--http1-header-read-timeout", str(HEADER_SECONDS * 1000), "--http1-buffer-size", "65536",
        "--respawn-failed-workers", "--respawn-interval", "0.2", "--workers-kill-timeout", "5",
        "--log-level", "warning", "settings.asgi:application",
    )  # fmt: skip


def main() -> None:
    """Parses the options of the command line, and replaces this process with the web server."""
    parser = argparse.ArgumentParser(
        prog=_program(), description="Runs the web service of a replica."
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4201, help="the port (default: 4201)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    options = parser.parse_args()
    # Each connection is an open file, and the usual soft limit on open files is too low.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = web_command(options.host, options.port, workers=options.workers)
    os.execv(command[0], command)


def _program() -> str:
    """Returns the program's name for its help text."""
    return "realm-web" if Path(sys.argv[0]).name == "realm-web" else "script/web"


if __name__ == "__main__":
    main()
