"""Tests which process starts and stops the embedded Postgres, and how the server recovers from
failures.

The embedded Postgres is a server in the installation's data folder. The first process that needs
the server starts it, and the last process that uses the server stops it. A user (`User`) is a
process that uses a server. Each user takes commands on stdin and answers on stdout, so a test
decides the order of events. The tests use temporary data folders.
"""

import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.support.cluster import wait_until
from tests.support.servers.embedded import Machine, User, end, ended, runs, server_of, stopped

pytestmark = pytest.mark.cluster
SOCKET_PATH_BYTES = 107


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    """Yields a folder that every account of the machine may enter. If root starts a server, the
    server runs under another account, which must reach its data folder."""
    with tempfile.TemporaryDirectory(prefix="realm-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o1777)
        yield folder


@pytest.fixture
def machine(top: Path) -> Iterator[Machine]:
    """Yields a `Machine`, which starts processes. After the test, even if it fails, ends these
    processes and their servers."""
    try:
        with ExitStack() as stack:
            yield Machine(top, stack)
    finally:
        for file in top.glob("*/postgres/postmaster.pid"):
            end(server_of(file.parent.parent))


def keep(user: User, text: str) -> None:
    user.ask("drop table if exists kept")
    user.ask("create table kept (what text)")
    user.ask(f"insert into kept values ('{text}')")


KEPT = "select what from kept"
IDENTITY = (
    "select system_identifier::text, pg_postmaster_start_time()::text from pg_control_system()"
)


def test_two_data_folders_have_independent_servers(machine: Machine) -> None:
    one, two = machine.user(machine.folder("a")), machine.user(machine.folder("b"))
    for user, text in ((one, "one"), (two, "two")):
        keep(user, text)
    assert one.ask(KEPT) == [["one"]]
    assert two.ask(KEPT) == [["two"]]
    first, second = server_of(one.folder), server_of(two.folder)
    one.leave()
    assert stopped(one.folder, first)
    assert two.ask(KEPT) == [["two"]]
    assert server_of(two.folder) == second


def test_processes_share_one_server_and_the_last_one_stops_it(
    machine: Machine,
) -> None:
    folder = machine.folder("a")
    first, second = machine.user(folder), machine.user(folder)
    identity = first.ask(IDENTITY)
    pid = server_of(folder)
    assert second.ask(IDENTITY) == identity
    first.leave()
    assert second.ask(IDENTITY) == identity
    second.do("hold")
    second.leave()
    assert stopped(folder, pid)


def test_a_killed_user_does_not_keep_the_server_running(
    machine: Machine,
) -> None:
    folder = machine.folder("a")
    killed, other = machine.user(folder), machine.user(folder)
    identity = killed.ask(IDENTITY)
    assert other.ask(IDENTITY) == identity
    pid = server_of(folder)
    killed.kill()
    assert runs(folder)
    other.leave()
    assert stopped(folder, pid)


def test_stop_if_unused_stops_only_servers_of_killed_users(
    machine: Machine,
) -> None:
    folder = machine.folder("a")
    user, cleaner = machine.user(folder), machine.user(folder)
    identity = user.ask(IDENTITY)
    pid = server_of(folder)
    cleaner.do("stop_if_unused")
    assert user.ask(IDENTITY) == identity
    user.kill()
    assert runs(folder)
    cleaner.do("stop_if_unused")
    assert stopped(folder, pid)


def a_program(machine: Machine, uid: int) -> int:
    return machine.stranger(uid)


def a_server_of_another_folder(machine: Machine, uid: int) -> int:
    other = machine.user(machine.folder("b"))
    other.do("socket_folder")
    return server_of(other.folder)


@pytest.mark.parametrize("stranger", [a_program, a_server_of_another_folder])
def test_a_server_starts_despite_a_pid_file_with_another_processs_id(
    machine: Machine, stranger: Callable[[Machine, int], int]
) -> None:
    folder = machine.folder("a")
    locks = [folder / "postgres" / name for name in ("postmaster.pid", ".s.PGSQL.5432.lock")]
    first = machine.user(folder)
    keep(first, "committed")
    first.kill()
    end(server_of(folder))
    pid = stranger(machine, locks[0].stat().st_uid)
    for lock in locks:
        _, rest = lock.read_text().split("\n", 1)
        lock.write_text(f"{pid}\n{rest}")

    next_one = machine.user(folder)
    assert next_one.ask(KEPT) == [["committed"]]
    started = server_of(folder)
    assert started != pid
    assert not ended(pid)
    next_one.leave()
    assert stopped(folder, started)
    assert not ended(pid)


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "a zombie"])
def test_after_a_killed_server_users_reconnect_and_find_committed_data(
    machine: Machine, reaped: bool
) -> None:
    folder = machine.folder("a")
    user, other = machine.user(folder), machine.user(folder)
    if not reaped:
        if not sys.platform.startswith("linux"):
            pytest.skip("only Linux lets a process adopt orphans")
        user.do("adopt")
    keep(user, "committed")
    user.do("hold")
    other.do("hold")
    pid = server_of(folder)
    end(pid)
    assert user.ask(KEPT) == [["committed"]]
    assert other.ask(KEPT) == [["committed"]]
    started = server_of(folder)
    assert started != pid
    other.leave()
    user.leave()
    assert stopped(folder, started)


