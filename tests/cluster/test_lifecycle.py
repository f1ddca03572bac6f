"""What a replica lives through: orders of starting, upgrades, boards that go bad, clocks, sleep,
and another database behind the same URL. docs/operations/lifecycle.md has a line for each.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from psycopg import sql

from notifications import board as board_module
from notifications import listener as listener_module
from notifications.board import Board, BoardError, Slots, board_at, now_ns
from notifications.channels import REALM_FILE_CHANGES
from notifications.emit import local_board
from notifications.listener import SECOND, Listener
from notifications.models import Replica as Row
from notifications.reporter import Reporter
from realms.management.commands.listen_file_changes import committed_generations
from realms.models import Realm
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import Cluster, Replica, wait_until
from tests.support.gates import PATIENCE, in_thread
from tests.support.hearing import connect, notify
from tests.support.proxy import proxy
from tests.support.web import Web

URL = "http://localhost:4201/ada/site/count.ts"
BOUND_SECONDS = 2.0
MINUTE = 60 * SECOND

processes = pytest.mark.cluster
database = pytest.mark.django_db(transaction=True)


def count(source: Realm, number: int) -> int:
    """Writes a number where `URL` shows it, and answers the generation."""
    return make.write(source, count__ts=b"export const n = %d;" % number)


def shown(answer: Any) -> int:
    """The number that an answer shows."""
    return int(answer.text.split("=")[1].split(";")[0])


# --- Starting, stopping, upgrading -------------------------------------------------------------


@pytest.fixture
def replica(source: Realm, tmp_path: Path) -> Iterator[Replica]:
    """Replica a, of which nothing runs yet; the realm shows 1."""
    from realms.publishing.bootstrap import sync_base_realm

    sync_base_realm()
    count(source, 1)
    fleet = Cluster(tmp_path, 1, {})
    try:
        yield fleet.replicas[0]
    finally:
        fleet.stop()


class Reader:
    """Reads all the while, and remembers each read that was older than the bound allows."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._written: list[tuple[float, int]] = [(0.0, 1)]
        self._end = threading.Event()
        self.reads = 0
        self.stale: list[tuple[int, int]] = []

    def wrote(self, number: int) -> None:
        """A number is committed by now."""
        self._written.append((time.monotonic(), number))

    def read(self) -> None:
        began = time.monotonic()
        number = shown(self._replica.get(URL))
        least = max(n for at, n in self._written if at < began - BOUND_SECONDS)
        self.reads += 1
        if number < least:
            self.stale.append((number, least))

    def _run(self) -> None:
        while not self._end.wait(0.01):
            self.read()

    @contextmanager
    def at_work(self) -> "Iterator[Reader]":
        ending = in_thread(self._run)
        try:
            yield self
        finally:
            self._end.set()
            ending.result(PATIENCE)
        assert self.reads > 10
        assert self.stale == []


def wait_for_hits(replica: Replica, number: int) -> None:
    """Waits until both web workers answer from their caches, and what they should."""

    def hits() -> bool:
        answers = replica.each_worker(URL).values()
        assert {shown(answer) for answer in answers} == {number}
        return {answer.cache for answer in answers} == {"hit"}

    wait_until(hits, "hits in both workers")


def end(replica: Replica, role: str, number: int = signal.SIGTERM) -> None:
    """Stops one of a replica's processes and waits for its end."""
    replica.running[role].send_signal(number)
    replica.running[role].wait(20)


@processes
@database
def test_the_sidecar_may_start_first(replica: Replica, source: Realm) -> None:
    replica.start("sidecar")
    replica.wait_live()
    count(source, 2)
    replica.start("web")
    replica.wait_web()
    wait_for_hits(replica, 2)


@processes
@database
def test_the_web_may_start_first_and_the_sidecar_be_upgraded_apart(
    replica: Replica, source: Realm
) -> None:
    """Stopped and another one started: slower in between, and never older than the bound."""
    replica.start("web")
    replica.wait_web()
    for number in (2, 3):
        count(source, number)
        answers = replica.each_worker(URL).values()
        assert {(shown(answer), answer.cache) for answer in answers} == {(number, "miss")}
    replica.start("sidecar")
    replica.wait_live()
    wait_for_hits(replica, 3)

    with Reader(replica).at_work() as reader:
        for number in range(4, 8):
            if number == 5:
                end(replica, "sidecar")
                assert not replica.board.live()
            count(source, number)
            reader.wrote(number)
            if number == 6:
                replica.start("sidecar")
                replica.wait_live()
            wait_until(lambda n=number: shown(replica.get(URL)) == n, "the new bytes", 2)  # type: ignore[misc]
    wait_for_hits(replica, 7)


