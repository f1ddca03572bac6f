"""Runs the demo, which starts a fleet on one machine, publishes realms, and checks that pages are
current.

The fleet is two replicas and a Celery worker, which run under supervisord. Each replica has two web
workers and a sidecar, the process that tells the replica's caches which files have changed. Each
step prints one line with its measurement. The demo ends at the first step that fails. After the
last step, the demo runs until Ctrl-C, or ends at once with `--check`.
"""

import argparse
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
from guardian import guarded
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ("people", "lights", "tools")
USER = "demo"
CARD = "tool/circular-saw.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="script/demo",
        description="Starts two replicas and a Celery worker, publishes three example realms, and "
        "shows how soon both replicas serve a change.",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="end the demo after the last step; without --check, the demo then runs until Ctrl-C",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=4201,
        help="the replicas use the first two free ports from this port on (default: 4201)",
    )
    options = parser.parse_args()
    status = guarded(lambda: run(options.check, options.port), is_postgres)
    from django.conf import settings

    from settings.embedded.server import stop_if_unused

    if not settings.DATABASE_URL:
        # If other processes of this clone (such as tests) use the same Postgres, the last of these
        # processes stops Postgres.
        stop_if_unused(settings.DATA_DIR)
    return status


def run(check: bool, first_port: int) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    console = Console(highlight=False)
    ports = free_ports(first_port, 2)
    os.environ["REALM_PUBLIC_ORIGIN"] = f"http://localhost:{ports[0]}"
    # The settings read the environment at their first import, so they are imported only now, after
    # REALM_PUBLIC_ORIGIN is set.
    import django
    from django.conf import settings
    from show import Show, StepFailed
    from supervise import Supervisor

    django.setup()

    password = secrets.token_urlsafe(9)
    began = time.monotonic()
    with Supervisor(settings.DATA_DIR, ports, stop) as fleet:
        show = Show(console, fleet, settings.REALM_PUBLIC_ORIGIN, stop, USER, password)
        try:
            show.start()
            show.publish(ROOT / "examples", EXAMPLES)
            show.change_one_card("tools", CARD)
            show.lose_a_sidecar("tools", CARD)
        except StepFailed as failure:
            console.print(f"[bold red]✗ {failure}[/]", soft_wrap=True)
            console.print(f"  the processes' logs are in {fleet.logs}")
            return 1
        except KeyboardInterrupt:
            return 130
        if check:
            console.print(f"[bold green]all steps passed[/] in {time.monotonic() - began:.0f} s")
            return 0
        console.print(addresses(ports, password), soft_wrap=True)
        console.print("Everything is up. Ctrl-C stops it.", style="dim")
        stop.wait()
        console.print("Stopping …", style="dim")
    return 0


def is_postgres(process: psutil.Process) -> bool:
    """Returns whether a process belongs to the embedded Postgres."""
    return process.name() == "postgres"


def addresses(ports: list[int], password: str) -> str:
    """Returns a text that lists the addresses of the sites and of the admin on both replicas, and
    the user name and password for the admin."""
    names = {"people": "Harbour Row", "lights": "Night Marks", "tools": "Tool Library"}
    rows: list[tuple[str, ...]] = [("", "replica a", "replica b")]
    rows += [
        (name, *(f"http://{key}.localhost:{p}/" for p in ports)) for key, name in names.items()
    ]
    admin = (f"http://localhost:{port}/_admin/" for port in ports)
    rows.append(("Admin", *admin))
    width = max(len(row[1]) for row in rows)
    lines = [f"  {name:<14}{first:<{width}}   {second}" for name, first, second in rows]
    lines[0] = f"\n[bold]{lines[0]}[/]"
    return "\n".join([*lines, f"  {'':<14}user [bold]{USER}[/], password [bold]{password}[/]\n"])


def free_ports(first: int, count: int) -> list[int]:
    """Returns the lowest `count` free ports that are not below the port `first`. Skips the ports on
    which other programs listen, such as the demo of another clone. Tries at most 200 ports."""
    import socket

    found: list[int] = []
    for port in range(first, min(first + 200, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SystemExit(f"script/demo: found fewer than {count} free ports from {first} on")


if __name__ == "__main__":
    sys.exit(main())
