"""Tests that a board file that is deleted, truncated, unwritable or of another version is replaced
and never trusted.

The board is a file that all processes of a replica map into memory. Its numbers, the slots, tell
the processes which cached data is fresh. The sidecar is the process that receives notifications of
changes. It moves slots, which means that it overwrites them, and makes the board live. While the
board isn't live, no process uses cached data.
"""

import os
import signal
from pathlib import Path

import psutil
import pytest

from notifications import board as board_module
from notifications.board import Board, BoardError, Slots, board_at, now_ns
from notifications.channels import REALM_FILE_CHANGES
from notifications.listener import SECOND
from realms.models import Realm
from tests.support.clients.counting import Reader, count, end, shown, wait_for_hits
from tests.support.cluster import Replica, wait_until
from tests.support.gates import PATIENCE
from tests.support.listening.hearing import connect, notify
from tests.support.listening.sidecar import listening
from tests.support.servers.namespaces import in_a_namespace

URL = "http://localhost:4201/ada/site/count.ts"
BOUND_SECONDS = 2.0
MINUTE = 60 * SECOND

processes = pytest.mark.cluster
database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a process with a board that isn't live look for a new board file at each request, and
    not only once a second."""
    monkeypatch.setattr(board_module, "_LOOK_NS", 0)


def test_a_board_of_another_version_is_replaced_and_not_rewritten(tmp_path: Path) -> None:
    """Web workers of the old release still map the old file. If the new release rewrote that file,
    these web workers could misread a slot of the new layout as the time until which the board is
    live."""
    path = tmp_path / "board"
    old = Board(path)
    old.go_live(now_ns() + MINUTE)
    with open(path, "r+b") as file:
        file.seek(8)
        file.write((99).to_bytes(8, "little"))
    before = path.read_bytes()
    held = open(path, "rb")  # noqa: SIM115  stays open when the file is replaced
    with held:
        new = Board(path)
        new.go_live(now_ns() + MINUTE)
        new.bump(["a"])
        assert held.read() == before
    assert new.live()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_process_with_a_deleted_board_moves_to_the_new_board(tmp_path: Path, how: str) -> None:
    path, slots = tmp_path / "board", Slots(["a"])
    web = Board(path)
    web.go_live(now_ns() + MINUTE)
    stamp = web.stamp(slots)
    path.unlink()
    if how == "replaced":
        path.write_bytes(b"no board")
    assert web.live(), "a deleted board stays live for processes that have mapped it"
    assert not web.follow(), "a running process creates no board"
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


def test_a_process_looks_for_a_new_board_at_most_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web service without a sidecar must not look for a board at every request."""
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
def test_a_sidecar_moves_to_a_new_board_and_starts_a_new_epoch(tmp_path: Path) -> None:
    """The board file was deleted, and a web worker that started later has made a new board."""
    path, slots = tmp_path / "board", Slots([f"path|{URL}"])
    first = Board(path)
    with listening(Board(path), connect) as listener:
        assert first.live()
        path.unlink()
        second = Board(path)
        stamp = second.stamp(slots)
        wait_until(second.live, "the new board is live", PATIENCE)
        assert not second.unchanged(slots, stamp), "the sidecar begins an epoch on the new board"
        assert first.live(), "a process with the old board switches to the new board"
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
        wait_until(lambda: shown(replica.get(URL)) == 2, "the deleted board is used", 2)
        end(replica, "sidecar", signal.SIGKILL)
        replica.start("sidecar")
        replica.wait_live()
        wait_for_hits(replica, 2)
        count(source, 3)
        reader.wrote(3)
        wait_for_hits_of(replica, 3)
    assert replica.workers() == workers, "the web workers still run"

    # A process gets SIGBUS when it accesses a mapped page that was truncated. So the sidecar and
    # all web workers end. The web service starts new web workers by itself.
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
    except Exception:  # noqa: BLE001  the worker may have ended during the request
        return False
    return not psutil.pid_exists(int(worker.partition("/")[2]))


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
    print("a tmpfs can't be mounted here:", mounted.stderr)
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


def test_on_a_full_disk_the_sidecar_fails_and_the_web_is_uncached(
    tmp_path: Path,
) -> None:
    told = in_a_namespace(str(tmp_path), kind="--mount", code=FULL_DISK)
    lines = told.splitlines()
    assert lines[0] == f"the board {tmp_path}/board can't be used: No space left on device"
    assert lines[1:] == ["False False []", "False", "True"]


@pytest.mark.usefixtures("impatient")
def test_a_process_is_not_live_until_its_board_can_be_made(tmp_path: Path) -> None:
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