def test_two_processes_that_start_at_the_same_time_share_one_server(machine: Machine) -> None:
    for _ in ("the folder is new", "the folder has been used"):
        folder = machine.folder("fresh")
        users = machine.user(folder), machine.user(folder)
        for user in users:
            user.begin("ask", IDENTITY)
        one, two = (user.answer() for user in users)
        assert one == two
        pid = server_of(folder)
        for user in users:
            user.leave()
        assert stopped(folder, pid)


def test_a_folder_is_usable_after_initdb_was_killed_midway(machine: Machine) -> None:
    folder = machine.folder("half")
    user = machine.user(folder)
    user.begin("socket_folder")
    wait_until(lambda: list(folder.glob("postgres*/PG_VERSION")), "initdb has begun")
    [initdb] = [
        each
        for each in psutil.Process(user.process.pid).children(recursive=True)
        if each.name() == "initdb"
    ]
    user.kill()
    initdb.kill()
    wait_until(lambda: ended(initdb.pid), "initdb has ended")

    next_one = machine.user(folder)
    keep(next_one, "whole")
    assert next_one.ask(KEPT) == [["whole"]]
    assert not list(folder.glob("postgres.draft-*"))


def test_a_user_waits_for_a_server_that_is_not_ready_yet(machine: Machine) -> None:
    """The server's pid file says that the server is starting, as it does during a recovery."""
    folder = machine.folder("a")
    first, second = machine.user(folder), machine.user(folder)
    keep(first, "committed")
    file = folder / "postgres/postmaster.pid"
    ready = file.read_text()
    assert ready.count("ready") == 1
    file.write_text(ready.replace("ready   ", "starting"))
    second.begin("ask", KEPT)
    assert second.process.stdout is not None
    assert not select.select([second.process.stdout], [], [], 0.5)[0], "the user did not wait"
    file.write_text(ready)
    assert second.answer() == [["committed"]]


def test_a_server_starts_despite_an_incomplete_pid_file(machine: Machine) -> None:
    folder = machine.folder("a")
    first = machine.user(folder)
    keep(first, "committed")
    first.kill()
    pid = server_of(folder)
    end(pid)
    file = folder / "postgres/postmaster.pid"
    file.write_text("\n".join(file.read_text().split("\n")[:4]))
    # A Postgres server that is killed while it starts can leave four lines of its pid file and no
    # lock file of its socket, because it creates the lock file later.
    (folder / "postgres/.s.PGSQL.5432.lock").unlink()
    assert machine.user(folder).ask(KEPT) == [["committed"]]


def test_a_folder_with_a_path_too_long_for_a_socket_works(machine: Machine) -> None:
    folder = machine.folder("long-" * 30)
    assert len(os.fsencode(folder / "postgres/.s.PGSQL.5432")) > SOCKET_PATH_BYTES
    user, other = machine.user(folder), machine.user(folder)
    sockets = user.do("socket_folder")
    assert Path(sockets) != folder / "postgres"
    assert other.do("socket_folder") == sockets
    keep(user, "far down")
    assert other.ask(KEPT) == [["far down"]]
    pid = server_of(folder)
    user.leave()
    other.leave()
    assert stopped(folder, pid)


def ordinary_user() -> int:
    """Returns the id of the unprivileged account `nobody`. Skips the test unless root runs it."""
    if os.geteuid() != 0:
        pytest.skip("root doesn't run the tests, so the other tests already cover this")
    try:
        uid = pwd.getpwnam("nobody").pw_uid
        subprocess.run([shutil.which("true") or "true"], user=uid, group=uid, check=True)
    except (KeyError, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root can't run a program as `nobody` here: {error!r}")
    return uid


def test_an_ordinary_user_can_run_a_server_beside_roots(machine: Machine) -> None:
    uid = ordinary_user()
    roots = machine.user(machine.folder("a"))
    keep(roots, "of root")
    folder = machine.folder("ordinary")
    os.chown(folder, uid, uid)
    user, other = machine.user(folder, uid), machine.user(folder, uid)
    keep(user, "of an ordinary user")
    assert other.ask(KEPT) == [["of an ordinary user"]]
    assert roots.ask(KEPT) == [["of root"]]
    pid = server_of(folder)
    assert psutil.Process(pid).uids().real == uid
    user.leave()
    other.leave()
    assert stopped(folder, pid)
