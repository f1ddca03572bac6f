"""Runs the commands of the README with the environment variables that the README sets.

The tests use this machine's addresses, folders, database and broker instead of the README's. The
tests don't run `script/bootstrap`, because it has already been run in this clone.
"""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifications.board import Board
from realms.models import Realm
from settings.environment import BASE_DIR
from tests.support import make
from tests.support.cluster import database_url, free_ports, wait_until
from tests.support.servers.reaper import mark
from tests.support.web import ask

pytestmark = [pytest.mark.cluster, pytest.mark.django_db(transaction=True)]

README = (BASE_DIR / "README.md").read_text()
SETTING_UP = README.partition("## Running it for real")[2]
ORIGIN = "https://realms.example.com"
SOURCE, SITE = f"{ORIGIN}/ada/site/", "https://ada.example.com/"
#: The management commands of the README's table, in the order in which the last test runs them.
COMMANDS = (
    "check --deploy",
    "import_realm {folder} {source} --public",
    "publish_realm {source} {site}",
    "import_realm {changed} {source}",
    "publish_realm {source} {site} --dry-run",
    "publish_realm {source} {site}",
    "realms",
    "generations",
    "jobs",
    "clear_caches {site}",
    "doctor",
    "reindex_realm {site} --full",
    "cancel_reindex {site}",
    "rollback_realm {site} --dry-run",
    "rollback_realm {site} --yes",
    "verify_coherence --once",
    "collect_garbage --dry-run",
    "listen_file_changes --check",
    "unpublish_realm {site} --yes",
    "delete_realm {source} --yes",
)


def lines() -> list[list[str]]:
    """Returns the indented commands of the README's last part (SETTING_UP), each as a list of
    words."""
    found = [line for line in SETTING_UP.splitlines() if line.startswith("    ")]
    return [words for line in found if (words := shlex.split(line, comments=True))]


def test_this_file_runs_every_command_of_the_readme() -> None:
    told = {name for row in re.findall(r"^\| (`manage.py .*?) \|", README, re.MULTILINE)
            for name in re.findall(r"`(?:manage.py )?([a-z_]+)", row)}  # fmt: skip
    assert told == {command.split()[0] for command in COMMANDS}
    heads = {words[0] for words in lines()}
    assert heads == {
        "export", "script/bootstrap", ".venv/bin/python", "script/web", ".venv/bin/celery"
    }  # fmt: skip


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Returns the README's environment variables, with this machine's addresses and folders."""
    (port,) = free_ports(1)
    told = dict(
        each.split("=", 1) for words in lines() if words[0] == "export" for each in words[1:]
    )
    here = {
        "REALM_REPLICA_ADDRESS": f"http://127.0.0.1:{port}",
        "REALM_BOARD": f"{tmp_path}/board",
        "REALM_BLOB_STORAGE": f"{tmp_path}/blobs",
    }
    assert here.keys() <= told.keys()
    everywhere = {
        "DATABASE_URL": database_url(),
        # With an empty URL, the broker is a folder. This machine may have no other broker.
        "CELERY_BROKER_URL": "",
        "REALM_SECRET_SEED": "a seed of more than forty characters that nobody could guess",
    }
    # Another process may use the clone's own data folder.
    own = {"REALM_DATA_DIR": str(tmp_path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return {**told, **here, **everywhere, **own, **mark()}


@pytest.fixture
def servers(tmp_path: Path, environment: dict[str, str]) -> Iterator[None]:
    """Runs the services of the README on this machine until the test ends."""
    port = environment["REALM_REPLICA_ADDRESS"].rpartition(":")[2]
    here = {"10.0.0.11": "127.0.0.1", "8000": port}
    running: list[subprocess.Popen[bytes]] = []
    for words in lines():
        if words[0] in ("export", "script/bootstrap"):
            # `environment` contains the exported variables, and `script/bootstrap` has been run.
            continue
        command = [here.get(word, word) for word in words]
        if command[-1] == "migrate":
            run(command, environment)
            continue
        with open(tmp_path / f"{len(running)}.log", "wb") as log:
            running.append(
                subprocess.Popen(
                    command, cwd=BASE_DIR, env=environment, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
    assert len(running) == 3
    try:
        wait_until(lambda: answers(int(port)), "the web service answers", 60)
        wait_until(
            Board(Path(environment["REALM_BOARD"])).live, "the sidecar makes the board live", 60
        )
        yield
    finally:
        for process in running:
            # The whole process group is killed at once. Otherwise a web service could restart a
            # killed worker process before the service itself is killed.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", f"{ORIGIN}/base/mod.ts").status == 200
    except OSError:
        return False


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=BASE_DIR, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command}: {said}"
    assert "Traceback" not in said, f"{command}: {said}"
    return said


def test_every_command_of_the_readme_succeeds(
    servers: None, environment: dict[str, str], tmp_path: Path
) -> None:
    make.user("ada")
    named = {"source": SOURCE, "site": SITE}
    for name, title in (("folder", "Home"), ("changed", "Moved")):
        named[name] = str(tmp_path / name)
        (tmp_path / name).mkdir()
        for path, data in make.SITE.items():
            (tmp_path / name / path).write_bytes(data.replace(b"Home", title.encode()))
    said = {}
    for command in COMMANDS:
        words = [word.format(**named) for word in command.split()]
        said[command] = run([".venv/bin/python", "manage.py", *words], environment)
    assert SOURCE.partition("//")[2] in said["realms"]
    assert "rendered" in said["publish_realm {source} {site}"]
    assert not Realm.objects.filter(url__in=[SOURCE, SITE]).exists()
