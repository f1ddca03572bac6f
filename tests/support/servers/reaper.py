"""Kills the processes of a test run when the run has ended, even if the run was killed by kill -9.

The reaper is a process that reads from a pipe. Only the test run holds the pipe's write end, so the
kernel closes the pipe when the run ends. Each process to kill has a mark, which is an environment
variable. Children inherit the mark. The reaper also kills descendants that have lost the mark.
"""

import os
import signal
import subprocess
import sys
import uuid
from functools import lru_cache

import psutil

MARK = "REALM_TEST_RUN"


@lru_cache(maxsize=1)
def mark() -> dict[str, str]:
    """Starts the reaper once, and returns the environment variable that marks processes to kill."""
    run = uuid.uuid4().hex
    reaper = subprocess.Popen(
        [sys.executable, __file__, run],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Without a reference to the reaper, Python would close the pipe, and the reaper would kill the
    # processes of the running tests.
    _kept.append(reaper)
    return {MARK: run}


_kept: list["subprocess.Popen[bytes]"] = []


def reap(run: str) -> None:
    """Kills the marked processes of a run and their descendants, until none is left."""
    while found := [each for each in psutil.process_iter() if _marked(each, run)]:
        family = {below for each in found for below in _below(each)} | {*found}
        for each in family:
            try:
                each.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(list(family), timeout=5)


def _marked(process: psutil.Process, run: str) -> bool:
    try:
        return (
            process.environ().get(MARK) == run
            and process.pid != os.getpid()
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    reap(sys.argv[1])
