"""Runs management commands as processes, with a terminal, without a terminal, and without a
database."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realms.models import Realm
from settings.environment import BASE_DIR
from tests.support.cluster import Cluster
from tests.support.web import everything

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "base")]

PAGE = "http://ada.localhost:4201/"


def test_without_a_terminal_or_yes_nothing_is_deleted(
    source: Realm, manage: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    before = everything()
    process = manage(
        "delete_realm", source.url, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"5 files" in out
    assert b"stdin is not a terminal: pass --yes" in err
    assert b"Traceback" not in err
    assert len(err.splitlines()) == 1
    assert everything() == before


@pytest.mark.parametrize(("reply", "happens"), [(b"y\n", True), (b"\n", False), (b"n\n", False)])
def test_a_rollback_at_a_terminal_asks_for_confirmation(
    republished: Realm,
    manage: Callable[..., "subprocess.Popen[bytes]"],
    reply: bytes,
    happens: bool,
) -> None:
    ours, theirs = pty.openpty()
    try:
        process = manage("rollback_realm", PAGE, "--no-wait", stdin=theirs, stdout=theirs,
                         stderr=theirs)  # fmt: skip
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 1000)
        assert Realm.objects.get(url=PAGE).generation == 2, "rolled back before the answer"
        os.write(ours, reply)
        assert process.wait(timeout=60) == 0
    finally:
        os.close(theirs)
        os.close(ours)
    assert b"Roll back? [y/N]" in said
    assert b"2 files differ" in said
    assert Realm.objects.get(url=PAGE).generation == (3 if happens else 2)


def test_an_unreachable_database_is_reported_in_one_line(
    manage: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    elsewhere = {"DATABASE_URL": f"postgresql://nobody@/nothing?host={tmp_path}"}
    command = (sys.executable, str(BASE_DIR / "manage.py"), "realms")
    done = subprocess.run(
        command, cwd=BASE_DIR, env={**Cluster(tmp_path / "data", 0, {}).environment, **elsewhere},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(b"CommandError: the database: ")
    assert b"Traceback" not in done.stderr
