"""Runs a program. However the program is stopped, it leaves no process behind.

The program runs in a child process of the process that calls `guarded`. When the program has ended,
the child ends all its descendants. If the child is killed, the parent adopts the orphans and ends
them. If the parent is killed, the kernel sends SIGTERM to the child. The program must return after
SIGTERM, so that the child then ends its descendants. Processes remain only if parent and child are
killed at the same instant.
"""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 20


def guarded(program: Callable[[], int], shared: Callable[[psutil.Process], bool]) -> int:
    """Runs `program` in a child process. When `program` has ended, ends all processes that the
    program started and that still run. Returns the exit status of `program`.

    `guarded` doesn't end a process for which `shared` returns True, because other programs may use
    this process.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setpgid(0, 0)
            die_with_parent()
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)
            status = program()
        except Exception:  # noqa: BLE001  the child prints any error and ends
            traceback.print_exc()
        finally:
            end_descendants(shared)
            sys.stdout.flush()
            atexit._run_exitfuncs()
            os._exit(status)
    signals: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        signals.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM if len(signals) == 1 else signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    _, waited = os.waitpid(child, 0)
    end_descendants(shared)
    return os.waitstatus_to_exitcode(waited) & 0xFF


def die_with_parent() -> None:
    """Makes the kernel send this process SIGTERM when its parent ends."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def end_descendants(shared: Callable[[psutil.Process], bool]) -> None:
    """Ends all descendants of this process, including adopted orphans, except those for which
    `shared` returns True. A process that survives SIGTERM for GRACE_SECONDS gets SIGKILL."""
    me = psutil.Process()
    for stop in (psutil.Process.terminate, psutil.Process.kill):
        family = [each for each in me.children(recursive=True) if not _is(shared, each)]
        for each in family:
            try:
                stop(each)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=GRACE_SECONDS if stop is psutil.Process.terminate else 5)


def _is(shared: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return shared(process)
    except psutil.Error:
        return False


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