# --- Two sidecars ------------------------------------------------------------------------------


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as many pings as in life."""
    monkeypatch.setattr(listener_module, "PING_SECONDS", 0.1)


@contextmanager
def listening(board: Board, connect: Callable[[], Any], **more: Any) -> Iterator[Listener]:
    """A sidecar's listener in a thread, live on its board."""
    # So long that a busy machine does not make the board dead in between.
    listener = Listener("a", board, connect, 10.0, **more)
    ending = in_thread(listener.run)
    try:
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        yield listener
    finally:
        listener.stop()
        ending.result(PATIENCE)


@pytest.mark.usefixtures("django_db_setup", "hurry")
def test_two_sidecars_on_one_board_would_be_harmless(tmp_path: Path) -> None:
    """The second is refused while it can be (`test_listen_command.py`). Were the lock file
    deleted: each vouches only for what it has applied itself, so the deaf one vouches for nothing,
    and what it hears late is stale once more."""
    slots = Slots([f"path|{URL}"])
    change = REALM_FILE_CHANGES, "http://localhost:4201/ada/site/:count.ts"
    with proxy() as network:
        deafened, other = Board(tmp_path / "board"), Board(tmp_path / "board")
        with listening(deafened, network.connect) as deaf, listening(other, connect) as hearing:
            network.stall()
            stalled = now_ns()
            stamp = other.stamp(slots)
            notify(*change)
            assert hearing.wait_for_watermark(now_ns(), PATIENCE)
            assert not other.unchanged(slots, stamp)
            assert other.live()
            assert deaf.watermark < stalled
            stamp = other.stamp(slots)
            network.flow()
            wait_until(lambda: deaf.watermark > stalled, "it hears again", PATIENCE)
            assert not other.unchanged(slots, stamp)
            assert other.live()


# --- Boards that go bad ------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose board isn't live looks for another one every time."""
    monkeypatch.setattr(board_module, "_LOOK_NS", 0)


def test_a_board_of_another_version_is_replaced_and_not_rewritten(tmp_path: Path) -> None:
    """Web workers of the old release have it mapped: in a new layout any slot could look like the
    moment until which they may believe it."""
    path = tmp_path / "board"
    old = Board(path)
    old.go_live(now_ns() + MINUTE)
    with open(path, "r+b") as file:
        file.seek(8)
        file.write((99).to_bytes(8, "little"))
    before = path.read_bytes()
    held = open(path, "rb")  # noqa: SIM115  the old file, whatever stands at its path
    with held:
        new = Board(path)
        new.go_live(now_ns() + MINUTE)
        new.bump(["a"])
        assert held.read() == before
    assert new.live()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_whoever_has_a_board_mapped_that_is_gone_moves_over_to_the_new_one(
    tmp_path: Path, how: str
) -> None:
    path, slots = tmp_path / "board", Slots(["a"])
    web = Board(path)
    web.go_live(now_ns() + MINUTE)
    stamp = web.stamp(slots)
    path.unlink()
    if how == "replaced":
        path.write_bytes(b"no board")
    assert web.live(), "the sidecar still vouches for what both have mapped"
    assert not web.follow(), "a running process doesn't make boards"
    web.go_live(0)
    assert not web.live()

    sidecar = Board(path)
    assert not web.live()
    sidecar.bump_epoch()
    sidecar.go_live(now_ns() + MINUTE)
    assert web.live()
    assert not web.unchanged(slots, stamp)
    stamp = web.stamp(slots)
    sidecar.bump(["a"])
    assert not web.unchanged(slots, stamp)


