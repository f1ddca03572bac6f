"""Starts processes that use an embedded Postgres, the server in an installation's data folder. A
test sends commands to these processes, and can check whether the Postgres server runs."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from settings.environment import BASE_DIR
from tests.support.cluster import wait_until

ANSWER_SECONDS = 30
PR_SET_CHILD_SUBREAPER = 36

# The code of a process that uses the server. Its arguments are the data folder, and optionally a
# user id. The process switches to this user after its imports.
USER = f"""
import ctypes, json, os, sys
from pathlib import Path
import psycopg
from settings.embedded.server import socket_folder, stop_if_unused

folder = Path(sys.argv[1])
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))

def connect():
    host = str(socket_folder(folder))
    return psycopg.connect(host=host, user="postgres", dbname="postgres", autocommit=True)

def ask(sql):
    with connect() as connection:
        cursor = connection.execute(sql)
        return [list(row) for row in cursor] if cursor.description else []

def adopt(_):
    return ctypes.CDLL(None).prctl({PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0)

held = []
does = {{
    "adopt": adopt,
    "ask": ask,
    "hold": lambda _: held.append(connect()),
    "socket_folder": lambda _: str(socket_folder(folder)),
    "stop_if_unused": lambda _: stop_if_unused(folder),
}}
print("null", flush=True)
for line in sys.stdin:
    what, argument = json.loads(line)
    print(json.dumps(does[what](argument)), flush=True)
"""


class User:
    """A process that uses the embedded server of a data folder."""

    def __init__(self, folder: Path, process: "subprocess.Popen[str]") -> None:
        self.folder = folder
        self.process = process

    def begin(self, what: str, argument: str = "") -> None:
        """Sends a command to the process. Doesn't wait for the result."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, argument]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Returns the result of the last command. Fails the test if the process has ended, or
        doesn't answer within ANSWER_SECONDS."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        assert line, "the process ended" if ready else f"no answer in {ANSWER_SECONDS} s"
        return json.loads(line)

    def do(self, what: str, argument: str = "") -> Any:
        self.begin(what, argument)
        return self.answer()

    def ask(self, sql: str) -> Any:
        """Runs an SQL statement on a new connection, and returns its rows."""
        return self.do("ask", sql)

    def leave(self) -> None:
        """Ends the process normally. The last process that uses the server stops the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(ANSWER_SECONDS) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(ANSWER_SECONDS)


class Machine:
    """Makes data folders below the folder `top`, and starts processes that use the folders'
    servers."""

    def __init__(self, top: Path, stack: ExitStack) -> None:
        self.top = top
        self._stack = stack

    def folder(self, name: str) -> Path:
        """Returns a data folder below `top`. The folder may contain the stopped server of an
        earlier test."""
        made = self.top / name
        made.mkdir(exist_ok=True)
        return made

    def user(self, folder: Path, uid: int | None = None) -> User:
        """Starts a process, and waits until it has imported its modules. The process doesn't use
        the server yet."""
        settings = {
            "DJANGO_SETTINGS_MODULE": "settings",
            "REALM_DATA_DIR": str(self.top / "settings"),
            "TMPDIR": str(self.top / "tmp"),
        }
        process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", USER, str(folder), *([] if uid is None else [str(uid)])],
                cwd=BASE_DIR,
                env={**os.environ, **settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self._stack.callback(process.kill)
        user = User(folder, process)
        assert user.answer() is None
        return user

    def stranger(self, uid: int) -> int:
        """Starts a program other than Postgres with the server's user id, `uid`. Returns the id of
        the program's process."""
        process = self._stack.enter_context(
            subprocess.Popen(
                [shutil.which("cat") or "cat"],
                stdin=subprocess.PIPE,
                user=uid if os.geteuid() == 0 else None,
            )
        )
        self._stack.callback(process.kill)
        return process.pid


def server_of(folder: Path) -> int:
    """Returns the process id in the server's file postmaster.pid; 0 if there is no such file."""
    try:
        return int((folder / "postgres/postmaster.pid").read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return 0


def ended(pid: int) -> bool:
    """Returns whether the process has ended; a zombie counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(pid: int) -> None:
    """Kills a Postgres server and waits until the server has ended. Does nothing if the process id
    belongs to a program other than Postgres."""
    with suppress(psutil.NoSuchProcess):
        if psutil.Process(pid).name() == "postgres":
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: ended(pid), f"server {pid} dead")


def runs(folder: Path) -> bool:
    pid = server_of(folder)
    return bool(pid) and not ended(pid)


def stopped(folder: Path, pid: int) -> bool:
    """Returns False if the server's pid file exists. A normal shutdown removes the pid file. If the
    file is gone, waits until the server's process has ended, and returns True."""
    if server_of(folder):
        return False
    wait_until(lambda: ended(pid), f"server {pid} stopped")
    return True
