"""Lists the processes of a server fleet, with their commands and environment variables.

The demo and the tests start these processes. An operator can copy the commands into service units.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from settings.environment import BASE_DIR
from settings.web import BIN, web_command


@dataclass(frozen=True)
class Process:
    """A process to start. `environment` has the process's own variables. The process also needs the
    variables that all processes of the installation have."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def replica(name: str, port: int, data_dir: Path, *, host: str = "127.0.0.1") -> list[Process]:
    """Returns the processes of a replica: the web service, with two worker processes, and the
    sidecar, which tells the caches of the web service which files have changed."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    environment = {
        "DJANGO_SETTINGS_MODULE": "settings",
        "REALM_REPLICA": name,
        "REALM_REPLICA_ADDRESS": f"http://{authority}",
        "REALM_BOARD": str(data_dir / f"board-{name}"),
    }
    web = web_command(host, port, workers=2)
    sidecar = (sys.executable, str(BASE_DIR / "manage.py"), "listen_file_changes")
    return [
        Process(f"web-{name}", web, environment),
        Process(f"sidecar-{name}", sidecar, environment),
    ]


def celery_worker(name: str, *, processes: int = 2) -> Process:
    """Returns the process of a Celery worker. Each worker also runs the sweeper, a task that sends
    messages again for work that still waits for a worker."""
    command = (
        str(BIN / "celery"), "-A", "settings.celery:app", "worker",
        "--hostname", f"{name}@%h", "--concurrency", str(processes), "--loglevel", "warning",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    return Process(f"celery-{name}", command, {"DJANGO_SETTINGS_MODULE": "settings"})