def test_it_is_looked_for_at_most_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web service without a sidecar pays nothing for it at every request."""
    now, looks = [now_ns()], []

    def follow() -> bool:
        looks.append(now[0])
        return False

    monkeypatch.setattr(board_module, "now_ns", lambda: now[0])
    web = Board(tmp_path / "board")
    monkeypatch.setattr(web, "follow", follow)
    for _ in range(30):
        now[0] += SECOND // 10
        web.live()
    assert len(looks) == 3


@pytest.mark.usefixtures("django_db_setup", "hurry", "impatient")
def test_a_sidecar_moves_over_to_a_new_board_in_a_new_epoch(tmp_path: Path) -> None:
    """The file was deleted, and a web worker that started since has made another one."""
    path, slots = tmp_path / "board", Slots([f"path|{URL}"])
    first = Board(path)
    with listening(Board(path), connect) as listener:
        assert first.live()
        path.unlink()
        second = Board(path)
        stamp = second.stamp(slots)
        wait_until(second.live, "live on the new board", PATIENCE)
        assert not second.unchanged(slots, stamp), "who knows what was told to the old one only"
        assert first.live(), "the old worker has come after"
        stamp = first.stamp(slots)
        notify(REALM_FILE_CHANGES, "http://localhost:4201/ada/site/:count.ts")
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert not first.unchanged(slots, stamp)


@processes
@database
def test_boards_deleted_or_truncated_under_running_workers_are_replaced(
    replica: Replica, source: Realm
) -> None:
    replica.start("web")
    replica.start("sidecar")
    replica.wait_web()
    replica.wait_live()
    wait_for_hits(replica, 1)
    path = replica.board.path
    workers = replica.workers()
    with Reader(replica).at_work() as reader:
        path.unlink()
        count(source, 2)
        reader.wrote(2)
        wait_until(lambda: shown(replica.get(URL)) == 2, "heard by what is still mapped", 2)
        end(replica, "sidecar", signal.SIGKILL)
        replica.start("sidecar")
        replica.wait_live()
        wait_for_hits(replica, 2)
        count(source, 3)
        reader.wrote(3)
        wait_for_hits_of(replica, 3)
    assert replica.workers() == workers, "nobody had to be restarted"

    # Of a page that is gone the kernel makes a signal: who has it mapped ends, and is restarted.
    os.truncate(path, 0)
    for worker in workers:
        wait_until(lambda w=worker: _ends(replica, w), f"{worker} ended", 20)  # type: ignore[misc]
    assert replica.running["sidecar"].wait(20) == -signal.SIGBUS
    count(source, 4)
    replica.wait_web()
    assert {shown(answer) for answer in replica.each_worker(URL).values()} == {4}
    replica.start("sidecar")
    replica.wait_live()
    wait_for_hits(replica, 4)


def wait_for_hits_of(replica: Replica, number: int) -> None:
    wait_until(lambda: shown(replica.get(URL)) == number, "the new bytes", BOUND_SECONDS)
    wait_for_hits(replica, number)


def _ends(replica: Replica, worker: str) -> bool:
    try:
        replica.get(URL)
    except Exception:  # noqa: BLE001  the worker that answered it has just ended
        return False
    return not psutil.pid_exists(int(worker.partition("/")[2]))


def in_a_namespace(*arguments: str, kind: str, code: str) -> str:
    """Runs Python code in a namespace of its own and answers what it printed."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("there is no unshare(1) here")
    rootless = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [unshare, *rootless, *kind.split()]
    allowed = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode != 0:
        pytest.skip(f"no namespaces here: {allowed.stderr.strip()}")
    ran = subprocess.run(
        [*command, sys.executable, "-c", code, *arguments],
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ran.returncode == 77:
        pytest.skip(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from notifications import board as module
from notifications.board import Board, BoardError, Slots, board_at, now_ns
folder = Path(sys.argv[1])
mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
)
if mounted.returncode:
    print("no tmpfs here:", mounted.stderr)
    sys.exit(77)
module._LOOK_NS = 0
try:
    Board(folder / "board")
except BoardError as error:
    print(error)
web = board_at(folder / "board")
stamp = web.stamp(Slots(["a"]))
web.bump(["a"])
print(web.live(), web.unchanged(Slots(["a"]), stamp), [each.name for each in folder.iterdir()])
subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
print(web.live())
Board(folder / "board").go_live(now_ns() + 60_000_000_000)
print(web.live())
"""


def test_on_a_full_disk_the_sidecar_says_so_and_the_web_serves_uncached(
    tmp_path: Path,
) -> None:
    told = in_a_namespace(str(tmp_path), kind="--mount", code=FULL_DISK)
    lines = told.splitlines()
    assert lines[0] == f"the board {tmp_path}/board can't be used: No space left on device"
    assert lines[1:] == ["False False []", "False", "True"]


@pytest.mark.usefixtures("impatient")
def test_without_a_board_a_process_is_never_live_until_there_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.touch()
    path, slots = folder / "board", Slots(["a"])
    with pytest.raises(BoardError):
        Board(path)
    web = board_at(path)
    stamp = web.stamp(slots)
    assert not web.live()
    web.bump(["a"])
    assert not web.unchanged(slots, stamp)
    folder.unlink()
    Board(path).go_live(now_ns() + MINUTE)
    assert web.live()
    assert not web.unchanged(slots, stamp)


# --- Clocks and sleep --------------------------------------------------------------------------


AWAKE = "import sys; from notifications.board import *; print(Board(Path(sys.argv[1])).live())"


@pytest.mark.parametrize(
    ("option", "live"), [("--boottime", "False"), ("--monotonic", "True")], ids=str
)
def test_a_board_is_not_believed_after_the_machine_has_slept(
    tmp_path: Path, option: str, live: str
) -> None:
    """While a machine sleeps CLOCK_BOOTTIME goes on and CLOCK_MONOTONIC stands: a namespace in
    which the first is a minute ahead is a machine that has slept for a minute since."""
    path = tmp_path / "board"
    Board(path).go_live(now_ns() + 30 * SECOND)
    told = in_a_namespace(str(path), kind=f"--time {option} 60 --fork", code=AWAKE)
    assert told.strip() == live


@processes
@database
def test_a_replica_that_slept_beyond_the_bound_serves_no_stale_byte(
    replica: Replica, source: Realm
) -> None:
    """Not even for the requests that were waiting when it woke."""
    replica.start("web")
    replica.start("sidecar")
    replica.wait_web()
    replica.wait_live()
    wait_for_hits(replica, 1)
    parents = [psutil.Process(process.pid) for process in replica.running.values()]
    everything = [each for p in parents for each in (p, *p.children(recursive=True))]
    for each in everything:
        each.suspend()
    try:
        count(source, 2)
        board = replica.board
        wait_until(lambda: not board.live(), "the bound is over")
        waiting = [in_thread(replica.get, URL) for _ in range(8)]
    finally:
        # The sidecar last: it must not be the one that saves the web workers.
        for each in reversed(everything):
            each.resume()
    assert {shown(answer.result(PATIENCE)) for answer in waiting} == {2}
    replica.wait_live()
    wait_for_hits(replica, 2)


@pytest.mark.parametrize("hours", [-30, 30])
@pytest.mark.usefixtures("hurry")
def test_a_step_of_the_wall_clock_makes_nothing_stale_and_nobody_slow(
    web: Web, source: Realm, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    step = timedelta(hours=hours)
    now, seconds, nanoseconds = timezone.now, time.time, time.time_ns
    count(source, 1)
    with listening(local_board(), connect) as listener:
        assert shown(web.get(URL)) == 1
        assert web.get(URL).cache == "hit"
        monkeypatch.setattr(timezone, "now", lambda: now() + step)
        monkeypatch.setattr(time, "time", lambda: seconds() + step.total_seconds())
        monkeypatch.setattr(
            time, "time_ns", lambda: nanoseconds() + int(step.total_seconds()) * SECOND
        )
        assert web.get(URL).cache == "hit"
        _count_elsewhere(source, 2)
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert shown(web.get(URL)) == 2
        assert web.get(URL).cache == "hit"
        address = f"http://127.0.0.1:{web.port}"
        Reporter(listener, address, committed_generations).report()
        assert Row.live_addresses() == [address]


def _count_elsewhere(source: Realm, number: int) -> None:
    """As `count`, by a process whose clock is right and which has a board of its own."""
    ran = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(number), str(source.pk)],
        cwd=BASE_DIR,
        env={**os.environ, "REALM_TEST_NAME": connection.settings_dict["NAME"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


ELSEWHERE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = os.environ["REALM_TEST_NAME"]
django.setup()
from realms.models import Realm
from tests.support import make
text = b"export const n = %d;" % int(sys.argv[1])
make.write(Realm.objects.get(pk=sys.argv[2]), count__ts=text)
"""


def test_what_decides_whether_a_byte_is_fresh_knows_one_clock() -> None:
    """And not the one that people set."""
    for name in (
        "notifications/board.py",
        "notifications/stamped_cache.py",
        "notifications/single_flight.py",
        "notifications/listener.py",
        "realms/front.py",
        "realms/serving/answers.py",
    ):
        text = (BASE_DIR / name).read_text()
        for wall in ("time.time", "datetime.now", "timezone.now", "time.monotonic"):
            assert wall not in text, f"{name} asks {wall}"


# --- Another database behind the same URL ------------------------------------------------------


@contextmanager
def older_copy() -> Iterator[Callable[[], None]]:
    """Copies the test's database as it is now. Whoever calls what this answers makes the copy take
    its place, as a standby does that lagged when it became the primary: every connection ends, and
    what was committed since is lost."""
    name = str(connection.settings_dict["NAME"])
    copy, lost = f"{name}_standby", f"{name}_lost"
    own = connection.get_connection_params()
    kept = {k: own[k] for k in ("user", "password", "host", "port") if k in own}
    connection.close()
    with psycopg.connect(**kept, dbname="postgres", autocommit=True) as server:

        def run(statement: str, **names: str) -> None:
            composed = sql.SQL(statement).format(
                **{key: sql.Identifier(value) for key, value in names.items()}
            )
            server.execute(composed)

        def ended() -> None:
            server.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = ANY(%s)",
                [[name, copy]],
            )

        for each in (copy, lost):
            run("DROP DATABASE IF EXISTS {each} WITH (FORCE)", each=each)
        ended()
        run("CREATE DATABASE {copy} TEMPLATE {name}", copy=copy, name=name)

        def promote() -> None:
            connection.close()
            run("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name)
            ended()
            run("ALTER DATABASE {name} RENAME TO {lost}", name=name, lost=lost)
            run("ALTER DATABASE {copy} RENAME TO {name}", copy=copy, name=name)

        try:
            yield promote
        finally:
            connection.close()
            for each in (copy, lost):
                run("DROP DATABASE IF EXISTS {each} WITH (FORCE)", each=each)


@pytest.mark.usefixtures("hurry")
def test_a_primary_that_lost_a_generation_is_believed_and_caches_drop(
    web: Web, source: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    """What a replica had in its caches was never to be: it stands in no database any more."""
    first = count(source, 1)
    with older_copy() as promote, listening(local_board(), connect) as listener:
        reporter = Reporter(listener, "http://127.0.0.1:1", committed_generations)
        lost = count(source, 2)
        assert lost == first + 1
        # The listener hears of the change too, and that empties the cache once more.
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        assert shown(web.get(URL)) == 2
        answer = web.get(URL)
        assert (answer.cache, answer.headers["x-realm-generation"]) == ("hit", str(lost))
        reporter.report()

        promote()
        assert listener.wait_for_watermark(now_ns(), PATIENCE)
        answer = web.get(URL)
        assert (shown(answer), answer.headers["x-realm-generation"]) == (1, str(first))
        assert web.get(URL).cache == "hit"
        reporter.report()
        assert f"fell from {lost} to {first}: the database has lost transactions" in caplog.text

        pinned = {"X-Realm-Min-Generation": str(lost)}
        refused = web.get(URL, **pinned)
        assert refused.status == 409
        assert f"generation {lost} has not been committed" in refused.text
        assert count(source, 3) == lost
        assert shown(web.get(URL, **pinned)) == 3
        assert shown(web.get(URL)) == 3


@pytest.mark.usefixtures("django_db_setup", "hurry")
def test_a_sidecar_on_another_database_vouches_for_nothing(
    tmp_path: Path,
) -> None:
    """A wrong LISTEN_DATABASE_URL, or a primary that was replaced and still runs."""
    own = connection.get_connection_params()
    kept = {k: own[k] for k in ("user", "password", "host", "port") if k in own}

    def elsewhere() -> Any:
        return psycopg.connect(**kept, dbname="postgres", autocommit=True)

    board = Board(tmp_path / "board")
    listener = Listener("a", board, elsewhere, 1.0, connect_as_writers=connect)
    ending = in_thread(listener.run)
    try:
        wait_until(lambda: len(listener._pings) >= 3, "three pings sent", PATIENCE)
        assert not board.live()
        assert listener.watermark == 0
    finally:
        listener.stop()
        ending.result(PATIENCE)
    with listening(board, connect, connect_as_writers=connect):
        assert board.live()


# --- Replicas that are gone --------------------------------------------------------------------


@database
def test_a_replica_that_has_been_silent_for_a_day_is_forgotten(tmp_path: Path) -> None:
    now = timezone.now()
    for name, hours in (("gone", 25), ("away", 23)):
        Row.objects.create(
            name=name,
            address="http://127.0.0.1:1",
            state="live",
            sidecar_pid=1,
            reported_at=now - timedelta(hours=hours),
        )
    listener = Listener("a", Board(tmp_path / "board"), connect, 1.0)
    listener.stop()
    listener.run()
    Reporter(listener, "http://127.0.0.1:2", committed_generations).report()
    assert set(Row.objects.values_list("name", flat=True)) == {"a", "away"}
