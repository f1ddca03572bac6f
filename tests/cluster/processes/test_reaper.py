"""Tests the reaper, a process that ends the processes of a test run when the run has ended or was
killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from settings.environment import BASE_DIR
from tests.support.cluster import wait_until
from tests.support.servers.reaper import reap

pytestmark = pytest.mark.cluster

#: The program of a test run. It starts one process with the mark that the reaper looks for in the
#: environment. This process starts two more: one without the mark, and one in a new session.
RUN = """
import os, subprocess, sys, time
from tests.support.servers.reaper import mark
code = '''
import os, subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
bare = subprocess.Popen(sleep, env={})
apart = subprocess.Popen(sleep, start_new_session=True)
print(os.getpid(), bare.pid, apart.pid, flush=True)
time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **mark()}, start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def run() -> "Iterator[subprocess.Popen[str]]":
    started = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=BASE_DIR,
        env={**os.environ, "PYTHONPATH": str(BASE_DIR)},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield started
    started.kill()
    started.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_all_processes_of_a_killed_run_end(
    run: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    assert run.stdout is not None
    started = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
    assert len(started) == 3 and all(each.is_running() for each in started)
    run.send_signal(number)
    run.wait()
    wait_until(lambda: not any(_runs(each) for each in started), "all processes ended")


def test_processes_of_other_runs_are_not_ended(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, "REALM_TEST_RUN": "another run"},
    )
    try:
        reap("this run")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
