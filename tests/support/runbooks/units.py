"""Runs service units on a test's host in place of systemd.

This module supports the settings that this project's units need: User, WorkingDirectory,
EnvironmentFile, ExecStart with variables, RuntimeDirectory, StateDirectory, Restart and
KillMode=mixed. Services that don't run as root run with NoNewPrivileges and without capabilities.
All other settings that restrict a service are ignored.
"""

import re
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.cluster import wait_until
from tests.support.runbooks.hosts import Host

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_WALLS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")


def settings_of(text: str) -> dict[str, list[str]]:
    """Returns the settings of a unit file. A setting can have several values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def variables_of(text: str) -> dict[str, str]:
    """Returns the variables that an EnvironmentFile sets."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


class Service:
    """A service of a host. Whenever the service ends, it is started again, until `stop` or
    `abandon` is called."""

    def __init__(self, host: Host, unit: str, logs: Path) -> None:
        self._host = host
        self.name = unit.removesuffix(".service")
        self._settings = settings_of(host.read(f"/etc/systemd/system/{self.name}.service"))
        self.log = logs / f"{host.name}-{self.name}.log"
        self._ended = threading.Event()
        self._held = threading.Event()
        self._thread: threading.Thread | None = None
        self.pid: int | None = None

    def start(self) -> None:
        """Starts the service. Doesn't wait until the service works."""
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._keep, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stops the service as systemd does with KillMode=mixed. Sends SIGTERM to the main process,
        and waits at most TimeoutStopSec for its end. Then kills all processes that are left."""
        self._ended.set()
        if self._thread is None:
            return
        seconds = float(self._one("TimeoutStopSec", "90"))
        self.signal(signal.SIGTERM)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.kill()
            self._thread.join()
        self._thread = None

    def kill(self) -> None:
        """Kills all processes of the service."""
        for each in self._family():
            with suppress(psutil.NoSuchProcess):
                each.kill()

    def signal(self, number: int) -> None:
        """Sends a signal to the main process."""
        with suppress(psutil.NoSuchProcess):
            if self.pid is not None:
                psutil.Process(self.pid).send_signal(number)

    def abandon(self) -> None:
        """Kills the service and prevents its restart, without waiting for its end."""
        self._ended.set()
        self.kill()

    def hold(self) -> None:
        """Kills the service, and prevents its restart until `release` is called."""
        self._held.set()
        self.kill()
        wait_until(lambda: self.pid is None, f"{self.name} on {self._host.name} is gone", 10)

    def release(self) -> None:
        """Lets the service restart after `hold`."""
        self._held.clear()

    def _family(self) -> list[psutil.Process]:
        try:
            main = psutil.Process(self.pid or -1)
            return [main, *main.children(recursive=True)]
        except (psutil.NoSuchProcess, ValueError):
            return []

    def _keep(self) -> None:
        pause = float(self._one("RestartSec", "0.1"))
        while True:
            self._run_once()
            while True:
                if self._ended.wait(pause):
                    return
                if not self._held.is_set():
                    break

    def _run_once(self) -> None:
        environment = {"HOME": "/", **self._environment()}
        user = self._one("User", "root")
        if user != "root":
            environment["HOME"] = self._host.run(f"getent passwd {user} | cut -d: -f6").strip()
            for kind, parent in (("RuntimeDirectory", "/run"), ("StateDirectory", "/var/lib")):
                for name in self._settings.get(kind, []):
                    folder = f"{parent}/{name}"
                    self._host.run(f"install --directory --owner {user} --group {user} {folder}")
        process = self._host.spawn(
            list(self._command(user, environment)),
            self.log,
            environment=environment,
            cwd=self._one("WorkingDirectory", "/"),
        )
        nsenter = psutil.Process(process.pid)
        with suppress(psutil.NoSuchProcess, AssertionError):
            self.pid = wait_until(nsenter.children, f"{self.name} runs", 5)[0].pid
        if self._ended.is_set():
            self.signal(signal.SIGTERM)
        left = self._family()
        process.wait()
        self.pid = None
        for each in left:
            # The main process has ended without ending these descendants.
            with suppress(psutil.NoSuchProcess):
                each.kill()

    def _command(self, user: str, environment: dict[str, str]) -> Iterator[str]:
        if user != "root":
            group = self._one("Group", user)
            yield from ("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", *_WALLS)
        for word in shlex.split(self._one("ExecStart")):
            yield _VARIABLE.sub(lambda found: environment[found[1]], word).replace("%%", "%")

    def _environment(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self._settings.get("EnvironmentFile", []):
            found.update(variables_of(self._host.read(path)))
        return found

    def _one(self, name: str, default: str | None = None) -> str:
        values = self._settings.get(name)
        if values is None and default is not None:
            return default
        assert values, f"{self.name} has no {name}="
        return values[-1]
