"""Runs the demo's processes under supervisord, which restarts a process that ends, and stops all
processes together."""

import os
import subprocess
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Callable
from configparser import RawConfigParser
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from guardian import die_with_parent
from supervisor.xmlrpc import SupervisorTransport

from settings.processes import Process, celery_worker, replica
from settings.web import BIN

ROOT = Path(__file__).resolve().parent.parent


class Supervisor:
    """A supervisord that runs the processes of two replicas and one Celery worker."""

    def __init__(self, data_dir: Path, ports: list[int], stop: threading.Event) -> None:
        self.ports = dict(zip("ab", ports, strict=True))
        self.logs = data_dir / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        # The folder has supervisord's control socket. A Unix socket's path must be short, but the
        # clone's path may be long, so the folder is not in the clone.
        self._folder = tempfile.TemporaryDirectory(prefix="realm-demo-")
        self._stop = stop
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        address = f"{self._folder.name}/control"
        transport: Any = SupervisorTransport(None, None, f"unix://{address}")  # type: ignore[no-untyped-call]
        self._control: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor
        self._configuration = _configuration(
            address, self._folder.name, self.logs, self._programs()
        )

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Starts all processes, without waiting until the replicas answer."""
        path = Path(self._folder.name) / "supervisord.conf"
        with path.open("w") as file:
            self._configuration.write(file)
        self._process = subprocess.Popen(
            [str(BIN / "supervisord"), "--nodaemon", "--configuration", str(path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._folder.cleanup()

    def kill(self, program: str) -> None:
        """Kills a process with SIGKILL and prevents its restart until `release` is called."""
        self._control.signalProcess(program, "KILL")
        # supervisord restarts the killed process, unless `stopProcess` forbids the restart. Between
        # the kill and the restart, `stopProcess` fails, because no process runs. The loop repeats
        # the call.
        while self._control.getProcessInfo(program)["statename"] != "STOPPED":
            with suppress(xmlrpc.client.Fault):
                self._control.stopProcess(program)

    def release(self, program: str) -> None:
        """Starts a process again that `kill` has stopped."""
        self._control.startProcess(program)

    def wait_until(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Waits until a condition is true. Returns False if the condition stays false for
        `seconds`. Raises KeyboardInterrupt if the event `stop` is set."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._stop.is_set():
                raise KeyboardInterrupt
            if condition():
                return True
            time.sleep(0.005)
        return False

    def _programs(self) -> list[Process]:
        replicas = [replica(name, port, self._data_dir) for name, port in self.ports.items()]
        return [*replicas[0], *replicas[1], celery_worker("demo")]


def _configuration(
    address: str, folder: str, logs: Path, programs: list[Process]
) -> RawConfigParser:
    config = RawConfigParser()
    config["supervisord"] = {
        "logfile": str(logs / "supervisord.log"),
        "pidfile": f"{folder}/supervisord.pid",
        "childlogdir": str(logs),
    }
    config["unix_http_server"] = {"file": address}
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for program in programs:
        environment = {"PYTHONWARNINGS": "ignore", **program.environment}
        config[f"program:{program.name}"] = {
            "command": " ".join(_quoted(word) for word in program.command),
            "directory": str(ROOT),
            "environment": ",".join(f'{k}="{_escaped(v)}"' for k, v in environment.items()),
            "autorestart": "true",
            "startsecs": "0",
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": "10",
            "redirect_stderr": "true",
            "stdout_logfile": str(logs / f"{program.name}.log"),
            "stdout_logfile_backups": "1",
        }
    return config


def _quoted(word: str) -> str:
    return f'"{_escaped(word)}"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
